"""Writes numbers with intervals as text that claims no more than the interval supports. Pure functions."""

from collections.abc import Sequence

import numpy as np

from openset_jax.openset.metrics.intervals import LEVEL, Interval
from openset_jax.study.stats.arm_outcome import Outcome
from openset_jax.study.stats.comparisons import Comparison
from openset_jax.study.stats.treatments import Treatment

ONE_SEED = "with one seed, differences between seeds are unknown"  # said once; numbers of one seed have "(one seed)"
_CI = f"{100 * LEVEL:.0f} % CI"


def number(interval: Interval | None) -> str:
    """Returns a mean as "0.912 (0.905 to 0.919)"; without the interval if one seed; "-" for None."""
    if interval is None:
        return "-"
    if not np.isfinite(interval[1:]).all():
        return f"{interval.value:.3f} (one seed)"
    digits = _digits(interval)
    return f"{interval.value:.{digits}f} ({interval.low:.{digits}f} to {interval.high:.{digits}f})"


def percent(interval: Interval | None) -> str:
    """Returns a share as "95.2 % (94.1 to 96.0 %)"; "-" for None."""
    if interval is None:
        return "-"
    if not np.isfinite(interval[1:]).all():
        return f"{100 * interval.value:.1f} % (one seed)"
    return f"{100 * interval.value:.1f} % ({100 * interval.low:.1f} to {100 * interval.high:.1f} %)"


def points(difference: Interval) -> str:
    """Returns a difference of shares in percentage points, as "-2.4 points (95 % CI -2.7 to -2.1)"."""
    value, low, high = (100 * x for x in difference)
    if not np.isfinite([low, high]).all():
        return f"{_signed(value, 1)} points (one seed)"
    if low == high == 0:
        return "no change"
    text = f"{_signed(value, 1)} points ({_CI} {_signed(low, 1)} to {_signed(high, 1)})"
    return f"{text}, not significant" if low <= 0 <= high else text


def comparison(compared: Comparison) -> str:
    """Returns "better by 0.012 (95 % CI 0.002 to 0.022)", or that the difference is not significant or has one seed."""
    if compared.verdict == "one seed":
        return f"{_signed(compared.difference.value, 3)} (one seed)"
    if compared.verdict == "not significant":
        return f"not significantly different ({allowed(compared)})"
    return f"{compared.verdict} by {size(compared)}"


def size(compared: Comparison) -> str:
    """Returns the absolute difference as "0.012 (95 % CI 0.002 to 0.022)"; a cost also for 1,000 images."""
    value, ends = abs(compared.difference.value), sorted(map(abs, compared.difference[1:]))
    digits = _digits(compared.difference)
    text = f"{value:.{digits}f} ({_CI} {' to '.join(f'{end:.{digits}f}' for end in ends)})"
    if compared.metric.higher_is_better:
        return text
    return f"{text} per image, {1000 * value:.1f} ({' to '.join(f'{1000 * end:.1f}' for end in ends)}) in 1,000 images"


def allowed(compared: Comparison) -> str:
    """Returns what the interval allows, as "+0.003, 95 % CI -0.010 to +0.016: the interval allows up to 0.016"."""
    value, low, high = compared.difference
    if low == high == 0:
        return "exactly 0"
    digits = _digits(compared.difference)
    interval = f"{_signed(value, digits)}, {_CI} {_signed(low, digits)} to {_signed(high, digits)}"
    cost = "" if compared.metric.higher_is_better else f" per image, {1000 * compared.bound:.1f} in 1,000 images"
    return f"{interval}: the interval allows up to {compared.bound:.{digits}f}{cost}"


def by_verdict(headline: str, compared: Sequence[Comparison]) -> str:
    """Returns a Markdown list item with sub-items: the metrics that are worse, better, not different, and of one seed."""
    parts = [f"- {headline}"]
    for verdict in ("worse", "better"):
        if some := [f"{c.metric.title} by {size(c)}" for c in compared if c.verdict == verdict]:
            parts.append(f"  - {verdict} in {listed(some)}")
    if some := [f"{c.metric.title} ({allowed(c)})" for c in compared if c.verdict == "not significant"]:
        parts.append(f"  - not significantly different in {listed(some)}")
    if some := [f"{c.metric.title} {_signed(c.difference.value, 3)}" for c in compared if c.verdict == "one seed"]:
        parts.append(f"  - {listed(some)} (one seed)")
    return "\n".join(parts)


def negatives(outcome: Outcome) -> str:
    """Returns the number of negatives, as "7,000 negatives (10x)": x is the training images of a known class."""
    if not outcome.negatives:
        return f"no negatives ({outcome.objective}, threshold only)"
    times = f" ({outcome.negatives / outcome.images_per_class:.3g}x)" if outcome.images_per_class else ""
    return f"{outcome.negatives:,} negatives{times}"


def negative_groups(outcome: Outcome) -> str:
    """Returns the number of groups of negatives, as "3 kinds"."""
    return counted(outcome.negative_groups, "kind")


def heading(shared: Treatment, *, alone: bool) -> list[str]:
    """Returns a heading with the fields that the treatments below share; none without fields if it is the only heading."""
    return [f"### {shared.label if shared.fields else capital(shared.label)}"] if shared.fields or not alone else []


def table(rows: Sequence[Sequence[str]]) -> str:
    """Returns a Markdown table; the first row is the head. In cells, "|" is escaped and line ends become spaces."""
    cell = lambda text: " ".join(text.splitlines()).replace("|", "\\|")
    lines = [f"| {' | '.join(map(cell, row))} |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])


def capital(text: str) -> str:
    """Returns the text with an upper-case first letter."""
    return text[:1].upper() + text[1:]


def listed(items: Sequence[str]) -> str:
    """Returns "a, b and c"."""
    return ", ".join(items[:-1]) + f" and {items[-1]}" if len(items) > 1 else items[0]


def counted(number: int, noun: str) -> str:
    """Returns "1 seed" or "2 seeds"."""
    return f"{number:,} {noun}{'s' if number != 1 else ''}"


def _signed(value: float, digits: int) -> str:
    return f"{round(value, digits) + 0.0:+.{digits}f}"  # never -0.000


def _digits(interval: Interval) -> int:
    """Returns the number of decimals, 3 to 6: two digits of the width; if 0 is outside, no end is rounded to 0."""
    _, low, high = interval
    needed = [(high - low) / 10] if low < high else []
    needed += [min(abs(low), abs(high))] if low * high > 0 else []
    finite = [size for size in needed if np.isfinite(size)]
    return int(np.clip(-np.floor(np.log10(min(finite))), 3, 6)) if finite else 3
