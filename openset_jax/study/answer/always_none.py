"""The section on networks that always answer "none": whether it happens with many negatives, and why."""

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import numpy as np

from openset_jax.openset.metrics.intervals import Interval
from openset_jax.report.formatting import title
from openset_jax.study.answer import phrases
from openset_jax.study.stats.arm_outcome import DECISIONS
from openset_jax.study.stats.comparisons import Comparisons
from openset_jax.study.stats.measurements import KNOWN, Measurement
from openset_jax.study.stats.treatments import NEGATIVES, TRAINABLE, Treatment

ALWAYS = 0.05  # a network that accepts a smaller share of known images always answers "none"
RANKS = 0.6  # lowest AUROC of a ranking that counts as informative; chance is 0.5
RECOVERED = 0.5  # a decision that accepts this share of known images recovers them
OWN_RECALL = Measurement("recall", KNOWN, "argmax")


def verdict(recalls: Iterable[float]) -> str:
    """Returns "always", "sometimes" or "no": in all, some or no seeds the network accepts a smaller share than `ALWAYS`."""
    collapsed = [recall < ALWAYS for recall in recalls]
    return "always" if all(collapsed) else "sometimes" if any(collapsed) else "no"


class CollapsedNetwork(NamedTuple):
    """A network that always answers "none"."""

    seed: int
    auroc: Interval | None  # over test images; None without test images of "none"
    accuracy: Interval | None  # among the K classes; None for one class
    recalls: Mapping[str, float]  # decision -> share of known images that it accepts, for all decisions except argmax


def cause(network: CollapsedNetwork, chance: float) -> str:
    """Returns why a network always answers "none"; `chance` is the accuracy of guessing among the K classes."""
    seed, unknown, knows = f"Seed {network.seed}:", 'without test images of "none" its ranking is unknown.', ""
    if network.accuracy is not None:
        knows = f"among the K classes it classifies {phrases.percent(network.accuracy)} of known images correctly"
    if network.auroc is None:
        return f"{seed} {knows}; {unknown}" if knows else f"{seed} {unknown}"
    auroc = f"its AUROC is {phrases.number(network.auroc)}"
    found = f"{auroc}, and {knows}" if knows else auroc
    if network.auroc.value < RANKS and (network.accuracy is None or network.accuracy.low <= chance):
        compared = f", where chance is {100 * chance:.1f} %" if knows else ""
        failed = "The optimisation failed, which no threshold can correct."
        return f"{seed} the network learned nothing: {found}{compared}. {failed}"
    if network.auroc.value < RANKS:
        return (
            f'{seed} the network separates the known classes ({knows}) but not known images from "none": {auroc}. No '
            "threshold can correct this."
        )
    best = max(network.recalls, key=lambda decision: network.recalls[decision])
    recovers = "recovers" if network.recalls[best] >= RECOVERED else "does not recover"
    recalls = ", ".join(f"{decision} {100 * recall:.1f} %" for decision, recall in network.recalls.items())
    return (
        f"{seed} the ranking is informative ({found}), so the threshold is wrong; moving it {recovers} the "
        f"known images. Known images accepted without retraining: {recalls}."
    )


def most_negatives(comparisons: Comparisons) -> list[Treatment]:
    """Returns the natural treatments with the most negatives, those with the fewest fields first.

    Treatments that set the trained layers or their start are left out if there are others.
    """
    natural = [t for t in comparisons.treatments if t.is_natural]
    natural = [t for t in natural if t == t.without(TRAINABLE, "init_from")] or natural
    negatives = {t: comparisons.analysis.first(t).negatives for t in natural}
    most = max(negatives.values(), default=0)
    return sorted((t for t in natural if negatives[t] == most > 0), key=lambda t: len(t.fields))


def section(comparisons: Comparisons) -> Iterator[str]:
    """Yields the section, with one paragraph for each of `most_negatives`; nothing if no arm had negatives."""
    if not (treatments := most_negatives(comparisons)):
        return
    yield '## Does the network always answer "none"?'
    for treatment in treatments:
        yield from phrases.heading(treatment.without(NEGATIVES), alone=len(treatments) == 1)
        outcome = comparisons.analysis.first(treatment)
        if outcome.has_none_output:
            yield " ".join([_verdict(comparisons, treatment), *_effects(comparisons, treatment)])
        else:
            yield (
                f'With {phrases.negatives(outcome)} the objective {outcome.objective} has no output for "none": only a '
                'threshold rejects images, so the network cannot always answer "none" by itself.'
            )
        yield from _causes(comparisons, treatment)


def _verdict(comparisons: Comparisons, treatment: Treatment) -> str:
    analysis = comparisons.analysis
    recalls, mean = analysis.per_seed(treatment, OWN_RECALL), analysis.mean(treatment, OWN_RECALL)
    collapsed, several = sum(recall < ALWAYS for recall in recalls.values()), len(recalls) > 1
    seeds = f", in {collapsed or 'none'} of {len(recalls)} seeds" if several else ""
    start = {"always": "Yes", "sometimes": "Sometimes", "no": "No"}[verdict(recalls.values())]
    by_seed = f" (by seed: {', '.join(f'{100 * recall:.1f}' for recall in recalls.values())} %)" if several else ""
    return (
        f'**{start}{seeds}** ("always" means for more than {100 - 100 * ALWAYS:.0f} % of '
        f"known images). With {phrases.negatives(analysis.first(treatment))} the network's own answer accepts "
        f"{phrases.percent(mean)} of known images{by_seed}."
    )


def _effects(comparisons: Comparisons, treatment: Treatment) -> Iterator[str]:
    """Yields the effect of prior correction, and the difference from about one negative for each image of a known class."""
    analysis, corrected = comparisons.analysis, Measurement("recall", KNOWN, "prior")
    if (gain := comparisons.measurement_difference(treatment, treatment, corrected, OWN_RECALL)) is not None:
        mean = phrases.percent(analysis.mean(treatment, corrected))
        yield f"After prior correction (prior) the same network accepts {mean}: {phrases.points(gain)}."
    most, shared = analysis.first(treatment).negatives, treatment.without(NEGATIVES)
    outcomes = {t: analysis.first(t) for t in comparisons.treatments if t.without(NEGATIVES) == shared}
    fewer = {t: o for t, o in outcomes.items() if 0 < o.negatives < most and o.images_per_class}
    if fewer:
        nearest = min(fewer, key=lambda t: abs(np.log(fewer[t].negatives / fewer[t].images_per_class)))
        if (change := comparisons.measurement_difference(treatment, nearest, OWN_RECALL, OWN_RECALL)) is not None:
            name = phrases.negatives(fewer[nearest])
            yield f"Compared with {name}, also by the network's own answer: {phrases.points(change)}."


def _causes(comparisons: Comparisons, treatment: Treatment) -> Iterator[str]:
    analysis, kinds = comparisons.analysis, comparisons.kinds
    collapsed = [seed for seed, recall in analysis.per_seed(treatment, OWN_RECALL).items() if recall < ALWAYS]
    if collapsed:
        yield "Why?" + (f" (AUROC against {title(kinds[0])}.)" if kinds else "")
        chance = 1 / len(analysis.first(treatment).classes)
        yield "\n".join(f"- {cause(_network(comparisons, treatment, seed), chance)}" for seed in collapsed)


def _network(comparisons: Comparisons, treatment: Treatment, seed: int) -> CollapsedNetwork:
    measured = lambda *measurement: comparisons.analysis.arm_interval(treatment, seed, Measurement(*measurement))
    auroc = measured("auroc", comparisons.kinds[0]) if comparisons.kinds else None
    shares = {decision: measured("recall", KNOWN, decision) for decision in DECISIONS if decision != "argmax"}
    recalls = {decision: share.value for decision, share in shares.items() if share is not None}
    return CollapsedNetwork(seed, auroc, measured("accuracy", KNOWN), recalls)
