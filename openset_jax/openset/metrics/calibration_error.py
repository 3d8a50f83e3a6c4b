"""Calibration metrics of a posterior over K classes and "none".

Posteriors are [n, K + 1], rows summing to 1; labels are int [n] in [0, K], K is "none". Every metric takes a weight for each
image, at least 0: an image of weight 2 counts as two images. Multiplying all weights by a constant changes nothing. `bins`
is the maximum number of bins.

The expected calibration error depends on the bins, and in a finite sample it is positive even for a correct posterior, and
larger for fewer images. The negative log-likelihood and the Brier score are proper scoring rules without these problems, but
they also measure how well the classes are separated. Therefore all three are reported.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from openset_jax.openset import checks

LARGEST = {"expected_calibration_error": 1.0, "negative_log_likelihood": -np.log(np.finfo(np.float64).eps), "brier": 2.0}


class Reliability(NamedTuple):
    """A reliability diagram: bins of the probability of the most likely class, ascending.

    Attributes:
      confidence: float64 [b], mean probability of the most likely class.
      accuracy: float64 [b], share of images whose most likely class is the label.
      mass: float64 [b], each bin's share of the total weight; positive, sums to 1.
    """

    confidence: np.ndarray
    accuracy: np.ndarray
    mass: np.ndarray


def reliability(posterior: np.ndarray, label: np.ndarray, bins: int = 15, weight: np.ndarray | None = None) -> Reliability:
    """Returns the accuracy over the confidence in bins of equal mass.

    The diagram is that of Guo et al. 2017 (arXiv 1706.04599), the bins are those of Nguyen and O'Connor 2015 (EMNLP).
    Images of equal confidence are in one bin, which contains the middle of their mass. Therefore the order of the images
    does not matter. Empty bins are left out, so that there are no bins if all weights are 0. The default weight is 1.

    Raises:
      ValueError: an argument is not as above.
    """
    if bins < 1:
        raise ValueError(f"there must be at least one bin, not {bins}")
    posterior = checks.posterior(posterior)
    label, weight = checks.labels(label, *posterior.shape), checks.weights(weight, len(posterior))
    top, place = np.unique(posterior.max(axis=1), return_inverse=True)
    return _binned(top, place, posterior.argmax(axis=1) == label, weight, bins)


def _binned(top: np.ndarray, place: np.ndarray, right: np.ndarray, weight: np.ndarray, bins: int) -> Reliability:
    """Returns the diagram for the distinct confidences `top`, ascending, and the index of each image's among them."""
    if not weight.sum():
        return Reliability(*np.empty((3, 0)))
    mass, hits = (np.bincount(place, w, len(top)) for w in (weight, weight * right))
    middle = np.cumsum(mass) - mass / 2
    which = np.minimum((middle / mass.sum() * bins).astype(int), bins - 1)
    mass, hits, sums = (np.bincount(which, values, bins) for values in (mass, hits, mass * top))
    filled = mass > 0
    mass, hits, sums = mass[filled], hits[filled], sums[filled]
    return Reliability(sums / mass, hits / mass, mass / mass.sum())


def _error(table: Reliability) -> float | None:
    return float(np.sum(table.mass * np.abs(table.accuracy - table.confidence))) if len(table.mass) else None


def by_chance(posterior: np.ndarray, weight: np.ndarray, *, bins: int = 15, resamples: int = 200, seed: int = 0) -> float:
    """Returns the 97.5 % quantile of the expected calibration error under correct probabilities.

    Consistency resampling (Broecker and Smith 2007, Weather and Forecasting 22): each image is classified correctly with
    the probability of its most likely class. A measured error at or below the quantile does not differ significantly from 0.
    """
    top, place = np.unique(checks.posterior(posterior).max(axis=1), return_inverse=True)
    rng = np.random.default_rng(seed)
    resampled = lambda: _error(_binned(top, place, rng.random(len(place)) < top[place], weight, bins))
    return float(np.quantile([resampled() for _ in range(resamples)], 0.975)) if weight.sum() else 0.0


def measures(posterior: np.ndarray, label: np.ndarray, *, bins: int = 15) -> dict[str, Callable[[np.ndarray], float | None]]:
    """Returns the three metrics as functions of the weights, float64 [n], for resampling; `LARGEST` has their upper limits.

    "expected_calibration_error", in [0, 1]: the mean over bins, weighted by mass, of |accuracy - confidence| for the most
    likely class, as in Guo et al. 2017 (arXiv 1706.04599), equation 5, but in bins of equal mass.
    "negative_log_likelihood", in [0, 36.1] nats: the mean of -log p(label). Probabilities are clipped at 2^-52, as in
    scikit-learn, so that one image cannot make the mean infinite. "brier", in [0, 2]: the mean of
    sum_k (p_k - [label = k])^2 over all K + 1 classes (Brier 1950); for two classes, twice the value that is often called
    the Brier score. All are None if no image has a positive weight.

    Raises:
      ValueError: an argument is not as above.
    """
    posterior = checks.posterior(posterior)
    label = checks.labels(label, *posterior.shape)
    top, place = np.unique(posterior.max(axis=1), return_inverse=True)
    right, own = posterior.argmax(axis=1) == label, posterior[np.arange(len(label)), label]
    log_loss = -np.log(np.clip(own, np.finfo(np.float64).eps, 1))
    square_loss = (posterior**2).sum(axis=1) - 2 * own + 1
    return {
        "expected_calibration_error": lambda weight: _error(_binned(top, place, right, weight, bins)),
        "negative_log_likelihood": functools.partial(_mean, log_loss),
        "brier": functools.partial(_mean, square_loss),
    }


def _mean(values: np.ndarray, weight: np.ndarray) -> float | None:
    total = weight.sum()
    return float(np.sum(values * weight) / total) if total else None
