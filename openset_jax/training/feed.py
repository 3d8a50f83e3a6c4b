"""The two ways to feed the devices: stream batches of images to them, or batches of rows of a pool that they hold.

Both give the same images in the same order. What differs is one value, `Feed`: training and inference do not know which.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from openset_jax.data.batches import Batches
from openset_jax.data.pools import Pool
from openset_jax.data.unreadable import Skipped
from openset_jax.errors import UserError, needing_tensorflow
from openset_jax.training import devices


class Feed(NamedTuple):
    """How images reach a step.

    Attributes:
      read: batches -> dicts of arrays [b, ...] on the host.
      store: what the devices hold from start to end, the same for all batches.
      store_axis: its axis over devices, None where all hold the same.
      load: (store, one of those dicts) -> the same with "image" uint8 [b, S, S, 3]; runs on a device, in the step.
    """

    read: Callable[[Batches], Iterator[dict[str, np.ndarray]]]
    store: Any
    store_axis: int | None
    load: Callable[[Any, dict[str, Any]], dict[str, Any]]


IMAGES_IN_BATCH = Feed(read=iter, store=(), store_axis=None, load=lambda store, batch: batch)


def make_feed(input: str, pool: Pool, *, stored_size: int, skipped: Skipped, sharded: bool = False) -> Feed:
    """The feed of `input`, "stream" or "resident" (then the pool is copied to the devices now, and decoded unless packed).

    Args:
      sharded: spread a resident pool over all devices, instead of a copy on each.

    Raises:
      UserError: no such input, no TensorFlow to decode with, a pool that does not fit, or, with several processes, one that
        is not packed.
    """
    if input == "resident":
        return _resident(pool, stored_size, skipped, sharded)
    if input == "stream":
        return _streaming(pool, stored_size, skipped)
    raise UserError(f"input: {input!r} is not one of stream, resident")


def _streaming(pool, stored_size, skipped):
    with needing_tensorflow("input: stream"):
        from openset_jax.data import pipeline
    return IMAGES_IN_BATCH._replace(read=functools.partial(pipeline.stream, pool, stored_size=stored_size, skipped=skipped))


def _resident(pool, stored_size, skipped, sharded):
    from openset_jax.data import resident

    if resident.is_packed(pool) or devices.host_part() != (0, 1):  # what one host cannot read, another would not know of
        resident.check_packed(pool, stored_size)
        read = lambda start, stop: resident.read(pool, start, stop, stored_size)
    else:
        stream = _streaming(pool, stored_size, skipped).read
        read = lambda start, stop: resident.decode(stream, pool, start, stop, stored_size, skipped)
    gather = functools.partial(resident.gather_sharded, axis=devices.AXIS) if sharded else resident.gather
    return Feed(
        read=resident.rows,
        store=devices.hold(read, len(pool), (stored_size, stored_size, 3), sharded=sharded),
        store_axis=0 if sharded else None,
        load=lambda store, batch: batch | {"image": gather(store, batch["row"])},
    )
