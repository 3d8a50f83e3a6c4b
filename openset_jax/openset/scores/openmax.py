"""OpenMax (Bendale and Boult 2016, arXiv 1511.06233), algorithms 1 and 2, on logits, with the Euclidean distance.

If an image is unusually far from the centre of a class, a part of the logit of the class moves to "none".
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import optimize
from scipy.spatial import distance
from scipy.special import logsumexp

from openset_jax.openset.scores.unavailable import ScoreUnavailable

_STEEPEST = 1e12  # shape if all distances of a tail are equal: a step function


class Tails(NamedTuple):
    """Weibull distributions of the largest distances of each class from its centre.

    P(a distance of the class is below d) = 1 - exp(-(x / scale)^shape), with x = 1 + (d - smallest) / shift, and 0 where
    x is not positive.

    Attributes:
      centre: float64 [K, K], the mean logits of each class.
      smallest, shape, log_scale: float64 [K].
    """

    centre: np.ndarray
    smallest: np.ndarray
    shape: np.ndarray
    log_scale: np.ndarray
    shift: float

    def below(self, logits: np.ndarray) -> np.ndarray:
        """Returns the distribution functions at the distances of the images from the centres, float64 [n, K] in [0, 1]."""
        excess = distance.cdist(logits, self.centre) - self.smallest
        log_x = np.log(np.maximum(1 + excess / self.shift, np.finfo(float).tiny))
        return -np.expm1(-np.exp(np.minimum(self.shape * (log_x - self.log_scale), 700)))


def fit(
    centre: np.ndarray,
    logits: np.ndarray,
    label: np.ndarray,
    *,
    tail: int = 20,
    shift: float = 1.0,
    names: Sequence[str] | None = None,
) -> Tails:
    """Fits the tail of each class by maximum likelihood.

    Args:
      centre: [K, K], the mean logits of each class.
      logits, label: [m, K], int [m]: training images that are classified correctly.
      tail: how many of the largest distances of each class to fit; all if there are fewer.
      shift: distance from the start of the distribution to the smallest distance of the tail. libMR 0.1.9, the authors'
        library, uses 1; pytorch-ood uses 10,000, which is nearly Gumbel's distribution of minima: the scores differ.
      names: of the classes, for messages.

    Raises:
      ScoreUnavailable: a class has fewer than two images.
      ValueError: the tail is shorter than two.
    """
    if tail < 2:
        raise ValueError(f"the tail must hold at least two distances, not {tail}")
    fits = []
    for k, middle in enumerate(centre):
        own = logits[label == k]
        if len(own) < 2:
            name = f"class {k}" if names is None else repr(names[k])
            raise ScoreUnavailable(
                f"OpenMax needs two correctly classified training images of each class; {name} has {len(own)}"
            )
        fits.append(_weibull(np.sort(distance.cdist(own, middle[None])[:, 0])[-tail:], shift))
    smallest, shape, log_scale = np.array(fits).T
    return Tails(centre, smallest, shape, log_scale, shift)


def _weibull(distances, shift):
    """Returns (smallest, shape, log scale), at the only root of the derivative of the likelihood by the shape."""
    log_x = np.log1p((distances - distances[0]) / shift)
    spread = log_x.max() - log_x.mean()
    if spread <= 1 / _STEEPEST:
        return distances[0], _STEEPEST, log_x.max()
    y = (log_x - log_x.mean()) / spread  # maximum 1, mean 0

    def slope(log_shape):
        weight = np.exp(np.exp(log_shape) * (y - 1))
        return weight @ y / weight.sum() - np.exp(-log_shape)

    shape = np.exp(optimize.brentq(slope, -14, 14, xtol=1e-13)) / spread
    return distances[0], shape, logsumexp(shape * log_x, b=1 / len(log_x)) / shape


def openmax(logits: np.ndarray, tails: Tails, *, revised: int = 3) -> np.ndarray:
    """Returns log p(none) / (1 - p(none)) under OpenMax, float64 [n], for logits [n, K].

    OpenOOD's score is p(none). pytorch-ood sets the distance from classes that are not predicted for any image of the batch
    to 0, so that its scores depend on the batch.

    Args:
      revised: alpha, how many of the largest logits lose a part to "none"; all if there are fewer classes.
    """
    logits = np.asarray(logits, np.float64)
    revised = min(revised, logits.shape[1])
    largest = np.argsort(-logits, axis=1, kind="stable")[:, :revised]
    rank_weight = np.zeros_like(logits)
    np.put_along_axis(rank_weight, largest, 1 - np.arange(revised) / max(revised, 1), axis=1)
    to_none = logits * rank_weight * tails.below(logits)
    return to_none.sum(axis=1) - logsumexp(logits - to_none, axis=1)
