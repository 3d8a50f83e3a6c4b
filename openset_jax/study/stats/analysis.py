"""Means over seeds and paired differences of treatments, with 95 % intervals over seeds and test images.

A measurement varies for two reasons: another seed trains another network, and other test images give another value. All arms
see the same test images, and arms of one seed share everything that the seed decides. So differences are paired by both.

The variance of a mean over S seeds is v_seed + v_test. v_seed is the sample variance over seeds, divided by S. v_test is the
variance of the mean over resamples of the test images; all arms use the same resamples (`measurements.poisson_counts`). Both
terms contain the interaction of seeds and test images, so the intervals are slightly too wide. They use Student's t with
the degrees of freedom of Welch and Satterthwaite: S - 1 for v_seed and infinity for v_test. If both are 0, for example
because a share is 1 in all seeds, the interval is `intervals.without_variance` of the test images. Every interval is cut at
the possible range of its metric.
"""

import functools
from collections.abc import Sequence

import numpy as np
from scipy import stats

from openset_jax.openset.metrics.intervals import LEVEL, ROUNDING, Interval, percentiles, without_variance
from openset_jax.study.stats.arm_outcome import Outcome
from openset_jax.study.stats.measurements import Measurement, limits, measure
from openset_jax.study.stats.treatments import Treatment, field_names, sort_key


def over_seeds(values: Sequence[np.ndarray], images: int, least: float = 0.0, most: float = 1.0) -> Interval:
    """Returns the mean over seeds and its 95 % interval in [least, most]; with one seed the interval is (-inf, inf).

    Args:
      values: for each seed a measurement as `measure` returns it, float64 [1 + resamples], or a difference of two.
      images: number of test images, for `without_variance`.
      least, most: the possible range.
    """
    table = np.asarray(values, np.float64)  # [S, 1 + resamples]
    mean, seeds = float(table[:, 0].mean()), len(table)
    if seeds < 2:
        return Interval(mean, -np.inf, np.inf)
    v_seed, v_test = table[:, 0].var(ddof=1) / seeds, table[:, 1:].mean(0).var(ddof=1)
    if v_seed + v_test <= (ROUNDING * (most - least)) ** 2:
        return without_variance(mean, images, least, most)
    freedom = np.inf if v_seed == 0 else (v_seed + v_test) ** 2 / (v_seed**2 / (seeds - 1))
    half = stats.t.ppf(0.5 + LEVEL / 2, freedom) * np.sqrt(v_seed + v_test)
    return Interval(mean, max(least, float(mean - half)), min(most, float(mean + half)))


class Analysis:
    """All finished arms of an experiment: several treatments, several seeds of each, in any order."""

    def __init__(self, outcomes: Sequence[Outcome]):
        self._outcomes: dict[Treatment, dict[int, Outcome]] = {outcome.treatment: {} for outcome in outcomes}
        for outcome in sorted(outcomes, key=lambda o: o.seed):
            self._outcomes[outcome.treatment][outcome.seed] = outcome
        self.treatments = tuple(self._outcomes)  # in the order of their first arms
        self._measured = functools.cache(lambda treatment, seed: measure(self._outcomes[treatment][seed]))
        self._limits = functools.cache(self._limits_of)

    def ordered(self) -> tuple[Treatment, ...]:
        """Returns all treatments, sorted by their fields (`sort_key`); independent of the order of the arms."""
        names = field_names(self.treatments)

        def key(treatment):
            outcome = self.first(treatment)
            counts = {"negatives": outcome.negatives, "negative_groups": outcome.negative_groups}
            return sort_key(treatment, names, **counts, layers=outcome.training.layers)

        return tuple(sorted(self.treatments, key=key))

    def outcomes(self, treatment: Treatment) -> dict[int, Outcome]:
        """Returns seed -> outcome, sorted by seed."""
        return self._outcomes[treatment]

    def first(self, treatment: Treatment) -> Outcome:
        """Returns the outcome of the lowest seed, for the properties that all arms of a treatment share."""
        return next(iter(self._outcomes[treatment].values()))

    def measurements(self, treatment: Treatment) -> tuple[Measurement, ...]:
        """Returns the measurements that all seeds of a treatment have."""
        first, *others = (self._measured(treatment, seed) for seed in self._outcomes[treatment])
        return tuple(m for m in first if all(m in other for other in others))

    def per_seed(self, treatment: Treatment, measurement: Measurement) -> dict[int, float]:
        """Returns seed -> value, of the seeds that have this measurement."""
        return {seed: float(values[0]) for seed, values in self._values(treatment, measurement).items()}

    def _values(self, treatment: Treatment, measurement: Measurement) -> dict[int, np.ndarray]:
        """Returns seed -> values as `measure` returns them, of the seeds that have this measurement."""
        measured = {seed: self._measured(treatment, seed) for seed in self._outcomes[treatment]}
        return {seed: values[measurement] for seed, values in measured.items() if measurement in values}

    def _limits_of(self, treatment: Treatment, measurement: Measurement) -> tuple[int, float, float]:
        """Returns the `limits` of the seeds that have this measurement, the fewest images of any of them."""
        found = [limits(self._outcomes[treatment][seed], measurement) for seed in self._values(treatment, measurement)]
        return min(images for images, _, _ in found), *found[0][1:]

    def arm_interval(self, treatment: Treatment, seed: int, measurement: Measurement) -> Interval | None:
        """Returns one arm's value and its 95 % percentile interval over test images; None if it was not measured."""
        values = self._measured(treatment, seed).get(measurement)
        if values is None:
            return None
        return percentiles(float(values[0]), values[1:], *limits(self._outcomes[treatment][seed], measurement))

    def mean(self, treatment: Treatment, measurement: Measurement) -> Interval | None:
        """Returns the mean over seeds, with its interval over seeds and test images; None if any seed lacks it."""
        values = self._values(treatment, measurement)
        if len(values) < len(self._outcomes[treatment]):
            return None
        return over_seeds(list(values.values()), *self._limits(treatment, measurement))

    def tested_alike(self, treatments: Sequence[Treatment], subset: str) -> bool:
        """Returns whether the arms of each seed have the same groups of a kind among their test images.

        Arms that were trained with different groups of negatives have different seen negatives, so they cannot be compared
        on seen negatives.

        Args:
          subset: as in `Measurement`; True unless it is a kind.
        """
        outcomes = [outcome for treatment in treatments for outcome in self._outcomes[treatment].values()]
        tested = {(outcome.seed, frozenset(outcome.kinds.get(subset, ()))) for outcome in outcomes}
        return len(tested) == len({seed for seed, _ in tested})

    def difference(
        self, treatment: Treatment, reference: Treatment, measurement: Measurement, of_reference: Measurement | None = None
    ) -> Interval | None:
        """Returns the treatment's value minus the reference's, paired by seed and test images.

        None if the two have no seed in common, if one of these seeds lacks the measurement, or if the two are not
        `tested_alike`. Values that vary, but are equal on all seeds and resamples, are those of the same answers or the same
        ranking: their difference is exactly 0, with an interval of no width.

        Args:
          of_reference: measurement of the reference, such as the same metric by another decision; None for `measurement`.
        """
        seeds = [seed for seed in self._outcomes[treatment] if seed in self._outcomes[reference]]
        of_reference = of_reference or measurement
        one, other = self._values(treatment, measurement), self._values(reference, of_reference)
        differences = [one[seed] - other[seed] for seed in seeds if seed in one and seed in other]
        if not seeds or len(differences) < len(seeds) or not self.tested_alike((treatment, reference), measurement.subset):
            return None
        if len(seeds) > 1 and not np.any(differences) and np.ptp([one[seed] for seed in seeds]) > ROUNDING:
            return Interval(0.0, 0.0, 0.0)
        images, least, most = self._limits(treatment, measurement)
        return over_seeds(differences, min(images, self._limits(reference, of_reference)[0]), least - most, most - least)
