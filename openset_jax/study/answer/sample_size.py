"""The sections on how many negatives or groups of them are enough, that is, not significantly worse than the best number."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from openset_jax.openset.metrics.intervals import Interval
from openset_jax.report.formatting import title
from openset_jax.study.answer import phrases
from openset_jax.study.stats.arm_outcome import Outcome
from openset_jax.study.stats.comparisons import Comparison, Comparisons, Metric
from openset_jax.study.stats.treatments import GROUPS, Treatment, differing_only_in


def section(comparisons: Comparisons, field: str, name: Callable[[Outcome], str], heading: str) -> Iterator[str]:
    """Yields the section on the values of a field that are enough; nothing if the field does not vary.

    Args:
      field: `sampling.negatives` or `data.negative_groups`.
      name: returns the number that the field resolves to, as text.
    """
    analysis, lines = comparisons.analysis, differing_only_in(comparisons.treatments, field)
    if not lines:
        return
    yield f"## {heading}"
    for line in lines:
        yield from phrases.heading(line[0].without(field), alone=len(lines) == 1)
        outcomes = [analysis.first(treatment) for treatment in line]
        names, counts = [name(outcome) for outcome in outcomes], [outcome.negatives for outcome in outcomes]
        if field == GROUPS and max(counts) > 1.01 * min(counts):
            numbers = phrases.listed([f"{n:,}" for n in counts])
            yield f"The number of negatives differs, too ({numbers}): the differences below are the effect of both."
        if different := [kind for kind in comparisons.kinds if not analysis.tested_alike(line, kind)]:
            yield (
                f"Each arm is tested on {phrases.listed([title(kind) for kind in different])} of the kinds that it was "
                "trained on. These kinds differ between arms, so results on them are not compared."
            )
        if field == GROUPS and (same := same_groups(comparisons, line)):
            yield f"{phrases.capital(same)}: the comparison depends on which kinds these are, not only on their number."
        curves = {m: curve for m in comparisons.metrics if (curve := point_by_point(comparisons, m, line)) is not None}
        if curves:
            yield _smallest_by_metric(curves, names)
            yield "\n".join(f"- {enough(metric, names, curve)}" for metric, curve in curves.items())


def same_groups(comparisons: Comparisons, line: Sequence[Treatment]) -> str:
    """Returns the treatments with the same groups of negatives in all seeds, as "1 kind is n1 in all seeds"; or ""."""
    analysis = comparisons.analysis
    used = {t: [frozenset(o.kinds.get("seen_negatives", ())) for o in analysis.outcomes(t).values()] for t in line}
    every = frozenset().union(*itertools.chain(*used.values()))
    texts = []
    for t, (groups, *others) in used.items():
        if others and set(others) == {groups} and groups != every:
            count, verb = phrases.negative_groups(analysis.first(t)), "is" if len(groups) == 1 else "are"
            texts.append(f"{count} {verb} {phrases.listed(sorted(groups))} in all seeds")
    return phrases.listed(texts) if texts else ""


class Curve(NamedTuple):
    """Points, from the smallest number to the largest, compared with the best of them by one metric.

    Attributes:
      best: index of the point with the best mean; the smallest index if several are equal.
      mean, decision: of the best point; the decision is "" if the metric needs none.
      compared: index of every other measured point -> its difference to the best.
    """

    best: int
    mean: Interval
    decision: str
    compared: Mapping[int, Comparison]


def point_by_point(comparisons: Comparisons, metric: Metric, line: Sequence[Treatment]) -> Curve | None:
    """Compares each treatment with the best; None if fewer than two were measured, or if they were not tested alike."""
    if not comparisons.analysis.tested_alike(line, metric.subset):
        return None
    means = {i: mean for i, treatment in enumerate(line) if (mean := comparisons.best(treatment, metric)) is not None}
    if len(means) < 2:
        return None
    side = 1 if metric.higher_is_better else -1
    several = [i for i, best in means.items() if np.isfinite(best.mean).all()]  # one seed may be the best by chance
    best = max(several or means, key=lambda i: side * means[i].mean.value)
    others = {i: comparisons.difference(line[i], line[best], metric) for i in means if i != best}
    compared = {i: other for i, other in others.items() if other is not None}
    return Curve(best, means[best].mean, means[best].decision, compared)


def smallest_enough(best: int, compared: Mapping[int, Comparison]) -> int | None:
    """Returns the first point that is not significantly worse than the best; None if no other point has an interval."""
    known = {i: other for i, other in compared.items() if other.verdict != "one seed"}
    return min([best, *(i for i, other in known.items() if other.verdict != "worse")]) if known else None


def _smallest_by_metric(curves: Mapping[Metric, Curve], names: Sequence[str]) -> str:
    """Returns a sentence with the smallest number that is enough, by each metric."""
    titles: dict[int, list[str]] = {}
    for metric, curve in curves.items():
        if (i := smallest_enough(curve.best, curve.compared)) is not None:
            titles.setdefault(i, []).append(metric.title)
    if not titles:
        return "Which number is enough is unknown (one seed)."
    texts = [f"**{names[i]}** by {phrases.listed(titles[i])}" for i in sorted(titles)]
    return f"The smallest number that is not significantly worse than the best: {'; '.join(texts)}."


def enough(metric: Metric, names: Sequence[str], curve: Curve) -> str:
    """Returns the best point of a curve, the smallest that is enough, and the differences of the others to the best."""
    best, compared = curve.best, curve.compared
    by, mean = f", by {curve.decision}" if curve.decision else "", phrases.number(curve.mean)
    start = f"**{phrases.capital(metric.title)}** is best with {names[best]}{by}: {mean}."
    text = lambda points: "; ".join(f"{names[i]}: {phrases.comparison(compared[i])}" for i in points)
    points, smallest = sorted(compared), smallest_enough(best, compared)
    if smallest is None:
        return f"{start} The others: {text(points)}." if points else f"{start} No other has a seed in common with it."
    one_seed, points = ([i for i in points if (compared[i].verdict == "one seed") is one] for one in (True, False))
    end = f" With one seed in common: {text(one_seed)}." if one_seed else ""
    if all(compared[i].verdict == "not significant" for i in points):
        start = f"{start} No other is significantly different from the best, so the smallest may be enough."
        return f"{start} {phrases.capital(text(points))}.{end}"
    parts = [start]
    if smallest < best:
        parts.append(f"{phrases.capital(names[smallest])} may be enough: {phrases.comparison(compared[smallest])}.")
    below, above = [i for i in points if i < best], [i for i in points if i > best]
    if fewer := [i for i in below if i < smallest]:
        parts.append(f"Fewer are not enough. {phrases.capital(text(fewer))}.")
    if between := [i for i in below if i > smallest]:
        parts.append(f"Between the smallest that may be enough and the best: {text(between)}.")
    more = {
        "worse": "More are significantly worse.",
        "not significant": "More give no significant improvement.",
        "better": "More are better on the seeds in common.",  # the best mean also includes other seeds
    }
    for verdict, sentence in more.items():
        if some := [i for i in above if compared[i].verdict == verdict]:
            parts.append(f"{sentence} {phrases.capital(text(some))}.")
    if best == len(names) - 1:
        parts.append("More were not tried.")
    return " ".join(parts) + end
