"""OpenMax: how far out in its class's tail an image lies, and so how much of its logits belongs to "none".

Bendale and Boult 2016, arXiv 1511.06233, algorithms 1 and 2, on logits, by Euclidean distance.
"""

from typing import NamedTuple

import numpy as np
from scipy import optimize
from scipy.spatial import distance
from scipy.special import logsumexp

_STEEPEST = 1e12  # a tail without spread is a step


class Tails(NamedTuple):
    """A Weibull distribution of each class's largest distances from its centre.

    P(a distance of the class is below d) = 1 - exp(-(x / scale)^shape), with x = 1 + (d - smallest) / shift, and 0 where
    x is not positive.

    Attributes:
      centre: float64 [K, K], the mean logits of each class.
      smallest, shape, log_scale: float64 [K].
      shift: see `fit`.
    """

    centre: np.ndarray
    smallest: np.ndarray
    shape: np.ndarray
    log_scale: np.ndarray
    shift: float

    def below(self, logits: np.ndarray) -> np.ndarray:
        """float64 [n, K] in [0, 1]: the share of each class's distances, by its tail, that are smaller than the image's."""
        excess = distance.cdist(logits, self.centre) - self.smallest
        log_x = np.log(np.maximum(1 + excess / self.shift, np.finfo(float).tiny))
        return -np.expm1(-np.exp(np.minimum(self.shape * (log_x - self.log_scale), 700)))


def fit(centre: np.ndarray, logits: np.ndarray, label: np.ndarray, *, tail: int = 20, shift: float = 1.0) -> Tails:
    """Fits each tail by maximum likelihood.

    Args:
      centre: [K, K], the mean logits of each class.
      logits, label: [m, K], int [m]: training images that are classified right.
      tail: how many of the largest distances of each class count; all where there are fewer.
      shift: where the distribution begins, so far below the smallest distance of the tail. 1 is what libMR, the authors'
        library, does (0.1.9); pytorch-ood has 10,000, in effect Gumbel's distribution of minima, and other scores.

    Raises:
      ValueError: a class has fewer than two images, or the tail is shorter than two.
    """
    if tail < 2:
        raise ValueError(f"the tail must hold at least two distances, not {tail}")
    fits = []
    for k, middle in enumerate(centre):
        own = logits[label == k]
        if len(own) < 2:
            raise ValueError(f"OpenMax needs two training images of each class classified right; {k} has {len(own)}")
        fits.append(_weibull(np.sort(distance.cdist(own, middle[None])[:, 0])[-tail:], shift))
    return Tails(centre, *np.array(fits).T, shift)


def _weibull(distances, shift):
    """(smallest, shape, log scale), at the root of the likelihood's derivative by the shape, which has one."""
    log_x = np.log1p((distances - distances[0]) / shift)
    spread = log_x.max() - log_x.mean()
    if spread <= 1 / _STEEPEST:
        return distances[0], _STEEPEST, log_x.max()
    y = (log_x - log_x.mean()) / spread  # its largest is 1, its mean 0

    def slope(log_shape):
        weight = np.exp(np.exp(log_shape) * (y - 1))
        return weight @ y / weight.sum() - np.exp(-log_shape)

    shape = np.exp(optimize.brentq(slope, -14, 14, xtol=1e-13)) / spread
    return distances[0], shape, logsumexp(shape * log_x, b=1 / len(log_x)) / shape


def openmax(logits: np.ndarray, tails: Tails, *, revised: int = 3) -> np.ndarray:
    """log p(none) / (1 - p(none)) under OpenMax.

    p(none) is OpenOOD's score. pytorch-ood takes 0 for the distance from classes that no image of the same batch is given,
    so that its score of an image depends on the others.

    Args:
      logits: [n, K] of the known classes.
      tails: of the training images.
      revised: alpha, how many of the largest logits give up a part to "none"; all where there are fewer classes.

    Returns:
      float64 [n].
    """
    logits = np.asarray(logits, np.float64)
    revised = min(revised, logits.shape[1])
    largest = np.argsort(-logits, axis=1, kind="stable")[:, :revised]
    rank_weight = np.zeros_like(logits)
    np.put_along_axis(rank_weight, largest, 1 - np.arange(revised) / max(revised, 1), axis=1)
    given_up = logits * rank_weight * tails.below(logits)
    return given_up.sum(axis=1) - logsumexp(logits - given_up, axis=1)
