"""Pools held in device memory, and gathered by row inside the step. No TensorFlow.

The other way to feed the device: a step of a small network is over before a host has decoded its batch, and even packed
images cost the host a copy. Held in device memory, 140,000 images of 256x256 are 27.5 GB, a batch is a list of rows, and
nothing but that list crosses to the device.
"""

from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from openset_jax.data import batches as plans
from openset_jax.data import packed
from openset_jax.data.batches import BLANK, Batches
from openset_jax.data.pools import Pool, check_stored_size
from openset_jax.data.unreadable import Skipped
from openset_jax.errors import UserError

_DECODED_AT_ONCE = 256


def is_packed(pool: Pool) -> bool:
    """Whether all images are in packed arrays."""
    return all(source.form.startswith("pixels:") for source in pool.sources)


def check_packed(pool: Pool, stored_size: int) -> None:
    """Raises UserError unless all images of the pool are packed arrays of this size."""
    for source in pool.sources:
        if not source.form.startswith("pixels:"):
            raise UserError(
                f"input: resident with several processes needs packed arrays, and {source.name} is none; run python -m "
                "openset_jax.prepare with this config, then add --config.data.packed=PACKED"
            )
    check_stored_size(pool, stored_size)


def read(pool: Pool, start: int, stop: int, stored_size: int) -> np.ndarray:
    """Rows `start` to `stop` of a packed pool: uint8 [stop - start, S, S, 3]; rows beyond the pool are zeros."""
    wanted = np.arange(start, stop)
    return packed.read(pool, np.where(wanted < len(pool), wanted, BLANK), stored_size)


def decode(
    stream: Callable[[Batches], Iterator[dict[str, np.ndarray]]],
    pool: Pool,
    start: int,
    stop: int,
    stored_size: int,
    skipped: Skipped,
) -> np.ndarray:
    """The same of any pool: small ones need not be packed first. Images that cannot be read are zeros, and in `skipped`.

    Args:
      stream: decodes batches.
    """
    images = np.zeros((stop - start, stored_size, stored_size, 3), np.uint8)
    wanted = np.arange(start, min(stop, len(pool)))
    plan = plans.evaluation(pool, wanted, batch_size=_DECODED_AT_ONCE, skipped=skipped)
    for batch in stream(plan):
        images[batch["position"][batch["mask"]]] = batch["image"][batch["mask"]]
    return images


def rows(batches: Batches) -> Iterator[dict[str, np.ndarray]]:
    """Batches without pixels: {"row": int32 [b], any where masked, and what `Batches.columns` gives}."""
    for n in range(batches.start, batches.stop):
        chosen = batches.rows(n)
        yield {"row": np.maximum(chosen, 0).astype(np.int32), **batches.columns(n, chosen)}


def gather(images: jax.Array, row: jax.Array) -> jax.Array:
    """Images [n, S, S, 3] that this device holds, at rows int32 [b] below n -> [b, S, S, 3]."""
    return images.at[row].get(mode="promise_in_bounds")


def gather_sharded(images: jax.Array, row: jax.Array, *, axis: str) -> jax.Array:
    """The same where device d of D holds rows d m to (d + 1) m, [m, S, S, 3], and b rows of all Dm are asked for by each.

    Every device looks up what all of them ask for, has zeros for what it does not hold, and the sum is handed out: exact,
    and each device receives (D - 1) / D of D batches of uint8.
    """
    mine = lax.all_gather(row, axis, tiled=True) - lax.axis_index(axis) * len(images)
    held = (mine >= 0) & (mine < len(images))
    found = gather(images, jnp.where(held, mine, 0))
    found = jnp.where(held[:, None, None, None], found, jnp.uint8(0))
    return lax.psum_scatter(found, axis, scatter_dimension=0, tiled=True)
