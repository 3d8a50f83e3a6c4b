"""Whether a network of many negatives always says "none", what that costs, and why. Words from numbers."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from openset_jax.openset.metrics.intervals import Interval
from openset_jax.report.sentences import title
from openset_jax.study.answer import phrases, remedies
from openset_jax.study.answer.sample_size import amount
from openset_jax.study.stats import axes
from openset_jax.study.stats.analysis import KNOWN, Measure
from openset_jax.study.stats.comparing import Comparing
from openset_jax.study.stats.outcomes import DECISIONS, Treatment

ALWAYS = 0.05  # accepting fewer knowns than this is called always saying "none"
RANKED = 0.6  # AUROC from which there is a ranking at all; chance is 0.5
RECOVERED = 0.5  # accepting as many knowns again is called recovery


def verdict(recalls: Sequence[float]) -> str:
    """ "always", "sometimes" or "no".

    Args:
      recalls: of each seed, the share of knowns whose answer is not "none".
    """
    collapsed = [recall < ALWAYS for recall in recalls]
    return "always" if all(collapsed) else "sometimes" if any(collapsed) else "no"


class Seed(NamedTuple):
    """One collapsed network.

    Attributes:
      seed: of the arm.
      auroc: of the ranking, for other test images; None where there is nothing to rank against.
      accuracy: among the K classes.
      corrected: decision -> share of knowns that it accepts, of all decisions but the network's own.
    """

    seed: int
    auroc: Interval | None
    accuracy: Interval
    corrected: Mapping[str, float]


def why(seed: Seed, chance: float) -> str:
    """The cause of a collapse, from what the same network knows.

    Args:
      chance: the accuracy of a guess among the K classes.
    """
    knows = f"among the K classes it is right for {phrases.percent(seed.accuracy)} of known images"
    if seed.auroc is None:
        return f"Seed {seed.seed}: {knows}; nothing says whether it ranks, for there are no test images of none."
    ranking = f"its ranking has an AUROC of {phrases.number(seed.auroc)}"
    if seed.auroc.value < RANKED and seed.accuracy.low <= chance:
        return (
            f"Seed {seed.seed}: the network learned nothing: {ranking}, and {knows}, where a guess is right for "
            f"{100 * chance:.1f} %. That is a failure of the optimisation; no threshold makes up for it."
        )
    if seed.auroc.value < RANKED:
        return (
            f"Seed {seed.seed}: the network tells the classes apart ({knows}) but not known from none: {ranking}. "
            "No threshold makes up for that."
        )
    best = max(seed.corrected, key=seed.corrected.get)
    recovers = "recovers them" if seed.corrected[best] >= RECOVERED else "does not recover them"
    others = ", ".join(f"{name} {100 * recall:.1f} %" for name, recall in seed.corrected.items())
    return (
        f"Seed {seed.seed}: the ranking is there ({ranking}, and {knows}), so that it is the threshold that is misplaced; "
        f"moving it {recovers}. Accepted without training again: {others}."
    )


def most_negatives(comparing: Comparing) -> list[Treatment]:
    """Natural treatments, trained from scratch, with the most negatives; those that set fewer fields first."""
    asked = [t for t in comparing.treatments if remedies.is_natural(t) and not t.get("init_from")]
    of = {t: axes.first(comparing.analysis, t).negatives for t in asked}
    most = max(of.values(), default=0)
    return sorted((t for t in asked if of[t] == most > 0), key=lambda t: len(t.fields))


def section(comparing: Comparing) -> Iterator[str]:
    """Of each natural treatment with the most negatives; nothing where no arm had negatives."""
    asked = most_negatives(comparing)
    if not asked:
        return
    yield '## Would it always say "none"?'
    for treatment in asked:
        yield from comparing.context(treatment.without(axes.NEGATIVES), alone=len(asked) == 1)
        yield " ".join(_of_treatment(comparing, treatment))
        yield from _causes(comparing, treatment)


def _of_treatment(comparing: Comparing, treatment: Treatment) -> Iterator[str]:
    analysis, outcome = comparing.analysis, axes.first(comparing.analysis, treatment)
    own = Measure("recall", KNOWN, "argmax")
    recalls, mean = analysis.per_seed(treatment, own), analysis.mean(treatment, own)
    if outcome.scored.answer is None:
        yield (
            f'With {amount(outcome)} the objective {outcome.objective} gives no answer "none" by itself: only a threshold '
            "rejects, and nothing can collapse."
        )
        return
    collapsed = sum(recall < ALWAYS for recall in recalls.values())
    of = f"{len(recalls)} seed{'s' * (len(recalls) > 1)}"
    begin = {
        "always": f"Yes, in {collapsed} of {of}",
        "sometimes": f"Sometimes, in {collapsed} of {of}",
        "no": f"No, in none of {of}",
    }
    rule = f'"always" is more than {100 - 100 * ALWAYS:.0f} % of known images'
    each = ", ".join(f"{100 * recall:.1f}" for recall in recalls.values())
    yield (
        f"**{begin[verdict(list(recalls.values()))]}** ({rule}). With {amount(outcome)} the network's own answer accepts "
        f"{phrases.percent(mean)} of known images (by seed: {each} %)."
    )
    yield from _cost_of_the_mix(comparing, treatment)


def _cost_of_the_mix(comparing: Comparing, treatment: Treatment) -> Iterator[str]:
    analysis, recall = comparing.analysis, Measure("recall", KNOWN, "argmax")
    corrected = Measure("recall", KNOWN, "prior")
    if (gain := comparing.of_measures(treatment, treatment, corrected, recall)) is not None:
        mean = phrases.percent(analysis.mean(treatment, corrected))
        yield f"With its prior corrected (prior) the same network accepts {mean}: {phrases.points(gain)}."
    outcome = axes.first(analysis, treatment)
    line = [t for t in comparing.treatments if t.without(axes.NEGATIVES) == treatment.without(axes.NEGATIVES)]
    equal = {t: o for t in line if 0 < (o := axes.first(analysis, t)).negatives < outcome.negatives and o.per_class}
    if equal:
        nearest = min(equal, key=lambda t: abs(np.log(equal[t].negatives / equal[t].per_class)))
        if (change := comparing.of_measures(treatment, nearest, recall, recall)) is not None:
            yield f"Against the same with {amount(equal[nearest])}, it accepts by its own answer: {phrases.points(change)}."


def _causes(comparing: Comparing, treatment: Treatment) -> Iterator[str]:
    analysis, outcome = comparing.analysis, axes.first(comparing.analysis, treatment)
    recalls = analysis.per_seed(treatment, Measure("recall", KNOWN, "argmax"))
    collapsed = [seed for seed, recall in recalls.items() if recall < ALWAYS]
    if not collapsed:
        return
    yield "Why?" + (f" The ranking is that against {title(comparing.kinds[0])}." if comparing.kinds else "")
    chance = 1 / len(outcome.classes)
    yield "\n".join(f"- {why(_seed(comparing, treatment, seed), chance)}" for seed in collapsed)


def _seed(comparing: Comparing, treatment: Treatment, seed: int) -> Seed:
    number = lambda *measure: comparing.analysis.of_test_images(treatment, seed, Measure(*measure))
    accepted = {decision: number("recall", KNOWN, decision) for decision in DECISIONS if decision != "argmax"}
    return Seed(
        seed=seed,
        auroc=number("auroc", comparing.kinds[0]) if comparing.kinds else None,
        accuracy=number("accuracy", KNOWN),
        corrected={decision: share.value for decision, share in accepted.items() if share is not None},
    )
