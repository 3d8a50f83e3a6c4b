"""Max-pooling, 3x3 with stride 2: XLA's where it is fast, and an equal one for CPUs, where its gradient is not.

XLA's gradient is a select-and-scatter, which its CPU compiler runs as a scatter. Here both passes are elementwise operations
on strided slices, which it turns into vector code.
"""

import functools

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from openset_jax.model.fusion import by_itself

WINDOW, STRIDE = 3, 2


def max_pool(x: jax.Array) -> jax.Array:
    """[b, H, W, c] -> the largest of each 3x3 window, [b, (H - 1) // 2, (W - 1) // 2, c].

    The gradient of a window goes to its largest element, and to the first of them, row by row, where several are equal.
    """
    return lax.platform_dependent(x, cpu=max_pool_by_slices, default=max_pool_by_windows)


def max_pool_by_windows(x: jax.Array) -> jax.Array:
    """XLA's own."""
    return nn.max_pool(x, (WINDOW, WINDOW), strides=(STRIDE, STRIDE))


@jax.custom_vjp
def max_pool_by_slices(x: jax.Array) -> jax.Array:
    """The largest of the nine slices that hold the first element of each window, the second, and so on."""
    return functools.reduce(jnp.maximum, _slices(x))


def _slices(x: jax.Array) -> list[jax.Array]:
    height, width = (STRIDE * ((side - WINDOW) // STRIDE) + 1 for side in x.shape[1:3])
    corners = [divmod(k, WINDOW) for k in range(WINDOW**2)]
    return [x[:, top : top + height : STRIDE, left : left + width : STRIDE] for top, left in corners]


def _forward(x: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    slices = _slices(x)
    largest, where = slices[0], jnp.zeros(slices[0].shape, jnp.int8)
    for k, candidate in enumerate(slices[1:], 1):
        larger = (candidate > largest) | jnp.isnan(candidate)  # which stays: nothing is larger than it
        largest, where = jnp.where(larger, candidate, largest), jnp.where(larger, jnp.int8(k), where)
    return largest, (where, jnp.zeros((0, *x.shape[1:3]), jnp.int8))  # of x only its shape is needed


def _backward(residuals: tuple[jax.Array, jax.Array], gradient: jax.Array) -> tuple[jax.Array]:
    where, (_, *sides) = residuals[0], residuals[1].shape
    return (by_itself(functools.partial(_spread, sides), where, gradient),)


def _spread(sides: list[int], where: jax.Array, gradient: jax.Array) -> jax.Array:
    """Each element of the gradient to its place in the window; what windows share is summed."""
    total = None
    for k in range(WINDOW**2):
        edges = [
            (start, side - start - (STRIDE * (count - 1) + 1), STRIDE - 1)
            for start, side, count in zip(divmod(k, WINDOW), sides, where.shape[1:3], strict=True)
        ]
        share = jnp.where(where == k, gradient, jnp.zeros((), gradient.dtype))
        share = lax.pad(share, jnp.zeros((), gradient.dtype), [(0, 0, 0), *edges, (0, 0, 0)])
        total = share if total is None else total + share
    return total


max_pool_by_slices.defvjp(_forward, _backward)
