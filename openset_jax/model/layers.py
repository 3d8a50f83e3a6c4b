"""Layers that Flax does not have, and `Ops`, the implementations of the operations in a network."""

import dataclasses
import functools
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


class BatchNorm(nn.Module):
    """Batch normalisation with the variables of `nn.BatchNorm`, whose gradient stores the input alone.

    Ioffe and Szegedy 2015, arXiv 1502.03167. The running statistics are averages with the momentum 0.9.

    Attributes:
      dtype: of the result; statistics and their sums are float32.
      axis_name: of the device axis, over which statistics of the batch are synchronised.
      epsilon: added to the variance.
    """

    dtype: Dtype
    axis_name: str | None
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Normalises x [b, H, W, c] by the statistics of the batch if `train`, which it then adds to the running ones."""
        shape, ones = x.shape[-1:], nn.initializers.ones
        mean = self.variable("batch_stats", "mean", jnp.zeros, shape, jnp.float32)
        var = self.variable("batch_stats", "var", jnp.ones, shape, jnp.float32)
        scale, bias = self.param("scale", ones, shape), self.param("bias", nn.initializers.zeros, shape)
        if not train:
            factor = scale * jax.lax.rsqrt(var.value + self.epsilon)
            return ((x - mean.value) * factor + bias).astype(self.dtype)
        axis_name = None if self.is_initializing() else self.axis_name
        y, found = normalise(x, scale, bias, self.epsilon, axis_name)
        if not self.is_initializing():
            mean.value, var.value = (0.9 * old.value + 0.1 * new for old, new in zip((mean, var), found, strict=True))
        return y.astype(self.dtype)


def normalise(
    x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float, axis_name: str | None
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    """Returns (x normalised by its statistics, (mean, variance)): float32; nothing flows back from the statistics."""
    y, statistics = _normalise(x, scale, bias, epsilon, axis_name)
    return y, jax.tree.map(jax.lax.stop_gradient, statistics)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _normalise(x, scale, bias, epsilon, axis_name):
    return _normalise_forward(x, scale, bias, epsilon, axis_name)[0]


def _mean(x, axis_name):
    mean = x.mean((0, 1, 2))
    return jax.lax.pmean(mean, axis_name) if axis_name else mean


def _normalise_forward(x, scale, bias, epsilon, axis_name):
    wide = x.astype(jnp.float32)
    mean, square = (_mean(values, axis_name) for values in (wide, wide * wide))
    var = jnp.maximum(0, square - mean * mean)
    inverse = jax.lax.rsqrt(var + epsilon)
    return ((wide - mean) * (inverse * scale) + bias, (mean, var)), (x, mean, inverse, scale)


def _normalise_backward(epsilon, axis_name, residuals, gradients):
    """Ioffe and Szegedy 2015, section 3: the equations of the gradients, with the last one as a linear function of x."""
    (x, mean, inverse, scale), g = residuals, gradients[0]
    wide, count = x.astype(jnp.float32), x.size // x.shape[-1]
    of_bias = g.sum((0, 1, 2))
    of_scale = (g * (wide - mean)).sum((0, 1, 2)) * inverse
    every = [jax.lax.pmean(a, axis_name) if axis_name else a for a in (of_bias, of_scale)]
    slope = -inverse * inverse * scale * every[1] / count
    offset = -inverse * scale * every[0] / count - slope * mean
    return (g * (inverse * scale) + (wide * slope + offset)).astype(x.dtype), of_scale, of_bias


_normalise.defvjp(_normalise_forward, _normalise_backward)


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
