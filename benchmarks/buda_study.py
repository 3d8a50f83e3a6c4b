"""The arms of an experiment of configs/buda_*.py by method and imbalance, and their outputs divided by priors.

Thresholding (Buda, Maki and Mazurowski 2018, arXiv 1710.05381, section 2.2.3) divides p(k|x) by the prior of class k in the
training images before any sampling. It needs no training: here it is another outcome of the same network.
"""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from openset_jax.data import imbalance
from openset_jax.data.imbalance import Imbalance
from openset_jax.errors import UserError
from openset_jax.openset.metrics.intervals import Interval
from openset_jax.study.stats.analysis import Analysis
from openset_jax.study.stats.arm_outcome import Outcome
from openset_jax.study.stats.measurements import KNOWN, Measurement
from openset_jax.study.stats.treatments import Treatment

BASELINE, OVER, UNDER = "baseline", "oversampling", "undersampling"
TWO_PHASE = {of: f"two-phase from {of}" for of in (OVER, UNDER)}
METHODS = (BASELINE, OVER, UNDER, *TWO_PHASE.values())
_POLICIES = {"natural": BASELINE, "oversample": OVER, "balanced": OVER, "undersample": UNDER}
_FIELDS = {imbalance.FIELD, "sampling.policy", "sampling.first_policy", "trainable"}

# a network's outputs: as they are, divided by the prior, and divided and renormalised
OWN, DIVIDED, RENORMALISED = "own", "divided", "renormalised"
THRESHOLDED = (BASELINE, OVER, UNDER)  # methods that the paper combines with thresholding

BALANCED = Imbalance("step", 1.0)  # for every mu
AUC = Measurement("one_vs_rest_auc", KNOWN)
ACCURACY = Measurement("balanced_accuracy", KNOWN, "argmax")
CORRECTED = Measurement("balanced_accuracy", KNOWN, "prior")  # divided by the effective prior of training


class Network(NamedTuple):
    """A method at an imbalance, and the use of its outputs: `OWN`, `DIVIDED` or `RENORMALISED`."""

    method: str
    at: Imbalance
    outputs: str = OWN


def divided(outcome: Outcome, *, renormalise: bool) -> Outcome:
    """The outcome with its outputs divided by the class prior of its training images before sampling.

    Args:
      renormalise: divide them by their sum, which changes the ranking of images, but no prediction.
    """
    prior = np.array(outcome.class_sizes, np.float64) / sum(outcome.class_sizes)
    ratio = outcome.probabilities.astype(np.float64) / prior
    if renormalise:
        ratio = ratio / ratio.sum(1, keepdims=True)
    answer, name = ratio.argmax(1), RENORMALISED if renormalise else DIVIDED
    return dataclasses.replace(
        outcome,
        treatment=Treatment(tuple(sorted((*outcome.treatment.fields, ("outputs", name))))),
        scored=dataclasses.replace(outcome.scored, known_class=answer),
        probabilities=ratio,
        decisions={"argmax": answer},
    )


def network(treatment: Treatment) -> Network:
    """The method and imbalance of a treatment.

    Raises:
      UserError: the treatment is not one of configs/buda_*.py.
    """
    fields = dict(treatment.fields)
    outputs = fields.pop("outputs", OWN)
    asked = imbalance.parse(fields.get(imbalance.FIELD, ""))
    policy, of = fields.get("sampling.policy", "natural"), fields.get("sampling.first_policy", "oversample")
    method = TWO_PHASE.get(_POLICIES.get(of)) if policy == "two_phase" else _POLICIES.get(policy)
    if asked is None or method is None or fields.keys() - _FIELDS:
        raise UserError(f"the arms {treatment.label!r} are not of an experiment like configs/buda_mnist.py")
    return Network(method, BALANCED if asked.rho == 1 else asked, outputs)


class Study:
    """An experiment.

    Attributes:
      name: of the data set.
      points: the step imbalances that the baseline was trained with, ordered by mu, then rho; without `BALANCED`.
      linear: the linear imbalances, ordered by rho.
    """

    def __init__(self, name: str, outcomes: Sequence[Outcome]):
        unequal = [(o, network(o.treatment).method) for o in outcomes if network(o.treatment).at != BALANCED]
        again = [divided(o, renormalise=False) for o, method in unequal if method in THRESHOLDED]
        again += [divided(o, renormalise=True) for o, method in unequal if method == BASELINE]
        self.name, self._analysis = name, Analysis([*outcomes, *again])
        self._treatment = {network(treatment): treatment for treatment in self._analysis.treatments}
        there = {n.at for n in self._treatment if n.method == BASELINE} - {BALANCED}
        self.points = tuple(sorted((p for p in there if p.form == "step"), key=lambda p: (p.mu, p.rho)))
        self.linear = tuple(sorted((p for p in there if p.form == "linear"), key=lambda p: p.rho))

    def mean(self, of: Network, measure: Measurement = AUC) -> Interval | None:
        """The mean over seeds; None if it was not measured."""
        return self._analysis.mean(self._treatment[of], measure) if of in self._treatment else None

    def difference(
        self, one: Network, other: Network, measure: Measurement = AUC, other_measure: Measurement | None = None
    ) -> Interval | None:
        """The difference one - other, paired by seed and test images; None if there is no pair."""
        if one not in self._treatment or other not in self._treatment:
            return None
        return self._analysis.difference(self._treatment[one], self._treatment[other], measure, other_measure)

    def at_points(self, difference: Callable[[Imbalance], Interval | None]) -> dict[str, Interval]:
        """The values of `difference` at all points that have one, by `label`."""
        found = {label(point): difference(point) for point in self.points}
        return {name: interval for name, interval in found.items() if interval is not None}

    def methods(self, one: str, other: str) -> dict[str, Interval]:
        """The difference of AUC between two methods, one - other, at every point."""
        return self.at_points(lambda p: self.difference(Network(one, p), Network(other, p)))

    def falls(self, varied: str) -> tuple[dict[str, Interval], dict[str, Interval]]:
        """The loss of AUC of the baseline with growing imbalance: (from each value to the next, from the first to the last).

        Args:
          varied: "rho", starting from equal classes, at each mu; or "mu", at each rho.
        """
        fixed = "mu" if varied == "rho" else "rho"
        steps: dict[str, Interval] = {}
        ends: dict[str, Interval] = {}
        for value in sorted({getattr(p, fixed) for p in self.points}):
            line = [BALANCED] if varied == "rho" else []
            line += [p for p in self.points if getattr(p, fixed) == value]  # ascending
            pairs = [(steps, *pair) for pair in itertools.pairwise(line)]
            pairs += [(ends, line[0], line[-1])] if len(line) > 1 else []
            for found, one, other in pairs:
                lost = self.difference(Network(BASELINE, one), Network(BASELINE, other))
                if lost is not None:
                    name = f"{varied}={getattr(one, varied):g} to {getattr(other, varied):g}"
                    found[f"{fixed}={value:g}, {name}"] = lost
        return steps, ends


def label(point: Imbalance) -> str:
    """The name of an imbalance in tables."""
    if point == BALANCED:
        return "equal classes"
    return f"linear, rho={point.rho:g}" if point.mu is None else f"mu={point.mu:g}, rho={point.rho:g}"
