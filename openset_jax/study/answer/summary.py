"""The answer in a sentence for each question, for whoever reads no further. Each is derived from the numbers."""

from collections.abc import Iterator, Sequence

from openset_jax.study.answer import collapse, phrases, remedies, sample_size
from openset_jax.study.answer.phrases import Compared, Yardstick
from openset_jax.study.stats import axes
from openset_jax.study.stats.analysis import KNOWN, Measure
from openset_jax.study.stats.comparing import Comparing
from openset_jax.study.stats.outcomes import Treatment


def sentences(comparing: Comparing) -> Iterator[str]:
    """One for each question that the experiment has treatments for."""
    yield from _collapse(comparing)
    yield from _enough(comparing, axes.NEGATIVES, sample_size.amount, "How many negatives?")
    yield from _enough(comparing, axes.GROUPS, sample_size.kinds_of_negatives, "From how many kinds?")
    yield from _remedies(comparing)
    yield from _layers(comparing)


def _collapse(comparing: Comparing) -> Iterator[str]:
    for treatment in collapse.most_negatives(comparing)[:1]:
        outcome = axes.first(comparing.analysis, treatment)
        if outcome.scored.answer is None:
            continue
        own = Measure("recall", KNOWN, "argmax")
        said = collapse.verdict(list(comparing.analysis.per_seed(treatment, own).values()))
        begin = {"always": "Yes", "sometimes": "In some seeds", "no": "No"}[said]
        mean = phrases.percent(comparing.analysis.mean(treatment, own))
        amount = sample_size.amount(outcome)
        yield f'**Always "none"?** {begin}: with {amount} the network accepts {mean} of known images by its own answer.'


def _enough(comparing, field, name, question) -> Iterator[str]:
    """Of the curve that sets the fewest other fields, by AUROC, or what takes its place."""
    curves = sorted(axes.lines(comparing.treatments, field), key=lambda curve: len(curve[0].without(field).fields))
    if not curves:
        return
    curve, told = curves[0], []
    names = [name(axes.first(comparing.analysis, treatment)) for treatment in curve]
    for yardstick in comparing.ranked:
        if yardstick.metric == "oscr" or (found := sample_size.point_by_point(comparing, yardstick, curve)) is None:
            continue
        least = sample_size.least_enough(found.best, found.compared)
        if least is None:
            told.append(f"by {yardstick.title} no number can be called enough, for {phrases.ONE_SEED}")
            continue
        mean, worse = comparing.mean(curve[least], yardstick), [i for i in range(least) if i in found.compared]
        alike = [other.hidden for other in found.compared.values() if other.verdict == "same"]
        text = f"by {yardstick.title} "
        if least < found.best:
            hidden = found.compared[least].hidden
            text += f"{names[least]} may be enough, {phrases.number(mean)}: {names[found.best]} {_not_told(hidden)}"
        elif worse:
            text += f"it takes {names[least]}, {phrases.number(mean)}"
        elif alike:
            text += f"{names[least]} may be enough, {phrases.number(mean)}: more {_not_told(max(alike))}"
        else:
            text += f"it is best with {names[least]}, {phrases.number(mean)}"
        nearest = worse[-1:] or ([] if alike else sorted(found.compared)[:1])
        told.append(text + "".join(f"; with {names[i]} it is {found.compared[i]}" for i in nearest))
    if told:
        same = sample_size.the_same_groups(comparing, curve) if field == axes.GROUPS else ""
        yield f"**{question}** {phrases.capital('; '.join(told))}{f' ({same})' if same else ''}."


def _not_told(hidden: float) -> str:
    return f"cannot be told to be better, though a difference of up to {phrases.decimals(hidden)} could be hidden"


def _remedies(comparing: Comparing) -> Iterator[str]:
    """Remedies against the natural run with as many negatives, each by its best decision."""
    names = remedies.counters(axes.fields(comparing.treatments))
    pairs = []
    for line in axes.lines(comparing.treatments, *names):
        natural = [t for t in line if remedies.is_natural(t)]
        pairs += [(t, natural[0]) for t in line if natural and not remedies.is_natural(t)]
    told = [text for yardstick in comparing.decided if (text := _won(comparing, yardstick, pairs))]
    if told:
        yield f"**Resample, reweight, or move the threshold?** {phrases.capital('; '.join(told))}."


def _won(comparing: Comparing, yardstick: Yardstick, pairs: Sequence[tuple[Treatment, Treatment]]) -> str:
    compared = {t: comparing.difference(t, natural, yardstick) for t, natural in pairs}
    compared = {t: c for t, c in compared.items() if c is not None and c.verdict != "one seed"}
    if yardstick.metric != "balanced_accuracy" or not compared:
        return ""
    by = {v: [t for t, c in compared.items() if c.verdict == v] for v in ("better", "worse")}
    best = [f"{t.label} by {compared[t].size}" for t in by["better"]]
    better = f"better: {phrases.listed(best)}" if best else "none is better"
    alike = len(compared) - len(by["worse"]) - len(best)
    return (
        f"in {yardstick.title}, of {len(compared)} remedies trained again, against the natural run with its threshold or "
        f"its prior moved, {better}; {len(by['worse'])} worse, {alike} cannot be told apart"
    )


def _layers(comparing: Comparing) -> Iterator[str]:
    for line in remedies.retrained(comparing)[:1]:
        least, *more = line
        alike = [t for t in more if bool(t.get("init_from")) == bool(least.get("init_from"))]  # like with like
        most = (alike or more)[-1]
        told = comparing.differences(least, most, *(y for y in comparing.ranked if y.metric != "oscr"), comparing.accuracy)
        if told:
            said = phrases.listed([f"{c.yardstick.title} {_short(c)}" for c in told])
            names = f"{phrases.capital(remedies.layers_of(least))}, against {remedies.layers_of(most)}"
            yield f"**How much of the network?** {names}: {said}."


def _short(compared: Compared) -> str:
    return "cannot be told apart" if compared.verdict == "same" else str(compared)
