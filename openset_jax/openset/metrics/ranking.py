"""Ranking metrics of knowns and unknowns: AUROC, average precision, error rates at 95 % recall, OSCR.

A score is larger for images that look more unknown. Images with equal scores are accepted or rejected together, and a tied
pair counts one half in every area, so that no metric depends on the order of ties. Metrics are float64, of the ranking's
leading axes.

The names say which side is positive. "FPR at 95 % TPR" is ambiguous: some authors mean the unknowns accepted when 95 % of
knowns are accepted, others the knowns rejected when 95 % of unknowns are rejected.
"""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class Ranking:
    """The number of images at each score.

    Attributes:
      score: float64 [g], the distinct scores, ascending: images that look most like known classes come first.
      known, correct, unknown: int64 [..., g], number of known images at each score, of known images that are classified
        correctly, and of unknown images. Leading axes are resamples; every function below keeps them.
    """

    score: np.ndarray
    known: np.ndarray
    correct: np.ndarray
    unknown: np.ndarray

    def swapped(self) -> "Ranking":
        """Returns the ranking with knowns and unknowns exchanged; its `correct` is its `known`."""
        known, unknown = self.unknown[..., ::-1], self.known[..., ::-1]
        return Ranking(-self.score[::-1], known, known, unknown)


def rank(known_score: np.ndarray, unknown_score: np.ndarray, correct: np.ndarray | None = None) -> Ranking:
    """Sorts the scores of known and unknown images, float [m] and [n], which may be infinite.

    `correct`, bool [m], is whether each known image is classified correctly; None if all are.

    Raises:
      ValueError: a score is NaN (the message has its index), or a side has no scores.
    """
    for side, values in (("known", known_score), ("unknown", unknown_score)):
        if not len(values):
            raise ValueError(f"there is no {side} score")
        if (wrong := np.isnan(values)).any():
            raise ValueError(f"{side} score {int(wrong.argmax())} of {len(values)} is NaN ({wrong.sum()} are)")
    score = np.concatenate([known_score, unknown_score]).astype(np.float64)
    known = np.arange(len(score)) < len(known_score)
    right = known.copy()
    right[: len(known_score)] = True if correct is None else correct
    order = np.argsort(score)
    score = score[order]
    first = np.flatnonzero(np.concatenate([[True], score[1:] != score[:-1]]))
    count = lambda chosen: np.add.reduceat(chosen[order].astype(np.int64), first)
    return Ranking(score[first], count(known), count(right), count(~known))


def auroc(ranking: Ranking) -> np.ndarray:
    """Returns P(an unknown's score is above a known's) + P(they are equal) / 2.

    Unknowns are positive; with knowns positive the value is the same. The Mann-Whitney statistic.
    """
    return _area(ranking.known, ranking.unknown)


def oscr(ranking: Ranking) -> np.ndarray:
    """Returns the area under the correct classification rate (CCR) over the false positive rate (FPR) of unknowns.

    At a threshold, CCR is the share of knowns accepted and classified correctly, and FPR the share of unknowns accepted
    (Dhamija, Guenther and Boult 2018, arXiv 1811.04110). The area is P(a known is classified correctly and its score is
    below an unknown's) + P(correct and equal) / 2, which is OpenAUC (Wang et al. 2022, arXiv 2210.13458). It is at most the
    accuracy and at most the AUROC.
    """
    return _area(ranking.correct, ranking.unknown) * (ranking.correct.sum(-1) / ranking.known.sum(-1))


def _area(below, above):
    """Returns P(above > below) + P(equal) / 2; 0 if there are no pairs. Half pairs are counted: integers."""
    halves = ((2 * np.cumsum(below, -1) - below) * above).sum(-1, dtype=np.float64)
    return halves / np.maximum(2.0 * below.sum(-1) * above.sum(-1), 1)


def _accepted(part, whole):
    """Returns the share of `whole` that is in `part` and accepted at every threshold, [..., g + 1], ascending from 0."""
    counts = np.concatenate([np.zeros_like(part[..., :1]), np.cumsum(part, -1)], -1)
    return counts / whole.sum(-1, keepdims=True)


def _at(index, values):
    return np.take_along_axis(values, index[..., None], -1)[..., 0]


def average_precision(ranking: Ranking, known_weight: np.ndarray | float = 1.0) -> np.ndarray:
    """Returns the mean over unknowns of the precision at the score of each. Unknowns are positive.

    Equal to scikit-learn's average_precision_score. It depends on the ratio of unknowns to knowns; see
    `average_precision_balanced`. For knowns as the positive side, pass `ranking.swapped()`. Each known counts
    `known_weight` times ([..., 1]).
    """
    precision, unknown = _precision(ranking, known_weight)
    return (precision * unknown).sum(-1) / unknown.sum(-1)


def average_precision_balanced(ranking: Ranking) -> np.ndarray:
    """Returns the average precision as if there were as many knowns as unknowns, which makes test sets comparable."""
    return average_precision(ranking, ranking.unknown.sum(-1, keepdims=True) / ranking.known.sum(-1, keepdims=True))


def aupr_trapezoid(ranking: Ranking) -> np.ndarray:
    """Returns the trapezoidal area under precision over recall, from recall 0, precision 1. Unknowns are positive.

    OpenOOD and pytorch-ood call it AUPR. It is optimistic: a constant score has 0.75 on equal numbers of knowns and
    unknowns, where average precision is 0.5.
    """
    precision, unknown = _precision(ranking, 1.0)
    before = np.concatenate([np.ones_like(precision[..., :1]), precision[..., :-1]], -1)
    # before any image is selected, the curve is at its start
    selected = np.cumsum(unknown + ranking.known[..., ::-1], -1)
    before[..., 1:] = np.where(selected[..., :-1] > 0, before[..., 1:], 1.0)
    return ((precision + before) / 2 * unknown).sum(-1) / unknown.sum(-1)


def _precision(ranking, known_weight):
    """Returns (precision if images from a score upwards are rejected, unknowns at that score), largest score first."""
    unknown, known = ranking.unknown[..., ::-1], ranking.known[..., ::-1]
    hits = np.cumsum(unknown, -1)
    return hits / np.maximum(hits + known_weight * np.cumsum(known, -1), np.finfo(float).tiny), unknown


def unknowns_accepted(ranking: Ranking) -> np.ndarray:
    """Returns the share of unknowns accepted at the smallest threshold that accepts at least 95 % of knowns.

    "FPR at 95 % TPR" with knowns as the positive side. An image is accepted if its score is at or below the threshold.
    """
    reached = np.argmax(_accepted(ranking.known, ranking.known) >= 0.95, -1)
    return _at(reached, _accepted(ranking.unknown, ranking.unknown))


def knowns_rejected(ranking: Ranking) -> np.ndarray:
    """Returns the share of knowns rejected at the largest threshold that rejects at least 95 % of unknowns.

    "FPR at 95 % TPR" with unknowns as the positive side. An image is rejected if its score is at or above the threshold.
    """
    return unknowns_accepted(ranking.swapped())


def ccr_at_fpr(ranking: Ranking, fpr: float) -> np.ndarray:
    """Returns the largest share of knowns accepted and classified correctly with at most `fpr` of unknowns accepted.

    Raises:
      ValueError: there are fewer than 1 / fpr unknowns: a single one exceeds the rate. Not raised for resamples.
    """
    if ranking.unknown.ndim == 1 and fpr * (count := int(ranking.unknown.sum())) < 1:  # not for resamples
        raise ValueError(f"a rate of {fpr:g} needs at least {np.ceil(1 / fpr):,.0f} unknowns; there are {count:,}")
    last = (_accepted(ranking.unknown, ranking.unknown) <= fpr).sum(-1) - 1  # of the thresholds within the rate
    return _at(last, _accepted(ranking.correct, ranking.known))


def detection_error(ranking: Ranking) -> np.ndarray:
    """Returns the smallest mean, over all thresholds, of the rates of knowns rejected and of unknowns accepted."""
    return (1 - _accepted(ranking.known, ranking.known) + _accepted(ranking.unknown, ranking.unknown)).min(-1) / 2


def aurc(ranking: Ranking) -> np.ndarray:
    """Returns the area under the risk-coverage curve; smaller is better.

    With the N images sorted by score, the mean over n = 1..N of the error rate among the first n. Errors are accepted
    unknowns and accepted knowns of the wrong class (Geifman, Uziel and El-Yaniv 2019, arXiv 1805.08206, for knowns alone).
    Ties have the mean over all orders of the tied images.
    """
    images = ranking.known + ranking.unknown
    errors = images - ranking.correct
    images_before, errors_before = np.cumsum(images, -1) - images, np.cumsum(errors, -1) - errors
    total = int(images.sum(-1).max())
    harmonic = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, total + 1))])
    # the sum over j = 1..c of (E + e j / c) / (N + j)
    inverse = harmonic[images_before + images] - harmonic[images_before]
    share = errors / np.maximum(images, 1)
    return (errors_before * inverse + share * (images - images_before * inverse)).sum(-1) / images.sum(-1)


def curve(ranking: Ranking) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the shares accepted at every threshold: (of unknowns, of knowns, of knowns and classified correctly).

    Each is float64 [..., g + 1], ascending from 0. The second over the first is the ROC with knowns as the positive side;
    the third over the first is OSCR.
    """
    known, unknown = ranking.known, ranking.unknown
    return _accepted(unknown, unknown), _accepted(known, known), _accepted(ranking.correct, known)
