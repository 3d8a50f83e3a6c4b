"""The data of the page's scripts: scores, posteriors and true classes of the test images, with full precision."""

import base64
from typing import Any

import numpy as np

from openset_jax.openset.decision import prior_and_costs, thresholds
from openset_jax.openset.decision.classifier import Classifier
from openset_jax.openset.scored import Scored

MOST = 500_000  # maximum number of values in the page; larger test splits are sampled
PRIORS = 12  # maximum number of classes with prior inputs; with more, only the prior of "none" can be edited


def confusion_rows(scored: Scored, kinds: dict[str, list[str]], num_classes: int) -> np.ndarray:
    """Returns the row of the confusion matrix of each image, int [n]: K classes, then the kinds; -1 for other images."""
    row = np.where(scored.label < 0, -1, scored.label)
    for place, groups in enumerate(kinds.values()):
        row[np.isin(scored.group, groups) & (scored.label < 0)] = num_classes + place
    return row


def sample(truth: np.ndarray, most: int) -> np.ndarray:
    """Draws images, stratified by row of the confusion matrix, at least one of each row; returns ascending indices, int [m].

    Args:
      truth: int [n]; images with a negative number are left out.
      most: maximum number of images. If there are no more, all are returned.
    """
    rows = np.flatnonzero(truth >= 0)
    rng, place = np.random.default_rng(0), np.empty(len(rows))
    for value in np.unique(truth[rows]):
        stratum = np.flatnonzero(truth[rows] == value)
        order = rng.permutation(len(stratum))
        # the expected cost needs an image of each row
        place[stratum] = np.where(order == 0, -1, (order + rng.random()) / len(stratum))
    return np.sort(rows[np.argsort(place, kind="stable")[: max(most, (place < 0).sum())]])


def collect(
    scored: Scored, *, kinds: dict[str, list[str]], classifier: Classifier, fitted_posterior: np.ndarray | None,
    known_class: np.ndarray,
) -> dict[str, Any]:  # fmt: skip
    """Returns the data as JSON values; arrays are base64 of little-endian numbers.

    Args:
      kinds: kind of "none" -> its groups.
      fitted_posterior: float64 [n, K + 1], the posterior under `classifier.fitted_prior`, or None.
      known_class: int [n], the class of each image if it is accepted, under the prior and costs of the classifier.
    """
    truth = confusion_rows(scored, kinds, len(classifier.classes))
    rows = sample(truth, MOST // (len(classifier.classes) + 3))
    named = prior_and_costs.named_costs(classifier.costs)
    return {
        "classes": list(classifier.classes),
        "kinds": list(kinds),
        "images": len(rows),
        "truth": _base64(truth[rows], "<i4"),
        "known_class": _base64(known_class[rows], "<i4"),
        "score": _base64(scored.score[rows], "<f8"),
        "posterior": None if fitted_posterior is None else _base64(fitted_posterior[rows], "<f8"),
        "fitted_prior": classifier.fitted_prior.tolist(),
        "prior": classifier.prior.tolist(),
        "costs": classifier.costs.tolist(),
        "named_costs": named and list(named.values()),
        "threshold": thresholds.json_number(classifier.threshold.value),
    }


def _base64(values: np.ndarray, dtype: str) -> str:
    return base64.b64encode(np.ascontiguousarray(values, dtype).tobytes()).decode("ascii")
