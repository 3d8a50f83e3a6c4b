"""Numbers with intervals -> words, and nothing said beyond the interval. Pure functions."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from openset_jax.openset.metrics.intervals import Interval
from openset_jax.report.sentences import title
from openset_jax.study.stats.analysis import KNOWN

ONE_SEED = "one seed tells nothing of another"


class Yardstick(NamedTuple):
    """Something that treatments are compared by.

    Attributes:
      metric, of: as in `Measure`.
      decided: whether it is of a decision's answers, not of the ranking or the network alone.
    """

    metric: str
    of: str
    decided: bool

    @property
    def higher_is_better(self) -> bool:
        """Costs are the other way around."""
        return self.metric != "expected_cost"

    @property
    def title(self) -> str:
        """What people call it."""
        name = {"auroc": "AUROC", "oscr": "OSCR", "one_vs_rest_auc": "one-vs-rest AUC"}.get(self.metric)
        name = name or self.metric.replace("_", " ")
        if self.of == KNOWN:
            return f"known {name}"
        return f"{name} {'with' if self.decided else 'against'} {title(self.of)}"


class Compared(NamedTuple):
    """A paired difference, and what it is of."""

    yardstick: Yardstick
    difference: Interval

    @property
    def verdict(self) -> str:
        """ "better", "worse", "same" where the interval includes 0, or "one seed"."""
        value, low, high = self.difference
        if not np.isfinite([low, high]).all():
            return "one seed"
        if low <= 0 <= high:
            return "same"
        return "better" if (value > 0) == self.yardstick.higher_is_better else "worse"

    @property
    def hidden(self) -> float:
        """The largest difference, either way, that the interval does not exclude."""
        return max(abs(self.difference.low), abs(self.difference.high))

    @property
    def size(self) -> str:
        """Without its side, as "0.012 (0.002 to 0.022)"; a cost in 1,000 images, too."""
        text = lambda scale, digits: (
            f"{scale * abs(self.difference.value):.{digits}f} "
            f"({' to '.join(f'{scale * end:.{digits}f}' for end in sorted(map(abs, self.difference[1:])))})"
        )
        plain = text(1, _digits(self.difference))
        return plain if self.yardstick.higher_is_better else f"{plain} per image, {text(1000, 1)} in 1,000 images"

    @property
    def range(self) -> str:
        """What it can be, as "+0.003, -0.010 to +0.016: up to 0.016 could be hidden"."""
        value, low, high = self.difference
        if low == high == 0:
            return "exactly 0"
        digits = _digits(self.difference)
        between = f"{_signed(value, digits)}, {_signed(low, digits)} to {_signed(high, digits)}"
        thousand = "" if self.yardstick.higher_is_better else f" per image, {1000 * self.hidden:.1f} in 1,000 images,"
        return f"{between}: up to {self.hidden:.{digits}f}{thousand} could be hidden"

    def __str__(self) -> str:
        """ "better by 0.012 (0.002 to 0.022)", or that it cannot be told."""
        if self.verdict == "one seed":
            return f"{_signed(self.difference.value, 3)}, but {ONE_SEED}"
        return f"cannot be told apart ({self.range})" if self.verdict == "same" else f"{self.verdict} by {self.size}"


def number(interval: Interval | None, most: float = 1.0) -> str:
    """A mean from 0 to `most`, as "0.912 (0.905 to 0.919)"; "-" for None; of one seed without an interval."""
    if interval is None:
        return "-"
    if not np.isfinite(interval[1:]).all():
        return f"{interval.value:.3f} (one seed)"
    digits = _digits(interval)
    return f"{interval.value:.{digits}f} ({max(interval.low, 0):.{digits}f} to {min(interval.high, most):.{digits}f})"


def percent(interval: Interval | None) -> str:
    """A share, as "95.2 % (94.1 to 96.0 %)"."""
    if interval is None:
        return "-"
    if not np.isfinite(interval[1:]).all():
        return f"{100 * interval.value:.1f} % (one seed)"
    return f"{100 * interval.value:.1f} % ({100 * max(interval.low, 0):.1f} to {100 * min(interval.high, 1):.1f} %)"


def points(interval: Interval) -> str:
    """A difference of shares in percentage points."""
    value, low, high = (100 * x for x in interval)
    if not np.isfinite([low, high]).all():
        return f"{_signed(value, 1)} points, but {ONE_SEED}"
    if low == high == 0:
        return "exactly as many"
    said = f"{_signed(value, 1)} points ({_signed(low, 1)} to {_signed(high, 1)})"
    return f"{said}, which cannot be told from as many" if low <= 0 <= high else said


def summary(compared: Sequence[Compared]) -> list[str]:
    """All of them, apart by verdict: what is worse, what is better, what cannot be told."""
    parts = []
    for verdict in ("worse", "better"):
        if told := [f"{c.yardstick.title} by {c.size}" for c in compared if c.verdict == verdict]:
            parts.append(f"{verdict} in {listed(told)}")
    if told := [f"{c.yardstick.title} ({c.range})" for c in compared if c.verdict == "same"]:
        parts.append(f"cannot be told apart in {listed(told)}")
    if told := [f"{c.yardstick.title} {_signed(c.difference.value, 3)}" for c in compared if c.verdict == "one seed"]:
        parts.append(f"{listed(told)}, but {ONE_SEED}")
    return parts


def bullets(headline: str, parts: Sequence[str]) -> str:
    """Markdown: a point, and what belongs to it."""
    return "\n".join([f"- {headline}", *(f"  - {part}" for part in parts)])


def capital(text: str) -> str:
    """With its first letter large; the rest as it is."""
    return text[:1].upper() + text[1:]


def table(rows: Sequence[Sequence[str]]) -> str:
    """Markdown, the first row its head."""
    lines = [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])


def listed(items: Sequence[str]) -> str:
    """a, b and c."""
    return ", ".join(items[:-1]) + f" and {items[-1]}" if len(items) > 1 else items[0]


def decimals(size: float) -> str:
    """A size with three decimals, or two figures."""
    return f"{size:.3f}" if size >= 0.01 else f"{size:.2g}"


def _signed(value: float, digits: int) -> str:
    return f"{round(value, digits) + 0.0:+.{digits}f}"  # never -0.000


def _digits(interval: Interval) -> int:
    """Three decimals, up to six where an interval needs them: for two figures of its width, and to show that it is not 0."""
    _, low, high = interval
    needed = [(high - low) / 10] if low < high else []
    needed += [min(abs(low), abs(high))] if low * high > 0 else []
    finite = [size for size in needed if np.isfinite(size)]
    return int(np.clip(-np.floor(np.log10(min(finite))), 3, 6)) if finite else 3
