"""Calibrators: fitted on validation images, saved with the model, applied unchanged.

The probabilities of a network are overconfident, and a score is not a probability. A calibrator maps logits to calibrated
logits (temperature), or a score to p_none (logistic, isotonic). The result is calibrated under one class prior, that of the
weighted validation images. Weight them to the training prior (`mix_weights`); for other priors, use
`posterior.correct_prior`. An image of weight 2 counts as two images. The scale of the weights matters only for the targets
of "logistic" and "isotonic", which depend on the number of images.
"""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, Self

import numpy as np
from scipy import optimize
from scipy.special import expit, logsumexp
from sklearn.isotonic import IsotonicRegression

from openset_jax.openset import checks

TEMPERATURES = (0.05, 20.0)  # the search range
_FINITE = (-np.finfo(np.float64).max, np.finfo(np.float64).max)
_LEAST = 1e-12  # lower bound of p_none and of 1 - p_none


@dataclasses.dataclass(frozen=True)
class Calibrator:
    """The base class of calibrators, which by itself does not calibrate."""

    kind: ClassVar[str] = "none"

    def apply(self, values: np.ndarray) -> np.ndarray:
        """Returns the values as float64."""
        return np.asarray(values, np.float64)

    def to_json(self) -> dict[str, Any]:
        """Returns {"kind": ..., and the fields as floats or lists of floats}, with all digits."""
        return {"kind": self.kind, **{k: list(v) if isinstance(v, tuple) else v for k, v in vars(self).items()}}

    @classmethod
    def from_json(cls, saved: dict[str, Any]) -> Self:
        """Returns the calibrator that `to_json` saved; raises ValueError if its kind or fields are not of this class."""
        fields = {k: tuple(v) if isinstance(v, list) else v for k, v in saved.items() if k != "kind"}
        wanted = [field.name for field in dataclasses.fields(cls)]
        if saved.get("kind") != cls.kind or set(fields) != set(wanted):
            raise ValueError(f"a saved {cls.kind!r} calibrator has a kind and the fields {wanted}, not {saved}")
        return cls(**fields)


@dataclasses.dataclass(frozen=True)
class Temperature(Calibrator):
    """Temperature scaling of softmax or sigmoid heads (Guo et al. 2017, arXiv 1706.04599, equation 9).

    It changes the confidence, never the order of the classes of an image. The temperature is in [0.05, 20]; above 1, it
    lowers the confidence. It is 0.05 if all validation images are classified correctly.
    """

    kind = "temperature"
    temperature: float

    def __post_init__(self):
        """Raises ValueError if the temperature is not in its range."""
        checks.number(self.temperature, "temperature", *TEMPERATURES)

    def apply(self, logits: np.ndarray) -> np.ndarray:
        """Returns calibrated logits, float64 [n, C], for `logit_scores.softmax` or `posterior.from_sigmoids`."""
        return np.asarray(logits, np.float64) / self.temperature


@dataclasses.dataclass(frozen=True)
class Logistic(Calibrator):
    """Platt scaling (Platt 1999): p_none = 1 / (1 + exp(-(slope score + intercept))), in [1e-12, 1 - 1e-12].

    The slope is positive, unless negatives have lower scores than knowns, which is unexpected.
    """

    kind = "logistic"
    slope: float
    intercept: float

    def __post_init__(self):
        """Raises ValueError if a field is not finite."""
        for name, value in vars(self).items():
            checks.number(value, name, *_FINITE)

    def apply(self, score: np.ndarray) -> np.ndarray:
        """Returns p_none, float64 [n], for scores [n]."""
        return np.clip(expit(self.slope * np.asarray(score, np.float64) + self.intercept), _LEAST, 1 - _LEAST)


@dataclasses.dataclass(frozen=True)
class Isotonic(Calibrator):
    """Isotonic regression (Zadrozny and Elkan 2002): p_none is non-decreasing in the score, linear between points.

    The scores of the points ascend. p_none is constant beyond the first and the last point, and never 0 or 1.
    """

    kind = "isotonic"
    score: tuple[float, ...]
    p_none: tuple[float, ...]

    def __post_init__(self):
        """Raises ValueError if the points are not finite, do not ascend, or have a p_none outside [0, 1]."""
        if not self.score or len(self.score) != len(self.p_none):
            raise ValueError(f"isotonic: there are {len(self.score)} scores and {len(self.p_none)} values of p_none")
        for name, values, ends in (("score", self.score, _FINITE), ("p_none", self.p_none, (0, 1))):
            if any(b < a for a, b in itertools.pairwise(checks.number(v, name, *ends) for v in values)):
                raise ValueError(f"isotonic: the values of {name} do not ascend")

    def apply(self, score: np.ndarray) -> np.ndarray:
        """Returns p_none, float64 [n], for scores [n]."""
        return np.interp(np.asarray(score, np.float64), self.score, self.p_none)


KINDS: dict[str, type[Calibrator]] = {kind.kind: kind for kind in (Calibrator, Temperature, Logistic, Isotonic)}


def from_json(saved: dict[str, Any], kinds: Sequence[str] = tuple(KINDS)) -> Calibrator:
    """Returns the calibrator that `to_json` saved; raises ValueError if its kind is not one of `kinds`, or by a field."""
    if saved["kind"] not in kinds:
        raise ValueError(f"calibration {saved['kind']!r} is not one of {', '.join(kinds)}")
    return KINDS[saved["kind"]].from_json(saved)


def fit(
    kind: str,
    values: np.ndarray,
    label: np.ndarray,
    num_classes: int,
    *,
    heads: Literal["softmax", "sigmoid"] = "softmax",
    weight: np.ndarray | None = None,
) -> Calibrator:
    """Fits a calibrator of one of the `KINDS` on validation images of K classes and "none".

    "none": not fitted. "temperature": minimises the negative log-likelihood of the softmax, or of all sigmoid heads (the
    target of a negative is 0 for each); logits of K softmax classes are fitted on knowns alone. "logistic": maximises the
    likelihood, without a penalty, of Platt's targets: (N+ + 1) / (N+ + 2) for negatives and 1 / (N- + 2) for knowns, where
    N+ and N- are the total weights of negatives and of knowns (Platt 1999, section 2.2). These targets keep the fit finite
    if the score separates negatives from knowns. "isotonic": least squares, with values between the same two targets.

    Args:
      values: for "none" and "temperature", logits [n, K + 1], "none" last, or [n, K] (sigmoids: always [n, K]); for
        "logistic" and "isotonic", a score [n], larger = more unknown, finite, unclipped.
      label: int [n] in [0, K], K is "none".
      weight: float [n], at least 0; None for ones.

    Raises:
      ValueError: an argument is not as above, or no known or no negative has a positive weight, and the kind needs one.
    """
    chosen = _kind(kind)
    if chosen is Calibrator:
        return Calibrator()
    values = checks.finite(values, "logits" if chosen is Temperature else "the score", 2 if chosen is Temperature else 1)
    label = checks.labels(label, len(values), num_classes + 1)
    weight = checks.weights(weight, len(values))
    if chosen is Temperature:
        return _temperature(values, label, num_classes, heads, weight)
    is_none = label == num_classes
    _need(kind, knowns=weight[~is_none], negatives=weight[is_none])
    low, high = 1 / (weight @ ~is_none + 2), (weight @ is_none + 1) / (weight @ is_none + 2)
    if chosen is Logistic:
        return _logistic(values, np.where(is_none, high, low), weight)
    model = IsotonicRegression(y_min=low, y_max=high, out_of_bounds="clip").fit(values, is_none, sample_weight=weight)
    return Isotonic(tuple(model.X_thresholds_.tolist()), tuple(model.y_thresholds_.tolist()))


def mix_weights(label: np.ndarray, prior: np.ndarray) -> np.ndarray:
    """Returns weights under which the class shares are `prior`: prior_k / (share of class k), of mean 1, float64 [n].

    The labels are int [n] in [0, K], the prior is [K + 1]; K is "none".

    Raises:
      ValueError: a class with a positive prior has no image, or an argument is not as above.
    """
    width = len(prior)
    prior, label = checks.prior(prior, width), checks.labels(label, len(label), width)
    count = np.bincount(label, minlength=width)
    missing = (count == 0) & (prior > 0)
    if missing.any():
        k = int(missing.argmax())
        raise ValueError(f"class {k} of {width} has a prior of {prior[k]:.3g}, but no validation image")
    return (prior * len(label) / np.maximum(count, 1))[label]


def _kind(name: str) -> type[Calibrator]:
    if name not in KINDS:
        raise ValueError(f"calibration {name!r} is not one of {', '.join(KINDS)}")
    return KINDS[name]


def _need(kind, **weights):
    for side, weight in weights.items():
        if not weight.sum():
            raise ValueError(f"calibration {kind!r} needs validation images of {side}; there are none (of positive weight)")


def _temperature(logits, label, num_classes, heads, weight):
    columns, is_none = logits.shape[1], label == num_classes
    if columns not in ((num_classes,) if heads == "sigmoid" else (num_classes, num_classes + 1)):
        raise ValueError(f"{heads} heads of {num_classes} classes cannot have {columns} logits")
    _need("temperature", knowns=weight[~is_none])
    if heads == "softmax" and columns == num_classes:
        logits, label, weight = logits[~is_none], label[~is_none], weight[~is_none]
    else:
        _need("temperature", negatives=weight[is_none])
    truth = np.eye(num_classes + 1)[label][:, :columns]
    if heads == "softmax":
        logits = logits - logits.max(axis=1, keepdims=True)

    def slope(log_t):
        """Returns the derivative of the negative log-likelihood by 1 / T, which increases with 1 / T (convexity)."""
        z = logits * np.exp(-log_t)
        p = expit(z) if heads == "sigmoid" else np.exp(z - logsumexp(z, axis=1, keepdims=True))
        return weight @ (logits * (p - truth)).sum(axis=1) / weight.sum()

    low, high = np.log(TEMPERATURES)
    if not np.any(weight @ np.abs(logits)):
        return Temperature(1.0)  # uniform at every temperature
    if slope(low) <= 0:
        return Temperature(TEMPERATURES[0])
    if slope(high) >= 0:
        return Temperature(TEMPERATURES[1])
    return Temperature(float(np.exp(optimize.brentq(slope, low, high, xtol=1e-13))))


def _logistic(score, target, weight):
    """Maximises the likelihood of soft targets on the standardised score: trust region, then Newton steps."""
    mean = np.average(score, weights=weight)
    scale = np.sqrt(np.average((score - mean) ** 2, weights=weight))
    total = weight.sum()
    if not scale > 1e-12 * max(1.0, abs(mean)):
        share = weight @ target / total
        return Logistic(0.0, float(np.log(share / (1 - share))))
    design = np.stack([(score - mean) / scale, np.ones(len(score))], axis=1)
    gradient = lambda at: design.T @ (weight * (expit(design @ at) - target)) / total

    def loss(at):
        log_odds = design @ at
        return weight @ (np.logaddexp(0, log_odds) - target * log_odds) / total

    def hessian(at):
        p = expit(design @ at)
        return (design * (weight * p * (1 - p))[:, None]).T @ design / total

    at = optimize.minimize(loss, np.zeros(2), jac=gradient, hess=hessian, method="trust-exact", options={"gtol": 1e-6}).x
    for _ in range(3):
        at = at - np.linalg.solve(hessian(at), gradient(at))
    slope = at[0] / scale
    return Logistic(float(slope), float(at[1] - slope * mean))
