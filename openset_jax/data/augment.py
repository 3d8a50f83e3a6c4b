"""Random crops, mirror images and normalisation: from stored images to the network's input. Runs on the device, in JAX."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from openset_jax.platforms.crop import crop

Crop = Callable[[jax.Array, jax.Array, jax.Array, int], jax.Array]


def augment(
    images: jax.Array, key: jax.Array, position: jax.Array, *, image_size: int, pad: int, flip: bool, crop: Crop = crop
) -> jax.Array:
    """Returns random crops of zero-padded images; if `flip`, mirrored from left to right with probability 1/2.

    The randomness of an example depends only on `key` and on its position in the global batch, so the result, uint8
    [b, image_size, image_size, 3], does not depend on the number of devices.

    Args:
      images: uint8 [b, S, S, 3].
      position: int32 [b], positions in the global batch.
      image_size: side of the crop, at most S + 2 pad.
      pad: pixels of zeros added on each side.
    """
    corner, mirrored = draw(key, position, slack=images.shape[1] + 2 * pad - image_size)
    images = jnp.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    return crop(images, corner, mirrored & flip, image_size)


def draw(key: jax.Array, position: jax.Array, *, slack: int) -> tuple[jax.Array, jax.Array]:
    """Returns (top and left of each crop, int32 [b, 2] in [0, slack] pixels; whether to mirror each crop, bool [b])."""

    def one(position):
        crop_key, flip_key = jax.random.split(jax.random.fold_in(key, position))
        return jax.random.randint(crop_key, (2,), 0, slack + 1), jax.random.bernoulli(flip_key)

    return jax.vmap(one)(position)


def centre_crop(images: jax.Array, *, image_size: int) -> jax.Array:
    """Returns the centres, [b, image_size, image_size, 3], of images [b, S, S, 3]."""
    start = (images.shape[1] - image_size) // 2
    return images[:, start : start + image_size, start : start + image_size]


def normalise(images: jax.Array, mean: Sequence[float], std: Sequence[float], *, grey: bool = False) -> jax.Array:
    """Returns float32 (x / 255 - mean) / std by channel, for uint8 images x [b, H, W, 3]; mean and std for pixels in [0, 1].

    If `grey`, colours are replaced by their luma first (ITU-R BT.601: 0.299 R + 0.587 G + 0.114 B).
    """
    means, stds = jnp.asarray(mean, jnp.float32), jnp.asarray(std, jnp.float32)
    images = images.astype(jnp.float32)
    if grey:
        luma = (images * jnp.asarray((0.299, 0.587, 0.114), jnp.float32)).sum(-1, keepdims=True)
        images = jnp.broadcast_to(luma, images.shape)
    return images * (1 / (255 * stds)) - means / stds
