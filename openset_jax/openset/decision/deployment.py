"""Adapts a saved classifier to its deployment: replaces the class prior, the costs or the threshold.

The prior is given, or estimated from the images to be classified. The posterior and the class of least cost change with the
prior and the costs; the threshold on the score does not, unless another one is given.
"""

import dataclasses
import math
from typing import Any

import numpy as np

from openset_jax.errors import UserError
from openset_jax.openset.decision import calibration, label_shift, prior_and_costs, prior_error
from openset_jax.openset.decision.classifier import Classifier
from openset_jax.text import abridged

ESTIMATES = ("em", "bbse")  # estimators of the prior


def declare(classifier: Classifier, *, priors: str = "", costs: str = "", threshold: float | None = None) -> Classifier:
    """Returns the classifier with the given prior, costs (both are texts for `prior_and_costs.parse`) or threshold.

    Raises:
      UserError: a value is invalid, or a prior or costs are given for a classifier without a posterior.
    """
    changes: dict[str, Any] = {}
    if priors:
        if "=" not in priors and priors.lstrip()[:1] not in ("[", "{"):
            raise UserError(f'--priors: {priors!r} is neither {" nor ".join(ESTIMATES)}, nor shares as in "none=0.6"')
        given = prior_and_costs.parse(priors, "--priors")
        changes["prior"] = prior_and_costs.deployment_prior(given, classifier.classes, classifier.training_prior, "--priors")
    if costs:
        given = prior_and_costs.parse(costs, "--costs")
        changes["costs"] = prior_and_costs.cost_matrix(given, classifier.classes, "--costs")
    if changes:
        check_posterior(classifier, "--priors" if priors else "--costs")
    if threshold is not None:
        if math.isnan(threshold):
            raise UserError("--threshold: nan cannot be compared with scores")
        changes["threshold"] = dataclasses.replace(classifier.threshold, value=threshold, low=threshold, high=threshold)
    return dataclasses.replace(classifier, **changes)


def check_posterior(classifier: Classifier, flag: str) -> None:
    """Raises UserError, naming the flag, if the classifier has no posterior."""
    if not classifier.has_posterior:
        raise UserError(
            f"{flag}: this run has no probability of 'none': objective.name={classifier.objective.name} has no output for "
            "'none', and there were no validation negatives to calibrate its score on; train with data.held_out_negatives "
            "or data.negatives, or decide by --threshold alone"
        )


def check_enough(images: int, flag: str) -> None:
    """Raises UserError if these are too few images to estimate the class prior from."""
    if images < (fewest := prior_error.FEWEST_IMAGES):
        raise UserError(
            f"{flag}: {images} images are too few to estimate the class prior from; it needs {fewest} (a share "
            "then has a standard error of up to 5 points, or more if the network is not perfect). Give the class prior "
            'instead, as in --priors="none=0.6"'
        )


def estimate_prior(
    method: str, classifier: Classifier, logits: np.ndarray, label: np.ndarray, unlabelled_logits: np.ndarray
) -> tuple[np.ndarray, str]:
    """Estimates the class prior of unlabelled images.

    EM starts from r, the mean posterior of the validation images weighted to `fitted_prior`, and gives q. The estimate is
    proportional to fitted_prior_k q_k / r_k. So without a shift it is `fitted_prior`, even if the calibration is imperfect
    (Alexandari, Kundaje and Shrikumar 2020, arXiv 1901.06852, correct posteriors by the same ratio).

    Args:
      method: one of `ESTIMATES`.
      logits, label: of the validation images: float [n, outputs], int [n] in [0, K].
      unlabelled_logits: float [m, outputs].

    Returns:
      (the prior, float64 [K + 1], "none" last; lines of text: the prior with its standard errors (`prior_error`), whether EM
      has converged, and the warning of `label_shift.implausibility`, if any).

    Raises:
      UserError: there is no posterior, a class has no validation images, there are fewer unlabelled images than
        `prior_error.FEWEST_IMAGES`, or the confusion matrix is too ill-conditioned for BBSE.
    """
    flag, names = f"--priors={method}", [*classifier.classes, "none"]
    check_posterior(classifier, flag)
    count = np.bincount(label, minlength=len(names))
    if not count.all():
        raise UserError(
            f"{flag}: the validation split has no images of {names[count.argmin()]!r}, so its share cannot be estimated; "
            'give the class prior instead, as in --priors="none=0.6"'
        )
    check_enough(images := len(unlabelled_logits), flag)
    validation, unlabelled = classifier.fitted_posterior(logits), classifier.fitted_posterior(unlabelled_logits)
    assert validation is not None and unlabelled is not None  # `check_posterior`
    if method == "em":
        weight = calibration.mix_weights(label, classifier.fitted_prior)
        reference = weight @ validation / weight.sum()
        em = label_shift.estimate_prior_em(unlabelled, reference)
        ratio = np.divide(em.prior, reference, out=np.zeros(len(names)), where=reference > 0)
        prior = ratio * classifier.fitted_prior / (ratio @ classifier.fitted_prior)
        errors = prior_error.of_em(unlabelled, em.prior, validation, label, classifier.fitted_prior, reference)
        state = "converged" if em.converged else "NOT converged: the estimate is uncertain"
        by = f"EM, {em.iterations} iterations, {state}"
    else:
        try:
            bbse = label_shift.estimate_prior_bbse(validation, label, unlabelled, names=names)
        except label_shift.NotEstimable as error:
            raise UserError(f"{flag}: {error}") from error
        prior, errors, by = bbse.prior, bbse.standard_error, f"BBSE, condition number {bbse.condition:.3g}"
    estimates = zip(names, prior, errors, strict=True)
    shares = abridged([f"{name} {share:.1%} +/- {error:.1%}" for name, share, error in estimates])
    lines = [f"estimated class prior of {images:,} images +/- standard error ({by}): {shares}"]
    if warning := label_shift.implausibility(validation, label, unlabelled, prior, names=names):
        lines.append(f"WARNING: {warning}")
    return prior, "\n".join(lines)
