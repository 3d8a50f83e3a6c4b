"""Stored images -> what the network sees: crop, flip, normalise. On the device, in jax, one key per example."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp


def augment(images: jax.Array, key: jax.Array, position: jax.Array, *, image_size: int, pad: int, flip: bool) -> jax.Array:
    """Random crop of the zero-padded image, and a random mirror image.

    Args:
      images: uint8 [b, S, S, 3].
      key: a key of the step.
      position: int32 [b], the place of each example in the global batch: all that its randomness depends on besides `key`,
        so that it does not depend on the number of devices.
      image_size: side of the crop, at most S + 2 pad.
      pad: pixels of zeros added on each side.
      flip: whether to mirror half of the images.

    Returns:
      uint8 [b, image_size, image_size, 3].
    """
    slack = images.shape[1] + 2 * pad - image_size
    images = jnp.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)))

    def one(image, position):
        crop_key, flip_key = jax.random.split(jax.random.fold_in(key, position))
        top, left = jax.random.randint(crop_key, (2,), 0, slack + 1)
        image = jax.lax.dynamic_slice(image, (top, left, 0), (image_size, image_size, 3))
        return jnp.where(jax.random.bernoulli(flip_key), image[:, ::-1], image) if flip else image

    return jax.vmap(one)(images, position)


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
