"""Max-pooling, 3x3 with stride 2: XLA's, and equal ones for platforms where its gradient is slow.

XLA's gradient is a select-and-scatter, which its compilers for CPUs and for NVIDIA's GPUs run as a scatter. The others keep
the place of the largest element in each window, an int8, and their gradients are elementwise operations, which compilers
turn into vector code.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from openset_jax.platforms.fusion import by_itself

WINDOW, STRIDE = 3, 2


def max_pool(x: jax.Array) -> jax.Array:
    """[b, H, W, c] -> the largest of each 3x3 window, [b, (H - 1) // 2, (W - 1) // 2, c].

    The gradient of a window goes to its largest element, and to the first of them, row by row, where several are equal.
    """
    return lax.platform_dependent(x, cpu=max_pool_by_slices, cuda=max_pool_by_parity, default=max_pool_by_windows)


def max_pool_by_windows(x: jax.Array) -> jax.Array:
    """XLA's own."""
    return nn.max_pool(x, (WINDOW, WINDOW), strides=(STRIDE, STRIDE))


@jax.custom_vjp
def max_pool_by_slices(x: jax.Array) -> jax.Array:
    """For CPUs: slices of the input, one for each place in a window; their gradients are padded to its size and summed."""
    return functools.reduce(jnp.maximum, _slices(x))


@jax.custom_vjp
def max_pool_by_parity(x: jax.Array) -> jax.Array:
    """For GPUs: the gradients of even and odd rows and columns are computed apart, and interleaved.

    An element of an even row is in the first row of a window and in the last row of the window above; one of an odd row is
    in the middle row of one window. So no element looks at a window that it is not in.
    """
    return functools.reduce(jnp.maximum, _slices(x))


def largest_of_windows(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The largest element of each window, and its place in it, int8 from 0 to 8, row by row."""
    slices = _slices(x)
    largest, where = slices[0], jnp.zeros(slices[0].shape, jnp.int8)
    for k, candidate in enumerate(slices[1:], 1):
        larger = (candidate > largest) | jnp.isnan(candidate)  # which stays: nothing is larger than it
        largest, where = jnp.where(larger, candidate, largest), jnp.where(larger, jnp.int8(k), where)
    return largest, where


def spread_by_slices(sides: tuple[int, int], where: jax.Array, gradient: jax.Array) -> jax.Array:
    """Each element of the gradient to its place in the window; what windows share is summed.

    Args:
      sides: height and width of the input.
      where: int8 [b, h, w, c], places in the windows.
      gradient: [b, h, w, c].

    Returns:
      [b, *sides, c].
    """
    total = None
    for k in range(WINDOW**2):
        edges = [
            (start, side - start - (STRIDE * (count - 1) + 1), STRIDE - 1)
            for start, side, count in zip(divmod(k, WINDOW), sides, where.shape[1:3], strict=True)
        ]
        share = _padded(_share(where, gradient, k), *edges)
        total = share if total is None else total + share
    return total


# parity of a row or column -> (place in the window, how many windows before) for each window that it is in
_WINDOWS = {0: ((0, 0), (2, 1)), 1: ((1, 0),)}


def spread_by_parity(sides: tuple[int, int], where: jax.Array, gradient: jax.Array) -> jax.Array:
    """The same as `spread_by_slices`."""

    def elements(row_parity, column_parity):
        total = None
        for top, above in _WINDOWS[row_parity]:
            for left, before in _WINDOWS[column_parity]:
                share = _share(where, gradient, WINDOW * top + left)
                share = _padded(share, (above, 1 - above, 0), (before, 1 - before, 0))
                total = share if total is None else total + share
        return total

    rows = [jnp.stack([elements(parity, 0), elements(parity, 1)], axis=3) for parity in (0, 1)]
    b, height, width, c = where.shape
    whole = jnp.stack(rows, axis=2).reshape(b, 2 * (height + 1), 2 * (width + 1), c)
    return whole[:, : sides[0], : sides[1]]


def _slices(x):
    height, width = (STRIDE * ((side - WINDOW) // STRIDE) + 1 for side in x.shape[1:3])
    corners = [divmod(k, WINDOW) for k in range(WINDOW**2)]
    return [x[:, top : top + height : STRIDE, left : left + width : STRIDE] for top, left in corners]


def _share(where, gradient, k):
    return jnp.where(where == k, gradient, jnp.zeros((), gradient.dtype))


def _padded(x, rows, columns):
    return lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), rows, columns, (0, 0, 0)])


def pool_and_keep_places(x: jax.Array) -> tuple[jax.Array, Any]:
    """The largest elements, and what the gradient needs."""
    largest, where = largest_of_windows(x)
    return largest, (where, jnp.zeros((0, *x.shape[1:3]), jnp.int8))  # of x only its shape is needed


def _backward_by_slices(residuals, gradient):
    where, (_, *sides) = residuals[0], residuals[1].shape
    return (by_itself(functools.partial(spread_by_slices, tuple(sides)), where, gradient),)


def _backward_by_parity(residuals, gradient):
    where, (_, *sides) = residuals[0], residuals[1].shape
    return (spread_by_parity(tuple(sides), where, gradient),)


max_pool_by_slices.defvjp(pool_and_keep_places, _backward_by_slices)
max_pool_by_parity.defvjp(pool_and_keep_places, _backward_by_parity)
