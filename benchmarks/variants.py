"""The train step with one thing changed at a time: which form of each part is the fastest on this machine.

    python -m benchmarks.variants --minutes=3 --out=DIR
    python -m benchmarks.variants --out=DIR --config=configs/digits.py --only=pooling

Why: what is fast on one platform is slow on another, and compilers change with every version. Each variant is the
production step with one replacement. It alternates with the plain step in one process, so that drift favours neither. The
last row has the fastest adoptable variants of all groups at once. Images are resident and random, labels are random.

"faster" ("slower"): the ratio to the plain step is above (below) 1 in every round, and by 1 % or more in the median. Losses
of the first steps are compared with those of the plain step, so that a wrong variant is not taken for a fast one. Variants
run in the order of importance. Results are written after each; those that the time does not allow are left out and named.

Writes DIR/variants.json and DIR/variants.md.
"""

import concurrent.futures
import contextlib
import json
import math
import os
import pathlib
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

from absl import flags

from benchmarks import changes, common
from benchmarks.changes import PLAIN, Variant
from openset_jax import cli
from openset_jax.files import write_whole

NUM_CLASSES = 10
ROUNDS, ROUND_SECONDS = 5, 0.2
LOSSES = 10  # steps whose losses are compared with the plain step's
AGREE = {"float32": 1e-2, "bfloat16": 3e-2}  # relative; of sums in another order, after ten updates of Adam
FASTER, GRACE_SECONDS = 1.01, 8.0
FIELDS = {"cpu": {"batch_size": 64}, "gpu": {"batch_size": 1024}, "tpu": {"batch_size": 1024}}  # unless given
# the time of compiling variants over that of the plain step before: a GPU's compiler has tried most kernels by then
COMPILED_AGAIN = {"cpu": 1.0, "gpu": 0.4, "tpu": 1.0}
SHOWN_KERNELS = 12  # in variants.md; variants.json has more
TIME_UP = "the time was up"
HEADER = ["variant", "images/s", "range", "ratio", "range", "compilation, s", "losses differ by", "verdict"]


def define_flags() -> None:
    flags.DEFINE_string("out", None, "Folder for the results; made if need be.", required=True)
    cli.define_config(required=False, default="configs/folder.py", help="The full-size config; its data are not opened.")
    flags.DEFINE_float("minutes", 0.0, "Measure for so long at most; 0: all variants.", lower_bound=0.0)
    flags.DEFINE_string("only", "", "Only variants whose name or group contains this.")
    flags.DEFINE_integer("rounds", ROUNDS, "Measured rounds of each variant; one more comes before.", lower_bound=1)


def main() -> None:
    start, args, config, out = time.monotonic(), flags.FLAGS, flags.FLAGS.config, cli.make_workdir(flags.FLAGS.out)
    import jax

    from openset_jax.training import devices

    platform = jax.default_backend()
    for name, value in FIELDS[platform].items():
        if not any(word.partition("=")[0] == f"--config.{name}" for word in sys.argv):
            config[name] = value
    config = common.checked(config)
    devices.check_batch_size("batch_size", config.batch_size)
    machine = common.machine(devices=True)
    common.print_machine(machine)
    chosen = [v for v in changes.variants(config, platform) if args.only in v.name or args.only in v.group]
    words = [word for word in sys.argv[1:] if not word.startswith("--out")]
    table = Table(out, config, machine, [v.name for v in chosen], words)
    end = start + 60 * args.minutes if args.minutes else math.inf
    with exit_at(end + GRACE_SECONDS, table):
        measure(table, chosen, config, rounds=args.rounds, end=end)
    print(f"variants.json and variants.md are in {out}")


class Table:
    """The results so far, written whole after every change.

    Attributes:
      rows: of the table, see `measure`.
    """

    def __init__(self, out: pathlib.Path, config: Any, machine: dict[str, Any], names: list[str], words: Sequence[str] = ()):
        from openset_jax import config as configs

        self.rows, self._out, self._lock = [], out, threading.Lock()
        self._about = {"config": configs.to_json(config), "machine": machine, "flags": list(words)}
        self._start = time.monotonic()
        self._kernels, self._left_out = [], dict.fromkeys([PLAIN.name, *names], TIME_UP)
        self._write()

    def add(self, row: dict[str, Any]) -> None:
        """A variant is measured."""
        with self._lock:
            self._left_out.pop(row["name"], None)
            self.rows.append(row)
            self._write()
        print("  ".join(cells(row)), flush=True)

    def leave_out(self, name: str, why: str) -> None:
        """A variant cannot be measured."""
        with self._lock:
            self._left_out[name] = why
            self._write()
        print(f"{name}: left out: {why}", flush=True)

    def add_kernels(self, kernels: list[dict[str, Any]]) -> None:
        """Where the time of the plain step goes, see `kernels.slowest`."""
        with self._lock:
            self._kernels = kernels
            self._write()

    def exit(self) -> None:
        """Ends the process, once nothing is being written."""
        with self._lock:
            os._exit(0)

    def _write(self):
        seconds = round(time.monotonic() - self._start, 1)
        measured = {"rows": self.rows, "left_out": self._left_out, "kernels": self._kernels}
        result = self._about | {"seconds": seconds} | measured
        with write_whole(self._out / "variants.json") as file:
            file.write(json.dumps(result, indent=2) + "\n")
        with write_whole(self._out / "variants.md") as file:
            file.write(markdown(result))


@contextlib.contextmanager
def exit_at(when: float, table: Table) -> Iterator[None]:
    """Ends the process with what there is at that time (of `time.monotonic`): a compilation cannot be interrupted."""

    def end():
        print("the time was up: see variants.md", flush=True)
        table.exit()

    timer = threading.Timer(when - time.monotonic(), end) if math.isfinite(when) else None
    if timer:
        timer.daemon = True
        timer.start()
    try:
        yield
    finally:
        if timer:
            timer.cancel()


def measure(table: Table, variants: list[Variant], config: Any, *, rounds: int, end: float) -> None:
    """Measures the plain step, the variants in waves that are compiled at once, and the fastest of all groups together.

    Args:
      end: when to stop, of `time.monotonic`: a wave that would not fit is not begun.
    """
    import jax

    from benchmarks import kernels
    from benchmarks.variant_steps import Setting, compile_all

    platform = jax.default_backend()
    setting, most, waiting, faster = Setting(config, NUM_CLASSES), max(1, common.cores() * 3 // 4), list(variants), {}

    def measured(some):
        """Seconds of compiling all, and of measuring one."""
        begun = time.monotonic()
        steps = compile_all(setting, some, pool)
        compiled = time.monotonic()
        for variant, step in zip(some, steps, strict=True):
            try:
                if isinstance(step, Exception):
                    raise step
                row = compare(variant, step, plain, setting, rounds)
                step.close()
            except Exception as error:  # of XLA's compiler, or of the device: the other variants go on
                table.leave_out(variant.name, f"{type(error).__name__}: {' '.join(str(error).split())[:200]}")
                continue
            table.add(row)
            best = faster[variant.group][0] if variant.group in faster else 0.0
            if row["verdict"] == "faster" and row["right"] and not variant.never and row["ratio"]["median"] > best:
                faster[variant.group] = row["ratio"]["median"], variant
        return compiled - begun, (time.monotonic() - compiled) / len(some)

    with concurrent.futures.ThreadPoolExecutor(most) as pool:
        begun = time.monotonic()
        [plain] = compile_all(setting, [PLAIN], pool)
        if isinstance(plain, Exception):
            raise plain
        compiled = time.monotonic()
        alone = common.summary(plain.rates(rounds, ROUND_SECONDS))
        table.add({"name": PLAIN.name, "images_per_second": alone, "compile_s": plain.compile_s})
        compiling, measuring = COMPILED_AGAIN[platform] * (compiled - begun), 1.5 * (time.monotonic() - compiled)
        table.add_kernels(kernels.slowest(lambda: plain.group(1), steps=config.steps_per_call))
        while waiting:
            left = end - time.monotonic() - (compiling + measuring if faster else 0)  # for the winners together
            count = len(waiting) if math.isinf(left) else int((left - compiling) / measuring)
            if count < 1:
                break
            count = min(count, most)
            some, waiting = waiting[:count], waiting[count:]
            compiling, measuring = measured(some)
        if len(faster) > 1:
            best = changes.together(variant for _, variant in faster.values())
            table.leave_out(best.name, TIME_UP)
            if end - time.monotonic() > compiling + measuring:
                measured([best])


def compare(variant: Variant, step: Any, plain: Any, setting: Any, rounds: int) -> dict[str, Any]:
    """A row: rates and ratios of rounds that alternate with the plain step, and how much the losses differ.

    Returns:
      "name", "images_per_second", "plain" and "ratio" (summaries), "compile_s", "loss_difference" (the largest relative one
      of the first `LOSSES` steps), "right" (whether it is small, or need not be), "later" (relative difference of the loss
      after `compare_after` steps, None without), "verdict", "never".
    """
    difference = max(abs(a - b) / abs(b) for a, b in zip(step.losses(LOSSES), plain.losses(LOSSES), strict=True))
    later = None
    if variant.compare_after:
        ours, theirs = (each.losses(variant.compare_after)[-LOSSES:] for each in (step, plain))
        later = sum(ours) / sum(theirs) - 1
    contenders = {"step": lambda: step.rate(ROUND_SECONDS), "plain": lambda: plain.rate(ROUND_SECONDS)}
    rates = common.alternate(rounds, contenders)
    ratio = common.ratios(rates["step"], rates["plain"])
    return {
        "name": variant.name,
        "images_per_second": common.summary(rates["step"]),
        "plain": common.summary(rates["plain"]),
        "ratio": ratio,
        "compile_s": step.compile_s,
        "loss_difference": difference,
        "right": not variant.same_numbers or difference <= AGREE[setting.config.model.dtype],
        "later": later,
        "verdict": verdict(ratio),
        "never": variant.never,
    }


def verdict(ratio: dict[str, Any]) -> str:
    """ "faster", "slower" or "no difference", of a summary of ratios."""
    if ratio["min"] > 1 and ratio["median"] >= FASTER:
        return "faster"
    if ratio["max"] < 1 and ratio["median"] <= 1 / FASTER:
        return "slower"
    return "no difference"


def cells(row: dict[str, Any]) -> list[str]:
    """A row of the table as text."""
    rate, ratio = row["images_per_second"], row.get("ratio")
    span = [common.number(rate["median"]), f"{common.number(rate['min'])} to {common.number(rate['max'])}"]
    if ratio is None:
        return [row["name"], *span, "", "", f"{row['compile_s']:.1f}", "", ""]
    said = row["verdict"] if row["right"] else f"WRONG, {row['verdict']}"
    if row["later"] is not None:
        said += f"; loss after more steps {row['later']:+.1%}"
    if row["never"] and row["verdict"] == "faster":
        said += f"; not adopted: {row['never']}"
    ratios = [f"{ratio['median']:.3f}", f"{ratio['min']:.3f} to {ratio['max']:.3f}"]
    return [row["name"], *span, *ratios, f"{row['compile_s']:.1f}", f"{row['loss_difference']:.1e}", said]


def markdown(result: dict[str, Any]) -> str:
    """The part of a machine's section in `benchmarks/RESULTS.md` that is about variants."""
    model, data, size = result["config"]["model"], result["config"]["data"], result["config"]["batch_size"]
    network = f"{model['name']}, {data['image_size']}x{data['image_size']}, {model['dtype']}"
    command = " ".join(["python -m benchmarks.variants", *result["flags"]])
    lines = [f"### Variants of the step: {network}, batch {size:,}", ""]
    lines += [f"`{command}`, {result['seconds'] / 60:.1f} minutes.", ""]
    lines += common.markdown_table([HEADER, *map(cells, result["rows"])])
    lines += ["", *(f"Left out: {names}: {why}." for names, why in common.by_reason(result["left_out"]))]
    if kernels := result["kernels"][:SHOWN_KERNELS]:
        rows = [[f"`{k['name'][:80]}`", f"{k['ms']:.3f}", f"{k['launches']:g}"] for k in kernels]
        lines += ["", "The slowest kernels of the plain step:", ""]
        lines += common.markdown_table([["kernel", "ms a step", "launches a step"], *rows])
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    cli.run(main, define_flags)
