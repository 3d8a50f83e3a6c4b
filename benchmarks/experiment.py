"""What an experiment costs beside its steps: arms one after another in one process, against bare steps and forward passes.

    python -m benchmarks.experiment --config=configs/imbalance.py:fashion_open --config.run.data.packed=PACKED

Why: an arm must not pay again for opening images and compiling. The first arms of the grid are run as
`openset_jax.experiment` runs them, in an empty folder. Before and after each, bare calls of its own compiled step and of its
forward pass are timed, with one batch that is on the devices already. The target is about all arms: at most 1.1 times their
bare steps. What arms classify, validation and test images once each, is work, too, which short arms on large test sets
cannot hide: the second ratio counts it to the bare part.
"""

import pathlib
import tempfile
import time
from typing import Any

from absl import flags

from benchmarks import common
from openset_jax import cli

TARGET, CALLS, ROUNDS = 1.1, 3, 3


def define_flags() -> None:
    cli.define_config()
    flags.DEFINE_integer("arms", 6, "How many arms, the first of the grid.", lower_bound=1)
    flags.DEFINE_string("json", "", "File to write the result to.")


def main() -> None:
    from openset_jax.study.runs import check, grid
    from openset_jax.training.run_cache import Workshop

    file, config = common.json_file(flags.FLAGS.json), flags.FLAGS.config.copy_and_resolve_references()
    config.run = common.checked(config.run)
    machine, workshop = common.machine(), Workshop()
    common.print_machine(machine)
    arms = grid.arms_of(config)[: flags.FLAGS.arms]
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        folders = {arm: pathlib.Path(scratch, arm.name) for arm in arms}
        by_label = {arm.treatment.label: str(folder) for arm, folder in folders.items()}
        configs = {arm: grid.config_of(arm, config.run, by_label) for arm in arms}
        check.check_grid(arms, list(configs.values()), workshop)
        for arm in arms:
            rows.append({"arm": arm.label} | measure(configs[arm], folders[arm], workshop))
            print(f"{arm.label}: {rows[-1]['seconds']:.1f} s, bare {rows[-1]['steps']:.1f} s", flush=True)
    total = {name: sum(row[name] for row in rows) for name in ("seconds", "steps", "forward", "compiling")}
    result = {"machine": machine, "arms": rows} | total
    result["over_steps"] = total["seconds"] / total["steps"]
    result["over_steps_and_forward"] = total["seconds"] / (total["steps"] + total["forward"])
    print(
        f"{len(rows)} arms: {total['seconds']:.0f} s, {total['compiling']:.0f} of them compiling; bare steps "
        f"{total['steps']:.0f} s, bare forward passes {total['forward']:.0f} s"
    )
    print(common.verdict("all arms over their bare steps", result["over_steps"], TARGET, at_most=True))
    what = "all arms over their bare steps and forward passes"
    print(common.verdict(what, result["over_steps_and_forward"], TARGET, at_most=True))
    common.write_json(file, result)


def measure(config: Any, folder: pathlib.Path, workshop: Any) -> dict[str, float]:
    """Seconds that one arm takes, of which its first call compiling, and seconds of its bare steps and forward passes."""
    from benchmarks.evaluate import Forward
    from benchmarks.step import Step
    from openset_jax import experiment
    from openset_jax.data import pools
    from openset_jax.training import devices

    compiled, compiling = devices.compile_lowered, []

    def timed(lowered):
        start = time.perf_counter()
        program = compiled(lowered)
        compiling.append(time.perf_counter() - start)
        return program

    pool = workshop.pool(config)
    step, forward = Step(config, pool.num_classes), Forward(config, pool.num_classes)
    bare = lambda: (step.group(CALLS), forward.group(CALLS))
    bare()
    rounds = [bare() for _ in range(ROUNDS)]
    devices.compile_lowered = timed
    try:
        start = time.perf_counter()
        experiment.run_arm(config, folder, str, workshop)
        seconds = time.perf_counter() - start
    finally:
        devices.compile_lowered = compiled
    rounds += [bare() for _ in range(ROUNDS)]
    per_step, per_batch = (sorted(r[i] for r in rounds)[len(rounds) // 2] for i in range(2))
    images = len(pool.rows(pools.VALIDATION)) + len(pool.rows(pools.TEST))
    return {
        "seconds": seconds,
        "compiling": sum(compiling),
        "steps": config.steps * per_step,
        "forward": -(-images // config.eval.batch_size) * per_batch,
    }


if __name__ == "__main__":
    cli.run(main, define_flags)
