"""95 % confidence intervals of metrics over the test images of one trained network.

They cover the variation between samples of test images, not the variation between training seeds.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from scipy import special, stats

from openset_jax.openset.metrics import ranking as rankings
from openset_jax.openset.metrics.ranking import Ranking

LEVEL = 0.95
ROUNDING = 1e-12  # resamples that differ by a smaller share of the metric's range are equal
_TAIL = (1 - LEVEL) / 2
_MOST, _FEWEST, _DRAWS = 2_000, 100, 20_000_000  # limits of the number of resamples; images drawn in all of them
_CHUNK = 4_000_000  # numbers held in memory at once

Metric = Callable[[Ranking], np.ndarray]  # from a ranking of [..., g] to float64 [...] in [0, 1]


class Interval(NamedTuple):
    """A value with the ends of its interval, as in `metrics.json`."""

    value: float
    low: float
    high: float


class Bands(NamedTuple):
    """Pointwise 95 % intervals of the ROC and OSCR curves; that a whole curve is in its band is less certain.

    Attributes:
      unknown: float64 [p], share of unknowns accepted, from 0 to 1, dense near 0, where thresholds are.
      known: float64 [2, p], low and high ends of the share of knowns accepted (the ROC, knowns positive).
      correct: float64 [2, p], low and high ends of the share of knowns accepted and classified correctly (OSCR).
    """

    unknown: np.ndarray
    known: np.ndarray
    correct: np.ndarray


def proportion(hits: int, count: int) -> Interval:
    """Returns hits / count with the exact binomial interval (Clopper and Pearson 1934), which never has width 0."""
    low = special.betaincinv(hits, count - hits + 1, _TAIL) if hits else 0.0
    high = special.betaincinv(hits + 1, count - hits, 1 - _TAIL) if hits < count else 1.0
    return Interval(hits / count, float(low), float(high))


def without_variance(value: float, images: int, least: float = 0.0, most: float = 1.0) -> Interval:
    """Returns the interval of a mean over images whose estimated variance is 0, such as a share of 0 or 1.

    All images agree, so the exact binomial interval (Clopper and Pearson 1934) of the share of images that do not agree ends
    at u = 1 - 0.025^(1 / images). These images may have any value in [least, most], so that the ends are
    value - u (value - least) and value + u (most - value). For a share of 0 or 1 this is `proportion`.
    """
    same, other = (proportion(images, images).low, proportion(0, images).high) if images else (0.0, 1.0)
    return Interval(float(value), float(least + same * (value - least)), float(value + other * (most - value)))


def auroc(ranking: Ranking) -> Interval:
    """Returns the AUROC with DeLong's interval (DeLong, DeLong and Clarke-Pearson 1988), computed on the log-odds scale.

    O(g) for g distinct scores. If the estimated variance is 0 (an AUROC of 0 or 1, or only equal scores), the interval is
    `without_variance` of min(m, n) independent pairs. With fewer than 2 images on a side it is [0, 1].
    """
    value, m, n = float(rankings.auroc(ranking)), int(ranking.known.sum()), int(ranking.unknown.sum())
    if min(m, n) < 2:
        return Interval(value, 0.0, 1.0)
    # by score, ties one half: the share of unknowns with a higher score, and the share of knowns with a lower score
    known_beats = 1 - (np.cumsum(ranking.unknown) - ranking.unknown / 2) / n
    unknown_beats = (np.cumsum(ranking.known) - ranking.known / 2) / m
    variance = _variance(known_beats, ranking.known) / m + _variance(unknown_beats, ranking.unknown) / n
    if variance == 0 or value in (0.0, 1.0):
        return without_variance(value, min(m, n))
    half = stats.norm.ppf(1 - _TAIL) * np.sqrt(variance) / (value * (1 - value))
    return Interval(value, *(float(special.expit(special.logit(value) + s * half)) for s in (-1, 1)))


def _variance(values, counts):
    """Returns the sample variance of `values` that occur `counts` times."""
    total = counts.sum()
    mean = (values * counts).sum() / total
    return ((values - mean) ** 2 * counts).sum() / (total - 1)


def num_resamples(images: int) -> int:
    """Returns the number of bootstrap resamples: 20 million / images, clipped to [100, 2000]."""
    return int(np.clip(_DRAWS // max(images, 1), _FEWEST, _MOST))


def bootstrap(
    ranking: Ranking, metrics: dict[str, Metric], *, seed: int = 0, groups: np.ndarray | None = None, resamples: int = _MOST
) -> dict[str, Interval]:
    """Returns percentile bootstrap intervals (Efron 1979) of several metrics, all from the same resamples.

    Knowns and unknowns are resampled separately. A metric that is equal on all resamples has the interval `without_variance`
    of min(m, n) independent images (with `groups`: of the number of groups).

    Args:
      groups: int64 [c, g]: the number of unknowns of each group at each score. If given, whole groups are resampled instead
        of unknown images: the interval covers the variation between groups.
      resamples: maximum number of resamples; see `num_resamples`.
    """
    m, n = int(ranking.known.sum()), int(ranking.unknown.sum())
    if min(m, n) < 2:
        return {name: Interval(float(metric(ranking)), 0.0, 1.0) for name, metric in metrics.items()}
    chunks = [
        {name: metric(resampled) for name, metric in metrics.items()}
        for resampled in _resampled(ranking, resamples, seed, groups)
    ]
    values = {name: np.concatenate([chunk[name] for chunk in chunks]) for name in metrics}
    count = min(m, n) if groups is None else len(groups)
    return {name: percentiles(float(metric(ranking)), values[name], count) for name, metric in metrics.items()}


def _resampled(ranking: Ranking, resamples: int, seed: int = 0, groups: np.ndarray | None = None) -> Iterator[Ranking]:
    """Yields the resamples of `bootstrap` in chunks: rankings with one leading axis."""
    rng, wrong = np.random.default_rng(seed), ranking.known - ranking.correct
    m, n, width = int(ranking.known.sum()), int(ranking.unknown.sum()), len(ranking.score)
    left = min(resamples, num_resamples(m + n))
    while left:
        count = min(left, max(1, _CHUNK // max(m, n, 2 * width)))
        knowns = _resample(rng, np.concatenate([ranking.correct, wrong]), count)
        correct, known = knowns[:, :width], knowns[:, :width] + knowns[:, width:]
        if groups is None:
            unknown = _resample(rng, ranking.unknown, count)
        else:
            unknown = rng.multinomial(len(groups), np.full(len(groups), 1 / len(groups)), count) @ groups
        yield Ranking(ranking.score, known, correct, unknown)
        left -= count


def _resample(rng, counts, resamples):
    """Returns resamples of images that occur `counts` times: int64 [resamples, len(counts)]."""
    width, total = len(counts), int(counts.sum())
    place = np.repeat(np.arange(width), counts)[rng.integers(0, total, (resamples, total))]
    place += width * np.arange(resamples)[:, None]
    return np.bincount(place.ravel(), minlength=resamples * width).reshape(resamples, width)


def bands(ranking: Ranking, *, points: int = 201, resamples: int = 500) -> Bands:
    """Returns percentile bootstrap bands at fixed shares of unknowns ("vertical averaging", Fawcett 2006, section 7).

    Knowns and unknowns are resampled separately. Curves are linear between thresholds, as ties count one half in the
    areas. A low end that is 1 everywhere, or a high end that is 0 (except where all unknowns are accepted), is not
    informative, and is replaced by that of the exact binomial interval of min(m, n) independent images. With fewer than 2
    images on a side the bands are [0, 1]. The number of resamples is at most `resamples`; see `num_resamples`.
    """
    m, n = int(ranking.known.sum()), int(ranking.unknown.sum())
    grid = np.linspace(0, 1, points) ** 2
    if min(m, n) < 2:
        widest = np.stack([np.zeros(points), np.ones(points)])
        return Bands(grid, widest, widest)
    curves = [
        [np.interp(grid, accepted, share) for share in shares]
        for resampled in _resampled(ranking, resamples)
        for accepted, *shares in zip(*rankings.curve(resampled), strict=True)
    ]
    low, high = np.quantile(np.array(curves), [_TAIL, 1 - _TAIL], axis=0)
    low = np.where(low[:, :1] == 1, without_variance(1, min(m, n)).low, low)
    high = np.where(high[:, -2:-1] == 0, np.maximum(high, without_variance(0, min(m, n)).high), high)
    low[0, -1] = 1  # where all unknowns are accepted, all knowns are
    return Bands(grid, np.stack([low[0], high[0]]), np.stack([low[1], high[1]]))


def weighted(
    measure: Callable[[np.ndarray], float | None],
    label: np.ndarray,
    weight: np.ndarray,
    *,
    most: float = np.inf,
    resamples: int = _MOST,
) -> Interval:
    """Returns the basic bootstrap interval (Davison and Hinkley 1997, equation 5.6) of a measure that is at least 0.

    Its ends are 2 v - q, for the value v and the quantiles q of the resamples. A calibration error is biased upwards, and
    resampling adds about the same bias again, which percentiles would count twice. Images of each label, int [n], are
    resampled separately. A measure that is equal on all resamples has the interval `without_variance` of the images of the
    rarest label.

    Args:
      measure: weights of the images, float64 [n] -> the value; None only if all weights are 0.
      most: the largest possible value.
      resamples: maximum number of resamples; see `num_resamples`.

    Raises:
      ValueError: all weights are 0.
    """
    rng, value = np.random.default_rng(0), measure(weight)
    if value is None:
        raise ValueError("the measure has no value for these weights")
    strata = [np.flatnonzero(label == k) for k in np.unique(label)]
    values = []
    for _ in range(min(resamples, num_resamples(len(label)))):
        counts = np.empty(len(label))
        for rows in strata:
            counts[rows] = np.bincount(rng.integers(0, len(rows), len(rows)), minlength=len(rows))
        values.append(measure(weight * counts))
    resampled = np.array(values, np.float64)
    if np.ptp(resampled) <= ROUNDING * min(most, 1.0):
        return without_variance(value, min(map(len, strata)), 0.0, most)
    low, high = np.quantile(resampled, [_TAIL, 1 - _TAIL])
    return Interval(value, float(np.clip(2 * value - high, 0, value)), float(np.clip(2 * value - low, value, most)))


def mean_of_proportions(hits: Sequence[int], counts: Sequence[int], *, resample: bool = True) -> Interval | None:
    """Returns the mean over classes of hits / count (balanced accuracy: correct / images); None if there are no classes.

    Parametric bootstrap; images of each class are resampled separately. If no class varies, the interval is
    `without_variance` of the images of the smallest class. Without `resample` its limits are the mean.
    """
    if not len(counts):
        return None
    successes, images = np.asarray(hits), np.asarray(counts)
    value = float(np.mean(successes / images))
    if not resample:
        return Interval(value, value, value)
    resampled = np.random.default_rng(0).binomial(images, successes / images, (_MOST, len(images))) / images
    return percentiles(value, resampled.mean(1), int(images.min()))


def expected_cost(confusion: np.ndarray, costs: np.ndarray, prior: np.ndarray) -> Interval | None:
    """Returns the sum over true classes y of prior_y times the mean cost of the decisions for images of y.

    Parametric bootstrap; images of each true class are resampled separately. If each class has one decision for all its
    images, the interval is `without_variance` of the images of the smallest class. None if a class with a positive prior has
    no image.

    Args:
      confusion: int [K + 1, K + 1], number of images; rows are the truth, columns the decision.
      costs: float [K + 1, K + 1], likewise.
    """
    counts = confusion.sum(1)
    if (counts[prior > 0] == 0).any():
        return None
    rng, resampled, value = np.random.default_rng(0), np.zeros(_MOST), 0.0
    for row, cost, share, count in zip(confusion, costs, prior, counts, strict=True):
        if share > 0:
            resampled = resampled + share * (rng.multinomial(count, row / count, _MOST) @ cost) / count
            value += share * float(row @ cost) / count
    least, most = cost_range(costs, prior)
    return percentiles(value, resampled, int(counts[prior > 0].min()), least, most)


def cost_range(costs: np.ndarray, prior: np.ndarray) -> tuple[float, float]:
    """Returns the smallest and the largest expected cost that decisions can have; the arguments are of `expected_cost`."""
    return float(prior @ costs.min(axis=1)), float(prior @ costs.max(axis=1))


def percentiles(value: float, resampled: np.ndarray, images: int, least: float = 0.0, most: float = 1.0) -> Interval:
    """Returns the percentile interval of resamples of a mean over `images`; `without_variance` if all are equal."""
    if np.ptp(resampled) <= ROUNDING * (most - least):
        return without_variance(value, images, least, most)
    low, high = np.quantile(resampled, [_TAIL, 1 - _TAIL])
    return Interval(value, float(low), float(high))
