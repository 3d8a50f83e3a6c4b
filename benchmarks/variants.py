"""The training step with one part replaced at a time: the fastest implementation of each part on this machine.

    python -m benchmarks.variants --minutes=3 --out=DIR
    python -m benchmarks.variants --out=DIR --config=configs/digits.py --only=pooling

Why: the fastest implementation differs between platforms, and changes with each version of a compiler. Each variant is
the step in use with one replacement. Its rounds alternate with those of the plain step in one process, so that drift
favours neither. The last row has the fastest adoptable variants of all groups at once. Images are resident and random,
labels are random.

"faster" ("slower"): the ratio to the plain step is above (below) 1 in every round, and the median differs from 1 by 1 %
or more. The losses of the first steps are compared with those of the plain step, so that a wrong variant is not taken
for a fast one. Variants run in the order of their importance. Results are written after each; variants for which there
is no time are listed as left out.

Writes DIR/variants.json and DIR/variants.md.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import math
import sys
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from absl import flags

from benchmarks import hardware, inputs, timing, variant_list
from benchmarks.variant_list import PLAIN, Variant
from benchmarks.variant_table import TIME_UP, Table
from openset_jax import cli

if TYPE_CHECKING:  # imported where they are used, so that --help answers at once
    from benchmarks.variant_steps import VariantStep
    from openset_jax.spec import RunSpec

NUM_CLASSES = 10
ROUNDS, ROUND_SECONDS = 5, 0.2
LOSSES = 10  # number of steps whose losses are compared with the plain step's
AGREE = {"float32": 1e-2, "bfloat16": 3e-2}  # relative; for sums in another order, after ten updates of Adam
FASTER, GRACE_SECONDS = 1.01, 8.0
FIELDS = {"cpu": {"batch_size": 64}, "gpu": {"batch_size": 1024}, "tpu": {"batch_size": 1024}}  # defaults by platform
# expected compile time relative to the plain step's; on a GPU most kernels were already tried for the plain step
COMPILED_AGAIN = {"cpu": 1.0, "gpu": 0.4, "tpu": 1.0}


def define_flags() -> None:
    """Defines the command's flags."""
    flags.DEFINE_string("out", None, "Folder for the results; created if necessary.", required=True)
    cli.define_config(required=False, default="configs/folder.py", help="The full-size config; its images are not opened.")
    flags.DEFINE_float("minutes", 0.0, "Time limit; 0: none.", lower_bound=0.0)
    flags.DEFINE_string("only", "", "Only variants whose name or group contains this text.")
    flags.DEFINE_integer("rounds", ROUNDS, "Measured rounds of each variant; one more comes before.", lower_bound=1)


def main() -> None:
    """Runs the command."""
    start, args, out = time.monotonic(), flags.FLAGS, cli.make_workdir(flags.FLAGS.out)
    import jax

    from openset_jax.training import devices

    platform = jax.default_backend()
    given = {word.partition("=")[0] for word in sys.argv}
    fields = {name: value for name, value in FIELDS[platform].items() if f"--config.{name}" not in given}
    spec = inputs.resolve(args.config, **fields)
    devices.check_batch_size("batch_size", spec.program.batch_size)
    machine = hardware.describe(devices=True)
    hardware.print_description(machine)
    every = variant_list.variants(spec.program, platform)
    chosen = [variant for variant in every if args.only in variant.name or args.only in variant.group]
    words = [word for word in sys.argv[1:] if not word.startswith("--out")]
    table = Table(out, spec.record, machine, [variant.name for variant in chosen], words)
    end = start + 60 * args.minutes if args.minutes else math.inf
    with exit_at(end + GRACE_SECONDS, table):
        measure(table, chosen, spec, rounds=args.rounds, end=end)
    print(f"variants.json and variants.md are in {out}")


@contextlib.contextmanager
def exit_at(end: float, table: Table) -> Iterator[None]:
    """Ends the process at a time of `time.monotonic`, with the results so far: a compilation cannot be interrupted."""

    def exit_now():
        print("the time was up: see variants.md", flush=True)
        table.exit()

    timer = threading.Timer(end - time.monotonic(), exit_now) if math.isfinite(end) else None
    if timer:
        timer.daemon = True
        timer.start()
    try:
        yield
    finally:
        if timer:
            timer.cancel()


def measure(table: Table, variants: list[Variant], spec: RunSpec, *, rounds: int, end: float) -> None:
    """Measures the plain step, the variants in waves that are compiled at once, and the fastest of all groups together.

    Args:
      end: a time of `time.monotonic`; a wave that would not end before is not started.
    """
    import jax

    from benchmarks import kernels
    from benchmarks.variant_steps import Setting, compile_all

    platform, setting = jax.default_backend(), Setting(spec, NUM_CLASSES)
    most, waiting = max(1, hardware.cores() * 3 // 4), list(variants)
    faster: dict[str, tuple[float, Variant]] = {}

    def measure_wave(wave):
        """Returns the seconds of compiling all variants of a wave, and of measuring one."""
        begun = time.monotonic()
        steps = compile_all(setting, wave, pool)
        compiled = time.monotonic()
        for variant, step in zip(wave, steps, strict=True):
            try:
                if isinstance(step, BaseException):
                    raise step
                row = compare(variant, step, plain, rounds, dtype=spec.program.forward.network.dtype)
                step.close()
            except Exception as error:  # of XLA's compiler, or of the device; the other variants continue
                table.leave_out(variant.name, f"{type(error).__name__}: {' '.join(str(error).split())[:200]}")
                continue
            table.add(row)
            best = faster[variant.group][0] if variant.group in faster else 0.0
            if row["verdict"] == "faster" and row["right"] and not variant.never and row["ratio"]["median"] > best:
                faster[variant.group] = row["ratio"]["median"], variant
        return compiled - begun, (time.monotonic() - compiled) / len(wave)

    with concurrent.futures.ThreadPoolExecutor(most) as pool:
        begun = time.monotonic()
        [plain] = compile_all(setting, [PLAIN], pool)
        if isinstance(plain, BaseException):
            raise plain
        compiled = time.monotonic()
        alone = timing.summary(plain.rates(rounds, ROUND_SECONDS))
        table.add({"name": PLAIN.name, "images_per_second": alone, "compile_s": plain.compile_s})
        compiling, measuring = COMPILED_AGAIN[platform] * (compiled - begun), 1.5 * (time.monotonic() - compiled)
        table.add_kernels(kernels.slowest(lambda: plain.seconds_per_step(1), steps=spec.program.steps_per_call))
        while waiting:
            left = end - time.monotonic() - (compiling + measuring if faster else 0)  # reserved for the winners together
            count = len(waiting) if math.isinf(left) else int((left - compiling) / measuring)
            if count < 1:
                break
            count = min(count, most)
            wave, waiting = waiting[:count], waiting[count:]
            compiling, measuring = measure_wave(wave)
        if len(faster) > 1:
            best = variant_list.together(variant for _, variant in faster.values())
            table.leave_out(best.name, TIME_UP)
            if end - time.monotonic() > compiling + measuring:
                measure_wave([best])


def compare(variant: Variant, step: VariantStep, plain: VariantStep, rounds: int, *, dtype: str) -> dict[str, Any]:
    """Measures a variant in rounds that alternate with the plain step, and compares its losses.

    Args:
      dtype: of the computation.

    Returns:
      A row of the table: "name", "images_per_second", "plain" and "ratio" (summaries), "compile_s", "loss_difference"
      (the largest relative difference in the first `LOSSES` steps), "right" (True if it is small, or need not be), "later"
      (relative difference of the loss after `compare_after` steps, if that is not 0), "verdict" and "never".
    """
    difference = max(abs(a - b) / abs(b) for a, b in zip(step.losses(LOSSES), plain.losses(LOSSES), strict=True))
    later = None
    if variant.compare_after:
        ours, theirs = (each.losses(variant.compare_after)[-LOSSES:] for each in (step, plain))
        later = sum(ours) / sum(theirs) - 1
    contenders = {"step": lambda: step.rate(ROUND_SECONDS), "plain": lambda: plain.rate(ROUND_SECONDS)}
    rates = timing.alternate(rounds, contenders)
    ratio = timing.ratios(rates["step"], rates["plain"])
    return {
        "name": variant.name,
        "images_per_second": timing.summary(rates["step"]),
        "plain": timing.summary(rates["plain"]),
        "ratio": ratio,
        "compile_s": step.compile_s,
        "loss_difference": difference,
        "right": not variant.same_numbers or difference <= AGREE[dtype],
        "later": later,
        "verdict": verdict(ratio),
        "never": variant.never,
    }


def verdict(ratio: timing.Summary) -> str:
    """ "faster", "slower" or "no difference", of a summary of ratios."""
    if ratio["min"] > 1 and ratio["median"] >= FASTER:
        return "faster"
    if ratio["max"] < 1 and ratio["median"] <= 1 / FASTER:
        return "slower"
    return "no difference"


if __name__ == "__main__":
    cli.run(main, define_flags)
