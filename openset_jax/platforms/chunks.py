"""Functions that treat every image alone: on CPUs they are applied to a few images after another.

Then the feature maps between the layers stay in the caches, and need little new memory, whose first use costs as much time
as the arithmetic. `benchmarks/RESULTS.md` has the measurements.
"""

import os
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

_PIXELS_PER_CORE = 2**16  # of the images of a chunk; an image of 224 x 224 has 50,000
_CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

Function = Callable[[jax.Array], jax.Array]


def in_chunks(function: Function, images: jax.Array) -> jax.Array:
    """Returns function(images) for images [b, H, W, c], whose result for an image must not depend on the others."""
    size = max(1, _PIXELS_PER_CORE * _CORES // (images.shape[1] * images.shape[2]))
    return lax.platform_dependent(images, cpu=lambda images: chunk_by_chunk(function, images, size), default=function)


def at_once(function: Function, images: jax.Array) -> jax.Array:
    """Computes `in_chunks` by one call."""
    return function(images)


def chunk_by_chunk(function: Function, images: jax.Array, size: int) -> jax.Array:
    """Computes `in_chunks` by a loop over chunks of `size` images; the last may be smaller."""
    count = len(images) // size
    if count < 2:
        return function(images)
    whole = images[: count * size].reshape(count, size, *images.shape[1:])
    result = lax.map(function, whole)
    result = result.reshape(count * size, *result.shape[2:])
    if len(images) == count * size:
        return result
    return jnp.concatenate([result, function(images[count * size :])])
