"""Knowns against unknowns, in the order of one score: AUROC, average precision, errors at 95 % recall, OSCR.

A score is larger the more unknown an image looks. Images of one score are accepted or rejected together, and a pair of
equals counts one half in every area: nothing depends on the order that ties happen to come in.

Names say which side is positive. "FPR at 95 % TPR" is no name: half of the field means the unknowns that are accepted when
95 % of knowns are, the other half the knowns that are rejected when 95 % of unknowns are.
"""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class Ranking:
    """How many images have each score, from the smallest score, the most known, to the largest.

    Attributes:
      score: float64 [g], the different scores, ascending.
      known, correct, unknown: int64 [..., g], known images of each score, those of them whose class is right, and unknown
        images. Leading axes are resamples; every function below keeps them.
    """

    score: np.ndarray
    known: np.ndarray
    correct: np.ndarray
    unknown: np.ndarray

    def turned(self) -> "Ranking":
        """The same with the sides exchanged: what was unknown is known; of no use where `correct` is asked for."""
        known, unknown = self.unknown[..., ::-1], self.known[..., ::-1]
        return Ranking(-self.score[::-1], known, known, unknown)


def rank(known_score: np.ndarray, unknown_score: np.ndarray, correct: np.ndarray | None = None) -> Ranking:
    """Sorts two samples of a score.

    Args:
      known_score, unknown_score: float [m], [n]; infinities are scores like others.
      correct: bool [m], whether the class of each known image is right; None for all.

    Raises:
      ValueError: a score is NaN (says where), or a side has none.
    """
    for side, values in (("known", known_score), ("unknown", unknown_score)):
        if not len(values):
            raise ValueError(f"there is no {side} score")
        if (wrong := np.isnan(values)).any():
            raise ValueError(f"{side} score {int(wrong.argmax())} of {len(values)} is NaN ({wrong.sum()} are)")
    score = np.concatenate([known_score, unknown_score]).astype(np.float64)
    known = np.arange(len(score)) < len(known_score)
    right = known.copy()
    if correct is not None:
        right[: len(known_score)] = correct
    order = np.argsort(score)
    score = score[order]
    first = np.flatnonzero(np.concatenate([[True], score[1:] != score[:-1]]))
    count = lambda chosen: np.add.reduceat(chosen[order].astype(np.int64), first)
    return Ranking(score[first], count(known), count(right), count(~known))


def auroc(ranking: Ranking) -> np.ndarray:
    """P(an unknown's score is above a known's) + P(they are equal) / 2.

    Unknowns are positive; knowns as positives give the same. The Mann-Whitney statistic.
    """
    return _area(ranking.known, ranking.unknown)


def oscr(ranking: Ranking) -> np.ndarray:
    """The area under the correct classification rate over the false positive rate of unknowns.

    CCR and FPR at a threshold are the shares of knowns accepted and classified right, and of unknowns accepted (Dhamija,
    Guenther and Boult 2018, arXiv 1811.04110). The area is P(a known is classified right and its score is below an
    unknown's) + P(right and equal) / 2, which is OpenAUC (Wang et al. 2022, arXiv 2210.13458); at most the accuracy, and at
    most the AUROC.
    """
    return _area(ranking.correct, ranking.unknown) * _share(ranking.correct, ranking.known)


def _area(below, above):
    """P(above > below) + P(equal) / 2, in halves of pairs, which are whole numbers; 0 where there is no pair."""
    halves = ((2 * np.cumsum(below, -1) - below) * above).sum(-1, dtype=np.float64)
    return halves / np.maximum(2.0 * below.sum(-1) * above.sum(-1), 1)


def _share(part, whole):
    return part.sum(-1) / whole.sum(-1)


def average_precision(ranking: Ranking) -> np.ndarray:
    """Of unknowns as the positive side: the mean, over unknowns, of the precision at the score of each.

    scikit-learn's average_precision_score. It depends on how many unknowns there are: see `average_precision_balanced`. For
    knowns as the positive side, ask `ranking.turned()`.
    """
    precision, unknown = _precision(ranking, 1.0)
    return (precision * unknown).sum(-1) / unknown.sum(-1)


def average_precision_balanced(ranking: Ranking) -> np.ndarray:
    """The same as if there were as many knowns as unknowns, so that test sets of different mixes can be compared."""
    weight = ranking.unknown.sum(-1, keepdims=True) / ranking.known.sum(-1, keepdims=True)
    precision, unknown = _precision(ranking, weight)
    return (precision * unknown).sum(-1) / unknown.sum(-1)


def aupr_trapezoid(ranking: Ranking) -> np.ndarray:
    """The area under precision over recall by trapezoids, of unknowns as the positive side, from (0, 1) on.

    What OpenOOD and pytorch-ood call AUPR. It flatters: a constant score of as many knowns as unknowns gets 0.75, where
    average precision gets 0.5.
    """
    precision, unknown = _precision(ranking, 1.0)
    before = np.concatenate([np.ones_like(precision[..., :1]), precision[..., :-1]], -1)
    # where nothing is selected yet, the curve is still at its start
    selected = np.cumsum(unknown + ranking.known[..., ::-1], -1)
    before[..., 1:] = np.where(selected[..., :-1] > 0, before[..., 1:], 1.0)
    return ((precision + before) / 2 * unknown).sum(-1) / unknown.sum(-1)


def _precision(ranking, known_weight):
    """(precision when all from a score on are called unknown, unknowns of that score), from the largest score on."""
    unknown, known = ranking.unknown[..., ::-1], ranking.known[..., ::-1]
    hits = np.cumsum(unknown, -1)
    return hits / np.maximum(hits + known_weight * np.cumsum(known, -1), np.finfo(float).tiny), unknown


def unknowns_accepted(ranking: Ranking, known_recall: float = 0.95) -> np.ndarray:
    """The share of unknowns accepted at the smallest threshold that accepts at least so many of the knowns.

    "FPR at 95 % TPR" with knowns as the positive side. Accepted: at or below the threshold.
    """
    return _at_recall(ranking.unknown, ranking.known, known_recall)


def knowns_rejected(ranking: Ranking, unknown_recall: float = 0.95) -> np.ndarray:
    """The share of knowns rejected at the largest threshold that rejects at least so many of the unknowns.

    "FPR at 95 % TPR" with unknowns as the positive side. Rejected: at or above the threshold.
    """
    return unknowns_accepted(ranking.turned(), unknown_recall)


def _at_recall(asked, given, recall):
    reached = np.argmax(np.cumsum(given, -1) / given.sum(-1, keepdims=True) >= recall, -1)
    return np.take_along_axis(np.cumsum(asked, -1), reached[..., None], -1)[..., 0] / asked.sum(-1)


def ccr_at_fpr(ranking: Ranking, fpr: float) -> np.ndarray:
    """The largest share of knowns that is accepted and classified right while at most `fpr` of unknowns is accepted.

    Raises:
      ValueError: fewer than 1 / fpr unknowns: one of them is more than the rate asked for.
    """
    if ranking.unknown.ndim == 1 and fpr * (count := int(ranking.unknown.sum())) < 1:  # resamples are of one that may
        raise ValueError(f"a rate of {fpr:g} needs at least {np.ceil(1 / fpr):,.0f} unknowns; there are {count:,}")
    accepted = np.cumsum(ranking.unknown, -1) / ranking.unknown.sum(-1, keepdims=True)
    reached = (accepted <= fpr).sum(-1)  # scores that can be accepted; a share never falls
    right = np.concatenate([np.zeros_like(ranking.correct[..., :1]), np.cumsum(ranking.correct, -1)], -1)
    return np.take_along_axis(right, reached[..., None], -1)[..., 0] / ranking.known.sum(-1)


def detection_error(ranking: Ranking) -> np.ndarray:
    """The smallest mean of both error rates, knowns rejected and unknowns accepted, over all thresholds."""
    error = 1 - np.cumsum(ranking.known, -1) / ranking.known.sum(-1, keepdims=True)
    error = error + np.cumsum(ranking.unknown, -1) / ranking.unknown.sum(-1, keepdims=True)
    return np.minimum(error.min(-1), 1) / 2  # 1: all rejected


def aurc(ranking: Ranking) -> np.ndarray:
    """Area under the risk-coverage curve: the mean, over 1, 2, ... all images accepted in the order of the score, of the
    share of errors among them; smaller is better.

    An accepted unknown is an error, and so is an accepted known of the wrong class (Geifman, Uziel and El-Yaniv 2019,
    arXiv 1805.08206, for knowns alone). Among equals, what a random order gives on average.
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
    """Shares accepted at every threshold, from none to all: (of unknowns, of knowns, of knowns and classified right).

    The first against the second is the ROC, with knowns as the positive side; the first against the third OSCR.

    Returns:
      Three float64 [..., g + 1], ascending from 0.
    """
    start = lambda x: np.concatenate([np.zeros_like(x[..., :1]), np.cumsum(x, -1)], -1)
    m, n = ranking.known.sum(-1, keepdims=True), ranking.unknown.sum(-1, keepdims=True)
    return start(ranking.unknown) / n, start(ranking.known) / m, start(ranking.correct) / m
