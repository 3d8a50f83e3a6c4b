"""How images reach the devices: streamed in batches, or resident in device memory and gathered by row.

Both give the same images in the same order. Training and inference use `ImageInput`, the common interface.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from openset_jax.data.batches import Batches

ReadBatches = Callable[[Batches], Iterator[dict[str, np.ndarray]]]


class ImageInput(NamedTuple):
    """How images reach a step.

    Attributes:
      read: batches -> dicts of arrays [b, ...] on the host.
      store: arrays that the devices hold during the whole run, the same for all batches.
      store_axis: device axis of `store`; None if it is replicated.
      load: (store, batch) -> batch with "image", uint8 [b, S, S, 3]; runs inside the step, on a device.
    """

    read: ReadBatches
    store: Any
    store_axis: int | None
    load: Callable[[Any, dict[str, Any]], dict[str, Any]]


def streamed(read: ReadBatches) -> ImageInput:
    """Returns the `ImageInput` for batches that already contain their images."""
    return ImageInput(read, store=(), store_axis=None, load=lambda store, batch: batch)
