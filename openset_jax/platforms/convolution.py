"""Convolutions of NHWC images, in equivalent implementations, of which each platform uses the fastest one.

All compute the plain convolution from the same parameters. On CPUs, convolutions without groups and depthwise ones are
rewritten; on NVIDIA GPUs, only strided ones without groups are, such as the first layer of networks for large images.
Platforms that were not measured use the plain convolution. `benchmarks/RESULTS.md` has the measurements.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from openset_jax.platforms import depthwise
from openset_jax.platforms.xla import isolated

Padding = int | tuple[int, int]  # pixels on all sides; or (above and to the left, below and to the right)

COLUMNS = 4  # the columns of one block in `convolve_columns`
_LAYOUT = ("NHWC", "HWIO", "NHWC")


def convolve(x: jax.Array, kernel: jax.Array, stride: int, padding: Padding, groups: int = 1) -> jax.Array:
    """Convolves x [b, H, W, c] with a kernel [k, k, c / groups, d] -> [b, (H + padding - k) // stride + 1, ..., d].

    Args:
      padding: pixels of zeros, on both sides together in the formula.
    """
    before, after = edges = both_edges(padding)
    side, channels = kernel.shape[0], x.shape[-1]
    forms = {"default": lambda x, kernel: convolve_plainly(x, kernel, stride, padding, groups)}
    if groups > 1:
        if groups == channels == kernel.shape[-1] and side >= stride:
            forms["cpu"] = lambda x, kernel: depthwise.convolve_depthwise(x, kernel, stride, edges)
    elif stride > 1:
        forms["cpu"] = lambda x, kernel: convolve_blocks(x, kernel, stride, padding, alone=True)
        forms["cuda"] = lambda x, kernel: convolve_blocks(x, kernel, stride, padding)
    elif side == 1 and edges == (0, 0):
        forms["cpu"] = convolve_pixels
    elif channels < COLUMNS and x.shape[2] % COLUMNS == 0 and side == 2 * before + 1 == 2 * after + 1 <= 2 * COLUMNS + 1:
        forms["cpu"] = lambda x, kernel: convolve_columns(x, kernel, before)
    else:
        forms["cpu"] = lambda x, kernel: convolve_canonically(x, kernel, (edges, edges))
    return lax.platform_dependent(x, kernel, **forms) if len(forms) > 1 else forms["default"](x, kernel)


def both_edges(padding: Padding) -> tuple[int, int]:
    """Returns the padding as a pair."""
    return (padding, padding) if isinstance(padding, int) else padding


def convolve_plainly(x: jax.Array, kernel: jax.Array, stride: int, padding: Padding, groups: int = 1) -> jax.Array:
    """Computes `convolve` by XLA's convolution."""
    edges = both_edges(padding)
    return _xla(x, kernel, (edges, edges), stride, groups)


def _xla(x, kernel, edges, stride=1, groups=1):
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), edges, dimension_numbers=_LAYOUT, feature_group_count=groups
    )


def convolve_pixels(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Computes a convolution with a kernel [1, 1, c, d] by one matrix product of all pixels."""
    return jnp.dot(x.reshape(-1, x.shape[-1]), kernel[0, 0]).reshape(*x.shape[:-1], -1)


@functools.partial(jax.custom_vjp, nondiff_argnames=("padding",))
def convolve_canonically(x: jax.Array, kernel: jax.Array, padding: tuple[tuple[int, int], ...]) -> jax.Array:
    """Computes a convolution with stride 1 whose gradients are also convolutions in the dimension order NHWC.

    JAX expresses these gradients with permuted dimensions. XLA's CPU compiler converts such convolutions to the order that
    its library supports, except inside loops (several steps per call), where they take ten times as long. `padding` is
    (before, after) of the height and of the width.
    """
    return _xla(x, kernel, padding)


def _convolve_backward(padding, residuals, gradient):
    x, kernel = residuals
    turned = kernel[::-1, ::-1].swapaxes(2, 3)
    of_x = _xla(gradient, turned, [(k - 1 - a, k - 1 - b) for k, (a, b) in zip(kernel.shape[:2], padding, strict=True)])
    return of_x, isolated(functools.partial(_gradient_of_kernel, padding), x, gradient)


def _gradient_of_kernel(padding, x, gradient):
    """Convolves x, whose channels become the batch, with the gradient as kernel, whose batch becomes the input channels."""
    of_kernel = _xla(x.transpose(3, 1, 2, 0), gradient.transpose(1, 2, 0, 3), padding)
    return of_kernel.transpose(1, 2, 0, 3)


convolve_canonically.defvjp(lambda x, kernel, padding: (_xla(x, kernel, padding), (x, kernel)), _convolve_backward)


def convolve_blocks(x: jax.Array, kernel: jax.Array, stride: int, padding: Padding, *, alone: bool = False) -> jax.Array:
    """Computes `convolve` by space to depth: blocks of stride x stride pixels become channels, and the stride becomes 1.

    The kernel is padded with zeros to a multiple of the stride: 11x11x3 with stride 4 becomes 3x3x48 with stride 1. `alone`
    prevents a fusion of the blocks with the operations before them, and uses `convolve_canonically`.
    """
    side, blocks, (before, after) = kernel.shape[0], -(-kernel.shape[0] // stride), both_edges(padding)

    def edges(length):  # zeros before and after (negative: crops); the last block ends where the last window ends
        covered = stride * ((length + before + after - side) // stride + blocks)
        return before, covered - length - before, 0

    zero = jnp.zeros((), x.dtype)
    x = lax.pad(x, zero, [(0, 0, 0), edges(x.shape[1]), edges(x.shape[2]), (0, 0, 0)])
    kernel = lax.pad(kernel, zero, [(0, blocks * stride - side, 0)] * 2 + [(0, 0, 0)] * 2)
    b, height, width, c = x.shape
    x = x.reshape(b, height // stride, stride, width // stride, stride, c).swapaxes(2, 3)
    x = x.reshape(b, height // stride, width // stride, stride * stride * c)
    kernel = kernel.reshape(blocks, stride, blocks, stride, *kernel.shape[2:]).swapaxes(1, 2)
    kernel, none = kernel.reshape(blocks, blocks, stride * stride * c, -1), ((0, 0), (0, 0))
    return convolve_canonically(lax.optimization_barrier(x), kernel, none) if alone else _xla(x, kernel, none)


def convolve_columns(x: jax.Array, kernel: jax.Array, padding: int) -> jax.Array:
    """Computes `convolve` with stride 1 and unchanged height and width, with `COLUMNS` columns of pixels as channels.

    The columns become channels of the input and of the output. A block of the output depends on the block of the input at
    its place and on both neighbours. The kernel is repeated for each column of the block, shifted by the column's number of
    pixels, with zeros elsewhere. For few channels this is faster despite more multiplications, because the libraries are
    fast for the shapes of these matrix products.
    """
    b, height, width, c = x.shape
    side, d, zero = kernel.shape[0], kernel.shape[-1], jnp.zeros((), kernel.dtype)
    none, room = (0, 0, 0), 3 * COLUMNS - side
    before = [COLUMNS - padding + column for column in range(COLUMNS)]
    moved = [lax.pad(kernel, zero, [none, (n, room - n, 0), none, none]) for n in before]
    kernel = jnp.stack(moved, axis=3).reshape(side, 3, COLUMNS * c, COLUMNS * d)
    x = x.reshape(b, height, width // COLUMNS, COLUMNS * c)
    return convolve_canonically(x, kernel, ((padding, padding), (1, 1))).reshape(b, height, width, d)
