"""Cropping and mirroring squares of images: equivalent implementations, chosen by platform."""

import functools

import jax
import jax.numpy as jnp
from jax import lax


def crop(images: jax.Array, corner: jax.Array, mirrored: jax.Array, size: int) -> jax.Array:
    """Cuts a square, uint8 [b, size, size, 3], out of each image, and mirrors some of the squares from left to right.

    Args:
      images: uint8 [b, H, W, 3].
      corner: int32 [b, 2], top and left of the square, which must lie within the image.
      mirrored: bool [b].
    """
    by_pixel, by_slices = (functools.partial(form, size=size) for form in (crop_by_pixel, crop_by_slices))
    return lax.platform_dependent(images, corner, mirrored, cpu=by_pixel, cuda=by_pixel, default=by_slices)


def crop_by_slices(images: jax.Array, corner: jax.Array, mirrored: jax.Array, size: int) -> jax.Array:
    """Computes `crop` by slicing each image, and choosing between the slice and its mirror image."""

    def one(image, corner, mirrored):
        image = lax.dynamic_slice(image, (*corner, 0), (size, size, 3))
        return jnp.where(mirrored, image[:, ::-1], image)

    return jax.vmap(one)(images, corner, mirrored)


def crop_by_pixel(images: jax.Array, corner: jax.Array, mirrored: jax.Array, size: int) -> jax.Array:
    """Computes `crop` by one gather of pixels; mirrored squares have reversed column indices."""
    along = jnp.arange(size)
    rows, columns = corner[:, :1] + along, corner[:, 1:] + along
    columns = jnp.where(mirrored[:, None], columns[:, ::-1], columns)
    numbers = jnp.arange(len(images))[:, None, None]
    return images.at[numbers, rows[:, :, None], columns[:, None, :]].get(mode="promise_in_bounds")
