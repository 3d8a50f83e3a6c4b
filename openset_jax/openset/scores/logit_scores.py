"""Open-set scores from logits; larger means more likely "none".

`none_log_odds` needs an output for "none". All others take the logits of the K known classes, [n, K]; for a network with
K + 1 outputs, the first K. Scores are float64 [n]. They are computed in the log domain, never from probabilities, which
round to 0 and 1 and then tie for images whose logits still differ. Scores that use features or training images are in
`feature_scores`, with the table of all scores.
"""

import numpy as np
from scipy.special import log_softmax, logsumexp


def none_log_odds(logits: np.ndarray) -> np.ndarray:
    """Returns log p(none) / (1 - p(none)) under a softmax over K classes and "none", from logits [n, K + 1], "none" last."""
    logits = np.asarray(logits, np.float64)
    return logits[:, -1] - logsumexp(logits[:, :-1], axis=1)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Returns probabilities, float64 [n, outputs], rows summing to 1."""
    logits = np.asarray(logits, np.float64)
    return np.exp(logits - logsumexp(logits, axis=1, keepdims=True))


def msp(logits: np.ndarray) -> np.ndarray:
    """Returns the log-odds log (1 - p) / p, at most log(K - 1), K > 1, where p is the maximum softmax probability.

    Strictly decreasing in p: the same ranking as by -p (Hendrycks and Gimpel 2017, arXiv 1610.02136), but images for which p
    rounds to 1 do not tie.

    Raises:
      ValueError: there are fewer than two classes, so that p is always 1.
    """
    top, others = _top_and_others(logits)
    return others - top[:, -1]


def max_logit(logits: np.ndarray) -> np.ndarray:
    """Returns minus the largest logit (Hendrycks et al. 2022, arXiv 1911.11132; Vaze et al. 2022, arXiv 2110.06207)."""
    return -np.asarray(logits, np.float64).max(axis=1)


def energy(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Returns the energy -T log sum exp(z / T) (Liu et al. 2020, arXiv 2010.03759, equation 4); `max_logit` for T -> 0.

    Raises:
      ValueError: T is not positive.
    """
    if not temperature > 0:
        raise ValueError(f"the temperature must be positive, not {temperature}")
    return -temperature * logsumexp(np.asarray(logits, np.float64) / temperature, axis=1)


def entropy(logits: np.ndarray) -> np.ndarray:
    """Returns the entropy -sum p log p of the softmax, in nats, in [0, log K]; 0 log 0 is 0, but NaN in pytorch-ood."""
    log_p = log_softmax(np.asarray(logits, np.float64), axis=1)
    return -(np.exp(log_p) * log_p).sum(axis=1)


def generalised_entropy(logits: np.ndarray, *, gamma: float = 0.1, top: int = 100) -> np.ndarray:
    """Returns GEN: the sum of p^gamma (1 - p)^gamma over the M most likely classes (Liu, Lochman and Zach 2023, CVPR).

    Section 3 of the paper. A small gamma makes the score sensitive to small values of p and of 1 - p. Here 1 - p is the sum
    of the other probabilities; in OpenOOD it is computed from a rounded p, and is 0 or has no correct digit for p near 1.

    Args:
      gamma: in (0, 1).
      top: M; all classes if there are fewer.

    Raises:
      ValueError: there are fewer than two classes, or gamma or M is out of range.
    """
    if not 0 < gamma < 1 or top < 1:
        raise ValueError(f"gamma must be in (0, 1) and M at least 1; they are {gamma} and {top}")
    ascending, others = _top_and_others(logits, sort=True)
    total = np.logaddexp(others, ascending[:, -1])
    log_p = ascending - total[:, None]
    log_rest = np.log1p(-np.exp(log_p[:, :-1]))  # accurate, because each p here is at most one half
    log_rest = np.concatenate([log_rest, (others - total)[:, None]], axis=1)
    return np.exp(gamma * (log_p + log_rest))[:, -top:].sum(axis=1)


def kl_matching(logits: np.ndarray, log_typical: np.ndarray) -> np.ndarray:
    """Returns the divergence KL(p || d) to the nearest typical posterior d (Hendrycks et al. 2022, arXiv 1911.11132).

    In nats, at least 0 up to rounding. As in OpenOOD; pytorch-ood uses the d of the predicted class, which need not be the
    nearest. The logarithms of the typical posteriors, [c, K], are finite; see `TrainingFeatures`.
    """
    log_p = log_softmax(np.asarray(logits, np.float64), axis=1)
    cross = -np.exp(log_p) @ np.asarray(log_typical, np.float64).T
    return cross.min(axis=1) - entropy(logits)


def odin(logits: np.ndarray, temperature: float = 1000.0) -> np.ndarray:
    """Returns `msp` of z / T (Liang, Li and Srikant 2018, arXiv 1706.02690); the same ranking as by -S(x; T) of the paper.

    The logits are those of images perturbed by `eval_program.perturbed_logits` at the same T > 0. At T = 1000 all
    probabilities are within rounding of 1 / K in float32; log-odds in float64 still differ.
    """
    return msp(np.asarray(logits, np.float64) / temperature)


def _top_and_others(logits, sort=False):
    """Returns (logits float64 [n, K] with the largest last, logsumexp of the others float64 [n])."""
    logits = np.asarray(logits, np.float64)
    if logits.shape[1] < 2:
        raise ValueError("the probability of a single class is always 1; this score needs the logits of at least two")
    logits = np.sort(logits, axis=1) if sort else np.partition(logits, -1, axis=1)
    return logits, logsumexp(logits[:, :-1], axis=1)
