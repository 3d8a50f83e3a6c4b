"""What training again with a remedy gains over moving the threshold of the run that is there, and other fields. Words from
numbers.

A remedy is a treatment that counters the imbalance in training: a sampling policy, class weights, logit adjustment, a weight
of the negatives. Its opposite is the natural run, which trains on the pools as they are.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from openset_jax.study.answer import phrases
from openset_jax.study.answer.phrases import Compared, Yardstick
from openset_jax.study.answer.sample_size import amount
from openset_jax.study.stats import axes
from openset_jax.study.stats.comparing import Comparing
from openset_jax.study.stats.outcomes import Treatment

# fields -> their value of a natural run
NATURAL = {
    "sampling.policy": "natural",
    "sampling.negative_fraction": None,
    "objective.class_weights": "none",
    "objective.effective_number_beta": None,
    "objective.logit_adjustment": 0,
    "objective.negative_weight": None,
}


def counters(names: Iterable[str]) -> tuple[str, ...]:
    """Those of the fields that make a remedy: of `NATURAL`, and whatever else says how to sample, but for from how many."""
    of_pools = (axes.NEGATIVES, axes.IMBALANCE)
    return tuple(n for n in names if n in NATURAL or (n.startswith("sampling.") and n not in of_pools))


def is_natural(treatment: Treatment) -> bool:
    """Whether it sets no remedy."""
    return not remedy(treatment).fields


def remedy(treatment: Treatment) -> Treatment:
    """Its remedies alone."""
    names = counters(axes.fields([treatment]))
    return Treatment(tuple((n, value) for n, value in treatment.fields if n in names and value != NATURAL.get(n)))


def section(comparing: Comparing) -> Iterator[str]:
    """The natural run's decisions against each remedy trained again, at each number of negatives; nothing without both."""
    groups, names = [], counters(axes.fields(comparing.treatments))
    for line in axes.lines(comparing.treatments, *names):
        natural, again = [t for t in line if is_natural(t)], [t for t in line if not is_natural(t)]
        if natural and again:
            groups.append((natural[0], again))
    if not groups:
        return
    yield "## Undersample, reweight, or move the threshold?"
    for natural, again in groups:
        outcome, shared = axes.first(comparing.analysis, natural), natural.without(*names, axes.NEGATIVES)
        yield f"### {phrases.capital(amount(outcome))}" + (f", {shared.label}" if shared.fields else "")
        if comparing.decided:
            yield "\n".join(_of_decisions(comparing, yardstick, natural, again) for yardstick in comparing.decided)
        rankings = {remedy(t).label: comparing.differences(t, natural, *comparing.ranked) for t in again}
        told = [phrases.bullets(f"{name}:", phrases.summary(compared)) for name, compared in rankings.items() if compared]
        if told:
            yield "The ranking of each run trained again, against the natural run's:"
            yield "\n".join(told)


def _of_decisions(comparing: Comparing, yardstick: Yardstick, natural: Treatment, again: Sequence[Treatment]) -> str:
    best = comparing.best(natural, yardstick)
    lines = [f"- **{phrases.capital(yardstick.title)}.** {_without_training(comparing, yardstick, natural)}"]
    runs = {natural: f"the natural run by {best.decision}"}
    for treatment in again:
        name, mine = remedy(treatment).label, comparing.best(treatment, yardstick)
        at_argmax = comparing.difference(treatment, natural, yardstick, "argmax", "argmax")
        at_best = comparing.difference(treatment, natural, yardstick)
        told = [f"by its own answer, against the natural run's own, {at_argmax}"] if at_argmax else []
        told += [f"by {mine.decision}, its best, against the natural run's best, {at_best}"] if at_best else []
        if told:
            lines.append(f"  - {name}, trained again: {'; '.join(told)}.")
            runs[treatment] = f"{name} by {mine.decision}"
    side = 1 if yardstick.higher_is_better else -1
    lead = max(runs, key=lambda t: side * comparing.best(t, yardstick).number.value)
    others = {runs[t]: comparing.difference(lead, t, yardstick) for t in runs if t != lead}
    others = {name: other for name, other in others.items() if other is not None}
    return "\n".join([*lines, f"  - {winner(runs[lead], others)}"] if others else lines)


def _without_training(comparing: Comparing, yardstick: Yardstick, natural: Treatment) -> str:
    best = comparing.best(natural, yardstick)
    means = {d: comparing.mean(natural, yardstick, d) for d in axes.first(comparing.analysis, natural).decisions}
    most = 1.0 if yardstick.higher_is_better else float("inf")
    told = ", ".join(f"{decision} {phrases.number(mean, most)}" for decision, mean in means.items() if mean is not None)
    gain = comparing.difference(natural, natural, yardstick, best.decision, "argmax")
    return f"The natural run, without training again: {told}." + (
        f" Its best, {best.decision}, against its own answer: {gain}." if gain else " Its own answer is its best."
    )


def winner(lead: str, others: Mapping[str, Compared]) -> str:
    """Who wins, where that can be told.

    Args:
      lead: what has the best mean.
      others: the rest -> the lead's difference to them.
    """
    if any(other.verdict == "one seed" for other in others.values()):
        return f"The best number is that of {lead}, but {phrases.ONE_SEED}: no winner."
    tied = [name for name, other in others.items() if other.verdict != "better"]
    if not tied:
        return f"**Winner: {lead}**, of {len(others) + 1}."
    return f"No winner: {lead} has the best mean, but is not told to be better than {phrases.listed(tied)}."


def retrained(comparing: Comparing) -> list[list[Treatment]]:
    """Treatments that differ in how much is trained alone, the least first: head, fc, all, from scratch."""
    lines = axes.lines(comparing.treatments, axes.TRAINABLE, "init_from")
    lines = [sorted(line, key=lambda t: [*axes.RETRAINED, None].index(_trained(t))) for line in lines]
    return [line for line in lines if len({_trained(t) for t in line}) > 1]


def _trained(treatment):
    """A value of `trainable`; None from scratch."""
    return treatment.get(axes.TRAINABLE) or ("all" if treatment.get("init_from") else None)


def layers(comparing: Comparing) -> Iterator[str]:
    """The section on retraining the last layer, or layers, alone; nothing without the axis."""
    lines = retrained(comparing)
    if not lines:
        return
    yield "## Is retraining the last layer enough?"
    if any(t.get("init_from") for line in lines for t in line):
        yield "Networks that are retrained have seen the examples of the run that they begin with, too."
    for line in lines:
        yield from comparing.context(line[0].without(axes.TRAINABLE, "init_from"), alone=len(lines) == 1)
        references = [t for t in line[1:] if _trained(t) in ("all", None)] or [line[-1]]
        told = []
        for reference in references:
            for treatment in line[: line.index(reference)]:
                compared = comparing.differences(treatment, reference, *comparing.yardsticks, comparing.accuracy)
                told += [layer_enough(layers_of(treatment), layers_of(reference), compared)] if compared else []
        yield "\n".join(told)


def layers_of(treatment: Treatment) -> str:
    """What is trained, as "retraining the last layer (head)"."""
    value = _trained(treatment)
    named = {"head": "the last layer (head)", "fc": "the fully connected layers (fc)", "all": "all layers"}
    return f"retraining {named[value]}" if value else "training from scratch"


def layer_enough(name: str, reference: str, compared: Sequence[Compared]) -> str:
    """Whether training less is as good as training more, and in what it is not; Markdown."""
    verdicts = {c.verdict for c in compared}
    said = "may be enough, no worse as far as can be told"
    if "one seed" in verdicts:
        said = "not known to be enough or not"
    elif "worse" in verdicts:
        said = "not enough"
    return phrases.bullets(f"**{phrases.capital(name)}, against {reference}: {said}.** It is", phrases.summary(compared))


def other_fields(comparing: Comparing) -> Iterator[str]:
    """A section for each field that no other section is about: each value against the first, or against no value."""
    names = axes.fields(comparing.treatments)
    taken = {axes.NEGATIVES, axes.GROUPS, axes.TRAINABLE, *counters(names)} | (
        {"init_from"} if axes.TRAINABLE in names else set()
    )
    for field in (name for name in names if name not in taken):
        lines = axes.lines(comparing.treatments, field)
        if lines:
            yield f"## Does {field} matter?"
        for line in lines:
            yield from comparing.context(line[0].without(field), alone=len(lines) == 1)
            named = [f"{t.get(field)}" if field in dict(t.fields) else "as configured" for t in line]
            told = []
            for treatment, name in zip(line[1:], named[1:], strict=True):
                compared = comparing.differences(treatment, line[0], *comparing.yardsticks, comparing.accuracy)
                told += [phrases.bullets(f"**{name}**, against {named[0]}:", phrases.summary(compared))] if compared else []
            yield "\n".join(told)
