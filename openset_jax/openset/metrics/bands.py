"""Bands around ROC and OSCR curves: how far each point could be from the one measured, had other test images been drawn.

Pointwise: each point's interval is a 95 % one; that a whole curve lies within its band is less sure.
"""

from typing import NamedTuple

import numpy as np

from openset_jax.openset.metrics import intervals
from openset_jax.openset.metrics import ranking as rankings
from openset_jax.openset.metrics.intervals import LEVEL
from openset_jax.openset.metrics.ranking import Ranking

_TAIL = (1 - LEVEL) / 2
_MOST = 500  # resamples, unless `intervals.resamples` says fewer


class Bands(NamedTuple):
    """Low and high ends at shares of accepted unknowns.

    Attributes:
      unknown: float64 [p], shares of unknowns accepted, from 0 to 1, dense near 0, where thresholds are.
      known: float64 [2, p], of the share of knowns accepted then (the ROC, with knowns as the positive side).
      correct: float64 [2, p], of the share of knowns accepted and classified right (OSCR).
    """

    unknown: np.ndarray
    known: np.ndarray
    correct: np.ndarray


def bands(ranking: Ranking, *, points: int = 201, most: int = _MOST, seed: int = 0) -> Bands:
    """Percentile bootstrap, knowns and unknowns drawn apart, read at fixed shares of unknowns ("vertical averaging", Fawcett
    2006, section 7).

    Between thresholds a curve is a straight line, as the areas count ties one half. Where all of a curve is at 1, on all
    resamples, which says nothing, the low end is the exact one of min(m, n) independent images; a side of one image says
    nothing at all.
    """
    m, n = int(ranking.known.sum()), int(ranking.unknown.sum())
    grid = np.linspace(0, 1, points) ** 2
    if min(m, n) < 2:
        nothing = np.stack([np.zeros(points), np.ones(points)])
        return Bands(grid, nothing, nothing)
    parts = [
        [np.interp(grid, accepted, share) for share in shares]
        for drawn in intervals.drawn(ranking, most=most, seed=seed)
        for accepted, *shares in zip(*rankings.curve(drawn), strict=True)
    ]
    low, high = np.quantile(np.array(parts), [_TAIL, 1 - _TAIL], axis=0)
    low = np.where(low[:, :1] == 1, intervals.share(min(m, n), min(m, n)).low, low)
    low[0, -1] = 1  # all knowns are accepted where all images are
    return Bands(grid, np.stack([low[0], high[0]]), np.stack([low[1], high[1]]))
