"""The first lines of ANSWER.md: one sentence for each question, derived from the numbers."""

from collections.abc import Callable, Iterator, Sequence

from openset_jax.study.answer import always_none, imbalance_methods, phrases, retraining, sample_size
from openset_jax.study.stats.arm_outcome import Outcome
from openset_jax.study.stats.comparisons import Comparisons, Metric
from openset_jax.study.stats.treatments import GROUPS, NEGATIVES, Treatment, differing_only_in


def sentences(comparisons: Comparisons) -> Iterator[str]:
    """Yields one sentence for each question that the experiment has treatments for."""
    yield from _always_none(comparisons)
    yield from _enough(comparisons, NEGATIVES, phrases.negatives, "How many negatives?")
    yield from _enough(comparisons, GROUPS, phrases.negative_groups, "How many kinds of negatives?")
    yield from _methods(comparisons)
    yield from _layers(comparisons)


def _always_none(comparisons: Comparisons) -> Iterator[str]:
    analysis = comparisons.analysis
    for treatment in always_none.most_negatives(comparisons)[:1]:
        if (outcome := analysis.first(treatment)).has_none_output:
            verdict = always_none.verdict(analysis.per_seed(treatment, always_none.OWN_RECALL).values())
            start = {"always": "Yes", "sometimes": "In some seeds", "no": "No"}[verdict]
            mean = phrases.percent(analysis.mean(treatment, always_none.OWN_RECALL))
            accepts = f"with {phrases.negatives(outcome)} the network's own answer accepts {mean} of known images"
            yield f'**Always "none"?** {start}: {accepts}.'


def _enough(comparisons: Comparisons, field: str, name: Callable[[Outcome], str], question: str) -> Iterator[str]:
    """Yields a sentence on the line of treatments that sets the fewest other fields, by each AUROC."""
    lines = sorted(differing_only_in(comparisons.treatments, field), key=lambda line: len(line[0].without(field).fields))
    if not lines:
        return
    names = [name(comparisons.analysis.first(treatment)) for treatment in lines[0]]
    curves = {metric: sample_size.point_by_point(comparisons, metric, lines[0]) for metric in _without_oscr(comparisons)}
    texts = [_enough_by(comparisons, m, lines[0], names, curve) for m, curve in curves.items() if curve is not None]
    if texts:
        same = sample_size.same_groups(comparisons, lines[0]) if field == GROUPS else ""
        yield f"**{question}** {phrases.capital('; '.join(texts))}{f' ({same})' if same else ''}."


def _enough_by(
    comparisons: Comparisons, metric: Metric, line: Sequence[Treatment], names: Sequence[str], curve: sample_size.Curve
) -> str:
    smallest = sample_size.smallest_enough(curve.best, curve.compared)
    if smallest is None:
        return f"by {metric.title}, it is unknown which number is enough (one seed)"
    mean = f"with a mean of {phrases.number(comparisons.mean(line[smallest], metric))}"
    worse = [i for i in range(smallest) if i in curve.compared]
    bounds = [other.bound for other in curve.compared.values() if other.verdict == "not significant"]
    text = f"by {metric.title}, "
    if smallest < curve.best:
        bound = curve.compared[smallest].bound
        text += f"{names[smallest]} may be enough, {mean}; with {names[curve.best]} the mean is {_not_better(bound)}"
    elif worse:
        text += f"it takes {names[smallest]}, {mean}"
    elif bounds:
        text += f"{names[smallest]} may be enough, {mean}; with more the mean is {_not_better(max(bounds))}"
    else:
        text += f"it is best with {names[smallest]}, {mean}"
    nearest = worse[-1:] or ([] if bounds else sorted(curve.compared)[:1])
    return text + "".join(f"; with {names[i]} the mean is {phrases.comparison(curve.compared[i])}" for i in nearest)


def _not_better(bound: float) -> str:
    number = f"{bound:.3f}" if bound >= 0.01 else f"{bound:.2g}"
    return f"not significantly better (the interval allows up to {number})"


def _methods(comparisons: Comparisons) -> Iterator[str]:
    """Yields a sentence on imbalance methods compared with natural runs with the same number of negatives."""
    pairs = [(t, natural) for natural, others in imbalance_methods.methods(comparisons) for t in others]
    metrics = [metric for metric in comparisons.decided if metric.name == "balanced_accuracy"]
    texts = [text for metric in metrics if (text := _better_methods(comparisons, metric, pairs))]
    if texts:
        yield f"**Resample, reweight, or move the threshold?** {phrases.capital('; '.join(texts))}."


def _better_methods(comparisons: Comparisons, metric: Metric, pairs: Sequence[tuple[Treatment, Treatment]]) -> str:
    differences = {t: comparisons.difference(t, natural, metric) for t, natural in pairs}
    compared = {t: c for t, c in differences.items() if c is not None and c.verdict != "one seed"}
    if not compared:
        return ""
    better = [f"`{t.label}` by {phrases.size(c)}" for t, c in compared.items() if c.verdict == "better"]
    worse = sum(c.verdict == "worse" for c in compared.values())
    count = phrases.counted(len(compared), "imbalance method")
    gain = f"significantly better: {phrases.listed(better)}" if better else "none is significantly better"
    return (
        f"in {metric.title}, {count} trained again, compared with the natural run (no method, equally many negatives), "
        f"each by its best decision: {gain}; {worse} significantly worse, {len(compared) - worse - len(better)} not "
        "significantly different"
    )


def _layers(comparisons: Comparisons) -> Iterator[str]:
    for line in retraining.lines(comparisons)[:1]:
        yield f"**How much of the network?** {retraining.verdict(comparisons, line)}"


def _without_oscr(comparisons: Comparisons) -> list[Metric]:
    return [metric for metric in comparisons.ranked if metric.name != "oscr"]
