"""How many are enough: curves of treatments that differ in one number, each point against the best. Words from numbers."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from openset_jax.openset.metrics.intervals import Interval
from openset_jax.report.sentences import title
from openset_jax.study.answer import phrases
from openset_jax.study.answer.phrases import ONE_SEED, Compared, Yardstick
from openset_jax.study.stats import axes
from openset_jax.study.stats.comparing import Comparing
from openset_jax.study.stats.outcomes import Outcome, Treatment


def amount(outcome: Outcome) -> str:
    """How many negatives, as "7,000 negatives (10x)": x is the training images of a known class."""
    if not outcome.negatives:
        return f"no negatives ({outcome.objective}, a threshold alone)"
    times = f" ({outcome.negatives / outcome.per_class:.3g}x)" if outcome.per_class else ""
    return f"{outcome.negatives:,} negatives{times}"


def kinds_of_negatives(outcome: Outcome) -> str:
    """From how many groups, as "3 groups"."""
    return f"{outcome.negative_groups:,} group" + ("s" if outcome.negative_groups != 1 else "")


def negatives(comparing: Comparing) -> Iterator[str]:
    """The section on how many negatives are enough; nothing without the axis."""
    yield from _section(comparing, axes.NEGATIVES, amount, "How many negatives are enough?")


def groups(comparing: Comparing) -> Iterator[str]:
    """The section on how many groups they must come from; nothing without the axis."""
    yield from _section(comparing, axes.GROUPS, kinds_of_negatives, "From how many kinds must they come?")


def _section(comparing: Comparing, field: str, name: Callable[[Outcome], str], heading: str) -> Iterator[str]:
    curves = axes.lines(comparing.treatments, field)
    if not curves:
        return
    yield f"## {heading}"
    for curve in curves:
        yield from comparing.context(curve[0].without(field), alone=len(curves) == 1)
        outcomes = [axes.first(comparing.analysis, treatment) for treatment in curve]
        names, counts = [name(outcome) for outcome in outcomes], [outcome.negatives for outcome in outcomes]
        if field == axes.GROUPS and max(counts) > 1.01 * min(counts):
            numbers = phrases.listed([f"{n:,}" for n in counts])
            yield f"The number of negatives differs, too ({numbers}): what follows is the effect of both."
        if other := [kind for kind in comparing.kinds if not comparing.analysis.tested_alike(curve, kind)]:
            yield (
                f"Arms are tested on {phrases.listed([title(kind) for kind in other])} of the kinds that they were shown. "
                "These differ, and nothing is compared by them."
            )
        if field == axes.GROUPS and (same := the_same_groups(comparing, curve)):
            yield f"{phrases.capital(same)}: what follows is about which they are as much as about how many."
        found = {y: curve_of for y in comparing.yardsticks if (curve_of := point_by_point(comparing, y, curve)) is not None}
        if not found:
            continue
        yield in_short({y: least_enough(c.best, c.compared) for y, c in found.items()}, names)
        yield "\n".join(f"- {enough(yardstick, names, *curve_of)}" for yardstick, curve_of in found.items())


def the_same_groups(comparing: Comparing, curve: Sequence[Treatment]) -> str:
    """Which treatments were shown the same of several groups by every seed, as "1 group is n1 in all seeds"; or ""."""
    shown = {
        t: [frozenset(o.kinds.get("seen_negatives", ())) for o in comparing.analysis.outcomes(t).values()] for t in curve
    }
    every = frozenset().union(*itertools.chain(*shown.values()))
    told = [
        f"{kinds_of_negatives(axes.first(comparing.analysis, t))} {'is' if len(found[0]) == 1 else 'are'} "
        f"{phrases.listed(sorted(found[0]))} in all seeds"
        for t, found in shown.items()
        if len(found) > 1 and len(set(found)) == 1 and found[0] != every
    ]
    return phrases.listed(told) if told else ""


class Curve(NamedTuple):
    """Points against the best of them.

    Attributes:
      best: which point has the best mean; of equals the least.
      mean: of that point.
      decision: that it is judged by; "" of a ranking.
      compared: the other points that were measured -> their difference to the best.
    """

    best: int
    mean: Interval
    decision: str
    compared: Mapping[int, Compared]


def point_by_point(comparing: Comparing, yardstick: Yardstick, curve: Sequence[Treatment]) -> Curve | None:
    """A curve by one yardstick; None where fewer than two points were measured, or not on images of the same kinds."""
    if not comparing.analysis.tested_alike(curve, yardstick.of):
        return None
    means = {i: mean for i, treatment in enumerate(curve) if (mean := comparing.best(treatment, yardstick)) is not None}
    if len(means) < 2:
        return None
    side = 1 if yardstick.higher_is_better else -1
    several = [i for i, mean in means.items() if np.isfinite(mean.number).all()]  # one seed may be the best by luck
    best = max(several or means, key=lambda i: side * means[i].number.value)
    others = {i: comparing.difference(curve[i], curve[best], yardstick) for i in means if i != best}
    compared = {i: other for i, other in others.items() if other is not None}
    return Curve(best, means[best].number, means[best].decision, compared)


def least_enough(best: int, compared: Mapping[int, Compared]) -> int | None:
    """The least point that is not worse than the best as far as can be told; None where no other has an interval."""
    told = {i: other for i, other in compared.items() if other.verdict != "one seed"}
    return min([best, *(i for i, other in told.items() if other.verdict != "worse")]) if told else None


def in_short(least: Mapping[Yardstick, int | None], names: Sequence[str]) -> str:
    """The least that cannot be told from the best, by each yardstick."""
    by = {}
    for yardstick, i in least.items():
        by.setdefault(i, []).append(yardstick.title)
    if set(by) <= {None}:
        return f"No number can be called enough: {ONE_SEED}."
    told = [f"**{names[i]}** by {phrases.listed(by[i])}" for i in sorted(i for i in by if i is not None)]
    return f"The least that cannot be told from the best: {'; '.join(told)}."


def enough(
    yardstick: Yardstick,
    names: Sequence[str],
    best: int,
    mean: Interval,
    decision: str,
    compared: Mapping[int, Compared],
) -> str:
    """What a curve says: where it is best, the least that cannot be told from that, and what less and more would cost.

    Args:
      names: of the points, the least first.
      best, mean, decision, compared: as in `Curve`.
    """
    most = 1.0 if yardstick.higher_is_better else float("inf")
    by = f", by {decision}" if decision else ""
    begin = f"**{phrases.capital(yardstick.title)}** is best with {names[best]}{by}: {phrases.number(mean, most)}."
    said = lambda points: "; ".join(f"{names[i]}: {compared[i]}" for i in points)
    points, least = sorted(compared), least_enough(best, compared)
    if least is None:
        return f"{begin} The others: {said(points)}." if points else f"{begin} No other has a seed in common with it."
    alone, points = ([i for i in points if (compared[i].verdict == "one seed") is one] for one in (True, False))
    end = f" Of one seed in common: {said(alone)}." if alone else ""
    if all(compared[i].verdict == "same" for i in points):
        begin = f"{begin} No other can be told apart from it, so that the least may be enough."
        return f"{begin} {phrases.capital(said(points))}.{end}"
    parts = [begin]
    if least < best:
        parts.append(f"{phrases.capital(names[least])} may be enough: {compared[least]}.")
    below, above = [i for i in points if i < best], [i for i in points if i > best]
    if fewer := [i for i in below if i < least]:
        parts.append(f"Fewer are not enough. {phrases.capital(said(fewer))}.")
    if between := [i for i in below if i > least]:
        parts.append(f"Between the two: {said(between)}.")
    if hurting := [i for i in above if compared[i].verdict == "worse"]:
        parts.append(f"More hurts. {phrases.capital(said(hurting))}.")
    if level := [i for i in above if compared[i].verdict == "same"]:
        parts.append(f"More does not help. {phrases.capital(said(level))}.")
    if helping := [i for i in above if compared[i].verdict == "better"]:  # the best mean is over other seeds
        parts.append(f"More helps on the seeds in common. {phrases.capital(said(helping))}.")
    if best == len(names) - 1:
        parts.append("More were not tried.")
    return " ".join(parts) + end
