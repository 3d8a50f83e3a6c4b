"""Tables of measurements, printed and in Markdown, and lines of text about them."""

from collections.abc import Mapping, Sequence
from typing import Any

LAYERS_HEADER = ["layer", "ms", "bound, ms", "share", "GFLOP", "MB"]


def row(name: str, values: Mapping[str, Any], digits: int = 1) -> list[str]:
    """A row of a table: name, median, min, max of a summary."""
    return [name, *(f"{values[key]:,.{digits}f}" for key in ("median", "min", "max"))]


def print_table(rows: Sequence[Sequence[str]]) -> None:
    """Prints rows of cells: the first row is the header, the first column is left-aligned."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for name, *cells in rows:
        print("  ".join([name.ljust(widths[0]), *(c.rjust(w) for c, w in zip(cells, widths[1:], strict=True))]))


def print_rates(result: Mapping[str, Any]) -> None:
    """Prints the "rates" of a result, and their ratio if there is a peer."""
    print_table([["images/s", "median", "min", "max"], *(row(k, v) for k, v in result["rates"].items())])
    if "ratio" in result:
        print(f"ratio of the medians: {result['ratio']:.3f}")
        print_table([["ratio", "median", "min", "max"], row("round by round", result["paired_ratio"], 3)])


def markdown_table(rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table in Markdown: the first row is the header."""
    first, *others = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return [first, "|" + "---|" * len(rows[0]), *others]


def number(value: float) -> str:
    """A rate as text: without decimals from 100, otherwise with one."""
    return f"{value:,.0f}" if value >= 100 else f"{value:,.1f}"


def by_reason(reasons: Mapping[str, str]) -> list[tuple[str, str]]:
    """Groups {name: reason} by reason: (all names with this reason, the reason)."""
    names: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        names.setdefault(reason, []).append(name)
    return [("; ".join(alike), reason) for reason, alike in names.items()]


def verdict(name: str, value: float, target: float, *, at_most: bool = False) -> str:
    """One line: a value, its target, and "met" or "NOT met".

    Args:
      at_most: True if smaller values are better.
    """
    met = value <= target if at_most else value >= target
    return f"{name}: {value:.3f} (target {'<=' if at_most else '>='} {target}: {'met' if met else 'NOT met'})"


def first_step_text(result: Mapping[str, Any]) -> str:
    """The seconds of the first step with its compilation ("compile_s"), and whether XLA compiled it ("cold")."""
    return f"{result['compile_s']:.1f} s, {'compiled cold' if result['cold'] else 'compiled before, read from the cache'}"


def layer_rows(layers: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """The rows of a table with `LAYERS_HEADER`; the last one is for all layers together.

    Args:
      layers: see `layers.Timed`.
    """
    cells = [
        [name, f"{v['ms']['median']:.3f}", f"{v['bound_ms']:.3f}", f"{v['share']:.0%}", f"{v['flops'] / 1e9:.1f}",
         f"{v['bytes'] / 1e6:.0f}"]
        for name, v in layers.items()
    ]  # fmt: skip
    total, bound = (sum(v) for v in zip(*((v["ms"]["median"], v["bound_ms"]) for v in layers.values()), strict=True))
    return [*cells, ["all of these", f"{total:.3f}", f"{bound:.3f}", f"{bound / total:.0%}", "", ""]]
