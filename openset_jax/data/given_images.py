"""Images that a program gives, as files or in memory, as a `Pool`: all of them go through the decoder of files."""

import io
import os
from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image, ImageOps

from openset_jax.data import pools

GivenImage = str | os.PathLike[str] | bytes | np.ndarray | Image.Image
PATHS = (str, os.PathLike)
_KINDS = (*PATHS, bytes, np.ndarray, Image.Image)
_PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")  # modes of Pillow that a PNG file stores unchanged


def as_list(images: GivenImage | Iterable[GivenImage]) -> list[GivenImage]:
    """Returns the images as a list; one image becomes a list of one.

    Raises:
      TypeError: an image is not one of `GivenImage`, an array is neither uint8 [H, W, 3] nor uint8 [H, W], or the range of
        the numbers of a Pillow image is unknown.
    """
    if hasattr(images, "read"):  # a file is an iterable of lines
        raise TypeError("an open file is not an image; give its path, or the bytes of its read()")
    listed = [images] if isinstance(images, _KINDS) or not isinstance(images, Iterable) else list(images)
    for place, image in enumerate(listed):
        if not isinstance(image, _KINDS):
            kinds = "a path, bytes of an encoded image, a Pillow image or a NumPy array"
            raise TypeError(f"image {place} is of type {type(image).__name__}; an image is {kinds}")
        if isinstance(image, np.ndarray):
            shape, grey = image.shape, image.ndim == 2
            if image.dtype != np.uint8 or not image.size or not (grey or (image.ndim == 3 and shape[2] == 3)):
                kinds = "uint8 [H, W, 3] or [H, W]; give several images as a list"
                raise TypeError(f"image {place} is an array {image.dtype} {list(shape)}; an array must be {kinds}")
        if isinstance(image, Image.Image) and image.mode in ("F", "I"):
            raise TypeError(
                f"image {place} is a Pillow image of mode {image.mode}, whose range is unknown; convert it to RGB"
            )
    return listed


def make_pool(ids: Sequence[str], images: Sequence[GivenImage], stored_size: int) -> pools.Pool:
    """Returns a `Pool` of these images, in order, without known classes: all are unknowns of the test split.

    `stored_size` is the side in pixels to which they are scaled.
    """
    formats = ["path" if isinstance(image, PATHS) else "encoded" for image in images]
    used, nothing = sorted(set(formats)), np.zeros(len(images), np.int32)
    sources = [
        pools.Source(
            name="images", classes=("",), roles=None, label=nothing, split=np.full(len(images), pools.TEST, np.uint8),
            format=format, ids=lambda records: [ids[r] for r in records],
            fetch=lambda records: [_record(images[r]) for r in records],
        ) for format in used
    ]  # fmt: skip
    return pools.Pool(
        sources=tuple(sources), groups=("",), roles=("unknown",), num_classes=0,
        array=pools.image_type(stored_size), record=np.arange(len(images)),
        source=np.array([used.index(format) for format in formats], np.int32), group=nothing,
        split=np.full(len(images), pools.TEST, np.uint8), key=np.arange(len(images), dtype=np.uint64),
    )  # fmt: skip


def _record(image: GivenImage) -> bytes:
    """Returns the path, or the encoded image: pixels are encoded as PNG, which loses nothing."""
    if isinstance(image, PATHS):
        return os.fsencode(image)
    if isinstance(image, bytes):
        return image
    picture = Image.fromarray(image) if isinstance(image, np.ndarray) else ImageOps.exif_transpose(image)
    file = io.BytesIO()
    picture = picture if picture.mode in _PNG_MODES else picture.convert("RGB")
    picture.save(file, "PNG", compress_level=1, exif=b"")
    return file.getvalue()
