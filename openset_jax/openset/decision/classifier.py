"""From logits to posteriors and decisions: everything that is fitted on validation images and saved with a run.

Every objective has a posterior of the same form, p over {class 1..K, none}: the softmax of K + 1 outputs;
`posterior.from_sigmoids` of K sigmoids; or, for a softmax over K classes, its score calibrated on validation images. It is
then corrected to the prior of the deployment. Ranking uses the score instead, since probabilities near 0 and 1 tie.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from openset_jax.errors import UserError
from openset_jax.openset import checks
from openset_jax.openset.decision import calibration, posterior, prior_and_costs, thresholds
from openset_jax.openset.decision.thresholds import Rule, Threshold
from openset_jax.openset.losses import objectives
from openset_jax.openset.losses.objectives import Objective
from openset_jax.openset.scored import Scored
from openset_jax.openset.scores import logit_scores

CALIBRATIONS = ("", *calibration.KINDS)
_OF_SCORES = ("logistic", "isotonic")  # calibrators from a score to p_none
_PRIORS = ("training_prior", "fitted_prior", "prior")


def interpret(objective: Objective, logits: np.ndarray, label: np.ndarray, group: np.ndarray) -> Scored:
    """Returns the predictions of the logits [n, outputs] alone, without calibration or threshold."""
    known = logits[:, objective.known_outputs]
    known_class = known.argmax(1)
    if objective.none_output:
        answer = logits.argmax(1)
    else:
        answer = None if objective.softmax else np.where(known.max(1) > 0, known_class, known.shape[1])
    return Scored(label, group, objective.score(logits), known_class, answer)


@dataclasses.dataclass(frozen=True, eq=False)
class Classifier:
    """A fitted classifier: calibrators, prior, costs and threshold.

    Attributes:
      classes: names of the K known classes.
      temperature: calibrator of the logits.
      none: calibrator from the score to p_none; None if p_none comes from the outputs alone.
      training_prior: float64 [K + 1], the effective prior of training, for priors that name only some classes.
      fitted_prior: float64 [K + 1], the class prior under which `fitted_posterior` is calibrated.
      prior: float64 [K + 1], of the deployment.
      costs: float64 [K + 1, K + 1], rows are the truth, columns the decision.
      rule, threshold: see `thresholds`.
    """

    objective: Objective
    classes: tuple[str, ...]
    temperature: calibration.Calibrator
    none: calibration.Calibrator | None
    training_prior: np.ndarray
    fitted_prior: np.ndarray
    prior: np.ndarray
    costs: np.ndarray
    rule: Rule
    threshold: Threshold

    @property
    def has_posterior(self) -> bool:
        """Whether there is a p_none, from the network's outputs or from a score calibrated on validation negatives."""
        return self.none is not None or self.objective.says_none

    def posterior(self, logits: np.ndarray) -> np.ndarray | None:
        """Returns the posterior under the prior of the deployment, float64 [n, K + 1]; None unless `has_posterior`."""
        fitted = self.fitted_posterior(logits)
        return None if fitted is None else posterior.correct_prior(fitted, self.fitted_prior, self.prior)

    def fitted_posterior(self, logits: np.ndarray) -> np.ndarray | None:
        """Returns the posterior under `fitted_prior`, float64 [n, K + 1], "none" last; None unless `has_posterior`."""
        logits = np.asarray(logits, np.float64)
        if self.none is not None:
            known = self.temperature.apply(logits[:, self.objective.known_outputs])
            known = logit_scores.softmax(known) if self.objective.softmax else posterior.from_sigmoids(known)[:, :-1]
            known = known / known.sum(axis=1, keepdims=True)
            return posterior.with_none(known, self.none.apply(self.objective.score(logits)))
        return own_posterior(self.objective, self.temperature.apply(logits))

    def classify(self, logits: np.ndarray, label: np.ndarray, group: np.ndarray) -> tuple[Scored, np.ndarray | None]:
        """Returns the predictions with decisions for logits [n, outputs], and the posterior, float64 [n, K + 1] or None."""
        scored, probabilities = interpret(self.objective, logits, label, group), self.posterior(logits)
        best = scored.known_class if probabilities is None else thresholds.cheapest_class(probabilities, self.costs)
        decided = thresholds.decide(scored.score, best, self.threshold.value, len(self.classes))
        return dataclasses.replace(scored, decision=decided), probabilities

    def to_json(self) -> dict[str, Any]:
        """Returns the fields as JSON values, without loss of precision."""
        return {
            "objective": self.objective.name,
            "classes": list(self.classes),
            "temperature": self.temperature.to_json(),
            "none": None if self.none is None else self.none.to_json(),
            **{name: getattr(self, name).tolist() for name in _PRIORS},
            "costs": prior_and_costs.named_costs(self.costs) or self.costs.tolist(),
            "rule": dataclasses.asdict(self.rule),
            "threshold": {name: thresholds.json_number(v) for name, v in vars(self.threshold).items()},
        }

    @classmethod
    def from_json(cls, saved: dict[str, Any]) -> "Classifier":
        """Returns the classifier that `to_json` saved.

        Raises:
          ValueError: `saved` is not a value of `to_json`; names the field.
        """
        fields: dict[str, Any] = {}
        prior = lambda values: checks.prior(values, len(fields["classes"]) + 1)
        read: dict[str, Callable[[Any], Any]] = {
            "classes": _names,
            "objective": objectives.get,
            "temperature": lambda value: calibration.from_json(value, ("none", "temperature")),
            "none": lambda value: None if value is None else calibration.from_json(value, _OF_SCORES),
            **dict.fromkeys(_PRIORS, prior),
            "costs": lambda value: prior_and_costs.cost_matrix(value, fields["classes"], "costs"),
            "rule": thresholds.rule_from_json,
            "threshold": thresholds.threshold_from_json,
        }
        for name, convert in read.items():
            try:
                fields[name] = convert(saved[name])
            except (UserError, LookupError, TypeError, ValueError, AttributeError) as error:
                raise ValueError(f"classifier.{name} is not valid: {type(error).__name__}: {error}") from error
        return cls(**fields)


def _names(values: Any) -> tuple[str, ...]:
    if not values or not all(isinstance(name, str) for name in values) or len(set(values)) < len(values):
        raise ValueError(f"{values!r} is not a list of different names")
    return tuple(values)


def own_posterior(objective: Objective, logits: np.ndarray) -> np.ndarray | None:
    """Returns the posterior of the outputs alone, float64 [n, K + 1], "none" last, under the effective prior of training.

    None for a softmax over K classes, which has no p_none.
    """
    if objective.none_output:
        return logit_scores.softmax(logits)
    return None if objective.softmax else posterior.from_sigmoids(logits)


def fit(
    objective: Objective,
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
    """Fits the calibrators and chooses the threshold on validation images.

    Args:
      logits, label: of the validation images: float [n, outputs], int [n] in [0, K], K for negatives.
      training_prior: float [K + 1], the effective prior of training. For a softmax over K classes, `fitted_prior` is 1/2 for
        "none" and the rest of this in proportion.
      classes, prior, costs, rule: see `Classifier`.
      calibrate: one of `CALIBRATIONS`; "" is "temperature", and for a softmax over K classes also "logistic" for p_none.
      resamples: of the bootstrap, for the interval of the threshold.

    Raises:
      UserError: there are no validation negatives, and the rule or the calibration needs them.
    """
    k, logits = len(classes), np.asarray(logits, np.float64)
    negative, value = label == k, objective.score(logits)
    by_score = calibrate in _OF_SCORES or not objective.says_none
    thresholds.check_negatives(rule, calibrate, int(negative.sum()))
    reference = training_prior = np.asarray(training_prior, np.float64)
    if not objective.says_none:
        reference = np.append(reference[:-1] / reference[:-1].sum() / 2, 0.5)
    temperature, none = calibration.Calibrator(), None
    if negative.any():
        weight = calibration.mix_weights(label, reference)
        heads: Literal["softmax", "sigmoid"] = "softmax" if objective.softmax else "sigmoid"
        if calibrate != "none":
            own = logits[:, objective.known_outputs] if by_score and objective.softmax else logits
            temperature = calibration.fit("temperature", own, label, k, heads=heads, weight=weight)
        if by_score:
            kind = calibrate if calibrate in _OF_SCORES else "logistic"
            none = calibration.fit(kind, value, label, k, weight=weight)
    unfinished = Classifier(objective, classes, temperature, none, training_prior, reference, prior, costs, rule, _NOT_YET)
    known_cost = negative_cost = None
    if rule.name == "least_cost":
        probabilities = unfinished.posterior(logits)
        assert probabilities is not None  # there are negatives: `check_negatives`
        best = thresholds.cheapest_class(probabilities, costs)
        cost = thresholds.acceptance_costs(best, label, costs, prior)
        known_cost, negative_cost = cost[~negative], cost[negative]
    threshold = thresholds.choose(
        rule, value[~negative], value[negative], known_cost=known_cost, negative_cost=negative_cost, resamples=resamples
    )
    return dataclasses.replace(unfinished, threshold=threshold)


_NOT_YET = Threshold(np.nan, np.nan, np.nan, 0, 0, None)
