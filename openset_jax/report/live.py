"""What the page's live part computes with: scores, posteriors and truths of the test images, as bytes that lose nothing."""

import base64
from typing import Any

import numpy as np

from openset_jax.openset.decision import thresholds
from openset_jax.openset.decision.classifier import Classifier
from openset_jax.openset.metrics.evaluation import Scored

MOST = 500_000  # numbers
PRIORS = 12  # as many classes have an input of their own


def truths(scored: Scored, kinds: dict[str, list[str]], num_classes: int) -> np.ndarray:
    """Rows of the confusion matrix, int [n]: K classes, then the kinds; -1 for images of no kind."""
    truth = np.where(scored.label < 0, -1, scored.label)
    for place, groups in enumerate(kinds.values()):
        truth[np.isin(scored.group, groups) & (scored.label < 0)] = num_classes + place
    return truth


def sample(truth: np.ndarray, most: int, seed: int = 0) -> np.ndarray:
    """Rows of at most so many images, ascending, each truth in its share of all, and one of each at least; all if they fit.

    Args:
      truth: int [n]; negative ones are left out.
    """
    rows = np.flatnonzero(truth >= 0)
    rng, place = np.random.default_rng(seed), np.empty(len(rows))
    for value in np.unique(truth[rows]):
        of_it = np.flatnonzero(truth[rows] == value)
        order = rng.permutation(len(of_it))
        place[of_it] = np.where(order == 0, -1, (order + rng.random()) / len(of_it))  # a cost needs an image of each truth
    return np.sort(rows[np.argsort(place, kind="stable")[: max(most, (place < 0).sum())]])


def data(
    scored: Scored,
    *,
    kinds: dict[str, list[str]],
    fitted: Classifier,
    under_fitted: np.ndarray | None,
    known_class: np.ndarray,
) -> dict[str, Any]:
    """What the script reads, as JSON can hold it; arrays are base64 of little-endian numbers.

    Args:
      under_fitted: float64 [n, K + 1], the posterior under `fitted.fitted_prior`, or None.
      known_class: int [n], the class of each image, were it accepted, under the prior and the costs of `fitted`.
    """
    truth = truths(scored, kinds, len(fitted.classes))
    rows = sample(truth, MOST // (len(fitted.classes) + 3))
    named = named_costs(fitted.costs, fitted.classes)
    return {
        "classes": list(fitted.classes),
        "kinds": list(kinds),
        "images": len(rows),
        "truth": _bytes(truth[rows], "<i4"),
        "known_class": _bytes(known_class[rows], "<i4"),
        "score": _bytes(scored.score[rows], "<f8"),
        "posterior": None if under_fitted is None else _bytes(under_fitted[rows], "<f8"),
        "fitted_prior": fitted.fitted_prior.tolist(),
        "prior": fitted.prior.tolist(),
        "costs": fitted.costs.tolist(),
        "named_costs": named and list(named.values()),
        "threshold": thresholds.plain(fitted.threshold.value),
    }


def _bytes(values, dtype):
    return base64.b64encode(np.ascontiguousarray(values, dtype).tobytes()).decode("ascii")


def named_costs(costs: np.ndarray, classes: tuple[str, ...]) -> dict[str, float] | None:
    """The three numbers of `thresholds.COSTS` that the matrix is made of; None if it is not of that form."""
    confuse = costs[0, 1] if len(classes) > 1 else 1.0
    named = dict(zip(thresholds.COSTS, map(float, (costs[-1, 0], confuse, costs[0, -1])), strict=True))
    return named if np.array_equal(thresholds.cost_matrix(named, classes), costs) else None
