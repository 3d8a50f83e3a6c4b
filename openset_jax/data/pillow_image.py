"""Decodes one image with Pillow: all that TensorFlow cannot read, or would read wrongly. Does not need TensorFlow."""

import io
from collections.abc import Callable

import numpy as np
from PIL import Image

from openset_jax.data.image_format import READABLE, image_format

PIXELS_PER_JPEG_BYTE = 512  # at most: each block of 8 x 8 pixels takes at least one bit; libjpeg paints missing ones grey

# By EXIF orientation, 1 to 8 (0 is unused): quarter turns counter-clockwise, then whether to mirror from left to right.
QUARTER_TURNS = (0, 0, 0, 2, 2, 3, 3, 1, 1)
MIRRORED = (False, False, True, False, True, True, False, True, False)

_PLUGINS = {"netpbm": "PPM"}  # Pillow's names of formats, where they are not ours in capitals
_BITS = (8, 10, 12, 14, 16)  # of the sensors whose data are stored in 16 bits


def centre_square(content: bytes, max_pixels: int, deep_png: Callable[[bytes], np.ndarray]) -> np.ndarray:
    """Decodes the first picture of an image file: its centre square, upright, uint8 [s, s, 3] (RGB).

    Transparency is dropped, which shows the colours below it, as for the PNGs that TensorFlow decodes. Samples of more than
    8 bits are converted by `to_8_bits`.

    Args:
      max_pixels: checked before the image is decoded.
      deep_png: decodes a PNG with 16 bits per sample: uint16 [h, w, 3]. Pillow would drop 8 of them.

    Raises:
      ValueError: the reason why the image cannot be read, in one line.
    """
    try:
        return _centre_square(content, max_pixels, deep_png)
    except Exception as error:  # Pillow raises errors of any class for damaged files
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ValueError(lines[0]) from None


def _centre_square(content, max_pixels, deep_png):
    if not content:
        raise ValueError("an empty file")
    name = image_format(content)
    if name not in READABLE:
        raise ValueError(
            f"a {name.upper()} image, a format that the installed Pillow cannot read" if name else "not an image"
        )
    image = _open(content, name)
    width, height = image.size
    if width * height > max_pixels:
        raise ValueError(f"{width:,} x {height:,} pixels, more than data.max_pixels={max_pixels:,}")
    if name == "jpeg" and width * height > PIXELS_PER_JPEG_BYTE * len(content):
        raise ValueError(f"{len(content):,} bytes are too few for a JPEG of {width:,} x {height:,} pixels")
    # the byte order of 16 bits per sample; Pillow's modes with several channels have 8
    is_deep = any(f";16{order}" in str(image.tile) for order in "BLN")
    if name == "png" and is_deep:
        pixels = to_8_bits(deep_png(content))
    else:
        image.load()
        pixels = _rgb(image, is_deep)
    code = orientation(image.getexif)  # Pillow turns TIFFs when it loads them
    height, width, _ = pixels.shape
    side = min(width, height)
    top, left = (height - side) // 2, (width - side) // 2
    square = np.rot90(pixels[top : top + side, left : left + side], QUARTER_TURNS[code])
    return np.ascontiguousarray(square[:, ::-1] if MIRRORED[code] else square)


def _open(content, name):
    """As `Image.open`, without its limit on pixels, which is a global variable of Pillow."""
    plugin = _PLUGINS.get(name, name.upper())
    if plugin not in Image.OPEN:
        Image.init()
    return Image.OPEN[plugin][0](io.BytesIO(content), "")


def _rgb(image, is_deep):
    if image.mode.startswith("I"):  # grey, of 16 or 32 bits
        return np.repeat(to_8_bits(np.asarray(image))[..., None], 3, axis=-1)
    if image.mode == "F":
        raise ValueError("floating-point pixels, whose range is unknown; convert it to 8 bits")
    image.info.pop("transparency", None)  # otherwise `convert` warns
    pixels = np.asarray(image.convert("RGB"))
    if is_deep and pixels.max() < 16:
        raise ValueError("16 bits per colour, of which 12 or fewer are used; convert it to 8 bits")
    return pixels


def to_8_bits(pixels: np.ndarray) -> np.ndarray:
    """Scales integers of up to 16 bits to uint8, by the bits that the picture uses.

    Many cameras store 10, 12 or 14 bits in files of 16 bits, which would look black if 65,535 was white. White is the
    largest number of the least of 8, 10, 12, 14 and 16 bits that holds all values of the picture.

    Raises:
      ValueError: a value is negative, or has more than 16 bits.
    """
    least, largest = int(pixels.min()), int(pixels.max())
    if least < 0 or largest >= 1 << 16:
        raise ValueError(f"pixels from {least:,} to {largest:,}, which do not fit 16 bits; convert it to 8 bits")
    white = next((1 << bits) - 1 for bits in _BITS if largest < 1 << bits)
    table = np.round(np.arange(white + 1) * (255 / white)).astype(np.uint8)
    return np.stack([table[row] for row in pixels])  # row by row, because an index takes 64 bits per value


def orientation(exif: Callable[[], Image.Exif]) -> int:
    """Returns the orientation, 1 to 8, in an EXIF block; 1, upright, if there is none or it is damaged."""
    try:
        code = int(exif().get(0x0112, 1))
        return code if 1 <= code <= 8 else 1
    except Exception:  # the image is readable even if its EXIF block is damaged
        return 1
