"""Compares treatments by metrics, and counts the differences examined: of their intervals, some miss the truth by chance."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from openset_jax.openset.metrics.intervals import Interval
from openset_jax.report.formatting import title
from openset_jax.study.stats.analysis import Analysis
from openset_jax.study.stats.arm_outcome import DECISIONS
from openset_jax.study.stats.measurements import KNOWN, Measurement
from openset_jax.study.stats.treatments import Treatment

_RANKING, _DECIDED = ("auroc", "oscr"), ("balanced_accuracy", "expected_cost")
_TITLES = {"auroc": "AUROC", "oscr": "OSCR", "one_vs_rest_auc": "one-vs-rest AUC"}


class Metric(NamedTuple):
    """A metric that treatments are compared by: a `Measurement` whose decision is not chosen yet."""

    name: str  # `Measurement.metric`
    subset: str  # `Measurement.subset`

    @property
    def needs_decision(self) -> bool:
        """True if the metric is computed from answers; False if from scores or from the known classes."""
        return self.name in _DECIDED

    @property
    def higher_is_better(self) -> bool:
        """False for costs."""
        return self.name != "expected_cost"

    @property
    def title(self) -> str:
        """The name in sentences and headings."""
        name = _TITLES.get(self.name, self.name.replace("_", " "))
        if self.subset == KNOWN:
            return f"known {name}"
        return f"{name} {'with' if self.needs_decision else 'against'} {title(self.subset)}"

    def by(self, decision: str) -> Measurement:
        """Returns the metric measured with the answers of a decision; "" for a metric that needs none."""
        return Measurement(self.name, self.subset, decision)


class Comparison(NamedTuple):
    """The paired difference of two treatments by a metric, treatment minus reference."""

    metric: Metric
    difference: Interval

    @property
    def verdict(self) -> str:
        """ "better", "worse", "not significant" if the interval includes 0, or "one seed" if there is no interval."""
        value, low, high = self.difference
        if not np.isfinite([low, high]).all():
            return "one seed"
        if low <= 0 <= high:
            return "not significant"
        return "better" if (value > 0) == self.metric.higher_is_better else "worse"

    @property
    def bound(self) -> float:
        """The largest absolute difference that the interval allows."""
        return max(abs(self.difference.low), abs(self.difference.high))


class Best(NamedTuple):
    """A decision and the mean over seeds by this decision; "" if the metric needs no decision."""

    decision: str
    mean: Interval


class Comparisons:
    """The metrics that all treatments of an experiment have, and paired differences by these metrics.

    Attributes:
      treatments: in the order of `Analysis.ordered`.
      kinds: kinds of "none" with test images in every arm.
      ranked, decided, metrics: metrics that need no decision, except the known accuracy; those that need one; both.
      closed: the accuracy among the K classes; empty if it was not measured, because there is one class.
      examined: the distinct paired differences with an interval that were requested so far.
    """

    def __init__(self, analysis: Analysis):
        self.analysis, self.treatments = analysis, analysis.ordered()
        measured = set.intersection(*(set(analysis.measurements(treatment)) for treatment in self.treatments))
        kinds = dict.fromkeys(kind for treatment in self.treatments for kind in analysis.first(treatment).kinds)
        self.kinds = tuple(kind for kind in kinds if Measurement("auroc", kind) in measured)
        ranked = [Metric(name, kind) for kind in self.kinds for name in _RANKING]
        decided = [Metric(name, kind) for kind in self.kinds for name in _DECIDED]
        if not self.kinds:
            ranked, decided = [Metric("one_vs_rest_auc", KNOWN)], [Metric("balanced_accuracy", KNOWN)]
        available = {(measurement.metric, measurement.subset) for measurement in measured}
        metrics_of = lambda wanted: tuple(metric for metric in wanted if metric in available)
        self.closed, self.ranked, self.decided = map(metrics_of, ([Metric("accuracy", KNOWN)], ranked, decided))
        self.metrics = (*self.ranked, *self.decided)
        self.examined: set[frozenset[tuple[Treatment, Measurement]]] = set()

    def mean(self, treatment: Treatment, metric: Metric, decision: str = "") -> Interval | None:
        """Returns the mean over seeds; None if it was not measured."""
        return self.analysis.mean(treatment, metric.by(decision))

    def best(self, treatment: Treatment, metric: Metric) -> Best | None:
        """Returns the decision with the best mean (the first, if equal); None if the metric was not measured."""
        side = 1 if metric.higher_is_better else -1
        decisions = DECISIONS if metric.needs_decision else ("",)
        measured = [Best(d, mean) for d in decisions if (mean := self.mean(treatment, metric, d)) is not None]
        return max(measured, key=lambda best: side * best.mean.value, default=None)

    def difference(
        self, treatment: Treatment, reference: Treatment, metric: Metric, decisions: Sequence[str] | None = None
    ) -> Comparison | None:
        """Compares two treatments; None if `Analysis.difference` is None.

        Args:
          decisions: of the treatment and of the reference; None for the best decision of each.
        """
        if decisions is None:
            bests = [self.best(one, metric) for one in (treatment, reference)]
            decisions = [best.decision if best else "" for best in bests]
        difference = self.measurement_difference(treatment, reference, *map(metric.by, decisions))
        return None if difference is None else Comparison(metric, difference)

    def measurement_difference(
        self, treatment: Treatment, reference: Treatment, measurement: Measurement, reference_measurement: Measurement
    ) -> Interval | None:
        """Returns `Analysis.difference`, and counts it if it has an interval; None for a measurement minus itself."""
        if (treatment, measurement) == (reference, reference_measurement):
            return None
        difference = self.analysis.difference(treatment, reference, measurement, reference_measurement)
        if difference is not None and np.isfinite(difference).all():
            self.examined.add(frozenset({(treatment, measurement), (reference, reference_measurement)}))
        return difference

    def differences(self, treatment: Treatment, reference: Treatment, *metrics: Metric) -> list[Comparison]:
        """Compares two treatments by several metrics; leaves out metrics whose difference is None."""
        return [c for metric in metrics if (c := self.difference(treatment, reference, metric)) is not None]
