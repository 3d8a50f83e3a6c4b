"""The common interface of streamed and resident images, which are the same images in the same order."""

from collections.abc import Callable
from typing import Any, NamedTuple

from openset_jax.data.batches import ReadBatches
from openset_jax.data.pools import Pool
from openset_jax.data.unreadable import Unreadable


class ImageInput(NamedTuple):
    """How images reach a step: streamed in batches, or resident in device memory and gathered by row.

    `load`, which runs inside the step, maps (store, batch) to the batch with "example", uint8 [b, S, S, 3].
    """

    read: ReadBatches  # batches -> dicts of arrays [b, ...] on the host
    store: Any  # arrays that the devices hold during the whole run, the same for all batches
    store_axis: int | None  # device axis of `store`; None if it is replicated
    load: Callable[[Any, dict[str, Any]], dict[str, Any]]


class LoadedImages(NamedTuple):
    """The input of a pool's images, and the unreadable images; or the input of their features, see `frozen_features`."""

    image_input: ImageInput
    unreadable: Unreadable
    features: Pool | None = None  # of vectors, with the rows of the images; None for images


def streamed(read: ReadBatches) -> ImageInput:
    """Returns the `ImageInput` for batches that already contain their images."""
    return ImageInput(read, store=(), store_axis=None, load=lambda store, batch: batch)
