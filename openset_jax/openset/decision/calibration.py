"""Outputs that say what they mean: fitted on validation images, saved with the model, applied unchanged ever after.

A network's probabilities are too sure of themselves, and a score is no probability at all. A calibrator is a few numbers
that turn logits into better logits (temperature) or a score into p_none (logistic, isotonic). It holds for one mix of
classes, that of its validation images as weighted: weight them to the training mix (`mix_weights`), then
`posterior.correct_prior` goes on to any other.

Weights are counts: weight 2 is the image twice. Their scale matters where counts do, to how sure few images can make us.
"""

import dataclasses
from typing import Any, ClassVar, Literal

import numpy as np
from scipy import optimize
from scipy.special import expit, logsumexp
from sklearn.isotonic import IsotonicRegression

from openset_jax.openset import checks

TEMPERATURES = (0.05, 20.0)  # where one is looked for
_LEAST = 1e-12  # p_none and 1 - p_none are at least this, whatever the score


class _Calibrator:
    """What all have in common: JSON, exactly (Python writes the digits that a float needs)."""

    kind: ClassVar[str]

    def to_json(self) -> dict[str, Any]:
        """{"kind": ..., the fields as floats or lists of floats}."""
        values = dataclasses.asdict(self).items()
        return {"kind": self.kind, **{k: list(v) if isinstance(v, tuple) else v for k, v in values}}

    @classmethod
    def from_json(cls, saved: dict[str, Any]) -> "_Calibrator":
        """What `to_json` gave, as it was.

        Raises:
          ValueError: another kind, or other fields than this kind has.
        """
        fields = {k: tuple(v) if isinstance(v, list) else v for k, v in saved.items() if k != "kind"}
        wanted = [field.name for field in dataclasses.fields(cls)]
        if saved.get("kind") != cls.kind or set(fields) != set(wanted):
            raise ValueError(f"a saved {cls.kind!r} calibrator has a kind and the fields {wanted}, not {saved}")
        return cls(**fields)


@dataclasses.dataclass(frozen=True)
class Identity(_Calibrator):
    """No calibration: logits as they are."""

    kind = "none"

    def apply(self, values: np.ndarray) -> np.ndarray:
        """float64, unchanged."""
        return np.asarray(values, np.float64)


@dataclasses.dataclass(frozen=True)
class Temperature(_Calibrator):
    """Logits divided by one number (Guo et al. 2017, arXiv 1706.04599, equation 9), of softmax and sigmoid heads alike.

    It changes how sure, never the order of the classes of an image.

    Attributes:
      temperature: in [0.05, 20]; above 1 makes less sure. Images without a single error give 0.05.
    """

    kind = "temperature"
    temperature: float

    def apply(self, logits: np.ndarray) -> np.ndarray:
        """Logits [n, C] -> logits float64 [n, C], for `scores.softmax` or `posterior.from_sigmoids`."""
        return np.asarray(logits, np.float64) / self.temperature


@dataclasses.dataclass(frozen=True)
class Logistic(_Calibrator):
    """p_none = 1 / (1 + exp(-(slope score + intercept))), Platt's scaling (Platt 1999), in [1e-12, 1 - 1e-12].

    Attributes:
      slope: per unit of score. Negative where the score of negatives is the lower one, which is worth a look.
      intercept: log-odds of "none" at score 0.
    """

    kind = "logistic"
    slope: float
    intercept: float

    def apply(self, score: np.ndarray) -> np.ndarray:
        """Score [n] -> p_none float64 [n]."""
        return np.clip(expit(self.slope * np.asarray(score, np.float64) + self.intercept), _LEAST, 1 - _LEAST)


@dataclasses.dataclass(frozen=True)
class Isotonic(_Calibrator):
    """p_none as a step-like function that never falls with the score (Zadrozny and Elkan 2002), linear between its points.

    Attributes:
      score: ascending.
      p_none: at each score, and beyond the first and the last; never 0 or 1.
    """

    kind = "isotonic"
    score: tuple[float, ...]
    p_none: tuple[float, ...]

    def apply(self, score: np.ndarray) -> np.ndarray:
        """Score [n] -> p_none float64 [n]."""
        return np.interp(np.asarray(score, np.float64), self.score, self.p_none)


Calibrator = Identity | Temperature | Logistic | Isotonic
KINDS: dict[str, type[Calibrator]] = {kind.kind: kind for kind in (Identity, Temperature, Logistic, Isotonic)}


def from_json(saved: dict[str, Any]) -> Calibrator:
    """The calibrator that `to_json` gave.

    Raises:
      ValueError: its kind is none of `KINDS`, or its fields are not those of the kind.
    """
    return _kind(saved.get("kind")).from_json(saved)


def fit(
    kind: str,
    values: np.ndarray,
    label: np.ndarray,
    num_classes: int,
    *,
    heads: Literal["softmax", "sigmoid"] = "softmax",
    weight: np.ndarray | None = None,
) -> Calibrator:
    """The calibrator of that kind under which validation images are likeliest.

    "none": needs nothing. "temperature": least negative log-likelihood of softmax, or of all sigmoid heads (a negative is
    "not k" for each). Logits of K softmax classes are fitted on knowns alone. "logistic": the maximum
    likelihood, without a penalty, of Platt's targets (N+ + 1) / (N+ + 2) and 1 / (N- + 2) instead of 1 and 0 (N the
    weight of negatives and of knowns; Platt 1999, section 2.2), which keep it finite where the score separates them.
    "isotonic": least squares, no lower and no higher than the same two numbers.

    Args:
      kind: of `KINDS`.
      values: logits [n, K + 1], "none" last, or [n, K] ("none", "temperature"); a score [n], larger = more unknown,
        finite, unclipped ("logistic", "isotonic").
      label: int [n] in [0, K], K is "none".
      num_classes: K.
      heads: what the logits are of. Sigmoids have [n, K].
      weight: float [n], at least 0; None for ones.

    Raises:
      ValueError: an argument is not as above, or there are no knowns or no negatives (of positive weight) where the kind
        needs them.
    """
    chosen = _kind(kind)
    if chosen is Identity:
        return Identity()
    values = checks.finite(values, "logits" if chosen is Temperature else "the score", 2 if chosen is Temperature else 1)
    label = checks.labels(label, len(values), num_classes + 1)
    weight = checks.weights(weight, len(values))
    if chosen is Temperature:
        return _temperature(values, label, num_classes, heads, weight)
    is_none = label == num_classes
    _need(kind, weight, knowns=~is_none, negatives=is_none)
    low, high = 1 / (weight @ ~is_none + 2), (weight @ is_none + 1) / (weight @ is_none + 2)
    if chosen is Logistic:
        return _logistic(values, np.where(is_none, high, low), weight)
    model = IsotonicRegression(y_min=low, y_max=high, out_of_bounds="clip").fit(values, is_none, sample_weight=weight)
    return Isotonic(tuple(model.X_thresholds_.tolist()), tuple(model.y_thresholds_.tolist()))


def mix_weights(label: np.ndarray, prior: np.ndarray) -> np.ndarray:
    """Weights that give validation images the mix `prior`: prior_k over the share of class k, of mean 1. float64 [n].

    Args:
      label: int [n] in [0, K], K is "none".
      prior: [K + 1].

    Raises:
      ValueError: a class that is in `prior` has no image, or an argument is not as above.
    """
    width = len(prior)
    prior, label = checks.prior(prior, width), checks.labels(label, len(label), width)
    count = np.bincount(label, minlength=width)
    missing = (count == 0) & (prior > 0)
    if missing.any():
        k = int(missing.argmax())
        raise ValueError(f"class {k} of {width} has a prior of {prior[k]:.3g} but no validation image to give its weight to")
    return (prior * len(label) / np.maximum(count, 1))[label]


def _kind(name):
    if name not in KINDS:
        raise ValueError(f"calibration {name!r} is not one of {', '.join(KINDS)}")
    return KINDS[name]


def _need(kind, weight, **needed):
    for side, chosen in needed.items():
        if not weight[chosen].sum():
            raise ValueError(f"calibration {kind!r} needs validation images of {side}; there are none (of positive weight)")


def _temperature(logits, label, num_classes, heads, weight):
    columns, is_none = logits.shape[1], label == num_classes
    if columns not in ((num_classes,) if heads == "sigmoid" else (num_classes, num_classes + 1)):
        raise ValueError(f"{heads} heads of {num_classes} classes cannot have {columns} logits")
    if heads == "softmax" and columns == num_classes:
        logits, label, weight = logits[~is_none], label[~is_none], weight[~is_none]
        _need("temperature", weight, knowns=np.ones(len(label), bool))
    else:
        _need("temperature", weight, knowns=~is_none, negatives=is_none)
    truth = np.eye(num_classes + 1)[label][:, :columns]
    logits = logits - logits.max(axis=1, keepdims=True) if heads == "softmax" else logits

    def slope(log_t):
        """The derivative of the negative log-likelihood by 1 / T: it rises with 1 / T, because that is convex."""
        z = logits * np.exp(-log_t)
        p = expit(z) if heads == "sigmoid" else np.exp(z - logsumexp(z, axis=1, keepdims=True))
        return weight @ (logits * (p - truth)).sum(axis=1) / weight.sum()

    low, high = np.log(TEMPERATURES)
    if not np.any(weight @ np.abs(logits)):
        return Temperature(1.0)  # all classes alike, at every temperature
    if slope(low) <= 0:
        return Temperature(TEMPERATURES[0])
    if slope(high) >= 0:
        return Temperature(TEMPERATURES[1])
    return Temperature(float(np.exp(optimize.brentq(slope, low, high, xtol=1e-13))))


def _logistic(score, target, weight):
    """Maximum likelihood of soft targets, on the standardised score: a trust region gets near, Newton's steps exact."""
    mean = np.average(score, weights=weight)
    scale = np.sqrt(np.average((score - mean) ** 2, weights=weight))
    total = weight.sum()
    if not scale > 1e-12 * max(1.0, abs(mean)):
        share = weight @ target / total
        return Logistic(0.0, float(np.log(share / (1 - share))))
    design = np.stack([(score - mean) / scale, np.ones(len(score))], axis=1)

    def loss(at):
        log_odds = design @ at
        return weight @ (np.logaddexp(0, log_odds) - target * log_odds) / total

    def gradient(at):
        return design.T @ (weight * (expit(design @ at) - target)) / total

    def hessian(at):
        p = expit(design @ at)
        return (design * (weight * p * (1 - p))[:, None]).T @ design / total

    at = optimize.minimize(loss, np.zeros(2), jac=gradient, hess=hessian, method="trust-exact", options={"gtol": 1e-6}).x
    for _ in range(3):
        at = at - np.linalg.solve(hessian(at), gradient(at))
    slope = at[0] / scale
    return Logistic(float(slope), float(at[1] - slope * mean))
