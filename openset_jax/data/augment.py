"""Stored images -> what the network sees: crop, flip, normalise. On the device, in jax, one key per example."""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import lax


def crop(images: jax.Array, corner: jax.Array, mirrored: jax.Array, size: int) -> jax.Array:
    """Cuts a square out of each image, and mirrors some of them.

    Args:
      images: uint8 [b, H, W, 3].
      corner: int32 [b, 2], top and left of the square, which must lie in the image.
      mirrored: bool [b].
      size: side of the square.

    Returns:
      uint8 [b, size, size, 3].
    """
    by_pixel, by_slices = (functools.partial(form, size=size) for form in (crop_by_pixel, crop_by_slices))
    return lax.platform_dependent(images, corner, mirrored, cpu=by_pixel, cuda=by_pixel, default=by_slices)


def crop_by_slices(images: jax.Array, corner: jax.Array, mirrored: jax.Array, size: int) -> jax.Array:
    """A slice of each image, and its mirror image."""

    def one(image, corner, mirrored):
        image = lax.dynamic_slice(image, (*corner, 0), (size, size, 3))
        return jnp.where(mirrored, image[:, ::-1], image)

    return jax.vmap(one)(images, corner, mirrored)


def crop_by_pixel(images: jax.Array, corner: jax.Array, mirrored: jax.Array, size: int) -> jax.Array:
    """One gather of pixels: mirroring is in the indices of the columns."""
    along = jnp.arange(size)
    rows, columns = corner[:, :1] + along, corner[:, 1:] + along
    columns = jnp.where(mirrored[:, None], columns[:, ::-1], columns)
    numbers = jnp.arange(len(images))[:, None, None]
    return images.at[numbers, rows[:, :, None], columns[:, None, :]].get(mode="promise_in_bounds")


def augment(
    images: jax.Array,
    key: jax.Array,
    position: jax.Array,
    *,
    image_size: int,
    pad: int,
    flip: bool,
    crop: Callable[..., jax.Array] = crop,
) -> jax.Array:
    """Random crop of the zero-padded image, and a random mirror image.

    Args:
      images: uint8 [b, S, S, 3].
      key: a key of the step.
      position: int32 [b], the place of each example in the global batch: all that its randomness depends on besides `key`,
        so that it does not depend on the number of devices.
      image_size: side of the crop, at most S + 2 pad.
      pad: pixels of zeros added on each side.
      flip: whether to mirror half of the images.
      crop: how: see `crop`.

    Returns:
      uint8 [b, image_size, image_size, 3].
    """
    corner, mirrored = draw(key, position, slack=images.shape[1] + 2 * pad - image_size)
    images = jnp.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    return crop(images, corner, mirrored & flip, image_size)


def draw(key: jax.Array, position: jax.Array, *, slack: int) -> tuple[jax.Array, jax.Array]:
    """For each example, (top and left of its crop, int32 [b, 2] in [0, slack]; whether it is mirrored, bool [b])."""

    def one(position):
        crop_key, flip_key = jax.random.split(jax.random.fold_in(key, position))
        return jax.random.randint(crop_key, (2,), 0, slack + 1), jax.random.bernoulli(flip_key)

    return jax.vmap(one)(position)


def centre_crop(images: jax.Array, *, image_size: int) -> jax.Array:
    """uint8 [b, S, S, 3] -> the centre, [b, image_size, image_size, 3]."""
    start = (images.shape[1] - image_size) // 2
    return images[:, start : start + image_size, start : start + image_size]


def normalise(images: jax.Array, mean: Sequence[float], std: Sequence[float], *, grey: bool = False) -> jax.Array:
    """uint8 in [0, 255] -> float32 (x / 255 - mean) / std, by channel; `grey` first replaces colours by their luma.

    The luma is that of ITU-R BT.601: 0.299 R + 0.587 G + 0.114 B.
    """
    mean, std = jnp.asarray(mean, jnp.float32), jnp.asarray(std, jnp.float32)
    images = images.astype(jnp.float32)
    if grey:
        luma = (images * jnp.asarray((0.299, 0.587, 0.114), jnp.float32)).sum(-1, keepdims=True)
        images = jnp.broadcast_to(luma, images.shape)
    return images * (1 / (255 * std)) - mean / std
