"""Layers that Flax does not have, and `Ops`, the implementations of the operations in a network."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.typing import Dtype

from openset_jax.platforms import chunks, convolution, max_pool

he = nn.initializers.he_normal()  # He et al. 2015, arXiv 1502.01852: variance 2 / fan_in, for layers before a ReLU


@dataclasses.dataclass(frozen=True)
class Ops:
    """The implementation of each operation. The defaults are the fastest that were measured on each platform.

    `benchmarks.variants` measures other implementations of the same operations.

    Attributes:
      pool_first: whether blocks without normalisation max-pool before the bias is added, instead of after the ReLU; the
        results are equal.
      bernoulli: draws the masks of dropout.
      in_chunks: applies a function that treats every image alone, such as frozen layers.
    """

    convolve: Callable[..., jax.Array] = convolution.convolve
    max_pool: Callable[[jax.Array], jax.Array] = max_pool.max_pool
    pool_first: bool = True
    relu: Callable[[jax.Array], jax.Array] = jax.nn.relu
    bernoulli: Callable[..., jax.Array] = jax.random.bernoulli
    in_chunks: Callable[..., jax.Array] = chunks.in_chunks


class Convolution(nn.Module):
    """A convolution with the parameters of `nn.Conv`, optionally followed by max-pooling; the bias is added last.

    Max-pooling and adding a bias commute exactly, also in floating point: the larger term gives the larger sum. After
    pooling, the bias is added to a quarter of the elements, and its gradient is a sum over a quarter of the elements.

    Attributes:
      features: number of output channels.
      kernel_size, stride: in both dimensions.
      padding: see `platforms.convolution.Padding`.
      pool: whether to max-pool, 3x3 with stride 2.
      dtype: of the computation.
    """

    features: int
    kernel_size: int
    stride: int
    padding: convolution.Padding
    groups: int
    pool: bool
    use_bias: bool
    dtype: Dtype
    ops: Ops

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns the output [b, h, w, features] of images or feature maps x [b, H, W, c]."""
        shape = (self.kernel_size, self.kernel_size, x.shape[-1] // self.groups, self.features)
        kernel = self.param("kernel", he, shape).astype(self.dtype)
        x = self.ops.convolve(x.astype(self.dtype), kernel, self.stride, self.padding, self.groups)
        if self.pool:
            x = self.ops.max_pool(x)
        if not self.use_bias:
            return x
        return x + self.param("bias", nn.initializers.zeros, (self.features,)).astype(self.dtype)


class Dropout(nn.Module):
    """Dropout whose masks depend on the position of each example in the global batch, not on the device that holds it.

    `nn.Dropout` draws one mask per device, so that a run would change with the number of devices. `rate` is the probability
    that an element is set to zero.
    """

    rate: float
    bernoulli: Callable[..., jax.Array] = jax.random.bernoulli

    @nn.compact
    def __call__(self, x: jax.Array, position: jax.Array | None, train: bool) -> jax.Array:
        """Returns x [b, ...] with dropout if `train`, else x; `position` is int32 [b], the positions in the global batch."""
        if not train or self.rate == 0:
            return x
        key, keep_rate = self.make_rng("dropout"), 1 - self.rate
        draw = lambda i: self.bernoulli(jax.random.fold_in(key, i), keep_rate, x.shape[1:])
        return jnp.where(jax.vmap(draw)(position), x / keep_rate, 0)


@jax.custom_jvp
def relu6(x: jax.Array) -> jax.Array:
    """Returns min(max(x, 0), 6). The gradient is computed from the output, which the next layer stores anyway."""
    return jnp.clip(x, 0, 6)


relu6.defjvps(lambda tangent, y, x: jnp.where((y > 0) & (y < 6), tangent, jnp.zeros((), y.dtype)))


def local_response_norm(x: jax.Array) -> jax.Array:
    """Computes x / (k + alpha * sum of squares over n neighbouring channels)^beta, k = 2, n = 5, alpha = 1e-4, beta = 0.75.

    Krizhevsky et al. 2012, section 3.3: alpha is not divided by n; Caffe and PyTorch divide it.
    """
    squares = jnp.square(x.astype(jnp.float32))
    total = jax.lax.reduce_window(squares, 0.0, jax.lax.add, (1, 1, 1, 5), (1, 1, 1, 1), "SAME")
    return (x * (2.0 + 1e-4 * total) ** -0.75).astype(x.dtype)


def adaptive_average_pool(x: jax.Array, side: int) -> jax.Array:
    """[b, H, W, c] -> [b, side, side, c]; output i averages rows floor(i H / side) to ceil((i + 1) H / side).

    Equal to PyTorch's AdaptiveAvgPool2d, which repeats pixels where the map is smaller than `side`.
    """
    if x.shape[1:3] == (side, side):
        return x

    def weights(n):
        row, output = np.arange(n)[None], np.arange(side)[:, None]
        inside = (row >= output * n // side) & (row < -(-(output + 1) * n // side))
        return jnp.asarray(inside / inside.sum(1, keepdims=True), x.dtype)

    return jnp.einsum("oh,bhwc,pw->bopc", weights(x.shape[1]), x, weights(x.shape[2]))
