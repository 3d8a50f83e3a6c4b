"""Standard errors of estimated class priors, and the number of images below which no prior is estimated.

The errors are those of the samples: unlabelled images and validation images. They do not include a violation of label shift
(`label_shift.implausibility`). One image, spread evenly over the K + 1 classes, is added to the unlabelled images, so that a
share of 0 or 1 has an error, too (for two classes this is Jeffreys' prior of a share).

Posteriors are [n, K + 1], labels int [n] in [0, K], priors [K + 1]; K is "none".
"""

import numpy as np

# With a perfect network an estimated share p has the standard error sqrt(p (1 - p) / n), at most 0.05 for 100 images: the
# 95 % interval then ends 10 points above and below. An imperfect network makes it larger: in a simulation of two classes
# whose normal scores are d standard deviations apart, p = 0.5, EM from 100 images has 0.11 (d = 1), 0.067 (2), 0.055 (3).
FEWEST_IMAGES = 100


def of_em(
    unlabelled: np.ndarray,
    estimate: np.ndarray,
    validation: np.ndarray,
    label: np.ndarray,
    fitted: np.ndarray,
    reference: np.ndarray,
) -> np.ndarray:
    """Returns the standard errors of fitted_k q_k / reference_k, normalised, for the EM estimate q: float64 [K + 1].

    With w_ik = p_ik / reference_k, EM maximises sum_i log(w_i q). The inverse of its information matrix
    mean_i w_i w_i' / (w_i q)^2 gives the error from the unlabelled images (observed information of EM, Louis 1982; the
    covariance is projected, since q sums to 1). The error of `reference` shifts the gradient of the likelihood; so it gives
    the error from the validation images.

    Args:
      unlabelled, validation: posteriors under the prior `fitted`.
      estimate: q.
      label: of the validation images.
      reference: the mean posterior of the validation images weighted to `fitted`.
    """
    n, width = unlabelled.shape
    used = reference > 0
    q = _with_one_image(estimate, n)[used]
    ratio = unlabelled[:, used] / reference[used]
    scaled = ratio / (ratio @ q)[:, None]
    inverse = np.linalg.inv(scaled.T @ scaled / n + np.diag(1 / (width * n * q**2)))
    noise = _of_mean(validation, label, fitted)[np.ix_(used, used)] / np.outer(reference[used], reference[used])
    covariance = inverse / n + inverse @ noise @ inverse
    scale = fitted[used] / reference[used]
    prior = scale * q / (scale @ q)
    change = (np.diag(scale) - np.outer(prior, scale)) / (scale @ q)  # of the normalised prior by q
    errors = np.zeros(width)
    errors[used] = np.sqrt(np.einsum("ij,jk,ik->i", change, covariance, change))
    return errors


def of_bbse(confusion: np.ndarray, decided: np.ndarray, prior: np.ndarray, count: np.ndarray, images: int) -> np.ndarray:
    """Returns the standard errors of C^-1 m, float64 [K + 1], from the multinomial variances of m and of the columns of C.

    Args:
      confusion: C, P(argmax i | label j) on validation; decided: m, the shares of argmax on the unlabelled images.
      prior: C^-1 m.
      count: int [K + 1], validation images of each class; images: number of unlabelled images.
    """
    share = _with_one_image(decided, images)
    noise = prior**2 / count
    covariance = (np.diag(share) - np.outer(share, share)) / images + np.diag(confusion @ noise)
    covariance -= (confusion * noise) @ confusion.T
    inverse = np.linalg.inv(confusion)
    return np.sqrt(np.einsum("ij,jk,ik->i", inverse, covariance, inverse))


def _with_one_image(shares, images):
    """Returns the shares after one image is added, spread evenly over all classes."""
    return (images * shares + 1 / len(shares)) / (images + 1)


def _of_mean(posterior, label, prior):
    """Returns the covariance of sum_j prior_j (mean posterior of class j), float64 [K + 1, K + 1]."""
    count = np.bincount(label, minlength=len(prior))
    members = np.arange(len(prior))[:, None] == label
    centred = posterior - ((members @ posterior) / np.maximum(count, 1)[:, None])[label]
    weight = (prior / np.maximum(count, 1))[label]
    return (centred * (weight**2)[:, None]).T @ centred
