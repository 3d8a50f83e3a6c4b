"""Memory: the bytes that a step needs at several batch sizes, and whether a long run's memory grows.

    python -m benchmarks.memory --config=configs/digits.py --steps=10000

Why: the largest batch that fits is often the fastest; and memory that grows a little with every step ends a long run.
The peak is XLA's own plan for the compiled step (arguments and temporaries at once), which is exact; beside it is the
memory seen in a run. The run is the loop of `openset_jax.train` with the config's `input`, without evaluating and
saving.
"""

from __future__ import annotations

import os
import pathlib
from typing import TYPE_CHECKING

from absl import flags

from benchmarks import hardware, inputs, outputs, tables
from openset_jax import cli
from openset_jax.errors import UserError

if TYPE_CHECKING:  # imported where they are used, so that --help answers at once
    from openset_jax.spec import RunSpec

SAMPLES, NUM_CLASSES = 10, 10
MIB = 2**20


def define_flags() -> None:
    """Defines the command's flags."""
    cli.define_config()
    flags.DEFINE_list("batch_sizes", [], "Batch sizes to plan for; empty for the config's.")
    flags.DEFINE_integer("steps", 0, f"Steps of the run, at the config's batch size; {SAMPLES} samples. 0: no run.")
    flags.DEFINE_string("json", "", "File to write the result to.")


def main() -> None:
    """Runs the command."""
    args, file, spec = flags.FLAGS, outputs.json_file(flags.FLAGS.json), inputs.resolve(flags.FLAGS.config)
    from benchmarks import batch_size
    from openset_jax.training import devices

    machine = hardware.describe()
    hardware.print_description(machine)
    devices.check_batch_size("batch_size", spec.program.batch_size)
    sizes = batch_size.parse_sizes(args.batch_sizes) or [spec.program.batch_size]
    if 0 < args.steps < SAMPLES * spec.program.steps_per_call:
        raise UserError(f"--steps: at least {SAMPLES * spec.program.steps_per_call}, for {SAMPLES} samples")
    planned = {size: planned_bytes(inputs.resolve(args.config, batch_size=size)) for size in sizes}
    print("planned by XLA for one device, MiB")
    names = ("state and batch", "temporaries", "peak")
    tables.print_table(
        [["batch", *names], *([f"{b:,}", *(f"{v[n] / MIB:,.0f}" for n in names)] for b, v in planned.items())]
    )
    result = {"planned": planned, "config": spec.record, "machine": machine}
    outputs.write_json(file, result)
    if args.steps:
        result["run"] = samples = run(spec, args.steps)
        keys = list(samples[0])
        print("seen in the run, MiB")
        shown = [[f"{s['step']:,}", *(f"{s[k] / MIB:,.1f}" for k in keys[1:])] for s in samples]
        tables.print_table([keys, *shown])
        grown = samples[-1]["host"] - samples[len(samples) // 2]["host"]
        half = samples[-1]["step"] - samples[len(samples) // 2]["step"]
        print(f"host, second half: {grown / MIB:+.1f} MiB in {half:,} steps")
    outputs.write_json(file, result)


def planned_bytes(spec: RunSpec) -> dict[str, int]:
    """Bytes of the compiled training step on one device."""
    from benchmarks.bare_step import Step
    from openset_jax.platforms import xla

    return xla.planned_bytes(Step(spec, NUM_CLASSES).program())


def run(spec: RunSpec, steps: int) -> list[dict[str, int]]:
    """Trains for some steps, and samples the memory.

    Returns:
      For each sample "step", "host" (bytes of the resident memory), and if JAX reports them "device" and "device peak"
      (of the first device).
    """
    import jax

    from benchmarks.bare_step import Step
    from openset_jax.training import run_setup
    from openset_jax.training.progress import Progress
    from openset_jax.training.run_cache import RunCache

    cache, per_call = RunCache(), spec.program.steps_per_call
    made = run_setup.make_run(spec, cache)
    images = cache.images(spec, made.pool)
    step = Step(spec, made.pool.num_classes, images.image_input)
    progress, pending, done = Progress(), None, 0
    samples: list[dict[str, int]] = []
    for batch in made.calls(images, 0, steps):
        step.state, metrics = step.function(step.state, batch)
        if pending is not None:
            progress.add_steps(jax.device_get(pending))
        pending, done = metrics, done + per_call
        if done * SAMPLES // steps > len(samples):
            progress.means()
            stats = jax.local_devices()[0].memory_stats() or {}
            seen = {"device": stats.get("bytes_in_use"), "device peak": stats.get("peak_bytes_in_use")}
            samples.append({"step": done, "host": _resident_bytes()} | {k: v for k, v in seen.items() if v})
    return samples


def _resident_bytes() -> int:
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    cli.run(main, define_flags)
