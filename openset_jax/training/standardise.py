"""The mean of each feature, and the standard deviation of all, over the training vectors of a run."""

from collections.abc import Sequence

import numpy as np

from openset_jax.data import packed
from openset_jax.data.pools import Pool
from openset_jax.model.vector_networks import STANDARDISE
from openset_jax.training.state import Params


def statistics(pool: Pool, rows_by_class: Sequence[np.ndarray]) -> Params:
    """Returns the batch statistics of a network for vectors over these rows of a pool: mean float32 [F], std float32 [].

    std is the square root of the mean variance of the features: one number for all, which keeps their proportions. With a
    standard deviation for each feature, heads were slightly worse, because features that hardly vary gain weight.
    If all vectors are equal, std is 1.
    """
    rows = np.concatenate(rows_by_class)
    first, total, squares = np.zeros(pool.array.shape), np.zeros(pool.array.shape), np.zeros(pool.array.shape)
    for i, (_, part) in enumerate(packed.parts(pool, rows)):
        vectors = part.astype(np.float64)
        if not i:
            first = vectors.mean(0)
        vectors -= first  # so that the variance is not a small difference of large numbers
        total += vectors.sum(0)
        squares += np.square(vectors).sum(0)
    mean = total / len(rows)
    std = np.sqrt(max((squares / len(rows) - np.square(mean)).mean(), 0))
    return {STANDARDISE: {"mean": np.float32(first + mean), "std": np.float32(std or 1)}}
