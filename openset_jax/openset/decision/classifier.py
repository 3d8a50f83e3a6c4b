"""From logits to probabilities and decisions: all that is fitted on validation images, saved with a run, and used unchanged.

The posterior of every objective is the same vector, p over {class 1..K, none}: of K + 1 softmax outputs as it is, of
sigmoids decoded, of networks that have no output for "none" from their score, calibrated on validation negatives. Then
comes the prior of the deployment. Ranking uses the score, never a probability near 0 or 1, where ties hide the order.
"""

import dataclasses
from typing import Any

import numpy as np

from openset_jax.openset import checks
from openset_jax.openset.decision import calibration, posterior, thresholds
from openset_jax.openset.decision.thresholds import Rule, Threshold
from openset_jax.openset.losses import objectives
from openset_jax.openset.metrics.evaluation import Scored
from openset_jax.openset.scores import logit_scores

CALIBRATIONS = ("", *calibration.KINDS)


def read(objective: str, logits: np.ndarray, label: np.ndarray, group: np.ndarray) -> Scored:
    """What logits say by themselves, without anything fitted.

    Args:
      objective: name of the one that the network was trained with.
      logits: float [n, outputs].
      label, group: of each image, as `Scored` has them.
    """
    chosen = objectives.get(objective)
    known = _known(chosen, logits)
    answer = known.argmax(1)
    if chosen.none_output:
        own = logits.argmax(1)
    else:
        own = None if chosen.softmax else np.where(known.max(1) > 0, answer, known.shape[1])
    return Scored(label, group, score(objective, logits), answer, own)


def score(objective: str, logits: np.ndarray) -> np.ndarray:
    """How unknown, float64 [n], larger = more unknown: what AUROC ranks and the threshold is compared with."""
    chosen = objectives.get(objective)
    return getattr(logit_scores, chosen.score)(logits if chosen.none_output else _known(chosen, logits))


def _known(objective, logits):
    return logits[:, :-1] if objective.none_output else logits


@dataclasses.dataclass(frozen=True, eq=False)
class Classifier:
    """What was fitted.

    Attributes:
      objective: its name.
      classes: the K known ones.
      temperature: of the logits.
      none: from the score to p(none), None where the outputs say it themselves.
      fitted_prior: float64 [K + 1], under which that posterior holds.
      prior: float64 [K + 1], of the deployment.
      costs: float64 [K + 1, K + 1], rows truth, columns answer.
      rule, threshold: see `decision`.
    """

    objective: str
    classes: tuple[str, ...]
    temperature: calibration.Calibrator
    none: calibration.Calibrator | None
    fitted_prior: np.ndarray
    prior: np.ndarray
    costs: np.ndarray
    rule: Rule
    threshold: Threshold

    @property
    def has_posterior(self) -> bool:
        """Whether anything told the network of "none": its objective, or validation negatives."""
        chosen = objectives.get(self.objective)
        return self.none is not None or chosen.none_output or not chosen.softmax

    def posterior(self, logits: np.ndarray) -> np.ndarray | None:
        """float64 [n, K + 1], "none" last, under the deployment's prior; None unless `has_posterior`."""
        fitted = self.fitted(logits)
        return None if fitted is None else posterior.correct_prior(fitted, self.fitted_prior, self.prior)

    def fitted(self, logits: np.ndarray) -> np.ndarray | None:
        """The same under the prior that it was fitted under."""
        chosen, logits = objectives.get(self.objective), np.asarray(logits, np.float64)
        if self.none is not None:
            known = self.temperature.apply(_known(chosen, logits))
            known = logit_scores.softmax(known) if chosen.softmax else posterior.from_sigmoids(known)[:, :-1]
            known = known / known.sum(axis=1, keepdims=True)
            return posterior.with_none(known, self.none.apply(score(self.objective, logits)))
        return _own_posterior(chosen, self.temperature.apply(logits))

    def classify(self, logits: np.ndarray, label: np.ndarray, group: np.ndarray) -> tuple[Scored, np.ndarray | None]:
        """What is made of images, decisions included, and their posterior."""
        scored, probabilities = read(self.objective, logits, label, group), self.posterior(logits)
        best = scored.known_class
        if probabilities is not None:
            best = thresholds.cheapest_class(probabilities, self.costs)
        decided = thresholds.decide(scored.score, best, self.threshold.value, len(self.classes))
        return dataclasses.replace(scored, decision=decided), probabilities

    def to_json(self) -> dict[str, Any]:
        """What `from_json` takes."""
        return {
            "objective": self.objective,
            "classes": list(self.classes),
            "temperature": self.temperature.to_json(),
            "none": None if self.none is None else self.none.to_json(),
            "fitted_prior": self.fitted_prior.tolist(),
            "prior": self.prior.tolist(),
            "costs": self.costs.tolist(),
            "rule": dataclasses.asdict(self.rule),
            "threshold": {name: thresholds.plain(v) for name, v in vars(self.threshold).items()},
        }

    @classmethod
    def from_json(cls, saved: dict[str, Any]) -> "Classifier":
        """The classifier that `to_json` gave.

        Raises:
          UserError, ValueError, KeyError, TypeError or AttributeError: it gave something else.
        """
        objectives.get(saved["objective"])
        classes = tuple(saved["classes"])
        return cls(
            objective=saved["objective"],
            classes=classes,
            temperature=calibration.from_json(saved["temperature"]),
            none=None if saved["none"] is None else calibration.from_json(saved["none"]),
            **{name: checks.prior(saved[name], len(classes) + 1, name) for name in ("fitted_prior", "prior")},
            costs=thresholds.cost_matrix(saved["costs"], classes, "costs"),
            rule=Rule(**saved["rule"]),
            threshold=Threshold(**{k: float(v) if isinstance(v, str) else v for k, v in saved["threshold"].items()}),
        )


def _own_posterior(objective, logits):
    """What the outputs say of "none" themselves; None where they do not."""
    if objective.none_output:
        return logit_scores.softmax(logits)
    return None if objective.softmax else posterior.from_sigmoids(logits)


def uncalibrated(objective: str, logits: np.ndarray) -> np.ndarray | None:
    """The posterior of the outputs as they are, under the effective prior of training; None where they do not say "none"."""
    return _own_posterior(objectives.get(objective), np.asarray(logits, np.float64))


def fit(
    objective: str,
    classes: tuple[str, ...],
    logits: np.ndarray,
    label: np.ndarray,
    *,
    training_prior: np.ndarray,
    prior: np.ndarray,
    costs: np.ndarray,
    rule: Rule,
    calibrate: str = "",
    resamples: int = thresholds.RESAMPLES,
) -> Classifier:
    """Calibrates and chooses the threshold on validation images.

    Args:
      objective: its name.
      logits, label: of validation images: float [n, outputs], int [n] in [0, K], K for negatives.
      training_prior: float [K + 1], the effective one of training.
      prior, costs, rule: of the deployment.
      calibrate: of `CALIBRATIONS`; "" for temperature, and logistic where the outputs do not say "none" themselves.
      resamples: for the threshold's interval.

    Raises:
      UserError: there are no validation negatives, and something asked for needs them.
    """
    chosen, k, logits = objectives.get(objective), len(classes), np.asarray(logits, np.float64)
    negative, value = label == k, score(objective, logits)
    silent = chosen.softmax and not chosen.none_output
    by_score = calibrate in ("logistic", "isotonic") or silent
    thresholds.check_negatives(rule, calibrate, int(negative.sum()))
    reference = np.asarray(training_prior, np.float64)
    if silent:
        reference = np.append(reference[:-1] / reference[:-1].sum() / 2, 0.5)
    temperature, none = calibration.Identity(), None
    if negative.any():
        weight = calibration.mix_weights(label, reference)
        heads = "softmax" if chosen.softmax else "sigmoid"
        if calibrate != "none":
            own = _known(chosen, logits) if by_score and chosen.softmax else logits
            temperature = calibration.fit("temperature", own, label, k, heads=heads, weight=weight)
        if by_score:
            kind = calibrate if calibrate in ("logistic", "isotonic") else "logistic"
            none = calibration.fit(kind, value, label, k, weight=weight)
    unfinished = Classifier(objective, classes, temperature, none, reference, prior, costs, rule, _NOT_YET)
    known_gain = negative_gain = None
    if rule.name == "least_cost":
        best = thresholds.cheapest_class(unfinished.posterior(logits), costs)
        gains = thresholds.gains(best, label, costs, prior)
        known_gain, negative_gain = gains[~negative], gains[negative]
    gain = {"known_gain": known_gain, "negative_gain": negative_gain}
    threshold = thresholds.choose(rule, value[~negative], value[negative], **gain, resamples=resamples)
    return dataclasses.replace(unfinished, threshold=threshold)


_NOT_YET = Threshold(np.nan, np.nan, np.nan, 0, 0, None)
