"""Treatments side by side: means over seeds, and paired differences, with intervals for other seeds and other test images.

An arm's number varies for two reasons: another seed is another network, and other test images would give another share. All
arms see the same test images, and arms of one seed share what the seed decides, so that differences are paired in both.

The variance of a mean over S seeds is taken as v_seed + v_test: v_seed is the variance between the seeds over S; v_test is
that of the mean over resamples of the test images, the same resamples for all arms (a Poisson bootstrap: every image comes
Poisson(1) times, Hanley and MacGibbon 2006). What the two share is counted in both, so that intervals are rather too
wide. They use Student's t with Welch and Satterthwaite's degrees of freedom, S - 1 for v_seed and infinity for v_test.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import special, stats

from openset_jax.openset.metrics.intervals import LEVEL, Interval
from openset_jax.study.stats.outcomes import Outcome, Treatment

RESAMPLES, _COLUMNS = 200, 64
KNOWN = "known"  # what a number that is about known images alone is of
# what is measured: of a ranking against a kind of "none", or of the answers of a decision
RANKED = ("auroc", "oscr")
DECIDED = ("rejected", "balanced_accuracy", "expected_cost")
OF_KNOWNS = ("recall", "correct")


class Measure(NamedTuple):
    """A number of an arm.

    Attributes:
      metric: "auroc" or "oscr" of a kind or a group; "accuracy" (among the K classes) of `KNOWN`, and, where there is no
        "none" to tell them from, "one_vs_rest_auc", the mean over the K classes; and of each decision:
        "recall" (accepted) and "correct" (accepted, and the class is right) of `KNOWN`, "rejected" of a kind or a group,
        "balanced_accuracy" (the mean recall of K classes and "none"; of `KNOWN`, of K classes, where there is no "none") and
        "expected_cost" of a kind.
      of: a kind, a group, or `KNOWN`.
      decision: a name of `DECISIONS`; "" of a ranking, and of the accuracy.
    """

    metric: str
    of: str
    decision: str = ""


def poisson(key: np.ndarray, resamples: int = RESAMPLES) -> np.ndarray:
    """int64 [1 + resamples, n]: how often each image comes: once in the first row, Poisson(1) times in the others.

    A function of each image's key and the row alone, so that arms whose test images differ share those that they share.
    """
    rows = np.arange(1, resamples + 1, dtype=np.uint64)[:, None]
    x = np.asarray(key, np.uint64)[None] + rows * np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):  # splitmix64 (Steele et al. 2014)
        x = (x ^ (x >> np.uint64(shift))) * np.uint64(factor)
    uniform = ((x ^ (x >> np.uint64(31))) >> np.uint64(11)).astype(np.float64) / 2.0**53
    counts = np.searchsorted(special.pdtr(np.arange(20), 1.0), uniform, side="right")
    return np.concatenate([np.ones((1, len(key)), np.int64), counts.astype(np.int64)])


def measure(outcome: Outcome) -> dict[Measure, np.ndarray]:
    """Every number of an arm that has images behind it, float64 [1 + RESAMPLES]: of all test images, then of resamples."""
    scored, count = outcome.scored, poisson(outcome.key).astype(np.float64)
    known, k = scored.label >= 0, len(outcome.classes)
    right = known & (scored.known_class == scored.label)
    of = {kind: np.isin(scored.group, groups) & ~known for kind, groups in outcome.kinds.items()}
    of |= {g: (scored.group == g) & ~known for groups in outcome.kinds.values() for g in groups}
    of = {name: images for name, images in of.items() if images.any()}
    classes = [scored.label == i for i in range(k)]
    asked = {Measure("accuracy", KNOWN): (right, known)}
    for decision, answer in outcome.decisions.items():
        none = answer == k
        asked[Measure("recall", KNOWN, decision)] = (~none, known)
        asked[Measure("correct", KNOWN, decision)] = (answer == scored.label, known)
        asked |= {("recall", i, decision): (answer == i, images) for i, images in enumerate(classes)}
        asked |= {("cost", i, decision): (outcome.costs[i][answer], images) for i, images in enumerate(classes)}
        asked |= {Measure("rejected", name, decision): (none, images) for name, images in of.items()}
        asked |= {("cost", kind, decision): (outcome.costs[k][answer], of[kind]) for kind in outcome.kinds if kind in of}
    means = _means(count, asked)
    found = {measure: values for measure, values in means.items() if isinstance(measure, Measure)}
    for decision in outcome.decisions:
        recalls = [means["recall", i, decision] for i in range(k)]
        of_knowns = sum(outcome.deployment[i] * means["cost", i, decision] for i in range(k))
        if not of:
            found[Measure("balanced_accuracy", KNOWN, decision)] = np.mean(recalls, axis=0)
        for kind in (kind for kind in outcome.kinds if kind in of):
            rejected = found[Measure("rejected", kind, decision)]
            found[Measure("balanced_accuracy", kind, decision)] = np.sum([*recalls, rejected], axis=0) / (k + 1)
            cost = of_knowns + outcome.deployment[k] * means["cost", kind, decision]
            found[Measure("expected_cost", kind, decision)] = cost
    if of:
        for name, areas in _areas(scored.score, count, known, right, of).items():
            found |= {Measure(metric, name): area for metric, area in zip(RANKED, areas, strict=True)}
    else:
        score = -outcome.probabilities.astype(np.float64)
        each = [_areas(score[:, i], count, here, here, {KNOWN: ~here})[KNOWN][0] for i, here in enumerate(classes)]
        found[Measure("one_vs_rest_auc", KNOWN)] = np.mean(each, axis=0)
    return found


def _means(count, asked):
    """name -> the mean of values among images, of each row of counts; `asked` gives both columns, [n] each."""
    names, result = list(asked), {}
    for at in range(0, len(names), _COLUMNS):
        some = names[at : at + _COLUMNS]
        among = np.stack([asked[name][1] for name in some], 1).astype(np.float64)
        totals = count @ among
        sums = count @ (np.stack([asked[name][0] for name in some], 1) * among)
        result |= {name: _kept(sums[:, i] / np.maximum(totals[:, i], 1), totals[:, i]) for i, name in enumerate(some)}
    return result


def _areas(score, count, known, right, of):
    """name -> (AUROC, OSCR) of each row of counts, as `ranking` has them; one sort for all names, and all rows."""
    knowns = np.flatnonzero(known)
    knowns = knowns[np.argsort(score[knowns], kind="stable")]
    others = np.flatnonzero(np.any(list(of.values()), axis=0))
    ends = [np.searchsorted(score[knowns], score[others], side) for side in ("left", "right")]
    member = np.stack([images[others] for images in of.values()], 1).astype(np.float64)
    total, areas = count[:, others] @ member, []
    for counted in (count[:, knowns], count[:, knowns] * right[knowns]):
        below = np.pad(np.cumsum(counted, 1), ((0, 0), (1, 0)))
        halves = (below[:, ends[0]] + below[:, ends[1]]) * count[:, others]  # an equal is one half below
        pairs = 2 * count[:, knowns].sum(1, keepdims=True) * total
        areas.append((halves @ member) / np.maximum(pairs, 1))
    return {name: tuple(_kept(area[:, i], total[:, i]) for area in areas) for i, name in enumerate(of)}


def _kept(values, images):
    """A resample without any of the images says nothing: it keeps the number of all of them, which is in the first row."""
    return np.where(images > 0, values, values[0])


def over_seeds(values: Sequence[np.ndarray]) -> Interval:
    """The mean over seeds of numbers as `measure` gives them, or of their differences, and its 95 % interval.

    One seed tells nothing of another: its interval is (-inf, inf).
    """
    table = np.asarray(values, np.float64)  # [S, 1 + resamples]
    mean, seeds = float(table[:, 0].mean()), len(table)
    if seeds < 2:
        return Interval(mean, -np.inf, np.inf)
    of_seeds, of_test = table[:, 0].var(ddof=1) / seeds, table[:, 1:].mean(0).var(ddof=1)
    if of_seeds + of_test == 0:
        return Interval(mean, mean, mean)
    freedom = np.inf if of_seeds == 0 else (of_seeds + of_test) ** 2 / (of_seeds**2 / (seeds - 1))
    half = stats.t.ppf(0.5 + LEVEL / 2, freedom) * np.sqrt(of_seeds + of_test)
    return Interval(mean, float(mean - half), float(mean + half))


class Analysis:
    """All finished arms of an experiment.

    Args:
      outcomes: in any order; several treatments, several seeds of each.
    """

    def __init__(self, outcomes: Sequence[Outcome]):
        self._by = {outcome.treatment: {} for outcome in outcomes}
        for outcome in sorted(outcomes, key=lambda o: o.seed):
            self._by[outcome.treatment][outcome.seed] = outcome
        self._measured = functools.cache(lambda treatment, seed: measure(self._by[treatment][seed]))

    @property
    def treatments(self) -> tuple[Treatment, ...]:
        """In the order in which their arms were given, the seeds of each together."""
        return tuple(self._by)

    def outcomes(self, treatment: Treatment) -> dict[int, Outcome]:
        """seed -> outcome."""
        return self._by[treatment]

    def measures(self, treatment: Treatment) -> tuple[Measure, ...]:
        """What all its seeds have."""
        first, *others = (self._measured(treatment, seed) for seed in self._by[treatment])
        return tuple(m for m in first if all(m in other for other in others))

    def per_seed(self, treatment: Treatment, measure: Measure) -> dict[int, float]:
        """seed -> number, of the seeds that have it."""
        found = {seed: self._measured(treatment, seed) for seed in self._by[treatment]}
        return {seed: float(values[measure][0]) for seed, values in found.items() if measure in values}

    def of_test_images(self, treatment: Treatment, seed: int, measure: Measure) -> Interval | None:
        """One arm's number, and its 95 % percentile interval for other test images; None if it has none."""
        values = self._measured(treatment, seed).get(measure)
        if values is None:
            return None
        low, high = np.quantile(values[1:], [0.5 - LEVEL / 2, 0.5 + LEVEL / 2])
        return Interval(float(values[0]), float(low), float(high))

    def mean(self, treatment: Treatment, measure: Measure) -> Interval | None:
        """The mean over seeds, for other seeds and other test images; None if a seed does not have it."""
        found = [self._measured(treatment, seed).get(measure) for seed in self._by[treatment]]
        return None if any(values is None for values in found) else over_seeds(found)

    def tested_alike(self, treatments: Sequence[Treatment], of: str) -> bool:
        """Whether arms of one seed have the same groups of this kind in their test images, and so can be compared by it.

        Arms that were shown other kinds of negatives have other seen ones.
        """
        groups = {}
        for outcome in (outcome for treatment in treatments for outcome in self._by[treatment].values()):
            groups.setdefault(outcome.seed, set()).add(frozenset(outcome.kinds.get(of, ())))
        return all(len(found) == 1 for found in groups.values())

    def difference(
        self, treatment: Treatment, reference: Treatment, measure: Measure, reference_measure: Measure | None = None
    ) -> Interval | None:
        """The treatment's number less the reference's, paired by seed and test images.

        None without a seed of both, or where they are not `tested_alike`.

        Args:
          reference_measure: the reference's, where it is not the same, as that of another decision.
        """
        seeds = [seed for seed in self._by[treatment] if seed in self._by[reference]]
        pairs = [
            (self._measured(treatment, s).get(measure), self._measured(reference, s).get(reference_measure or measure))
            for s in seeds
        ]
        if not pairs or any(one is None or other is None for one, other in pairs):
            return None
        if not self.tested_alike((treatment, reference), measure.of):
            return None
        return over_seeds([one - other for one, other in pairs])
