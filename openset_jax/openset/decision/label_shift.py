"""Estimators of the class prior of unlabelled images, and a test of their assumption, label shift.

Label shift: the deployment has other shares of the classes than validation, but the images of each class, and of "none",
have the same distribution. The assumption is most often wrong for "none", because new unknowns differ from the validation
negatives. If it is wrong, the estimate is meaningless: call `implausibility` before `posterior.correct_prior`.

Posteriors are [n, K + 1], labels int [n] in [0, K], priors [K + 1]; K is "none". Both posteriors of a function are from the
same network and under the same prior. `names`, [K + 1], are those of the classes and "none", for messages.
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from openset_jax.openset import checks
from openset_jax.openset.decision import prior_error
from openset_jax.openset.decision.posterior import correct_prior

_FEWEST = 10  # least expected number of images in a cell of a chi-square test, in each sample


class EmPrior(NamedTuple):
    """The result of EM: the prior, float64 [K + 1], and whether the last change was within the tolerance."""

    prior: np.ndarray
    iterations: int
    converged: bool


class BbsePrior(NamedTuple):
    """The result of BBSE: prior and standard errors, float64 [K + 1]; condition number of the confusion matrix."""

    prior: np.ndarray
    standard_error: np.ndarray
    condition: float


class NotEstimable(ValueError):
    """The validation images do not determine a prior; the message says why."""


def estimate_prior_em(
    posterior: np.ndarray, training: np.ndarray, *, tolerance: float = 1e-6, max_iterations: int = 1000
) -> EmPrior:
    """Estimates the maximum-likelihood class prior of unlabelled images by EM.

    Saerens, Latinne and Decaestecker 2002, equation 2.9. Starts from `training`. Each iteration corrects the posterior to
    the current prior and takes its mean as the next prior, until no entry changes by more than the tolerance. The posterior
    must be calibrated (Alexandari, Kundaje and Shrikumar 2020, arXiv 1901.06852). Alexandari et al. set `training` to the
    mean posterior of validation images under the training prior, so that without a shift the prior does not change, even if
    the calibration is imperfect. A class with a prior of 0 keeps it.

    Raises:
      ValueError: there is no image, a row of `posterior` is not a distribution, or `training` is not a prior.
    """
    posterior = _nonempty(posterior, "posterior")
    prior = checks.prior(training, posterior.shape[1], "the training prior")
    for iteration in range(1, max_iterations + 1):
        before, prior = prior, correct_prior(posterior, training, prior).mean(axis=0)
        if np.abs(prior - before).max() <= tolerance:
            return EmPrior(prior, iteration, True)
    return EmPrior(prior, max_iterations, False)


def estimate_prior_bbse(
    validation_posterior: np.ndarray,
    validation_label: np.ndarray,
    posterior: np.ndarray,
    *,
    names: Sequence[str] | None = None,
    max_condition: float = 100.0,
) -> BbsePrior:
    """Estimates the class prior of unlabelled images by black box shift estimation (BBSE).

    Lipton, Wang and Smola 2018 (arXiv 1802.03916), with decisions by argmax. Their weights are w = C^-1 m, with
    C_ij = P(argmax i, label j) on validation and m_i = P(argmax i) on the unlabelled images; the prior is w_j P(label j).
    Here sum_j P(argmax i | label j) prior_j = m_i is solved for the prior, which is equivalent, and needs neither the
    training prior nor the class shares of the validation images. The posterior need not be calibrated. Negative entries
    become 0, and the prior is normalised.

    Raises:
      NotEstimable: a class has no validation image; or the condition number of the confusion matrix exceeds
        `max_condition`, for example because the network always answers "none" (the message names two classes that it does
        not distinguish).
      ValueError: there is no unlabelled image, or an argument is not as above.
    """
    validation_posterior = _nonempty(validation_posterior, "validation_posterior")
    posterior = _nonempty(posterior, "posterior")
    label, width, names = _checked(validation_posterior, validation_label, posterior, names)
    count = np.bincount(label, minlength=width)
    if not count.all():
        raise NotEstimable(f"{names[int(count.argmin())]!r} has no validation image, so its share cannot be estimated")
    confusion = _shares(validation_posterior.argmax(axis=1), label, width, width)
    _, singular, right = np.linalg.svd(confusion)
    condition = float(singular[0] / singular[-1]) if singular[-1] else np.inf
    if condition > max_condition:
        first, second = sorted(np.argsort(np.abs(right[-1]))[-2:].tolist())
        raise NotEstimable(
            f"the confusion matrix is too ill-conditioned to estimate a prior from ({condition:.3g} > {max_condition:g}): "
            f"the network does not distinguish {names[first]!r} from {names[second]!r}; estimate the prior by EM, or give it"
        )
    decided = np.bincount(posterior.argmax(axis=1), minlength=width) / len(posterior)
    prior = np.clip(np.linalg.solve(confusion, decided), 0, None)
    prior = prior / prior.sum()
    return BbsePrior(prior, prior_error.of_bbse(confusion, decided, prior, count, len(posterior)), condition)


def implausibility(
    validation_posterior: np.ndarray,
    validation_label: np.ndarray,
    posterior: np.ndarray,
    prior: np.ndarray,
    *,
    names: Sequence[str] | None = None,
    level: float = 1e-3,
    min_distance: float = 0.02,
) -> str:
    """Tests label shift: returns a warning if unlabelled images differ from validation images under `prior`, else "".

    Two chi-square tests (Pearson 1900) compare the unlabelled images with the validation images weighted to `prior`: one
    the frequencies of the argmax classes, the other those of p_none between its deciles. Their covariance includes the
    sampling error of the validation images. For the maximum-likelihood prior (EM) the tests are conservative
    (Chernoff and Lehmann 1954). The prior of BBSE matches the decisions by construction and has an error of its own, which
    the tests ignore, so that a warning from p_none alone is less reliable. For classes of 100 validation images or fewer
    `level` is approximate.

    An empty result does not prove label shift: unknowns with the posteriors of validation images are not detectable.

    Args:
      validation_posterior, posterior: without correction to `prior`.
      prior: the estimated or declared prior of the unlabelled images.
      level: significance level of both tests together.
      min_distance: no warning below this total variation distance, because with many images every small difference is
        significant.

    Raises:
      ValueError: a class with a positive prior has no validation image, or an argument is not as above.
    """
    validation_posterior, posterior = checks.posterior(validation_posterior), checks.posterior(posterior)
    label, width, names = _checked(validation_posterior, validation_label, posterior, names)
    prior, count = checks.prior(prior, width), np.bincount(label, minlength=width)
    missing = (count == 0) & (prior > checks.TOLERANCE)
    if missing.any():
        k = int(missing.argmax())
        raise ValueError(f"class {k} of {width} has a prior of {prior[k]:.3g} but no validation image")
    edges = _tenths(validation_posterior[:, -1], (prior / np.maximum(count, 1))[label])
    tenth = lambda p: np.searchsorted(edges, p[:, -1], side="right")
    tenths = [f"have a p_none of {a:.3g} to {b:.3g}" for a, b in itertools.pairwise([0.0, *edges, 1.0])]
    aspects = (
        (validation_posterior.argmax(axis=1), posterior.argmax(axis=1), [f'are decided "{name}"' for name in names]),
        (tenth(validation_posterior), tenth(posterior), tenths),
    )
    for then, now, texts in aspects:
        share = _shares(then, label, len(texts), width)
        observed = np.bincount(now, minlength=len(texts)) / max(len(now), 1)
        statistic, freedom = _chi_square(share, count, observed, len(now), prior)
        difference = observed - share @ prior
        if stats.chi2.sf(statistic, freedom) < level / len(aspects) and np.abs(difference).sum() / 2 >= min_distance:
            cell = int(np.abs(difference).argmax())
            return (
                f"label shift is implausible: {observed[cell]:.1%} of the {len(now)} unlabelled images {texts[cell]}, but "
                f"{(share @ prior)[cell]:.1%} of validation images weighted to this prior (chi-square {statistic:.0f} "
                f'with {freedom} degrees of freedom). The images of a class, most likely of "none", differ from those of '
                "validation, or the posterior is not calibrated. No prior corrects this: look at some of the images"
            )
    return ""


def _chi_square(share, count, observed, size, prior):
    """Returns (statistic, degrees of freedom) of `observed` [cells], from `size` images, against share @ prior.

    `share` [cells, classes] and `count` [classes], the numbers of images, are those of validation.
    """
    expected = share @ prior
    noise = prior**2 / np.maximum(count, 1)  # of the validation images of each class
    cells = [np.array([k]) for k in np.argsort(expected)]  # merges the rarest until all have enough
    while len(cells) > 1:
        rarest = share[cells[0]].sum(axis=0)
        mean = rarest @ prior
        if size * mean >= _FEWEST and mean**2 >= _FEWEST * (noise @ rarest):
            break
        cells = sorted([np.concatenate(cells[:2]), *cells[2:]], key=lambda cell: expected[cell].sum())
    if len(cells) == 1 or not size:
        return 0.0, 1
    kept = cells[:-1]  # the last follows from the others
    merge = np.stack([np.isin(np.arange(len(share)), cell) for cell in kept]).astype(float)
    share, expected, observed = merge @ share, merge @ expected, merge @ observed
    covariance = (np.diag(expected) - np.outer(expected, expected)) / size
    covariance = covariance + np.diag(share @ noise) - (share * noise) @ share.T
    difference = observed - expected
    return float(difference @ np.linalg.solve(covariance, difference)), len(difference)


def _tenths(values, weight):
    """Returns the deciles of a weighted sample, ascending and without duplicates."""
    order = np.argsort(values)
    mass = np.cumsum(weight[order])
    if not len(mass) or not mass[-1]:
        return np.empty(0)
    place = np.searchsorted(mass, np.arange(1, 10) / 10 * mass[-1])
    return np.unique(values[order][place])


def _shares(cell, label, cells, width):
    """Returns P(cell | label), float64 [cells, width]; 0 for classes without images."""
    table = np.zeros((cells, width))
    np.add.at(table, (cell, label), 1)
    return table / np.maximum(table.sum(axis=0), 1)


def _nonempty(posterior: np.ndarray, name: str) -> np.ndarray:
    posterior = checks.posterior(posterior, name)
    if not len(posterior):
        raise ValueError(f"{name} has no image: there is nothing to estimate a prior from")
    return posterior


def _checked(validation_posterior, label, posterior, names):
    """Returns (the labels of the validation images, K + 1, the names of the classes and "none")."""
    width = validation_posterior.shape[1]
    if posterior.shape[1] != width:
        raise ValueError(f"validation_posterior has {width} classes and posterior has {posterior.shape[1]}; they must agree")
    names = [*(f"class {k}" for k in range(width - 1)), "none"] if names is None else names
    return checks.labels(label, len(validation_posterior), width), width, names
