"""How far a number could be from the one measured, had other test images been drawn: 95 % intervals. NumPy, no files.

They are about the images of one trained network; another seed is another network, whose spread these do not contain.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import special, stats

from openset_jax.openset.metrics import ranking as rankings
from openset_jax.openset.metrics.ranking import Ranking

LEVEL = 0.95
_TAIL = (1 - LEVEL) / 2
_MOST, _FEWEST, _DRAWS = 2_000, 100, 20_000_000  # resamples; images drawn for all of them together
_CHUNK = 4_000_000  # numbers held at once


class Interval(NamedTuple):
    """A number and its interval, as in `metrics.json`."""

    value: float
    low: float
    high: float


def share(hits: int, count: int) -> Interval:
    """hits / count, with the exact binomial interval (Clopper and Pearson 1934), which is not empty at 0 and 1 either."""
    low = special.betaincinv(hits, count - hits + 1, _TAIL) if hits else 0.0
    high = special.betaincinv(hits + 1, count - hits, 1 - _TAIL) if hits < count else 1.0
    return Interval(hits / count, float(low), float(high))


def auroc(ranking: Ranking) -> Interval:
    """AUROC with DeLong's interval (DeLong, DeLong and Clarke-Pearson 1988), on the scale of log-odds, within [0, 1].

    O(g) once sorted. Where all pairs are in one order the variance is 0 and says nothing; then it is the exact interval
    of as many independent pairs as there are, min(m, n).
    """
    value, m, n = float(rankings.auroc(ranking)), int(ranking.known.sum()), int(ranking.unknown.sum())
    if min(m, n) < 2:
        return Interval(value, 0.0, 1.0)  # nothing is known of the spread of one image
    if value in (0.0, 1.0):
        return share(round(value * min(m, n)), min(m, n))
    known_beats = 1 - (np.cumsum(ranking.unknown) - ranking.unknown / 2) / n  # of a known at each score: unknowns above
    unknown_beats = (np.cumsum(ranking.known) - ranking.known / 2) / m  # of an unknown at each score: knowns below
    variance = _variance(known_beats, ranking.known) / m + _variance(unknown_beats, ranking.unknown) / n
    half = stats.norm.ppf(1 - _TAIL) * np.sqrt(variance) / (value * (1 - value))
    return Interval(value, *(float(special.expit(special.logit(value) + s * half)) for s in (-1, 1)))


def _variance(values, counts):
    """The sample variance."""
    total = counts.sum()
    mean = (values * counts).sum() / total
    return ((values - mean) ** 2 * counts).sum() / (total - 1)


def resamples(count: int) -> int:
    """Bootstrap resamples of so many images: 2,000, or as many as 20 million draws make, at least 100."""
    return int(np.clip(_DRAWS // max(count, 1), _FEWEST, _MOST))


def bootstrap(
    ranking: Ranking,
    metrics: Mapping[str, Callable[[Ranking], np.ndarray]],
    *,
    seed: int = 0,
    groups: np.ndarray | None = None,
    most: int = _MOST,
) -> dict[str, Interval]:
    """Percentile intervals (Efron 1979) of several metrics on the same resamples, knowns and unknowns drawn apart.

    Metrics are in [0, 1]. One that is 0, or 1, on all of them has the exact interval of min(m, n) independent images, or of
    as many groups.

    Args:
      metrics: name -> a function of a ranking that keeps leading axes.
      groups: int64 [c, g]: the unknowns of each score by group. Then whole groups are drawn, not images: how far the
        number could be with other kinds of unknowns. None: images are drawn.
      most: resamples, unless `resamples` says fewer.

    Returns:
      name -> value and interval.
    """
    parts = {name: [] for name in metrics}
    m, n = int(ranking.known.sum()), int(ranking.unknown.sum())
    if min(m, n) < 2:  # nothing is known of the spread of one image
        return {name: Interval(float(metric(ranking)), 0.0, 1.0) for name, metric in metrics.items()}
    for some in drawn(ranking, most=most, seed=seed, groups=groups):
        for name, metric in metrics.items():
            parts[name].append(metric(some))
    count = min(m, n) if groups is None else len(groups)
    return {name: _percentiles(metric(ranking), np.concatenate(parts[name]), count) for name, metric in metrics.items()}


def drawn(ranking: Ranking, *, most: int, seed: int = 0, groups: np.ndarray | None = None) -> Iterator[Ranking]:
    """The resamples of `bootstrap`, some at a time: rankings with one leading axis."""
    rng, wrong = np.random.default_rng(seed), ranking.known - ranking.correct
    m, n, width = int(ranking.known.sum()), int(ranking.unknown.sum()), len(ranking.score)
    left = min(most, resamples(m + n))
    while left:
        count = min(left, max(1, _CHUNK // max(m, n, 2 * width)))
        knowns = _draw(rng, np.concatenate([ranking.correct, wrong]), count)
        correct, known = knowns[:, :width], knowns[:, :width] + knowns[:, width:]
        if groups is None:
            unknown = _draw(rng, ranking.unknown, count)
        else:
            unknown = rng.multinomial(len(groups), np.full(len(groups), 1 / len(groups)), count) @ groups
        yield Ranking(ranking.score, known, correct, unknown)
        left -= count


def _draw(rng, counts, resamples):
    """Resamples of images that come with these counts: int64 [resamples, len(counts)]."""
    width, total = len(counts), int(counts.sum())
    place = np.repeat(np.arange(width), counts)[rng.integers(0, total, (resamples, total))]
    place += width * np.arange(resamples)[:, None]
    return np.bincount(place.ravel(), minlength=resamples * width).reshape(resamples, width)


def weighted(
    measure: Callable[[np.ndarray], float], label: np.ndarray, weight: np.ndarray, *, most: int = _MOST
) -> Interval:
    """The basic bootstrap interval (Davison and Hinkley 1997, equation 5.6) of a measure that is at least 0.

    2 v - q for the quantiles q of the resamples: calibration errors of resamples are too large by about as much as that of
    the sample is, which percentiles would count twice. Images of each label are drawn apart.

    Args:
      measure: weights of the images, float64 [n] -> the number.
      label: int [n].
      weight: float64 [n].
      most: resamples, unless `resamples` says fewer.
    """
    rng, value = np.random.default_rng(0), float(measure(weight))
    strata = [np.flatnonzero(label == k) for k in np.unique(label)]
    drawn = []
    for _ in range(min(most, resamples(len(label)))):
        counts = np.empty(len(label))
        for rows in strata:
            counts[rows] = np.bincount(rng.integers(0, len(rows), len(rows)), minlength=len(rows))
        drawn.append(measure(weight * counts))
    low, high = np.quantile(drawn, [_TAIL, 1 - _TAIL])
    return Interval(value, float(np.clip(2 * value - high, 0, value)), float(max(2 * value - low, value)))


def mean_of_shares(hits: Sequence[int], counts: Sequence[int]) -> Interval | None:
    """The mean over classes of hits / count, as balanced accuracy is; images of each class are drawn apart. None of none."""
    if not len(counts):
        return None
    hits, counts = np.asarray(hits), np.asarray(counts)
    drawn = np.random.default_rng(0).binomial(counts, hits / counts, (_MOST, len(counts))) / counts
    return _percentiles(np.mean(hits / counts), drawn.mean(1), counts.min())


def expected_cost(confusion: np.ndarray, costs: np.ndarray, prior: np.ndarray) -> Interval | None:
    """sum over truths y of prior_y times the mean cost of the answers to images of y; images of each truth are drawn apart.

    Args:
      confusion: int [K + 1, K + 1], images by truth (rows) and answer.
      costs: float [K + 1, K + 1].
      prior: float [K + 1].

    Returns:
      None where a truth that the prior says will come has no image.
    """
    counts = confusion.sum(1)
    if (counts[prior > 0] == 0).any():
        return None
    rng, drawn, value = np.random.default_rng(0), 0.0, 0.0
    for row, cost, share_, count in zip(confusion, costs, prior, counts, strict=True):
        if share_ > 0:
            drawn = drawn + share_ * (rng.multinomial(count, row / count, _MOST) @ cost) / count
            value += share_ * float(row @ cost) / count
    return _percentiles(value, drawn)


def _percentiles(value, drawn, count=0):
    """The interval; where all resamples are at 0 or at 1, which says nothing, that of `count` independent images."""
    low, high = np.quantile(drawn, [_TAIL, 1 - _TAIL])
    if count and low == high and low in (0, 1):
        return share(round(low * count), int(count))
    return Interval(float(value), float(low), float(high))
