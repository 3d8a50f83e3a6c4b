"""The posterior over K known classes and "none", and its correction to another class prior.

Every objective has a posterior of the same form, float64 [n, K + 1], "none" last, rows summing to 1, so that the code for
priors, costs and thresholds is shared. For a softmax over K + 1 classes it is `logit_scores.softmax`. Use posteriors for
decisions, and scores for ranking: probabilities near 0 and 1 tie while scores still differ.
"""

import numpy as np
from scipy.special import expit

from openset_jax.openset import checks

EPSILON = 1e-6  # lower bound of p_none in `from_sigmoids`


def from_sigmoids(logits: np.ndarray) -> np.ndarray:
    """Returns the posterior of K sigmoid heads, [n, K], that were trained with the all-zeros label for negatives.

    A calibrated head has s_k = p_k, because its negative side contains the other classes and the negatives. The K + 1
    events are mutually exclusive, so p_k = s_k and p_none = 1 - sum s_k. (The product of 1 - s_k over all heads only
    approximates p_none.) The heads need not be consistent: if sum s_k exceeds 1 - 1e-6 (`EPSILON`), p_none is 1e-6 and the
    s_k are scaled to sum to 1 - 1e-6, so that a prior can still raise p_none.

    Raises:
      ValueError: a logit is not finite.
    """
    known = expit(checks.finite(logits, "logits", 2))
    total = known.sum(axis=1, keepdims=True)
    full = total > 1 - EPSILON
    known = np.where(full, known * (1 - EPSILON) / np.where(full, total, 1), known)
    return np.concatenate([known, np.where(full, EPSILON, 1 - total)], axis=1)


def with_none(class_posterior: np.ndarray, p_none: np.ndarray) -> np.ndarray:
    """Returns the posterior with p_k = (1 - p_none) p(k | known), from p(k | known), [n, K], and p_none, [n].

    For a p_none that is a calibrated score: that of a softmax over K classes, and that of other objectives with the
    calibration "logistic" or "isotonic".

    Raises:
      ValueError: a row of `class_posterior` is not a distribution, the lengths differ, or a p_none is not in [0, 1].
    """
    known = checks.posterior(class_posterior, "class_posterior")
    p_none = np.asarray(p_none, np.float64)
    if p_none.shape != (len(known),):
        raise ValueError(f"there must be one p_none for each of {len(known)} images; its shape is {p_none.shape}")
    wrong = ~((p_none >= 0) & (p_none <= 1))
    if wrong.any():
        raise ValueError(f"p_none must be in [0, 1]: number {int(wrong.argmax())} is {p_none[wrong.argmax()]}")
    known = known / known.sum(axis=1, keepdims=True)
    return np.concatenate([known * (1 - p_none)[:, None], p_none[:, None]], axis=1)


def correct_prior(posterior: np.ndarray, training: np.ndarray, deployment: np.ndarray) -> np.ndarray:
    """Returns the posterior under another class prior: p(k | x) deployment_k / training_k, normalised.

    Bayes' rule under label shift: the images of each class have the same distribution under both priors (Saerens, Latinne
    and Decaestecker 2002, equation 2.4; for two classes Elkan 2001, theorem 2). It does not correct for a change of the
    images of "none" themselves; `label_shift.implausibility` tests for that. Both priors are [K + 1]. The posterior is
    calibrated under `training`, the effective prior of training, which includes sampling and weights. A row that is 0
    wherever `deployment` is positive is replaced by `deployment`.

    Raises:
      ValueError: a row of `posterior` is not a distribution; a prior has the wrong length, a negative entry, or a sum that
        differs from 1 by more than 1e-6; or a class with a training prior of 0 has a positive deployment prior.
    """
    posterior = checks.posterior(posterior)
    width = posterior.shape[1]
    training = checks.prior(training, width, "the training prior")
    deployment = checks.prior(deployment, width, "the deployment prior")
    unseen = (training == 0) & (deployment > 0)
    if unseen.any():
        k = int(unseen.argmax())
        raise ValueError(
            f"the training prior of class {k} of {width} is 0 but its deployment prior is {deployment[k]:g}: a class "
            "without training images cannot be recognised; its deployment prior must be 0 too"
        )
    joint = posterior * np.divide(deployment, training, out=np.zeros(width), where=training > 0)
    total = joint.sum(axis=1, keepdims=True)
    empty = total == 0
    return np.where(empty, deployment / deployment.sum(), joint / np.where(empty, 1, total))
