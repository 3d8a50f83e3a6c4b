"""Pools whose images are held in device memory, and gathered by row inside the step. Does not need TensorFlow.

A step of a small network takes less time than the host needs to decode a batch, or even to copy a batch of packed images.
In device memory, 140,000 images of 256x256 are 27.5 GB; only the row numbers of a batch are sent to the device.
"""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from openset_jax.data import packed
from openset_jax.data.batches import BLANK, Batches, ReadBatches, evaluation
from openset_jax.data.pools import Pool
from openset_jax.data.unreadable import Unreadable
from openset_jax.errors import UserError

_DECODED_AT_ONCE = 256


def check_packed(pool: Pool) -> None:
    """Raises UserError unless all images of the pool are packed arrays."""
    for source in pool.sources:
        if source.array is None:
            raise UserError(
                f"input: resident with several processes needs packed arrays, and {source.name} is not packed; run "
                "python -m openset_jax.prepare with this config, then add --config.data.packed=PACKED"
            )


def read(pool: Pool, start: int, stop: int) -> np.ndarray:
    """Returns rows `start` to `stop` of a pool of arrays: [stop - start, *shape]; rows beyond the pool are zeros."""
    wanted = np.arange(start, stop)
    return packed.read(pool, np.where(wanted < len(pool), wanted, BLANK))


def decode(stream: ReadBatches, pool: Pool, start: int, stop: int, unreadable: Unreadable) -> np.ndarray:
    """As `read`, for any pool; `stream` decodes batches. Unreadable images are zeros, and are added to `unreadable`."""
    images = pool.array.zeros(stop - start)
    wanted = np.arange(start, min(stop, len(pool)))
    plan = evaluation(pool, wanted, batch_size=_DECODED_AT_ONCE, unreadable=unreadable)
    for batch in stream(plan):
        images[batch["position"][batch["mask"]]] = batch["example"][batch["mask"]]
    return images


def rows(batches: Batches) -> Iterator[dict[str, np.ndarray]]:
    """Yields batches without pixels: {"row": int32 [b], arbitrary where masked, and the columns of `Batches.columns`}."""
    for n in range(batches.start, batches.stop):
        chosen = batches.rows(n)
        yield {"row": np.maximum(chosen, 0).astype(np.int32), **batches.columns(n, chosen)}


def gather(images: jax.Array, row: jax.Array) -> jax.Array:
    """Returns the images [b, S, S, 3] at rows int32 [b], each below n, of this device's images [n, S, S, 3]."""
    return images.at[row].get(mode="promise_in_bounds")


def gather_sharded(images: jax.Array, row: jax.Array, *, axis: str) -> jax.Array:
    """Returns the images [b, S, S, 3] at rows int32 [b] of a pool that is sharded over the devices of an axis.

    Device d of D holds rows d m to (d + 1) m, [m, S, S, 3], and needs b of all D m rows. Row numbers are gathered from all
    devices; each device looks up the rows that it holds, with zeros for the others; a reduce-scatter sums over devices. The
    result is exact, and each device receives D - 1 batches of uint8.
    """
    mine = lax.all_gather(row, axis, tiled=True) - lax.axis_index(axis) * len(images)
    held = (mine >= 0) & (mine < len(images))
    found = gather(images, jnp.where(held, mine, 0))
    found = jnp.where(held[:, None, None, None], found, jnp.uint8(0))
    return lax.psum_scatter(found, axis, scatter_dimension=0, tiled=True)
