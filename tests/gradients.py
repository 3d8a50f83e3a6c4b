"""Compares functions and their gradients."""

import chex
import jax
import jax.numpy as jnp
import numpy as np


def normal(seed, *shape, dtype=jnp.float32):
    return jax.random.normal(jax.random.key(seed), shape).astype(dtype)


def value_and_gradients(function, *arguments):
    def compute(*arguments):
        value, pull = jax.vjp(function, *arguments)
        return value, *pull(normal(9, *value.shape, dtype=value.dtype))

    return jax.jit(compute)(*arguments)  # one program compiles faster than its operations one by one


def assert_close(found, expected, tolerance):
    for a, b in zip(found, expected, strict=True):
        chex.assert_equal_shape([a, b])
        assert a.dtype == b.dtype
        a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
        np.testing.assert_allclose(a, b, atol=tolerance * np.abs(b).max(), rtol=0)
