"""Selects the training images of each class: limits the number of negatives, and creates artificial class imbalance."""

import dataclasses

import numpy as np

from openset_jax.data import imbalance
from openset_jax.data.imbalance import Imbalance
from openset_jax.data.pools import Pool
from openset_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class SamplingSpec:
    """The config's `sampling`.

    Attributes:
      policy: a key of `sampler.POLICIES`.
      negatives: maximum number of negatives; a float is a multiple of the mean size of the known classes; None for all.
      imbalance: artificial class imbalance; None leaves the known classes unchanged.
      negative_fraction: share of negatives in each batch, for the policy of this name.
    """

    policy: str
    negatives: int | float | None
    imbalance: Imbalance | None
    negative_fraction: float


def parse_negatives(value: object) -> int | float | None:
    """Parses `sampling.negatives`: None and numbers of images are unchanged, "3x" becomes 3.0; else raises UserError."""
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and value > 0):
        return value
    try:
        if isinstance(value, str) and value.endswith("x") and 0 < float(value[:-1]) < float("inf"):
            return float(value[:-1])
    except ValueError:
        pass
    raise UserError(
        f'sampling.negatives: {value!r} is neither a number of images above 0 nor a multiple such as "3x" (three times the '
        "mean size of a known class)"
    )


def training_rows(pool: Pool, sampling: SamplingSpec, *, seed: int, uses_negatives: bool) -> list[np.ndarray]:
    """The pool's rows to train on: an int64 array for each known class, and a last one for "none" if `uses_negatives`.

    Raises:
      UserError: `sampling.negatives` or `sampling.imbalance` needs more images than the pool has.
    """
    known = pool.training_rows()[:-1]
    if sampling.imbalance:
        known = imbalance.cut(pool, known, sampling.imbalance, seed=seed)
    if not uses_negatives:
        return known
    most = sampling.negatives
    if isinstance(most, float):
        most = round(most * sum(map(len, known)) / len(known))
    return [*known, pool.training_rows(most)[-1]]
