"""Logits -> how unknown: larger means more likely "none". These are what AUROC ranks.

`none_log_odds` needs an output for "none". All others are about the known classes: of a network with K + 1 outputs they get
the first K logits. Everything is computed from logits and their logarithms, never from probabilities: those round to 0 and
1 where the images still differ, and an unknown that ties with a known is a lost answer.

Scores that also look at features, or at training images, are in `feature_scores`, with the table of all of them.
"""

import numpy as np
from scipy.special import log_softmax, logsumexp


def none_log_odds(logits: np.ndarray) -> np.ndarray:
    """log p(none) / (1 - p(none)) under a softmax over K classes and "none".

    Computed from logits, never from probabilities: near 0 and 1 those are equal in floating point where the log-odds still
    order the images.

    Args:
      logits: [n, K + 1], "none" last.

    Returns:
      float64 [n].
    """
    logits = np.asarray(logits, np.float64)
    return logits[:, -1] - logsumexp(logits[:, :-1], axis=1)


def softmax(logits: np.ndarray) -> np.ndarray:
    """float64 [n, K + 1], rows summing to 1."""
    logits = np.asarray(logits, np.float64)
    return np.exp(logits - logsumexp(logits, axis=1, keepdims=True))


def msp(logits: np.ndarray) -> np.ndarray:
    """Log-odds against the likeliest class: log (1 - p) / p, where p is the maximum softmax probability.

    It falls strictly with p, so it ranks as -p does (Hendrycks and Gimpel 2017, arXiv 1610.02136), but tells apart images
    whose p is 1 in floating point.

    Args:
      logits: [n, K] of the known classes.

    Returns:
      float64 [n], at most log(K - 1).

    Raises:
      ValueError: fewer than two classes: p is 1.
    """
    top, others = _top_and_others(logits)
    return others - top[:, -1]


def max_logit(logits: np.ndarray) -> np.ndarray:
    """The largest logit, negated: float64 [n] (Hendrycks et al. 2022, arXiv 1911.11132; Vaze et al. 2022, arXiv 2110.06207).

    Args:
      logits: [n, K] of the known classes.
    """
    return -np.asarray(logits, np.float64).max(axis=1)


def energy(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """-T log sum exp(z / T): float64 [n] (Liu et al. 2020, arXiv 2010.03759, equation 4, whose sign this is).

    Args:
      logits: [n, K] of the known classes.
      temperature: T > 0. Towards 0 it is `max_logit`.

    Raises:
      ValueError: T is not positive.
    """
    if not temperature > 0:
        raise ValueError(f"the temperature must be positive, not {temperature}")
    return -temperature * logsumexp(np.asarray(logits, np.float64) / temperature, axis=1)


def entropy(logits: np.ndarray) -> np.ndarray:
    """-sum p log p of the softmax, in nats: float64 [n], in [0, log K].

    0 log 0 is 0, where pytorch-ood has NaN.

    Args:
      logits: [n, K] of the known classes.
    """
    log_p = log_softmax(np.asarray(logits, np.float64), axis=1)
    return -(np.exp(log_p) * log_p).sum(axis=1)


def generalised_entropy(logits: np.ndarray, *, gamma: float = 0.1, top: int = 100) -> np.ndarray:
    """GEN: the sum of p^gamma (1 - p)^gamma over the likeliest classes (Liu, Lochman and Zach 2023, CVPR, section 3).

    A small gamma asks how small the small probabilities are, and 1 - p of a confident image is one of them. It is taken as
    the mass of the other classes; as 1 minus a rounded p, in OpenOOD, it is 0 or wrong in every digit.

    Args:
      logits: [n, K] of the known classes.
      gamma: in (0, 1).
      top: M, how many classes count; all where there are fewer.

    Returns:
      float64 [n], at least 0.

    Raises:
      ValueError: fewer than two classes, or gamma or M out of range.
    """
    if not 0 < gamma < 1 or top < 1:
        raise ValueError(f"gamma must be in (0, 1) and M at least 1; they are {gamma} and {top}")
    ascending, others = _top_and_others(logits, sort=True)
    total = np.logaddexp(others, ascending[:, -1])
    log_p = ascending - total[:, None]
    log_rest = np.log1p(-np.exp(log_p[:, :-1]))  # exact: none of these is above one half
    log_rest = np.concatenate([log_rest, (others - total)[:, None]], axis=1)
    return np.exp(gamma * (log_p + log_rest))[:, -top:].sum(axis=1)


def kl_matching(logits: np.ndarray, log_typical: np.ndarray) -> np.ndarray:
    """The divergence KL(p || d) to the nearest typical posterior d (Hendrycks et al. 2022, arXiv 1911.11132).

    As in OpenOOD; pytorch-ood takes the posterior of the class that the image is given, which need not be the nearest.

    Args:
      logits: [n, K] of the known classes.
      log_typical: [c, K], natural logarithms of the mean softmax of the images that are given each class, finite. Those of
        `training_features`.

    Returns:
      float64 [n], nats, at least 0 up to rounding.
    """
    log_p = log_softmax(np.asarray(logits, np.float64), axis=1)
    cross = -np.exp(log_p) @ np.asarray(log_typical, np.float64).T
    return cross.min(axis=1) - entropy(logits)


def odin(logits: np.ndarray, temperature: float = 1000.0) -> np.ndarray:
    """`msp` of z / T (Liang, Li and Srikant 2018, arXiv 1706.02690); ranks as their -S(x; T) does.

    At T = 1000 all probabilities are within rounding of 1 / K in float32; log-odds in float64 still tell images apart.

    Args:
      logits: [n, K] of the known classes, of images that were moved (`openset.odin`).
      temperature: T > 0, with which they were moved.
    """
    return msp(np.asarray(logits, np.float64) / temperature)


def _top_and_others(logits, sort=False):
    """(logits float64 [n, K] with the largest last, the logsumexp of all the others float64 [n])."""
    logits = np.asarray(logits, np.float64)
    if logits.shape[1] < 2:
        raise ValueError("the probability of the only class is always 1: this score needs the logits of at least two")
    logits = np.sort(logits, axis=1) if sort else np.partition(logits, -1, axis=1)
    return logits, logsumexp(logits[:, :-1], axis=1)
