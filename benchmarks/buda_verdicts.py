"""Judges claims by paired differences with intervals. Pure functions.

A difference is significant if its interval excludes 0. What confirms a claim depends on the claim:

* it holds everywhere: every difference is significant, on the claim's side;
* it mostly holds: more than half of the differences are, and none is significant on the other side;
* something never happens: no difference is significant on the other side, and the intervals allow no opposite
  difference above `ALLOWED`. Otherwise an experiment with wide intervals would confirm every such claim.

All other outcomes are "not confirmed", whether the claim is refuted or undecided; the reason says which.
"""

from collections.abc import Callable, Mapping

import numpy as np

from openset_jax.openset.metrics.intervals import Interval
from openset_jax.study.answer.phrases import ONE_SEED

CONFIRMED, NOT_CONFIRMED, NOT_TESTED = "confirmed", "not confirmed", "not tested here"
ALLOWED = 0.05  # of AUC: the paper's repeated runs on ImageNet differ by nearly as much

Differences = Mapping[str, Interval]  # by name, positive on the claim's side
Judged = tuple[str, str]  # (verdict, reason)


def signed(interval: Interval, digits: int = 4) -> str:
    """An interval as text: +0.0120 (+0.0020 to +0.0220)."""
    value, low, high = (f"{round(x, digits) + 0.0:+.{digits}f}" for x in interval)
    return f"{value} ({low} to {high})"


def negated(interval: Interval) -> Interval:
    """The interval of the opposite difference."""
    return Interval(-interval.value, -interval.high, -interval.low)


def independent(one: Interval, other: Interval) -> Interval:
    """The interval of one - other, of two independent experiments.

    Zou and Donner 2008 (Statistics in Medicine 27:1693): the interval of a difference from those of its terms.
    """
    value = one.value - other.value
    down = np.hypot(one.value - one.low, other.high - other.value)
    up = np.hypot(one.high - one.value, other.value - other.low)
    return Interval(value, float(value - down), float(value + up))


def _finite(differences: Differences) -> dict[str, Interval]:
    return {name: d for name, d in differences.items() if np.isfinite(d).all()}


def _judged(
    differences: Differences,
    confirms: Callable[[int, int, Differences], bool],
    allowed: Callable[[Differences], float] | None = None,
) -> Judged:
    """Judges differences.

    Args:
      confirms: (number of significant ones on the claim's side, on the other side, finite differences) -> True to confirm.
      allowed: the largest opposite difference that the intervals allow, for the reason.
    """
    known = _finite(differences)
    if not known:
        return NOT_TESTED, ONE_SEED if differences else "no arm for it is finished"
    clear, contrary = [n for n, d in known.items() if d.low > 0], [n for n, d in known.items() if d.high < 0]
    order = sorted(known, key=lambda n: known[n].value)
    ends = "; ".join(f"{n}: {signed(known[n])}" for n in dict.fromkeys((order[0], order[-1])))
    reason = (
        f"significantly as claimed in {len(clear)} of {len(known)}, significantly the opposite in {len(contrary)}; "
        f"the smallest and the largest: {ends}"
    )
    reason += f"; the intervals allow up to {allowed(known):.4f} in the opposite direction" if allowed else ""
    return (CONFIRMED if confirms(len(clear), len(contrary), known) else NOT_CONFIRMED), reason


def everywhere(differences: Differences) -> Judged:
    """Confirms if each difference is significantly above 0."""
    return _judged(differences, lambda clear, contrary, known: clear == len(known))


def mostly(differences: Differences) -> Judged:
    """Confirms if more than half of the differences are significantly above 0, and none significantly below."""
    return _judged(differences, lambda clear, contrary, known: 2 * clear > len(known) and not contrary)


def never_below(differences: Differences) -> Judged:
    """Confirms if no difference is significantly below 0, and the intervals allow none below -`ALLOWED`."""
    allowed = lambda known: max(0.0, *(-d.low for d in known.values()))
    return _judged(differences, lambda _, contrary, known: not contrary and allowed(known) <= ALLOWED, allowed)


def alike(differences: Differences) -> Judged:
    """Confirms if no difference is significant, and the intervals allow none of a size above `ALLOWED`."""
    allowed = lambda known: max(max(abs(d.low), abs(d.high)) for d in known.values())
    verdict, reason = _judged(
        differences, lambda clear, contrary, known: not clear and not contrary and allowed(known) <= ALLOWED
    )
    known = _finite(differences)
    if not known:
        return verdict, reason
    significant = sum(d.low > 0 or d.high < 0 for d in known.values())
    largest = max(known, key=lambda n: abs(known[n].value))
    return verdict, (
        f"a significant difference in {significant} of {len(known)}; the largest, {largest}: {signed(known[largest])}; the "
        f"intervals allow up to {allowed(known):.4f}"
    )


def both(parts: Mapping[str, Judged]) -> Judged:
    """Judges a claim of several parts, each by its name: confirmed if all are; not tested if one is not."""
    if untested := [judged for judged in parts.values() if judged[0] == NOT_TESTED]:
        return untested[0]
    verdict = CONFIRMED if {verdict for verdict, _ in parts.values()} == {CONFIRMED} else NOT_CONFIRMED
    return verdict, ". ".join(f"{name}: {reason}" for name, (_, reason) in parts.items())
