"""The training loop beside its two halves: the step alone, the input alone, and both together, in alternating rounds.

    python -m benchmarks.end_to_end --config=configs/digits.py

Why: where the input is faster than the step, feeding real images, moving them to the devices and fetching metrics should
cost nothing. "Together" is the loop of `openset_jax.train` without evaluating and saving, with the config's `input` and
`steps_per_call`; the step alone has one batch, which is on the devices already. On a CPU step and input share the cores:
then together they take the time of both, and the loop reaches its target only where the input takes next to none.
"""

import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from absl import flags

from benchmarks import common
from openset_jax import cli

TARGET = 0.95


def define_flags() -> None:
    cli.define_config()
    flags.DEFINE_integer("rounds", 5, "Measured rounds of each; one more comes before.", lower_bound=1)
    flags.DEFINE_float("seconds", 4.0, "Length of a round.", lower_bound=0.1)
    flags.DEFINE_float("warmup", 2.0, "Seconds at the start of each round that do not count.", lower_bound=0.0)
    flags.DEFINE_string("json", "", "File to write the result to.")


def main() -> None:
    args, config = flags.FLAGS, flags.FLAGS.config
    file = common.json_file(args.json)
    import jax

    from benchmarks.step import Step
    from openset_jax import build
    from openset_jax import config as configs
    from openset_jax.data import batches
    from openset_jax.data.unreadable import Skipped
    from openset_jax.training import devices, progress

    config = common.checked(config)
    devices.check_batch_size("batch_size", config.batch_size)
    machine = common.machine()
    common.print_machine(machine)
    pool = build.open_pool(config)
    members = build.training_members(config, pool)
    sampler = build.make_sampler(config, members)
    skipped = Skipped(pool, config.data.max_bad_fraction)
    plan = batches.training(pool, members, sampler, start=0, stop=10**9, skipped=skipped)
    feed = build.make_feed(config, pool, skipped)
    bare, fed = Step(config, pool.num_classes), Step(config, pool.num_classes, feed)
    compile_s = bare.compile()
    per_call = config.batch_size * config.steps_per_call

    length = {"warmup": args.warmup, "seconds": args.seconds}

    def step_alone():
        return per_call * loop_rate(bare, itertools.repeat(bare.batch), jax.block_until_ready, **length)

    def input_alone():
        return common.stream_rate(feed.read(plan), config.batch_size, **length)

    def together():
        so_far, calls = progress.Progress(), devices.prefetch_steps(feed.read(plan), config.steps_per_call)
        rate = loop_rate(fed, calls, lambda metrics: so_far.add_steps(jax.device_get(metrics)), **length)
        calls.close()
        return per_call * rate

    values = common.alternate(args.rounds, {"step alone": step_alone, "together": together, "input alone": input_alone})
    summaries = {name: common.summary(v) for name, v in values.items()}
    slower = [min(pair) for pair in zip(values["step alone"], values["input alone"], strict=True)]
    paired = common.ratios(values["together"], slower)
    report(summaries, paired, batch_size=config.batch_size)
    result = {name.replace(" ", "_"): v for name, v in summaries.items()}
    result |= {"ratio": paired, "compile_s": compile_s, "config": configs.to_json(config), "machine": machine}
    common.write_json(file, result)


def loop_rate(step: Any, batches: Iterable[Any], fetch: Callable[[Any], Any], *, warmup: float, seconds: float) -> float:
    """Calls per second of the loop of `openset_jax.train`; see `run_loop`.

    Args:
      batches: endless.
      warmup: seconds that do not count.
      seconds: how long to measure.
    """
    import jax

    begin, start, count = time.perf_counter(), None, 0
    for now in run_loop(step, batches, fetch):
        if start is not None:
            count += 1
            if now - start >= seconds:
                break
        elif now - begin >= warmup:
            start = now
    jax.block_until_ready(step.state)
    return count / (now - start)


def run_loop(step: Any, batches: Iterable[Any], fetch: Callable[[Any], Any]) -> Iterator[float]:
    """The loop of `openset_jax.train`: metrics are fetched when the next step is under way.

    Args:
      step: a `benchmarks.step.Step`.
      batches: on the devices.
      fetch: waits for the metrics of a call, or takes note of them.

    Yields:
      The time at which the metrics of each call were there. The call after it is under way.
    """
    import jax

    pending = None
    for batch in batches:
        with jax.transfer_guard("disallow"):
            step.state, metrics = step.function(step.state, batch)
        if pending is not None:
            fetch(pending)
            yield time.perf_counter()
        pending = metrics


def report(summaries: dict[str, Any], paired: dict[str, Any], *, batch_size: int) -> None:
    """Prints the rates, which of step and input is the limit, and whether the loop reaches it."""
    print(f"images/s at a batch of {batch_size}")
    common.print_table([["", "median", "min", "max"], *(common.row(k, v) for k, v in summaries.items())])
    common.print_table([["together / the slower one", "median", "min", "max"], common.row("round by round", paired, 3)])
    surplus = summaries["input alone"]["median"] / summaries["step alone"]["median"]
    print(f"input alone / step alone: {surplus:.2f}, so that the {'step' if surplus > 1 else 'input'} is the limit")
    print(common.verdict("together / the slower one, median of the rounds", paired["median"], TARGET))


if __name__ == "__main__":
    cli.run(main, define_flags)
