"""The results of `benchmarks.variants` in two files: variants.json and variants.md."""

import json
import os
import pathlib
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks import tables
from benchmarks.variant_list import PLAIN
from openset_jax.files import write_whole

HEADER = ["variant", "images/s", "range", "ratio", "range", "compilation, s", "losses differ by", "verdict"]
SHOWN_KERNELS = 12  # in variants.md; variants.json has more
TIME_UP = "the time was up"


class Table:
    """The results so far, written after every change.

    Args:
      out: folder of the files.
      config: the config as JSON values.
      machine: see `hardware.describe`.
      names: of the variants to measure.
      flags: words of the command line.

    Attributes:
      rows: of the table; see `variants.compare`.
    """

    def __init__(
        self,
        out: pathlib.Path,
        config: Mapping[str, Any],
        machine: Mapping[str, Any],
        names: Sequence[str],
        flags: Sequence[str] = (),
    ):
        self.rows: list[dict[str, Any]] = []
        self._out, self._lock, self._start = out, threading.Lock(), time.monotonic()
        self._about: dict[str, Any] = {"config": config, "machine": machine, "flags": list(flags)}
        self._kernels: list[dict[str, Any]] = []
        self._left_out = dict.fromkeys([PLAIN.name, *names], TIME_UP)
        self._write()

    def add(self, row: dict[str, Any]) -> None:
        """Adds and prints the row of a variant."""
        with self._lock:
            self._left_out.pop(row["name"], None)
            self.rows.append(row)
            self._write()
        print("  ".join(cells(row)), flush=True)

    def leave_out(self, name: str, reason: str) -> None:
        """Records and prints the reason why a variant was not measured."""
        with self._lock:
            self._left_out[name] = reason
            self._write()
        print(f"{name}: left out: {reason}", flush=True)

    def add_kernels(self, kernels: list[dict[str, Any]]) -> None:
        """Adds the slowest kernels of the plain step; see `kernels.slowest`."""
        with self._lock:
            self._kernels = kernels
            self._write()

    def exit(self) -> None:
        """Ends the process with exit code 0, but not while a file is written."""
        with self._lock:
            os._exit(0)

    def _write(self) -> None:
        seconds = round(time.monotonic() - self._start, 1)
        measured = {"rows": self.rows, "left_out": self._left_out, "kernels": self._kernels}
        result = self._about | {"seconds": seconds} | measured
        with write_whole(self._out / "variants.json") as file:
            file.write(json.dumps(result, indent=2) + "\n")
        with write_whole(self._out / "variants.md") as file:
            file.write(markdown(result))


def cells(row: Mapping[str, Any]) -> list[str]:
    """A row of the table as text."""
    rate, ratio = row["images_per_second"], row.get("ratio")
    span = [tables.number(rate["median"]), f"{tables.number(rate['min'])} to {tables.number(rate['max'])}"]
    if ratio is None:
        return [row["name"], *span, "", "", f"{row['compile_s']:.1f}", "", ""]
    verdict = row["verdict"] if row["right"] else f"WRONG, {row['verdict']}"
    if row["later"] is not None:
        verdict += f"; loss after more steps {row['later']:+.1%}"
    if row["never"] and row["verdict"] == "faster":
        verdict += f"; not adopted: {row['never']}"
    ratios = [f"{ratio['median']:.3f}", f"{ratio['min']:.3f} to {ratio['max']:.3f}"]
    return [row["name"], *span, *ratios, f"{row['compile_s']:.1f}", f"{row['loss_difference']:.1e}", verdict]


def markdown(result: Mapping[str, Any]) -> str:
    """The part of a machine's section in `benchmarks/RESULTS.md` that is about variants.

    Args:
      result: the content of variants.json.
    """
    model, data, size = result["config"]["model"], result["config"]["data"], result["config"]["batch_size"]
    network = f"{model['name']}, {data['image_size']}x{data['image_size']}, {model['dtype']}"
    command = " ".join(["python -m benchmarks.variants", *result["flags"]])
    lines = [f"### Variants of the step: {network}, batch {size:,}", ""]
    lines += [f"`{command}`, {result['seconds'] / 60:.1f} minutes.", ""]
    lines += tables.markdown_table([HEADER, *map(cells, result["rows"])])
    lines += ["", *(f"Left out: {names}: {reason}." for names, reason in tables.by_reason(result["left_out"]))]
    if kernels := result["kernels"][:SHOWN_KERNELS]:
        rows = [[f"`{k['name'][:80]}`", f"{k['ms']:.3f}", f"{k['launches']:g}"] for k in kernels]
        lines += ["", "The slowest kernels of the plain step:", ""]
        lines += tables.markdown_table([["kernel", "ms a step", "launches a step"], *rows])
    return "\n".join(lines).rstrip() + "\n"
