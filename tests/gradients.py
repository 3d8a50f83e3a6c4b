"""Compares functions and their gradients."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest


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


def in_both_dtypes(*cases, tolerance):
    """(*case, dtype, tolerance of the dtype): all in float32, the first in bfloat16, too; the others in that are slow.

    What is particular to bfloat16, where values are rounded and summed, is the same for all shapes.
    """
    in_half = [pytest.param(*case, "bfloat16", 0.02, marks=[pytest.mark.slow] if i else []) for i, case in enumerate(cases)]
    return [pytest.param(*case, "float32", tolerance) for case in cases] + in_half
