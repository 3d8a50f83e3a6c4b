"""What an answer asks of an analysis, each question counted: many intervals mean that some miss."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from openset_jax.openset.metrics.intervals import Interval
from openset_jax.study.answer import phrases
from openset_jax.study.answer.phrases import Compared, Yardstick
from openset_jax.study.stats import axes
from openset_jax.study.stats.analysis import KNOWN, Analysis, Measure
from openset_jax.study.stats.outcomes import DECISIONS, Treatment


class Best(NamedTuple):
    """A mean over seeds, and the decision that it is of; "" where none is needed."""

    decision: str
    number: Interval


class Comparing:
    """Yardsticks of an experiment, and paired differences by them.

    Attributes:
      analysis, treatments: the treatments in the order of `axes.ordered`.
      kinds: of "none" that have test images in every arm.
      yardsticks: all that treatments are compared by, rankings first.
    """

    def __init__(self, analysis: Analysis):
        self.analysis, self.treatments = analysis, axes.ordered(analysis)
        measured = set.intersection(*(set(analysis.measures(treatment)) for treatment in self.treatments))
        named = dict.fromkeys(kind for treatment in self.treatments for kind in axes.first(analysis, treatment).kinds)
        self.kinds = tuple(kind for kind in named if Measure("auroc", kind) in measured)
        ranked = [Yardstick(metric, kind, False) for kind in self.kinds for metric in ("auroc", "oscr")]
        decided = [Yardstick(m, kind, True) for kind in self.kinds for m in ("balanced_accuracy", "expected_cost")]
        if not self.kinds:
            ranked, decided = [Yardstick("one_vs_rest_auc", KNOWN, False)], [Yardstick("balanced_accuracy", KNOWN, True)]
        there = {(measure.metric, measure.of) for measure in measured}
        self.ranked, self.decided = (tuple(y for y in of if (y.metric, y.of) in there) for of in (ranked, decided))
        self.accuracy = Yardstick("accuracy", KNOWN, False)
        self._asked = set()

    @property
    def yardsticks(self) -> tuple[Yardstick, ...]:
        """Of rankings, then of decisions."""
        return (*self.ranked, *self.decided)

    @property
    def asked(self) -> int:
        """How many different paired differences with an interval were asked for."""
        return len(self._asked)

    def mean(self, treatment: Treatment, yardstick: Yardstick, decision: str = "") -> Interval | None:
        """The mean over seeds; None where it was not measured."""
        return self.analysis.mean(treatment, Measure(yardstick.metric, yardstick.of, decision))

    def best(self, treatment: Treatment, yardstick: Yardstick) -> Best | None:
        """By the decision whose mean is best for this treatment, the first of equals; None where it was not measured."""
        side = 1 if yardstick.higher_is_better else -1
        means = [(d, self.mean(treatment, yardstick, d)) for d in (DECISIONS if yardstick.decided else [""])]
        found = [Best(decision, mean) for decision, mean in means if mean is not None]
        return max(found, key=lambda b: side * b.number.value, default=None)

    def difference(
        self,
        treatment: Treatment,
        reference: Treatment,
        yardstick: Yardstick,
        decision: str | None = None,
        reference_decision: str | None = None,
    ) -> Compared | None:
        """Treatment less reference, paired; each by its best decision, unless one is said. None where there is no pair."""
        measures = []
        for one, name in ((treatment, decision), (reference, reference_decision)):
            if name is None:
                best = self.best(one, yardstick)
                name = best.decision if best else ""
            measures.append(Measure(yardstick.metric, yardstick.of, name))
        found = self.of_measures(treatment, reference, *measures)
        return None if found is None else Compared(yardstick, found)

    def of_measures(
        self, treatment: Treatment, reference: Treatment, measure: Measure, reference_measure: Measure
    ) -> Interval | None:
        """The paired difference of two numbers; None where there is no pair, or it is a number less itself."""
        if (treatment, measure) == (reference, reference_measure):
            return None
        found = self.analysis.difference(treatment, reference, measure, reference_measure)
        if found is not None and np.isfinite(found).all():
            self._asked.add(frozenset({(treatment, measure), (reference, reference_measure)}))
        return found

    def differences(self, treatment: Treatment, reference: Treatment, *yardsticks: Yardstick) -> list[Compared]:
        """Those of several yardsticks that were measured."""
        found = [self.difference(treatment, reference, yardstick) for yardstick in yardsticks]
        return [compared for compared in found if compared is not None]

    def context(self, shared: Treatment, *, alone: bool) -> Iterator[str]:
        """A heading of what the treatments that follow share; none where that is the experiment's own fields, alone."""
        if shared.fields or not alone:
            yield f"### {phrases.capital(shared.label)}" if not shared.fields else f"### {shared.label}"
