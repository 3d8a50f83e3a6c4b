"""The mean and the standard deviation of each feature over the training vectors of a run."""

from collections.abc import Sequence

import numpy as np

from openset_jax.data import packed
from openset_jax.data.pools import Pool
from openset_jax.model.vector_networks import STANDARDISE
from openset_jax.training.state import Params

_AT_ONCE = 1 << 26  # bytes


def statistics(pool: Pool, rows_by_class: Sequence[np.ndarray]) -> Params:
    """Returns the batch statistics of a network for vectors: mean and std, float32 [F], over these rows of a pool.

    Features that are constant have the std 1, so that they become 0.
    """
    rows, at_once = np.sort(np.concatenate(rows_by_class)), max(1, _AT_ONCE // pool.array.nbytes)
    parts = (packed.read(pool, rows[start : start + at_once]) for start in range(0, len(rows), at_once))
    first, total, squares = np.zeros(pool.array.shape), np.zeros(pool.array.shape), np.zeros(pool.array.shape)
    for i, part in enumerate(parts):
        vectors = part.astype(np.float64)
        if not i:
            first = vectors.mean(0)
        vectors -= first  # so that the variance is not a small difference of large numbers
        total += vectors.sum(0)
        squares += np.square(vectors).sum(0)
    mean = total / len(rows)
    std = np.sqrt(np.maximum(squares / len(rows) - np.square(mean), 0))
    std[std <= 1e-6 * np.abs(first + mean)] = 1  # constant up to rounding
    std[std == 0] = 1
    return {STANDARDISE: {"mean": np.float32(first + mean), "std": np.float32(std)}}
