"""Workarounds for XLA: they do not change results."""

import jax
import jax.numpy as jnp
import numpy as np

from openset_jax.platforms import xla


def test_an_isolated_function_is_the_function_whatever_the_numbers():
    for value in (0.0, -0.0, 1.5, np.inf, np.nan, np.float32(np.uint32(0x7FC00001).view(np.float32))):
        x = jnp.full((2, 3), value, jnp.float32)
        np.testing.assert_array_equal(jax.jit(lambda x: xla.isolated(jnp.add, x, jnp.ones_like(x)))(x), x + 1)
