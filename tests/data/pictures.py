"""Photographs, encoded, and decoded by Pillow and by TensorFlow."""

import functools
import io

import numpy as np
import pytest
from PIL import Image, ImageFilter, ImageOps
from sklearn.datasets import load_sample_image

tf = pytest.importorskip("tensorflow")
decoding = pytest.importorskip("openset_jax.data.decode")

ORIENTATION = 0x0112
MAX_PIXELS = 1_000_000


@functools.cache
def flower():
    return Image.fromarray(load_sample_image("flower.jpg"))


def photograph(shape):
    """Returns a photograph of this shape, blurred, so that the exact kernel of scaling makes no difference."""
    return flower().resize(shape).filter(ImageFilter.GaussianBlur(min(shape) / 20))


def encode(image, form, **options):
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def jpeg(image, orientation=None, **options):
    if orientation is not None:
        options["exif"] = exif(orientation)
    return encode(image, "JPEG", quality=95, **options)


def exif(orientation):
    block = Image.Exif()
    block[ORIENTATION] = orientation
    return block


@functools.cache
def decoder(stored_size):
    """Returns `decode_square` in a graph, as tf.data runs it."""
    signature = [tf.TensorSpec([], tf.string)]
    return tf.function(lambda content: decoding.decode_square(content, stored_size, MAX_PIXELS), input_signature=signature)


def decode(content, stored_size):
    image = decoder(stored_size)(content).numpy()
    assert image.dtype == np.uint8
    assert image.shape == (stored_size, stored_size, 3)
    return image


def by_pil(content, stored_size, *, scale_first=False):
    """Decodes by Pillow as the contract says: upright, RGB, centre square, bilinear with antialiasing."""
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(content))).convert("RGB")
    if scale_first:
        factor = stored_size / min(image.size)
        image = image.resize([max(stored_size, round(n * factor)) for n in image.size], Image.Resampling.BILINEAR)
    width, height = image.size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    image = image.crop((left, top, left + side, top + side))
    return np.asarray(image.resize((stored_size, stored_size), Image.Resampling.BILINEAR))


def difference(a, b):
    return np.abs(a.astype(float) - b.astype(float))
