"""Batch normalisation (Ioffe and Szegedy 2015, arXiv 1502.03167), whose gradient stores the input alone.

JAX derives a gradient of `nn.BatchNorm` that stores three maps of the size of the input. On CPUs their memory costs as much
time as the arithmetic.
"""

import functools

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Dtype

MOMENTUM = 0.9  # of the running statistics


class BatchNorm(nn.Module):
    """Has the variables and the result of `nn.BatchNorm`.

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
        y, found = normalise(x, scale, bias, self.epsilon, self.axis_name)
        mean.value, var.value = (
            MOMENTUM * old.value + (1 - MOMENTUM) * new for old, new in zip((mean, var), found, strict=True)
        )
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
    """The gradients of Ioffe and Szegedy 2015, section 3; that of x is a linear function of x and of the gradient."""
    (x, mean, inverse, scale), g = residuals, gradients[0]
    wide, count = x.astype(jnp.float32), x.size // x.shape[-1]
    of_bias = g.sum((0, 1, 2))
    of_scale = (g * (wide - mean)).sum((0, 1, 2)) * inverse
    every = [jax.lax.pmean(a, axis_name) if axis_name else a for a in (of_bias, of_scale)]
    slope = -inverse * inverse * scale * every[1] / count
    offset = -inverse * scale * every[0] / count - slope * mean
    return (g * (inverse * scale) + (wide * slope + offset)).astype(x.dtype), of_scale, of_bias


_normalise.defvjp(_normalise_forward, _normalise_backward)
