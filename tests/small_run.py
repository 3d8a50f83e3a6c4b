"""A small run, and ways to start one in a process of its own."""

import contextlib
import dataclasses
import functools
import importlib.metadata
import io
import json
import os
import pathlib
import runpy
import socket
import subprocess
import sys
import unittest.mock
import warnings
import zlib

import numpy as np

ROOT = pathlib.Path(__file__).parents[1]
# the images of the small run, packed once for all tests (conftest.py), and again when what packs them has changed
_PACKING = b"".join(
    (ROOT / "openset_jax" / f"{name}.py").read_bytes() for name in ("data/digits", "data/packed", "data/data_spec")
)
PACKED = ROOT / ".pytest_cache" / f"digits-{zlib.crc32(_PACKING):x}.packed"
RESIDENT = {"data.packed": str(PACKED), "input": "resident"}

# Compilation takes most of the time of a small run, and XLA's fusion emitters (a flag until jax 0.11) and LLVM's optimizer
# three quarters of that. Only the machine code is slower; the demo of .ci/run is compiled as all runs of users are.
COMPILED_FAST = "--xla_backend_optimization_level=0"
if tuple(map(int, importlib.metadata.version("jaxlib").split(".")[:2])) < (0, 11):
    COMPILED_FAST += " --xla_cpu_use_fusion_emitters=false"

# --config=configs/digits.py with these is trained in seconds. A checkpoint costs as much as 10 steps: besides the last one,
# only those of the best evaluations are saved.
SMALL = {
    "steps": 12, "batch_size": 16, "log_every": 2, "data.stored_size": 16, "data.image_size": 16, "model.width": 0.0625,
    "eval.every": 4, "eval.batch_size": 64, "eval.compare_scores": False, "eval.resamples": 50, "checkpoint.every": 12,
    "optimizer.warmup_steps": 2,
}  # fmt: skip


# with these it is nearly perfect
LEARNS = {
    "steps": 100, "batch_size": 32, "model.width": 0.125, "model.dropout": 0.0, "augment.pad": 0,
    "optimizer.learning_rate": 3e-3, "log_every": 20, "eval.every": 100, "checkpoint.every": 100,
}  # fmt: skip
SAVES_OFTEN = {"checkpoint.every": 3}  # the run that stopped ones are compared with


def fields(changes) -> dict:
    """Those of the small run. Its images are packed and resident, which needs no TensorFlow; if `changes` say anything of
    data or input, they are digits.py's own, streamed: streamed runs of different images share their programs."""
    own = any(name.startswith("data.") or name in ("input", "shard_resident") for name in changes)
    return SMALL | ({"input": "stream"} if own else RESIDENT) | changes


def small_config(**changes):
    """`configs/digits.py`, made small; field names with dots. Tests make networks from it: its dtype is not "auto"."""
    from configs import digits

    config = digits.get_config()
    config.update_from_flattened_dict({"model.dtype": "float32"} | fields(changes))
    return config


def small_spec(workdir: pathlib.Path = pathlib.Path("/nowhere"), **changes):
    """The `RunSpec` of `small_config`; of two phases the second."""
    from openset_jax import config

    return config.resolve(small_config(**changes), workdir)[-1]


def open_small_pool(**changes):
    """The images of `small_config`."""
    from openset_jax.data import pool_builder

    spec = small_spec(**changes)
    return pool_builder.open_pool(spec.data, stored_size=spec.images.stored_size, seed=spec.seed)


def not_packed(pool):
    """The same pool, as if its images were files."""
    return dataclasses.replace(pool, sources=tuple(dataclasses.replace(s, format="path", array=None) for s in pool.sources))


def make_small_run(**changes):
    """The `run_setup.Run` of `small_config`, with a cache of its own."""
    from openset_jax.training import run_cache, run_setup

    return run_setup.make_run(small_spec(**changes), run_cache.RunCache())


@functools.cache
def shared_cache():
    """Pools, networks and compiled programs of all runs of a test process that do not ask for a cache of their own."""
    from openset_jax.training import run_cache

    return run_cache.RunCache()


def train(config, workdir, stop_requested=lambda: "", cache=None):
    """`openset_jax.train.train` with the shared cache: most runs differ in what does not change their programs."""
    from openset_jax import train

    return train.train(config, workdir, stop_requested, cache or shared_cache())


def restore_and_evaluate(workdir, **options):
    """`openset_jax.evaluate.restore_and_evaluate` with the shared cache."""
    from openset_jax import evaluate

    return evaluate.restore_and_evaluate(workdir, cache=shared_cache(), **options)


def command(module: str, *arguments: str, **changes) -> list[str]:
    """`python -m openset_jax.MODULE` with configs/digits.py made small."""
    flags = [f"--config.{name}={value}" for name, value in fields(changes).items()]
    return [sys.executable, "-m", f"openset_jax.{module}", "--config=configs/digits.py", *flags, *arguments]


def environment(devices: int = 1) -> dict[str, str]:
    """For a process with that many CPU devices."""
    flags = f"--xla_force_host_platform_device_count={devices} {COMPILED_FAST}"
    return os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}


def free_port() -> int:
    """A port for the coordinator of several processes."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


def run(arguments: list[str], *, devices: int = 1, timeout: int = 240, process: bool = False) -> subprocess.CompletedProcess:
    """Runs a command from the repository's root to its end.

    `python -m MODULE ...` of this project runs in the test's process, where everything is imported already; with several
    devices, or if `process`, and all other commands, in a process of their own.
    """
    if devices == 1 and not process and arguments[1] == "-m":
        return _run_here(*map(str, arguments[2:]))
    return subprocess.run(
        arguments, cwd=ROOT, env=environment(devices), capture_output=True, text=True, timeout=timeout, check=False
    )


def _run_here(name: str, *arguments: str) -> subprocess.CompletedProcess:
    """Runs a module as `python -m` does, and then removes its flags."""
    from absl import flags

    before, out, err, code = set(flags.FLAGS), io.StringIO(), io.StringIO(), None
    argv, sys.argv = sys.argv, [name, *arguments]
    streams = contextlib.redirect_stdout(out), contextlib.redirect_stderr(err)
    with unittest.mock.patch.dict(os.environ), contextlib.chdir(ROOT), streams[0], streams[1], warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            runpy.run_module(name, run_name="__main__", alter_sys=True)
        except SystemExit as error:
            code = error.code
        finally:
            sys.argv = argv
            for flag in set(flags.FLAGS) - before:
                delattr(flags.FLAGS, flag)
            flags.FLAGS.unparse_flags()
    return subprocess.CompletedProcess([name, *arguments], code, out.getvalue(), err.getvalue())


def lines(workdir: pathlib.Path) -> list[dict]:
    """metrics.jsonl without the one thing that no two runs share."""
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k != "images_per_second"} for row in rows]


def saved_arrays(workdir: pathlib.Path, step: int | None = None) -> dict[str, np.ndarray]:
    """All arrays of a checkpoint (the last, unless `step` is given), by path."""
    import jax

    from openset_jax import config, config_json
    from openset_jax.training import checkpoints, run_cache, state

    saved = checkpoints.open_checkpoints(workdir)
    step = saved.latest_step() if step is None else step
    record = saved.record(step)
    spec = config.resolve(config_json.from_json(record["config"]), workdir)[-1]
    network = run_cache.RunCache().network(spec.program, len(record["classes"]))
    like = state.create_state(network.model, network.optimizer, seed=0, shape=spec.inputs.shape)
    restored = saved.restore(step, like)
    saved.close()
    return {jax.tree_util.keystr(path): np.asarray(x) for path, x in jax.tree_util.tree_leaves_with_path(restored)}


def assert_same_run(one: pathlib.Path, other: pathlib.Path) -> None:
    """The last parameters and optimizer state, metrics.json and metrics.jsonl are equal, bit by bit."""
    first, second = saved_arrays(one), saved_arrays(other)
    assert first.keys() == second.keys()
    for name in first:
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)
    assert lines(one) == lines(other)
    for name in ("metrics.json", "scores.csv", "report.html"):
        assert (one / name).read_bytes() == (other / name).read_bytes(), name
