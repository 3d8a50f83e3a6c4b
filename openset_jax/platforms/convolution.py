"""Convolutions of NHWC images, in equivalent implementations, of which each platform uses the fastest one.

All compute the plain convolution from the same parameters. On CPUs, every convolution without groups is rewritten; on NVIDIA
GPUs, only strided ones are, such as the first layer of networks for large images. Platforms that were not measured use the
plain convolution. `benchmarks/RESULTS.md` has the measurements.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from openset_jax.platforms.xla import isolated

COLUMNS = 4  # the columns of one block in `convolve_columns`
_LAYOUT = ("NHWC", "HWIO", "NHWC")


def convolve(x: jax.Array, kernel: jax.Array, stride: int, padding: int, groups: int = 1) -> jax.Array:
    """Convolves x [b, H, W, c] with a kernel [k, k, c / groups, d] -> [b, (H + 2 padding - k) // stride + 1, ..., d]."""
    plain = lambda x, kernel: convolve_plainly(x, kernel, stride, padding, groups)
    if groups > 1:
        return plain(x, kernel)
    forms = {"default": plain}
    if stride > 1:
        forms["cpu"] = lambda x, kernel: convolve_blocks(x, kernel, stride, padding, alone=True)
        forms["cuda"] = lambda x, kernel: convolve_blocks(x, kernel, stride, padding)
    elif x.shape[-1] < COLUMNS and x.shape[2] % COLUMNS == 0 and kernel.shape[0] == 2 * padding + 1 <= 2 * COLUMNS + 1:
        forms["cpu"] = lambda x, kernel: convolve_columns(x, kernel, padding)
    else:
        forms["cpu"] = lambda x, kernel: convolve_canonically(x, kernel, (padding, padding))
    return lax.platform_dependent(x, kernel, **forms)


def convolve_plainly(x: jax.Array, kernel: jax.Array, stride: int, padding: int, groups: int = 1) -> jax.Array:
    """Computes `convolve` by XLA's convolution."""
    return _xla(x, kernel, (padding, padding), stride, groups)


def _xla(x, kernel, padding, stride=1, groups=1):
    edges = [(p, p) for p in padding]
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), edges, dimension_numbers=_LAYOUT, feature_group_count=groups
    )


@functools.partial(jax.custom_vjp, nondiff_argnames=("padding",))
def convolve_canonically(x: jax.Array, kernel: jax.Array, padding: tuple[int, int]) -> jax.Array:
    """Computes a convolution with stride 1 whose gradients are also convolutions in the dimension order NHWC.

    JAX expresses these gradients with permuted dimensions. XLA's CPU compiler converts such convolutions to the order that
    its library supports, except inside loops (several steps per call), where they take ten times as long. `padding` is
    (of the height, of the width).
    """
    return _xla(x, kernel, padding)


def _convolve_backward(padding, residuals, gradient):
    x, kernel = residuals
    turned = kernel[::-1, ::-1].swapaxes(2, 3)
    of_x = _xla(gradient, turned, [side - 1 - p for side, p in zip(kernel.shape[:2], padding, strict=True)])
    return of_x, isolated(functools.partial(_gradient_of_kernel, padding), x, gradient)


def _gradient_of_kernel(padding, x, gradient):
    """Convolves x, whose channels become the batch, with the gradient as kernel, whose batch becomes the input channels."""
    of_kernel = _xla(x.transpose(3, 1, 2, 0), gradient.transpose(1, 2, 0, 3), padding)
    return of_kernel.transpose(1, 2, 0, 3)


convolve_canonically.defvjp(lambda x, kernel, padding: (_xla(x, kernel, padding), (x, kernel)), _convolve_backward)


def convolve_blocks(x: jax.Array, kernel: jax.Array, stride: int, padding: int, *, alone: bool = False) -> jax.Array:
    """Computes `convolve` by space to depth: blocks of stride x stride pixels become channels, and the stride becomes 1.

    The kernel is padded with zeros to a multiple of the stride: 11x11x3 with stride 4 becomes 3x3x48 with stride 1. `alone`
    prevents a fusion of the blocks with the operations before them, and uses `convolve_canonically`.
    """
    side, blocks = kernel.shape[0], -(-kernel.shape[0] // stride)

    def edges(length):  # zeros before and after (negative: crops); the last block ends where the last window ends
        covered = stride * ((length + 2 * padding - side) // stride + blocks)
        return padding, covered - length - padding, 0

    zero = jnp.zeros((), x.dtype)
    x = lax.pad(x, zero, [(0, 0, 0), edges(x.shape[1]), edges(x.shape[2]), (0, 0, 0)])
    kernel = lax.pad(kernel, zero, [(0, blocks * stride - side, 0)] * 2 + [(0, 0, 0)] * 2)
    b, height, width, c = x.shape
    x = x.reshape(b, height // stride, stride, width // stride, stride, c).swapaxes(2, 3)
    x = x.reshape(b, height // stride, width // stride, stride * stride * c)
    kernel = kernel.reshape(blocks, stride, blocks, stride, *kernel.shape[2:]).swapaxes(1, 2)
    kernel = kernel.reshape(blocks, blocks, stride * stride * c, -1)
    return convolve_canonically(lax.optimization_barrier(x), kernel, (0, 0)) if alone else _xla(x, kernel, (0, 0))


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
    return convolve_canonically(x, kernel, (padding, 1)).reshape(b, height, width, d)
