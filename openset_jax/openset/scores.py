"""Logits -> how unknown: larger means more likely "none". These are what AUROC ranks."""

import numpy as np
from scipy.special import logsumexp


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
