"""The product of a dense layer with few outputs, such as a head, with a fast gradient of its kernel on CPUs."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from openset_jax.platforms import xla

_FEW = 256  # outputs; with more, both forms of the gradient take about as long


def dot_general(x: jax.Array, kernel: jax.Array, dimensions: Any, **options: Any) -> jax.Array:
    """Computes `lax.dot_general` as `nn.Dense` calls it: x [b, F] times kernel [F, K] -> [b, K]."""
    if x.ndim != 2 or kernel.shape[1] > _FEW:
        return lax.dot_general(x, kernel, dimensions, **options)
    return multiply(x, kernel)


@jax.custom_vjp
def multiply(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Computes x kernel, [b, K], for x [b, F] and kernel [F, K]."""
    return x @ kernel


def _gradient_of_kernel(x, gradient):
    """Computes x^T gradient, [F, K], as the transpose of gradient^T x.

    For the former, XLA's CPU compiler first transposes x, which takes most of the time if K is small. It would make it from
    the latter if the product were not `isolated`.
    """
    return xla.isolated(lambda gradient, x: jnp.einsum("bk,bf->kf", gradient, x), gradient, x).T


def _backward(residuals, gradient):
    x, kernel = residuals
    plain = lambda x, gradient: jnp.einsum("bf,bk->fk", x, gradient)
    of_kernel = lax.platform_dependent(x, gradient, cpu=_gradient_of_kernel, default=plain)
    return gradient @ kernel.T, of_kernel


multiply.defvjp(lambda x, kernel: (multiply(x, kernel), (x, kernel)), _backward)
