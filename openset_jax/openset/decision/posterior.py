"""Any objective's outputs -> probabilities over K known classes and "none", and what another mix of classes makes of them.

All objectives end in the same float64 [n, K + 1], "none" last, rows summing to 1, so that priors, costs and thresholds
are one piece of code for all of them. A softmax over K + 1 classes is there already (`scores.softmax`).

Decide with these, do not rank with them: near 0 and 1 they tie where scores still tell images apart.
"""

import numpy as np
from scipy.special import expit

from openset_jax.openset import checks

EPSILON = 1e-6  # the least p_none of `from_sigmoids`


def from_sigmoids(logits: np.ndarray) -> np.ndarray:
    """The posterior of K heads "class k or not", trained with the all-zeros label for negatives ("one versus rest").

    A calibrated head says s_k = p_k itself: its rest holds the other classes as well as the negatives. So p_k = s_k and
    p_none = 1 - sum s_k, as the K + 1 events exclude each other. (The product of "not k" over all heads is only an
    approximation of p_none.) Nothing makes the heads agree, though: where sum s_k exceeds 1 - 1e-6
    (`EPSILON`), p_none is 1e-6 and the s_k are scaled to sum to 1 - 1e-6, so that a prior can still bring "none" back.

    Args:
      logits: [n, K], finite.

    Returns:
      float64 [n, K + 1], "none" last.

    Raises:
      ValueError: a logit is not finite.
    """
    known = expit(checks.finite(logits, "logits", 2))
    total = known.sum(axis=1, keepdims=True)
    full = total > 1 - EPSILON
    known = np.where(full, known * (1 - EPSILON) / np.where(full, total, 1), known)
    return np.concatenate([known, np.where(full, EPSILON, 1 - total)], axis=1)


def with_none(class_posterior: np.ndarray, p_none: np.ndarray) -> np.ndarray:
    """p_k = (1 - p_none) p(k | known): a posterior over the known classes, and how likely "none" is beside it.

    For objectives without an output for "none" (p_none is then a calibrated score), and for any other whose p_none is
    calibrated anew: then `class_posterior` is the softmax of the logits of the known classes.

    Args:
      class_posterior: [n, K], rows summing to 1.
      p_none: [n] in [0, 1].

    Returns:
      float64 [n, K + 1], "none" last.

    Raises:
      ValueError: a row of `class_posterior` is no distribution, the lengths differ, or a p_none is not in [0, 1].
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
    """The posterior under the mix of classes of the deployment: p(k | x) deployment_k / training_k, made to sum to 1.

    Bayes' rule with the same images of each class in another mix (Saerens, Latinne and Decaestecker 2002, equation 2.4;
    for two classes Elkan 2001, theorem 2). It cannot help where the images of "none" themselves are others than in
    training: `label_shift.implausibility` looks for that.

    Args:
      posterior: [n, K + 1], "none" last, calibrated under the mix `training`.
      training: [K + 1], the effective prior: what the network saw, after sampling and weights.
      deployment: [K + 1].

    Returns:
      float64 [n, K + 1]. A row that is 0 for all classes of the deployment says nothing of them: it becomes `deployment`.

    Raises:
      ValueError: a row of `posterior` is no distribution; a prior has the wrong length, a negative, or a sum other than
        1 within 1e-6; or a class that training never had is in the deployment.
    """
    posterior = checks.posterior(posterior)
    width = posterior.shape[1]
    training = checks.prior(training, width, "the training prior")
    deployment = checks.prior(deployment, width, "the deployment prior")
    unseen = (training == 0) & (deployment > 0)
    if unseen.any():
        k = int(unseen.argmax())
        raise ValueError(
            f"the training prior of class {k} of {width} is 0 but its deployment prior is {deployment[k]:g}: "
            "what was never trained cannot be recognised; the deployment prior must be 0 there too"
        )
    joint = posterior * np.divide(deployment, training, out=np.zeros(width), where=training > 0)
    total = joint.sum(axis=1, keepdims=True)
    empty = total == 0
    return np.where(empty, deployment / deployment.sum(), joint / np.where(empty, 1, total))
