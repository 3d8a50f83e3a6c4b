"""The cost of an experiment beside its steps: arms one after another in one process, and their bare steps and forward
passes.

    python -m benchmarks.experiment --config=configs/imbalance.py:fashion_open --config.run.data.packed=PACKED

Why: opening images and compiling should not be repeated for each arm. The first arms of the grid are run as
`openset_jax.experiment` runs them, in an empty folder. Before and after each arm, calls of its compiled step and of its
forward pass are timed, with one batch that is already on the devices. The target is that all arms together take at most
1.1 times their bare steps. The second ratio also counts the forward passes over validation and test images, which
matter for short arms with large test sets.
"""

from __future__ import annotations

import pathlib
import tempfile
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from absl import flags

from benchmarks import hardware, outputs, tables
from openset_jax import cli

if TYPE_CHECKING:  # imported where they are used, so that --help answers at once
    from openset_jax.study.runs.check import Phases
    from openset_jax.study.runs.grid import Arm
    from openset_jax.training.run_cache import RunCache

TARGET, CALLS, ROUNDS = 1.1, 3, 3


def define_flags() -> None:
    """Defines the command's flags."""
    cli.define_config()
    flags.DEFINE_integer("arms", 6, "Number of arms, the first ones of the grid.", lower_bound=1)
    flags.DEFINE_string("json", "", "File to write the result to.")


def main() -> None:
    """Runs the command."""
    from openset_jax.study.runs import check, grid
    from openset_jax.training.run_cache import RunCache

    file, config = outputs.json_file(flags.FLAGS.json), flags.FLAGS.config
    machine, cache, rows = hardware.describe(), RunCache(), list[dict[str, Any]]()
    hardware.print_description(machine)
    arms = grid.arms_of(config)[: flags.FLAGS.arms]
    with tempfile.TemporaryDirectory() as scratch:
        folders = {arm: pathlib.Path(scratch, arm.name) for arm in arms}
        by_label = {arm.treatment.label: str(folder) for arm, folder in folders.items()}
        run = check.with_shared_steps(config.run, cache)
        phases = {arm: check.resolve_arm(arm, grid.config_of(arm, run, by_label), folders[arm], cache) for arm in arms}
        check.check_grid(arms, phases, cache)
        for arm in arms:
            rows.append({"arm": arm.label} | measure(arm, phases, folders, cache))
            print(f"{arm.label}: {rows[-1]['seconds']:.1f} s, bare {rows[-1]['steps']:.1f} s", flush=True)
    total = {name: sum(row[name] for row in rows) for name in ("seconds", "steps", "forward", "compiling")}
    result: dict[str, Any] = {"machine": machine, "arms": rows, **total}
    result["over_steps"] = total["seconds"] / total["steps"]
    result["over_steps_and_forward"] = total["seconds"] / (total["steps"] + total["forward"])
    print(
        f"{len(rows)} arms: {total['seconds']:.0f} s, {total['compiling']:.0f} of them compiling; bare steps "
        f"{total['steps']:.0f} s, bare forward passes {total['forward']:.0f} s"
    )
    print(tables.verdict("all arms over their bare steps", result["over_steps"], TARGET, at_most=True))
    name = "all arms over their bare steps and forward passes"
    print(tables.verdict(name, result["over_steps_and_forward"], TARGET, at_most=True))
    outputs.write_json(file, result)


def measure(
    arm: Arm, phases: Mapping[Arm, Phases], folders: Mapping[Arm, pathlib.Path], cache: RunCache
) -> dict[str, float]:
    """Runs one arm alone, and times its bare calls.

    Returns:
      "seconds" of the arm, "compiling" (seconds of it that XLA compiles), "steps" and "forward" (seconds of its bare
      steps and forward passes).
    """
    from benchmarks.bare_step import Step
    from benchmarks.evaluate import Forward
    from openset_jax.data import pools
    from openset_jax.platforms import xla
    from openset_jax.study.runs.arm_run import ArmRuns

    compile_lowered, compiling = xla.compile_lowered, list[float]()

    def timed(lowered, options=None):
        start = time.perf_counter()
        program = compile_lowered(lowered, options)
        compiling.append(time.perf_counter() - start)
        return program

    last, runs = phases[arm][-1], ArmRuns(folders, lambda: "", cache)
    pool = cache.pool(last)
    steps, forward = [Step(spec, pool.num_classes) for spec in phases[arm]], Forward(last, pool.num_classes)
    bare = lambda: (*(step.seconds_per_step(CALLS) for step in steps), forward.seconds_per_batch(CALLS))
    bare()
    rounds = [bare() for _ in range(ROUNDS)]
    xla.compile_lowered = timed
    try:
        start = time.perf_counter()
        runs.run([arm], phases)
        seconds = time.perf_counter() - start
    finally:
        xla.compile_lowered = compile_lowered
    if runs.failed:
        raise runs.failed[arm]
    rounds += [bare() for _ in range(ROUNDS)]
    *per_step, per_batch = (sorted(values)[len(rounds) // 2] for values in zip(*rounds, strict=True))
    images = len(pool.rows(pools.VALIDATION)) + len(pool.rows(pools.TEST))
    return {
        "seconds": seconds,
        "compiling": sum(compiling),
        "steps": sum(spec.program.steps * each for spec, each in zip(phases[arm], per_step, strict=True)),
        "forward": -(-images // last.evaluation.batch_size) * per_batch,
    }


if __name__ == "__main__":
    cli.run(main, define_flags)
