"""Max-pooling, 3x3 with stride 2: by XLA, and by equivalent code for platforms on which the gradient of XLA's is slow.

XLA's gradient is a select-and-scatter, which its compilers for CPUs and for NVIDIA GPUs run as a scatter. The other
implementations store the place of the largest element in each window, an int8; their gradients are elementwise operations,
which compilers vectorise.
"""

import functools
import operator
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from openset_jax.platforms.xla import isolated

WINDOW, STRIDE = 3, 2

Spread = Callable[[tuple[int, int], jax.Array, jax.Array], jax.Array]  # (sides, places, gradient) -> gradient of the input


def max_pool(x: jax.Array) -> jax.Array:
    """Returns the largest element of each 3x3 window of x [b, H, W, c]: [b, (H - 1) // 2, (W - 1) // 2, c].

    The gradient of a window goes to its largest element; of several equal ones, to the first, row by row.
    """
    return lax.platform_dependent(x, cpu=max_pool_by_slices, cuda=max_pool_by_parity, default=max_pool_by_windows)


def max_pool_by_windows(x: jax.Array) -> jax.Array:
    """Computes `max_pool` by XLA's reduction over windows."""
    return nn.max_pool(x, (WINDOW, WINDOW), strides=(STRIDE, STRIDE))


def largest_of_windows(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the largest element of each window, and its place in the window: int8 from 0 to 8, row by row."""
    slices = _slices(x)
    largest, where = slices[0], jnp.zeros(slices[0].shape, jnp.int8)
    for k, candidate in enumerate(slices[1:], 1):
        larger = (candidate > largest) | jnp.isnan(candidate)  # a NaN wins, and stays: no comparison with it is true
        largest, where = jnp.where(larger, candidate, largest), jnp.where(larger, jnp.int8(k), where)
    return largest, where


def spread_by_slices(sides: tuple[int, int], where: jax.Array, gradient: jax.Array) -> jax.Array:
    """Computes the input's gradient, [b, *sides, c]: adds the gradient of each window at the place of its largest element.

    For CPUs: the gradients of the 9 places in a window are padded to the size of the input, and summed.

    Args:
      sides: height and width of the input.
      where: int8 [b, h, w, c], the place of the largest element in each window.
      gradient: [b, h, w, c], the gradient of each window.
    """

    height, width = (STRIDE * (count - 1) + 1 for count in where.shape[1:3])

    def share(k):
        top, left = divmod(k, WINDOW)
        rows, columns = (top, sides[0] - top - height, STRIDE - 1), (left, sides[1] - left - width, STRIDE - 1)
        return _share(where, gradient, k, rows, columns)

    return functools.reduce(operator.add, map(share, range(WINDOW**2)))


# parity of a row or column -> (place in the window, number of windows back) for each window that contains it
_WINDOWS = {0: ((0, 0), (2, 1)), 1: ((1, 0),)}


def spread_by_parity(sides: tuple[int, int], where: jax.Array, gradient: jax.Array) -> jax.Array:
    """Computes `spread_by_slices` for each parity of rows and columns, and interleaves the results.

    For GPUs: an element of an even row is in the first row of one window and in the last row of the window above; an element
    of an odd row is in the middle row of one window. So each element reads only the windows that contain it.
    """

    def elements(row_parity, column_parity):
        shares = [
            _share(where, gradient, WINDOW * top + left, (above, 1 - above, 0), (before, 1 - before, 0))
            for top, above in _WINDOWS[row_parity]
            for left, before in _WINDOWS[column_parity]
        ]
        return functools.reduce(operator.add, shares)

    rows = [jnp.stack([elements(parity, 0), elements(parity, 1)], axis=3) for parity in (0, 1)]
    b, height, width, c = where.shape
    whole = jnp.stack(rows, axis=2).reshape(b, 2 * (height + 1), 2 * (width + 1), c)
    return whole[:, : sides[0], : sides[1]]


def _slices(x):
    height, width = (STRIDE * ((side - WINDOW) // STRIDE) + 1 for side in x.shape[1:3])
    corners = [divmod(k, WINDOW) for k in range(WINDOW**2)]
    return [x[:, top : top + height : STRIDE, left : left + width : STRIDE] for top, left in corners]


def _share(where, gradient, k, rows, columns):
    """The gradients of the windows whose largest element is at place k, spread by `lax.pad` over rows and columns."""
    zero = jnp.zeros((), gradient.dtype)
    return lax.pad(jnp.where(where == k, gradient, zero), zero, [(0, 0, 0), rows, columns, (0, 0, 0)])


def pool_and_keep_places(x: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    """Returns `max_pool`, and the residuals for its gradient: places in the windows, and an empty array [0, H, W]."""
    largest, where = largest_of_windows(x)
    return largest, (where, jnp.zeros((0, *x.shape[1:3]), jnp.int8))  # only the shape of x is needed


def max_pool_by(spread: Spread, *, alone: bool = False) -> Callable[[jax.Array], jax.Array]:
    """Returns `max_pool` as the maximum of 9 slices of the input, whose gradient is computed by `spread`.

    Args:
      spread: `spread_by_slices` or `spread_by_parity`.
      alone: True to compute the gradient outside of fusions; see `xla.isolated`.
    """

    @jax.custom_vjp
    def pool(x):
        return functools.reduce(jnp.maximum, _slices(x))

    def backward(residuals, gradient):
        where, (_, *sides) = residuals[0], residuals[1].shape
        of_sides = functools.partial(spread, tuple(sides))
        return (isolated(of_sides, where, gradient) if alone else of_sides(where, gradient),)

    pool.defvjp(pool_and_keep_places, backward)
    return pool


max_pool_by_slices = max_pool_by(spread_by_slices, alone=True)
max_pool_by_parity = max_pool_by(spread_by_parity)
