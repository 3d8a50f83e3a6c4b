"""The training loop beside its two halves: the step alone, the input alone, and both together, in alternating rounds.

    python -m benchmarks.end_to_end --config=configs/digits.py

Why: if the input is faster than the step, then feeding real images, moving them to the devices and fetching metrics
should cost no time. "Together" is the loop of `openset_jax.train` without evaluating and saving, with the config's
`input` and `steps_per_call`; the step alone has one batch, which is already on the devices. On a CPU, step and input
share the cores: together they take the time of both, and the loop reaches its target only if the input takes almost no
time.
"""

import itertools
from typing import Any

from absl import flags

from benchmarks import hardware, inputs, outputs, tables, timing
from openset_jax import cli

TARGET = 0.95


def define_flags() -> None:
    """Defines the command's flags."""
    cli.define_config()
    flags.DEFINE_integer("rounds", 5, "Measured rounds of each; one more comes before.", lower_bound=1)
    flags.DEFINE_float("seconds", 4.0, "Length of a round.", lower_bound=0.1)
    flags.DEFINE_float("warmup", 2.0, "Seconds at the start of each round that are not measured.", lower_bound=0.0)
    flags.DEFINE_string("json", "", "File to write the result to.")


def main() -> None:
    """Runs the command."""
    args, file = flags.FLAGS, outputs.json_file(flags.FLAGS.json)
    import jax

    from benchmarks import training_loop
    from benchmarks.bare_step import Step
    from benchmarks.training_loop import ENDLESS
    from openset_jax.data import batches
    from openset_jax.training import run_setup
    from openset_jax.training.progress import Progress
    from openset_jax.training.run_cache import RunCache

    spec, cache = inputs.resolve(args.config), RunCache()
    machine = hardware.describe()
    hardware.print_description(machine)
    run = run_setup.make_run(spec, cache)
    images, num_classes = cache.images(spec, run.pool), run.pool.num_classes
    bare, fed = Step(spec, num_classes), Step(spec, num_classes, images.image_input)
    compile_s = bare.compile()
    batch_size, steps_per_call = spec.program.batch_size, spec.program.steps_per_call
    window = {"warmup": args.warmup, "seconds": args.seconds}

    def step_alone():
        rate = training_loop.rate_of_window(bare, itertools.repeat(bare.batch), jax.block_until_ready, **window)
        return batch_size * steps_per_call * rate

    def input_alone():
        plan = batches.training(
            run.pool, run.rows_by_class, run.sampler, start=0, stop=ENDLESS, unreadable=images.unreadable
        )
        return timing.stream_rate(images.image_input.read(plan), batch_size, **window)

    def together():
        progress, calls = Progress(), run.calls(images, 0, ENDLESS)
        fetch = lambda metrics: progress.add_steps(jax.device_get(metrics))
        rate = training_loop.rate_of_window(fed, calls, fetch, **window)
        calls.close()
        return batch_size * steps_per_call * rate

    values = timing.alternate(args.rounds, {"step alone": step_alone, "together": together, "input alone": input_alone})
    summaries = {name: timing.summary(v) for name, v in values.items()}
    slower = [min(pair) for pair in zip(values["step alone"], values["input alone"], strict=True)]
    paired = timing.ratios(values["together"], slower)
    report(summaries, paired, batch_size=batch_size)
    result: dict[str, Any] = {name.replace(" ", "_"): v for name, v in summaries.items()}
    result |= {"ratio": paired, "compile_s": compile_s, "config": spec.record, "machine": machine}
    outputs.write_json(file, result)


def report(summaries: dict[str, timing.Summary], paired: timing.Summary, *, batch_size: int) -> None:
    """Prints the rates, names the slower of step and input, and prints whether the loop is as fast as it.

    Args:
      summaries: of "step alone", "input alone" and "together", in images/s.
      paired: of the loop's rate over that of the slower half, round by round.
    """
    print(f"images/s at a batch of {batch_size}")
    tables.print_table([["", "median", "min", "max"], *(tables.row(k, v) for k, v in summaries.items())])
    tables.print_table([["together / the slower one", "median", "min", "max"], tables.row("round by round", paired, 3)])
    surplus = summaries["input alone"]["median"] / summaries["step alone"]["median"]
    print(f"input alone / step alone: {surplus:.2f}, so that the {'step' if surplus > 1 else 'input'} is the limit")
    print(tables.verdict("together / the slower one, median of the rounds", paired["median"], TARGET))


if __name__ == "__main__":
    cli.run(main, define_flags)
