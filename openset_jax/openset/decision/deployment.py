"""Where a saved classifier is used, what is otherwise than was said in training: the mix of classes, costs, the threshold.

The mix is declared, or estimated from the very images that are to be classified. Probabilities and the cheapest class
follow; the threshold on the score stays as it was saved, unless another one is given.
"""

import dataclasses
import math

import numpy as np

from openset_jax.errors import UserError
from openset_jax.openset.decision import calibration, label_shift, thresholds
from openset_jax.openset.decision.classifier import Classifier

ESTIMATES = ("em", "bbse")  # in place of a mix: how to estimate it


def declare(fitted: Classifier, *, priors: str = "", costs: str = "", threshold: float | None = None) -> Classifier:
    """The classifier with what is given in place of what was saved.

    Args:
      priors, costs: as `thresholds.parse` takes them; "" for those saved.

    Raises:
      UserError: names the flag that cannot be, or that would change nothing, as there is no posterior.
    """
    changes = {}
    if priors:
        if "=" not in priors and priors.lstrip()[:1] not in ("[", "{"):
            raise UserError(f'--priors: {priors!r} is neither {" nor ".join(ESTIMATES)}, nor shares as in "none=0.6"')
        given = thresholds.parse(priors, "--priors")
        changes["prior"] = thresholds.deployment_prior(given, fitted.classes, fitted.fitted_prior, "--priors")
    if costs:
        changes["costs"] = thresholds.cost_matrix(thresholds.parse(costs, "--costs"), fitted.classes, "--costs")
    if changes:
        check_posterior(fitted, "--priors" if priors else "--costs")
    if threshold is not None:
        if math.isnan(threshold):
            raise UserError("--threshold: nan is not a number that scores can be compared with")
        changes["threshold"] = dataclasses.replace(fitted.threshold, value=threshold, low=threshold, high=threshold)
    return dataclasses.replace(fitted, **changes)


def check_posterior(fitted: Classifier, flag: str) -> None:
    """Raises UserError, naming the flag, where nothing told the network of "none", so that it has no posterior."""
    if not fitted.has_posterior:
        raise UserError(
            f"{flag}: this run has no probability of 'none' to go by: objective.name={fitted.objective} has no output for "
            "it, and there were no validation negatives to calibrate its score on; train with data.held_out_negatives or "
            "data.negatives, or decide by --threshold alone"
        )


def estimate_prior(
    how: str, fitted: Classifier, logits: np.ndarray, label: np.ndarray, now: np.ndarray
) -> tuple[np.ndarray, str]:
    """The mix of classes of unlabelled images, and what is to be said of it.

    EM starts from the mean posterior of the validation images in the mix of `fitted_prior`, and what it finds is taken as a
    change of that: without a shift the mix is `fitted_prior`, though calibration is never perfect (Alexandari, Kundaje and
    Shrikumar 2020, arXiv 1901.06852, who correct posteriors by the same ratio of both).

    Args:
      how: of `ESTIMATES`.
      logits, label: of the validation images that `fitted` was fitted on: float [n, outputs], int [n] in [0, K].
      now: float [m, outputs], logits of the unlabelled images.

    Returns:
      (float64 [K + 1], which `declare` would have been given; lines of text: the mix, and a warning where the images cannot
      be validation images in any mix, see `label_shift.implausibility`, or EM has not converged).

    Raises:
      UserError: there is no posterior, a class has no validation images, there is no unlabelled image, or BBSE refuses.
    """
    flag, names = f"--priors={how}", [*fitted.classes, "none"]
    check_posterior(fitted, flag)
    count = np.bincount(label, minlength=len(names))
    if not count.all():
        raise UserError(
            f"{flag}: the validation split has no images of {names[count.argmin()]!r}, so that its share cannot be "
            'estimated; declare the mix, --priors="none=0.6"'
        )
    if not len(now):
        raise UserError(f"{flag}: there is no readable image to estimate the mix of classes from")
    validation, unlabelled = fitted.fitted(logits), fitted.fitted(now)
    if how == "em":
        weight = calibration.mix_weights(label, fitted.fitted_prior)
        reference = weight @ validation / weight.sum()
        found = label_shift.estimate_prior_em(unlabelled, reference)
        ratio = np.divide(found.prior, reference, out=np.zeros(len(names)), where=reference > 0)
        prior = ratio * fitted.fitted_prior / (ratio @ fitted.fitted_prior)
        state = "converged" if found.converged else "NOT converged: the mix is uncertain"
        by = f"EM, {found.iterations} iterations, {state}"
    else:
        try:
            found = label_shift.estimate_prior_bbse(validation, label, unlabelled, names=names)
        except ValueError as error:
            raise UserError(f"{flag}: {error}") from error
        prior, by = found.prior, f"BBSE, condition {found.condition:.3g}"
    mix = ", ".join(f"{name} {share:.1%}" for name, share in zip(names, prior, strict=True))
    lines = [f"estimated mix of {len(now):,} images ({by}): {mix}"]
    if doubt := label_shift.implausibility(validation, label, unlabelled, prior, names=names):
        lines.append(f"WARNING: {doubt}")
    return prior, "\n".join(lines)
