"""Depthwise convolutions for CPUs: one kernel for each channel, by multiplying shifted maps and adding them.

XLA's CPU compiler has no library for convolutions with groups, and computes them one element at a time. Sums of shifted maps
are vectorised along the channels.
"""

import functools
import operator
from collections.abc import Iterable

import jax
import jax.numpy as jnp
from jax import lax


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def convolve_depthwise(x: jax.Array, kernel: jax.Array, stride: int, padding: tuple[int, int]) -> jax.Array:
    """Computes `convolution.convolve` with as many groups as channels.

    Args:
      x: [b, H, W, c].
      kernel: [k, k, 1, c], with k at least the stride.
      padding: pixels of zeros before and after, in both dimensions.
    """
    side, (before, after) = kernel.shape[0], padding
    height, width = ((length + before + after - side) // stride + 1 for length in x.shape[1:3])
    x = _pad(x, [(before, after)] * 2)
    return _sum(_window(x, i, j, stride, height, width) * kernel[i, j, 0] for i in range(side) for j in range(side))


def _backward(stride, padding, residuals, gradient):
    x, kernel = residuals
    of_x = _gradient_of_input(kernel, gradient, stride, padding[0], x.shape[1:3])
    return of_x, _gradient_of_kernel(x, gradient, stride, padding, kernel.shape[0]).astype(kernel.dtype)


convolve_depthwise.defvjp(lambda x, kernel, *fixed: (convolve_depthwise(x, kernel, *fixed), (x, kernel)), _backward)


def _gradient_of_input(kernel, gradient, stride, before, sides):
    """The gradients of the pixels whose row and column have the same remainders by the stride, interleaved.

    The windows with equal distances contain these pixels, at the same places of the kernel.
    """
    counts = [-(-side // stride) for side in sides]
    places = [_places(remainder, stride, before, kernel.shape[0]) for remainder in range(stride)]
    distances = [distance for place in places for _, distance in place]
    first, last = -min(distances), max(distances)
    padded = _pad(gradient, [(first, n + last - length) for n, length in zip(counts, gradient.shape[1:3], strict=True)])
    shifted = lambda i, j: _window(padded, first + i, first + j, 1, *counts)
    pixels = lambda rows, columns: _sum(shifted(i, j) * kernel[a, b, 0] for a, i in rows for b, j in columns)
    interleaved = jnp.stack([jnp.stack([pixels(r, c) for c in places], axis=3) for r in places], axis=2)
    whole = interleaved.reshape(len(gradient), *(stride * n for n in counts), -1)
    return whole[:, : sides[0], : sides[1]]


def _places(remainder, stride, before, side):
    """[(place in the kernel, number of the window minus that of the pixel's block)] for pixels with this remainder."""
    aligned = [k for k in range(side) if (remainder + before - k) % stride == 0]
    return [(k, (remainder + before - k) // stride) for k in aligned]


def _gradient_of_kernel(x, gradient, stride, padding, side):
    """Multiplies the gradient by the shifted maps, and sums over the pixels: float32 [k, k, 1, c].

    One image after another, all sums in one pass: so the maps stay in the caches.
    """
    height, width = gradient.shape[1:3]
    corners = [divmod(k, side) for k in range(side**2)]
    zero = jnp.zeros((), jnp.float32)
    add = lambda sums, more: [a + b for a, b in zip(sums, more, strict=True)]

    def of_image(sums, image):
        x, gradient = (a[None].astype(jnp.float32) for a in image)
        products = [_window(x, i, j, stride, height, width) * gradient for i, j in corners]
        return add(sums, lax.reduce(products, [zero] * len(products), add, (0, 1, 2))), None

    sums = [jnp.zeros(x.shape[-1:], jnp.float32)] * len(corners)
    sums, _ = lax.scan(of_image, sums, (_pad(x, [padding] * 2), gradient))
    return jnp.stack(sums).reshape(side, side, 1, -1)


def _pad(x, edges):
    """Zeros around the rows and columns of x [b, H, W, c]; negative numbers crop."""
    return lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *((*edge, 0) for edge in edges), (0, 0, 0)])


def _window(x, top, left, stride, height, width):
    """Every stride-th pixel of x from (top, left) on: [b, height, width, c]."""
    ends = top + stride * (height - 1) + 1, left + stride * (width - 1) + 1
    return x[:, top : ends[0] : stride, left : ends[1] : stride]


def _sum(terms: Iterable[jax.Array]) -> jax.Array:
    return functools.reduce(operator.add, terms)
