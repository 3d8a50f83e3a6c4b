"""Which mix of classes do unlabelled images come from? Two estimates of a prior, and a test of their premise.

The premise is label shift: where the network is deployed the classes are mixed in other shares, but the images of each
class, and of "none", look as they did in validation. "none" is where it fails first, because the next unknowns come from
elsewhere. Then an estimate is a number without a meaning: ask `implausibility` before `posterior.correct_prior` uses one.
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from openset_jax.openset import checks
from openset_jax.openset.decision.posterior import correct_prior

_FEWEST = 10  # images expected in a cell of a chi-square test, in both samples


class EmPrior(NamedTuple):
    """float64 [K + 1] that sums to 1, how many iterations it took, and whether it had stopped moving by then."""

    prior: np.ndarray
    iterations: int
    converged: bool


class BbsePrior(NamedTuple):
    """float64 [K + 1] that sums to 1, and the condition number of the confusion matrix: errors grow with it."""

    prior: np.ndarray
    condition: float


def estimate_prior_em(
    posterior: np.ndarray, training: np.ndarray, *, tolerance: float = 1e-6, max_iterations: int = 1000
) -> EmPrior:
    """The most likely mix of classes of unlabelled images, by EM (Saerens, Latinne and Decaestecker 2002, equation 2.9).

    Corrects the posterior to the present prior, takes the mean of it as the next one, and starts from `training`. The
    posterior must be calibrated (Alexandari, Kundaje and Shrikumar 2020, arXiv 1901.06852). They take for `training` the
    mean posterior of validation images in the training mix, so that without a shift nothing is corrected even if
    calibration is not perfect.

    Args:
      posterior: [n, K + 1] of the unlabelled images, under the mix `training`.
      training: [K + 1]. A class of 0 stays at 0.
      tolerance: converged once no share of the mix moves by more than this in an iteration.
      max_iterations: gives up then, with `converged` False.

    Raises:
      ValueError: there is no image, a row of `posterior` is no distribution, or `training` is no prior.
    """
    posterior = _some(posterior, "posterior")
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
    """The mix of classes under which validation images would be decided as the unlabelled are (black box shift estimation).

    Lipton, Wang and Smola 2018 (arXiv 1802.03916), hard decisions (argmax). Their weights are w = C^-1 m, with
    C_ij = P(decided i, is j) on validation and m_i = P(decided i) on the unlabelled images, and the mix is w_j P(is j).
    Solved here for the mix at once, with P(decided i | is j): it is the same, and neither the training prior nor the mix of
    the validation images matters. The posterior need not be calibrated. Negative shares become 0 and the rest are scaled
    to sum to 1.

    Args:
      validation_posterior, posterior: [n, K + 1], [m, K + 1], from the same network and under the same prior.
      validation_label: int [n] in [0, K], K is "none".
      names: [K + 1], of the classes, for messages.
      max_condition: refuses confusion matrices that are worse conditioned than this.

    Raises:
      ValueError: a class has no validation image; decisions hardly depend on which of some classes an image is of, so
        that their shares cannot be found (says which classes; a network that always answers "none" is the plainest
        case); there is no unlabelled image; or an argument is not as above.
    """
    validation_posterior, posterior = _some(validation_posterior, "validation_posterior"), _some(posterior, "posterior")
    label, width = _both(validation_posterior, validation_label, posterior)
    names = _names(names, width)
    count = np.bincount(label, minlength=width)
    if not count.all():
        raise ValueError(f"{names[count.argmin()]!r} has no validation image, so its share cannot be estimated")
    confusion = _shares(validation_posterior.argmax(axis=1), label, width, width)
    _, singular, right = np.linalg.svd(confusion)
    condition = float(singular[0] / singular[-1]) if singular[-1] else np.inf
    if condition > max_condition:
        first, second = sorted(np.argsort(np.abs(right[-1]))[-2:].tolist())
        raise ValueError(
            f"the confusion matrix is too ill-conditioned to estimate a prior from ({condition:.3g} > {max_condition:g}): "
            f"images of {names[first]!r} and {names[second]!r} are decided alike; estimate the prior by EM, or declare it"
        )
    decided = np.bincount(posterior.argmax(axis=1), minlength=width) / len(posterior)
    prior = np.clip(np.linalg.solve(confusion, decided), 0, None)
    return BbsePrior(prior / prior.sum(), condition)


def implausibility(
    validation_posterior: np.ndarray,
    validation_label: np.ndarray,
    posterior: np.ndarray,
    prior: np.ndarray,
    *,
    names: Sequence[str] | None = None,
    level: float = 1e-3,
    smallest: float = 0.02,
) -> str:
    """A warning where the unlabelled images cannot be the validation images of each class in the mix `prior`; "" otherwise.

    Compares how often each class is decided, and how often p_none lies in each tenth that it has in that mixture, by a
    chi-square test each (Pearson 1900) whose covariance includes that the validation images are a sample too. With the
    most likely prior (EM) such a test errs on the silent side (Chernoff and Lehmann 1954). The prior of BBSE matches the
    decisions by construction and is less certain, which the test does not know: after it, doubt a warning that p_none alone
    gives. Where a class has 100 validation images or fewer, `level` is rough.

    "" is no proof of label shift: unknowns that get the same posteriors as validation images cannot be seen here.

    Args:
      validation_posterior, posterior: [n, K + 1], [m, K + 1], from the same network and under the same prior. Not
        corrected.
      validation_label: int [n] in [0, K], K is "none". In any mix.
      prior: [K + 1], the estimated (or declared) mix of the unlabelled images.
      names: [K + 1], of the classes, for the message.
      level: about how often to warn, at most, where label shift holds.
      smallest: warns only if at least this share of the images would have to move to fit: with many images chance
        explains nothing, however small.

    Raises:
      ValueError: a class that is in `prior` has no validation image, or an argument is not as above.
    """
    validation_posterior, posterior = checks.posterior(validation_posterior), checks.posterior(posterior)
    label, width = _both(validation_posterior, validation_label, posterior)
    prior, count = checks.prior(prior, width), np.bincount(label, minlength=width)
    missing = (count == 0) & (prior > checks.TOLERANCE)
    if missing.any():
        k = int(missing.argmax())
        raise ValueError(f"class {k} of {width} has a prior of {prior[k]:.3g} but no validation image")
    names = _names(names, width)
    p_none = validation_posterior[:, -1]
    edges = _tenths(p_none, (prior / np.maximum(count, 1))[label])
    between = [0.0, *edges, 1.0]
    aspects = (
        (validation_posterior.argmax(axis=1), posterior.argmax(axis=1), [f'are decided "{name}"' for name in names]),
        (
            np.searchsorted(edges, p_none, side="right"),
            np.searchsorted(edges, posterior[:, -1], side="right"),
            [f"have a p_none of {a:.3g} to {b:.3g}" for a, b in itertools.pairwise(between)],
        ),
    )
    for then, now, texts in aspects:
        share = _shares(then, label, len(texts), width)
        observed = np.bincount(now, minlength=len(texts)) / max(len(now), 1)
        statistic, freedom = _chi_square(share, count, observed, len(now), prior)
        difference = observed - share @ prior
        if stats.chi2.sf(statistic, freedom) < level / len(aspects) and np.abs(difference).sum() / 2 >= smallest:
            cell = int(np.abs(difference).argmax())
            return (
                f"label shift is implausible: {observed[cell]:.1%} of the {len(now)} unlabelled images {texts[cell]}, and "
                f"{(share @ prior)[cell]:.1%} would, if they were validation images in the estimated mix (chi-square "
                f'{statistic:.0f} with {freedom} degrees of freedom). Images of a class, most likely of "none", are unlike '
                "those of validation, or the posterior is not calibrated; no prior corrects that: look at some of them"
            )
    return ""


def _names(names, width):
    return [*(f"class {k}" for k in range(width - 1)), "none"] if names is None else list(names)


def _chi_square(share, count, observed, size, prior):
    """(statistic, degrees of freedom) of `observed` [cells], from `size` images, against share [cells, classes] @ prior."""
    expected = share @ prior
    noise = prior**2 / np.maximum(count, 1)  # of the validation images of each class
    cells = [np.array([k]) for k in np.argsort(expected)]  # the rarest are merged until all hold enough
    while len(cells) > 1:
        rarest = share[cells[0]].sum(axis=0)
        mean = rarest @ prior
        if size * mean >= _FEWEST and mean**2 >= _FEWEST * (noise @ rarest):
            break
        cells = sorted([np.concatenate(cells[:2]), *cells[2:]], key=lambda cell: expected[cell].sum())
    if len(cells) == 1 or not size:
        return 0.0, 1
    merge = np.stack([np.isin(np.arange(len(share)), cell) for cell in cells[:-1]]).astype(
        float
    )  # the last follows from the rest
    share, expected, observed = merge @ share, merge @ expected, merge @ observed
    covariance = (
        (np.diag(expected) - np.outer(expected, expected)) / size + np.diag(share @ noise) - (share * noise) @ share.T
    )
    difference = observed - expected
    return float(difference @ np.linalg.solve(covariance, difference)), len(difference)


def _tenths(values, weight):
    """Ascending different values between the tenths of a weighted sample: at most 9."""
    order = np.argsort(values)
    mass = np.cumsum(weight[order])
    if not len(mass) or not mass[-1]:
        return np.empty(0)
    place = np.searchsorted(mass, np.arange(1, 10) / 10 * mass[-1])
    return np.unique(values[order][place])


def _shares(cell, label, cells, width):
    """P(cell | label): float64 [cells, width], of 0 for classes without images."""
    table = np.zeros((cells, width))
    np.add.at(table, (cell, label), 1)
    return table / np.maximum(table.sum(axis=0), 1)


def _some(posterior, name):
    posterior = checks.posterior(posterior, name)
    if not len(posterior):
        raise ValueError(f"{name} has no image: there is nothing to estimate a prior from")
    return posterior


def _both(validation_posterior, label, posterior):
    """(labels, number of classes with "none")."""
    width = validation_posterior.shape[1]
    if posterior.shape[1] != width:
        raise ValueError(f"validation_posterior has {width} classes and posterior has {posterior.shape[1]}; they must agree")
    return checks.labels(label, len(validation_posterior), width), width
