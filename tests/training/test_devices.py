"""One device and several compute the same, in one process and in two."""

import functools
import json
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest
from few_steps import make
from small_run import ROOT, environment, free_port, small_spec
from ten_steps import main as ten_steps_here

from openset_jax.errors import UserError
from openset_jax.training import devices
from openset_jax.training.checkpoints import Checkpoints

SCRIPT = pathlib.Path(__file__).with_name("ten_steps.py")


@pytest.fixture(scope="module")
def ten_steps(tmp_path_factory):
    """A function that runs `ten_steps.py` once for each (device_count, processes): (its arrays, its workdir)."""

    @functools.cache
    def run(device_count, processes):
        folder, port = tmp_path_factory.mktemp("ten_steps"), free_port()
        out, workdir = folder / "out.npz", folder / "run"
        if device_count == processes == 1:
            ten_steps_here(out, workdir=workdir)
            return dict(np.load(out)), workdir
        env = environment(device_count) | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
        several = [[str(i), str(processes), str(port)] for i in range(processes)]
        started = [
            subprocess.Popen(
                [sys.executable, SCRIPT, out, *arguments],
                cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            )
            for arguments in (several if processes > 1 else [[f"--workdir={workdir}"]])
        ]  # fmt: skip
        for process in started:
            output, _ = process.communicate(timeout=240)
            assert process.returncode == 0, output
        return dict(np.load(out)), workdir

    return run


@pytest.mark.parametrize(
    ("device_count", "processes"),
    [
        pytest.param(2, 1, marks=pytest.mark.slow),
        pytest.param(4, 1, marks=pytest.mark.slow),
        (8, 1),
        pytest.param(2, 2, marks=pytest.mark.slow),
    ],
)
def test_any_number_of_devices_agrees_with_one(ten_steps, device_count, processes):
    (one_device, _), (many, _) = ten_steps(1, 1), ten_steps(device_count, processes)
    assert many.keys() == one_device.keys()
    for name in (k for k in many if k.startswith("[")):  # after the first step
        difference = np.linalg.norm(many[name] - one_device[name]) / np.linalg.norm(one_device[name])
        assert difference < 1e-5, (name, difference)
    np.testing.assert_allclose(many["losses"], one_device["losses"], rtol=1e-4)
    assert one_device["losses"][-1] != one_device["losses"][0]


@pytest.mark.slow
def test_a_checkpoint_of_four_devices_restores_on_one_and_two(tmp_path, ten_steps):
    written, workdir = ten_steps(4, 1)
    restored_on_one = restore(workdir)
    for name, value in restored_on_one.items():
        np.testing.assert_array_equal(value, written["last" + name], err_msg=name)
    script = (
        "import sys, pathlib, numpy as np, test_devices, jax\n"
        "assert jax.device_count() == 2\n"
        "np.savez(sys.argv[2], **test_devices.restore(pathlib.Path(sys.argv[1]), replicate=True))\n"
    )
    env = environment(2) | {"PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "tests", SCRIPT.parent)))}
    subprocess.run([sys.executable, "-c", script, workdir, tmp_path / "two.npz"], cwd=ROOT, env=env, check=True, timeout=240)
    for name, value in np.load(tmp_path / "two.npz").items():
        np.testing.assert_array_equal(value, restored_on_one[name], err_msg=name)


@pytest.mark.slow
def test_devices_exchange_each_gradient_once_and_half_the_bytes_in_bfloat16():
    env = environment(2) | {"PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "tests")))}
    script = SCRIPT.with_name("exchanged.py")
    done = subprocess.run(
        [sys.executable, script], cwd=ROOT, env=env, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    full, half = (json.loads(done.stdout)[dtype] for dtype in ("float32", "bfloat16"))
    metrics = 1 + 1 + 6  # loss, accuracy, the share of each class
    assert (full["f32"], full["bf16"]) == (full["parameters"] + metrics, 0)
    assert (half["f32"], half["bf16"]) == (metrics, full["parameters"])
    assert full["kept"] == half["kept"] == ["float32"]
    assert 0 < abs(full["grad_norm"] - half["grad_norm"]) < 2**-8 * full["grad_norm"]


def restore(workdir, replicate=False):
    """The state in a workdir of `ten_steps.py`, by path.

    Args:
      replicate: copy it to all devices first.
    """
    _, _, _, like = make(small_spec(**{"model.norm": "batch"}))
    saved = Checkpoints(workdir, writing=False)
    tree = saved.restore(10, jax.tree.map(np.zeros_like, like))
    saved.close()
    if replicate:
        tree = jax.device_get(devices.replicate(tree))
    return {jax.tree_util.keystr(p): np.asarray(x) for p, x in jax.tree_util.tree_leaves_with_path(tree)}


def test_prefetch_yields_every_batch_once_in_order():
    batches = [{"x": np.full((2, 3), i)} for i in range(7)]
    assert [int(b["x"][0, 0, 0]) for b in devices.prefetch(batches)] == list(range(7))
    assert list(devices.prefetch([])) == []


def test_prefetch_asks_for_two_batches_ahead_and_no_more():
    asked = []

    def source():
        for i in range(10):
            asked.append(i)
            yield {"x": np.zeros(1)}

    stream = devices.prefetch(source())
    next(stream)
    assert asked == [0, 1]
    next(stream)
    assert asked == [0, 1, 2]


def test_a_batch_that_does_not_divide_is_refused_by_field(monkeypatch):
    monkeypatch.setattr(jax, "device_count", lambda: 8)
    devices.check_batch_size("batch_size", 64)
    with pytest.raises(UserError, match="eval.batch_size: 60 is not divisible by the 8 devices"):
        devices.check_batch_size("eval.batch_size", 60)
