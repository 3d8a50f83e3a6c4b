"""The section on methods against class imbalance: training with a method compared with moving the threshold.

A method is a sampling policy, class weights, logit adjustment, or a weight of the negatives. The natural run has none of
them: it trains on the pools as they are.
"""

from collections.abc import Iterator, Sequence

from openset_jax.study.answer import phrases
from openset_jax.study.stats.comparisons import Best, Comparison, Comparisons, Metric
from openset_jax.study.stats.treatments import NEGATIVES, Treatment, differing_only_in, field_names, imbalance_fields


def methods(comparisons: Comparisons) -> list[tuple[Treatment, list[Treatment]]]:
    """Returns natural runs, each with the runs that differ from it in methods against class imbalance only."""
    result = []
    for line in differing_only_in(comparisons.treatments, *imbalance_fields(field_names(comparisons.treatments))):
        natural, others = [t for t in line if t.is_natural], [t for t in line if not t.is_natural]
        if others:
            result += [(t, others) for t in natural]
    return result


def section(comparisons: Comparisons) -> Iterator[str]:
    """Yields the section, with one part for each number of negatives; nothing without a natural run and a method."""
    if not (groups := methods(comparisons)):
        return
    yield "## Undersample, reweight, or move the threshold?"
    yield "The natural run trains on the images as they are, without a method against class imbalance."
    for natural, others in groups:
        shared = natural.without(*imbalance_fields(dict(natural.fields)), NEGATIVES)
        outcome = comparisons.analysis.first(natural)
        yield f"### {phrases.capital(phrases.negatives(outcome))}" + (f", {shared.label}" if shared.fields else "")
        if comparisons.decided:
            yield "\n".join(_by_decisions(comparisons, metric, natural, others) for metric in comparisons.decided)
        rankings = [(t, compared) for t in others if (compared := comparisons.differences(t, natural, *comparisons.ranked))]
        if rankings:
            yield "The ranking of each run trained again, compared with the natural run's:"
            yield "\n".join(phrases.by_verdict(f"{t.imbalance_method.label}:", compared) for t, compared in rankings)


def _by_decisions(comparisons: Comparisons, metric: Metric, natural: Treatment, others: Sequence[Treatment]) -> str:
    best = {t: by for t in (natural, *others) if (by := comparisons.best(t, metric)) is not None}
    lines = [f"- **{phrases.capital(metric.title)}.** {_without_retraining(comparisons, metric, natural, best[natural])}"]
    runs = {natural: f"the natural run by {best[natural].decision}"}
    for treatment in (t for t in others if t in best):
        name, decision = treatment.imbalance_method.label, best[treatment].decision
        at_argmax = comparisons.difference(treatment, natural, metric, ("argmax", "argmax"))
        at_best = comparisons.difference(treatment, natural, metric)
        texts = [f"both by argmax, {phrases.comparison(at_argmax)}"] if at_argmax else []
        texts += [f"each by its best decision (here {decision}), {phrases.comparison(at_best)}"] if at_best else []
        if texts:
            lines.append(f"  - {name}, trained again, compared with the natural run: {'; '.join(texts)}.")
            runs[treatment] = f"{name} by {decision}"
    side = 1 if metric.higher_is_better else -1
    lead = max(runs, key=lambda t: side * best[t].mean.value)
    compared = [(runs[t], comparisons.difference(lead, t, metric)) for t in runs if t != lead]
    paired = [(name, comparison) for name, comparison in compared if comparison is not None]
    return "\n".join([*lines, f"  - {winner(runs[lead], paired)}"] if paired else lines)


def _without_retraining(comparisons: Comparisons, metric: Metric, natural: Treatment, best: Best) -> str:
    means = {d: comparisons.mean(natural, metric, d) for d in comparisons.analysis.first(natural).decisions}
    text = ", ".join(f"{d} {phrases.number(mean)}" for d, mean in means.items() if mean is not None)
    start = f"The natural run by each decision: {text}. The best decision"
    gain = comparisons.difference(natural, natural, metric, (best.decision, "argmax"))
    return f"{start}, {best.decision}, compared with argmax: {phrases.comparison(gain)}." if gain else f"{start} is argmax."


def winner(lead: str, others: Sequence[tuple[str, Comparison]]) -> str:
    """Returns a sentence that names the winner: the run with the best mean, if it is significantly better than all others.

    Args:
      others: (name, difference, lead minus other) of every other run; several may have the same name.
    """
    if any(other.verdict == "one seed" for _, other in others):
        return f"No winner: {lead} has the best mean (one seed)."
    tied = [name for name, other in others if other.verdict != "better"]
    if not tied:
        return f"**Winner: {lead}**, of {len(others) + 1} runs."
    return f"No winner: {lead} has the best mean, but is not significantly better than {phrases.listed(tied)}."
