"""Is it right, and does it know what it does not know: metrics of labels, decisions and scores. NumPy, no files."""

import numpy as np
from scipy import stats


def auroc(known_score: np.ndarray, unknown_score: np.ndarray) -> float | None:
    """P(an unknown's score is above a known's), ties counting one half. **Unknowns are the positive side.**

    The Mann-Whitney statistic by midranks, exact under ties, O(n log n).

    Args:
      known_score, unknown_score: float [m], [n], larger = more unknown.

    Returns:
      A value in [0, 1], or None where either side has no image.

    Raises:
      ValueError: a score is NaN.
    """
    m, n = len(known_score), len(unknown_score)
    if not m or not n:
        return None
    scores = np.concatenate([known_score, unknown_score]).astype(np.float64)
    if np.isnan(scores).any():
        raise ValueError(f"score {int(np.flatnonzero(np.isnan(scores))[0])} of {len(scores)} (knowns first) is NaN")
    ranks = stats.rankdata(scores)
    return float((ranks[m:].sum() - n * (n + 1) / 2) / (m * n))


def share(hits: np.ndarray) -> float | None:
    """The share of True, or None where there is nothing."""
    return float(np.mean(hits)) if len(hits) else None


def confusion_matrix(label: np.ndarray, decision: np.ndarray, num_classes: int) -> np.ndarray:
    """int [K + 2, K + 1]: rows are the K known classes, negatives, unknowns; columns the K classes and "none".

    Args:
      label: int [n], -1 for negatives and -2 for unknowns.
      decision: int [n] in [0, K], K is "none".
    """
    rows = np.where(label >= 0, label, num_classes - 1 - label)
    matrix = np.zeros((num_classes + 2, num_classes + 1), int)
    np.add.at(matrix, (rows, decision), 1)
    return matrix


def balanced_accuracy(label: np.ndarray, decision: np.ndarray) -> float | None:
    """The mean over classes of the share of each class's images that are decided right."""
    recalls = [np.mean(decision[label == k] == k) for k in np.unique(label)]
    return float(np.mean(recalls)) if recalls else None


def prior_entropy(prior: np.ndarray) -> float:
    """-sum p log p in nats: the cross-entropy of a network that ignores its input and has learned the prior."""
    prior = np.asarray(prior, np.float64)
    return float(-np.sum(prior[prior > 0] * np.log(prior[prior > 0])))
