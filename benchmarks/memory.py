"""Memory: what a step needs for several batch sizes, and whether a long run grows.

    python -m benchmarks.memory --config=configs/digits.py --steps=10000

Why: the largest batch that fits is often the fastest; and what grows by a little every step ends a long run at night. The
peak is XLA's own plan for the compiled step (arguments and temporaries at once), which is exact, and beside it what was
seen. The run is the loop of `openset_jax.train` with the config's `input`, without evaluating and saving.
"""

import os
import pathlib
from typing import Any

from absl import flags

from benchmarks import common
from openset_jax import cli
from openset_jax.errors import UserError

SAMPLES = 10
MIB = 2**20


def define_flags() -> None:
    cli.define_config()
    flags.DEFINE_list("batch_sizes", [], "Batch sizes to plan for; empty for the config's.")
    flags.DEFINE_integer("steps", 0, f"Steps of the run, at the config's batch size; {SAMPLES} samples. 0: no run.")
    flags.DEFINE_string("json", "", "File to write the result to.")


def main() -> None:
    args, config = flags.FLAGS, flags.FLAGS.config
    file = common.json_file(args.json)
    from openset_jax import config as configs
    from openset_jax.training import devices

    config = common.checked(config)
    machine = common.machine()
    common.print_machine(machine)
    if wrong := [size for size in args.batch_sizes if not size.isdigit()]:
        raise UserError(f"--batch_sizes: {wrong[0]!r} is not a number of images")
    sizes = [int(size) for size in args.batch_sizes] or [config.batch_size]
    for size in sizes:
        devices.check_batch_size("--batch_sizes", size)
    if 0 < args.steps < SAMPLES * config.steps_per_call:
        raise UserError(f"--steps: at least {SAMPLES * config.steps_per_call}, for {SAMPLES} samples")
    planned = {size: planned_bytes(config, size) for size in sizes}
    print("planned by XLA for one device, MiB")
    names = ("state and batch", "temporaries", "peak")
    common.print_table(
        [["batch", *names], *([f"{b:,}", *(f"{v[n] / MIB:,.0f}" for n in names)] for b, v in planned.items())]
    )
    result = {"planned": planned, "config": configs.to_json(config), "machine": machine}
    common.write_json(file, result)
    if args.steps:
        result["run"] = samples = run(config, args.steps)
        keys = list(samples[0])
        print("seen in the run, MiB")
        shown = [[f"{s['step']:,}", *(f"{s[k] / MIB:,.1f}" for k in keys[1:])] for s in samples]
        common.print_table([keys, *shown])
        grown = samples[-1]["host"] - samples[len(samples) // 2]["host"]
        half = samples[-1]["step"] - samples[len(samples) // 2]["step"]
        print(f"host, second half: {grown / MIB:+.1f} MiB in {half:,} steps")
    common.write_json(file, result)


def planned_bytes(config: Any, batch_size: int) -> dict[str, int]:
    """Bytes of the compiled train step on one device."""
    import copy

    from benchmarks.step import Step

    config = copy.deepcopy(config)
    config.batch_size = batch_size
    step = Step(config, 10)
    plan = step.function.func.compile(*step.function.args, step.state, step.batch).memory_analysis()
    arguments, temporaries = plan.argument_size_in_bytes, plan.temp_size_in_bytes
    fresh = plan.output_size_in_bytes - plan.alias_size_in_bytes  # the new state takes the place of the old one
    return {"state and batch": arguments, "temporaries": temporaries, "peak": arguments + temporaries + fresh}


def run(config: Any, steps: int) -> list[dict[str, int]]:
    """Bytes of the host's resident memory, and of the first device where it can tell, at some steps of a run."""
    import jax

    from benchmarks.step import Step
    from openset_jax import build
    from openset_jax.data import batches
    from openset_jax.data.unreadable import Skipped
    from openset_jax.training import devices, progress

    pool = build.open_pool(config)
    members, skipped = build.training_members(config, pool), Skipped(pool, config.data.max_bad_fraction)
    feed = build.make_feed(config, pool, skipped)
    step = Step(config, pool.num_classes, feed)
    plan = batches.training(pool, members, build.make_sampler(config, members), start=0, stop=steps, skipped=skipped)
    so_far, pending, samples, done = progress.Progress(), None, [], 0
    for call in devices.prefetch_steps(feed.read(plan), config.steps_per_call):
        step.state, metrics = step.function(step.state, call)
        if pending is not None:
            so_far.add_steps(jax.device_get(pending))
        pending, done = metrics, done + config.steps_per_call
        if done * SAMPLES // steps > len(samples):
            so_far.means()
            stats = jax.local_devices()[0].memory_stats() or {}
            seen = {"device": stats.get("bytes_in_use"), "device peak": stats.get("peak_bytes_in_use")}
            samples.append({"step": done, "host": _resident_bytes()} | {k: v for k, v in seen.items() if v})
    return samples


def _resident_bytes():
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    cli.run(main, define_flags)
