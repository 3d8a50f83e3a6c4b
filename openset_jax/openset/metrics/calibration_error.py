"""Are probabilities what they say? Errors of a posterior over K classes and "none", a label like others. NumPy, no files.

Every measure takes a weight for each image, a count: weight 2 is the image twice. Scaling all weights changes nothing.

The calibration error depends on its bins, and a finite sample has one even where the posterior is right, the larger the
fewer images; the negative log-likelihood and the Brier score are proper, so they have neither fault, but mix calibration
with how well classes are told apart. So all three are told.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from openset_jax.openset import checks


class Reliability(NamedTuple):
    """Images in bins of the probability of the likeliest class, from the least: what a reliability diagram draws.

    Attributes:
      confidence: float64 [b], mean probability of the likeliest class.
      accuracy: float64 [b], the share of them whose likeliest class is the label.
      mass: float64 [b], each bin's share of all weight; sums to 1, none is 0.
    """

    confidence: np.ndarray
    accuracy: np.ndarray
    mass: np.ndarray


def reliability(posterior: np.ndarray, label: np.ndarray, bins: int = 15, weight: np.ndarray | None = None) -> Reliability:
    """Confidence against accuracy in bins of equal mass.

    The diagram is that of Guo et al. 2017 (arXiv 1706.04599), the bins are those of Nguyen and O'Connor 2015 (EMNLP).
    Images of one confidence share a bin, the one that the middle of their mass falls in. So the order of images plays no
    part, every image is in one bin, and there can be fewer bins than asked for.

    Args:
      posterior: [n, K + 1], rows summing to 1.
      label: int [n] in [0, K], K is "none".
      bins: at most this many.
      weight: float [n], at least 0; None for ones.

    Returns:
      Arrays of b <= bins; of length 0 where there are no images, or none of positive weight.

    Raises:
      ValueError: an argument is not as above.
    """
    if bins < 1:
        raise ValueError(f"there must be at least one bin, not {bins}")
    posterior, label, weight = _checked(posterior, label, weight)
    return _binned(*_steps(posterior), posterior.argmax(axis=1) == label, weight, bins)


def _steps(posterior):
    """(the different probabilities of the likeliest class, ascending; which of them each image has)."""
    return np.unique(posterior.max(axis=1), return_inverse=True)


def _binned(top, place, right, weight, bins):
    if not weight.sum():
        return Reliability(*np.empty((3, 0)))
    mass, hits = (np.bincount(place, w, len(top)) for w in (weight, weight * right))
    middle = np.cumsum(mass) - mass / 2
    which = np.minimum((middle / mass.sum() * bins).astype(int), bins - 1)
    mass, hits, sums = (np.bincount(which, values, bins) for values in (mass, hits, mass * top))
    filled = mass > 0
    mass, hits, sums = mass[filled], hits[filled], sums[filled]
    return Reliability(sums / mass, hits / mass, mass / mass.sum())


def expected_calibration_error(
    posterior: np.ndarray, label: np.ndarray, bins: int = 15, weight: np.ndarray | None = None
) -> float | None:
    """The mean over images of |accuracy - confidence| of their bin.

    Of the likeliest class, as in Guo et al. 2017 (arXiv 1706.04599), equation 5, but in bins of equal mass.
    Arguments and errors are those of `reliability`.

    Returns:
      A value in [0, 1], or None where there are no images.
    """
    return _error(reliability(posterior, label, bins, weight))


def _error(table):
    return float(np.sum(table.mass * np.abs(table.accuracy - table.confidence))) if len(table.mass) else None


def by_chance(posterior: np.ndarray, weight: np.ndarray, *, bins: int = 15, resamples: int = 200, seed: int = 0) -> float:
    """The calibration error that 1 in 40 samples of these images would exceed, were their probabilities right.

    Consistency resampling (Broecker and Smith 2007, Weather and Forecasting 22): each image is right with the probability
    of its likeliest class. What is not above this may be chance.

    Args:
      posterior: [n, K + 1], rows summing to 1.
      weight: float [n], at least 0.
    """
    posterior, rng = checks.posterior(posterior), np.random.default_rng(seed)
    top, place = _steps(posterior)
    drawn = lambda: _error(_binned(top, place, rng.random(len(place)) < top[place], weight, bins))
    return float(np.quantile([drawn() for _ in range(resamples)], 0.975)) if weight.sum() else 0.0


def measures(posterior: np.ndarray, label: np.ndarray, *, bins: int = 15) -> dict[str, Callable[[np.ndarray], float | None]]:
    """The three of them as functions of weights [n] alone, for resampling: what does not depend on weights is done once.

    Args:
      posterior: [n, K + 1], rows summing to 1.
      label: int [n] in [0, K], K is "none".
    """
    posterior, label, _ = _checked(posterior, label, None)
    (top, place), right = _steps(posterior), posterior.argmax(axis=1) == label
    return {
        "expected_calibration_error": lambda weight: _error(_binned(top, place, right, weight, bins)),
        "negative_log_likelihood": functools.partial(_mean, _log_losses(posterior, label)),
        "brier": functools.partial(_mean, _square_losses(posterior, label)),
    }


def negative_log_likelihood(posterior: np.ndarray, label: np.ndarray, weight: np.ndarray | None = None) -> float | None:
    """The mean of -log p(label), in nats.

    A probability below 2^-52 counts as that, 36 nats, so that one image does not make the mean infinite (scikit-learn
    does so).

    Args:
      posterior: [n, K + 1], rows summing to 1.
      label: int [n] in [0, K], K is "none".
      weight: float [n], at least 0; None for ones.

    Returns:
      A value in [0, 36.1], or None where there are no images.

    Raises:
      ValueError: an argument is not as above.
    """
    posterior, label, weight = _checked(posterior, label, weight)
    return _mean(_log_losses(posterior, label), weight)


def _log_losses(posterior, label):
    return -np.log(np.clip(posterior[np.arange(len(label)), label], np.finfo(np.float64).eps, 1))


def brier(posterior: np.ndarray, label: np.ndarray, weight: np.ndarray | None = None) -> float | None:
    """The mean of sum_k (p_k - [label = k])^2 over all K + 1 classes (Brier 1950).

    For two classes it is twice what is often called the Brier score. Arguments and errors are those of
    `negative_log_likelihood`.

    Returns:
      A value in [0, 2], or None where there are no images.
    """
    posterior, label, weight = _checked(posterior, label, weight)
    return _mean(_square_losses(posterior, label), weight)


def _square_losses(posterior, label):
    own = posterior[np.arange(len(label)), label]
    return (posterior**2).sum(axis=1) - 2 * own + 1


def _mean(values, weight):
    total = weight.sum()
    return float(np.sum(values * weight) / total) if total else None


def _checked(posterior, label, weight):
    posterior = checks.posterior(posterior)
    return posterior, checks.labels(label, *posterior.shape), checks.weights(weight, len(posterior))
