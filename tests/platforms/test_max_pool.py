"""Max-pooling: each rewriting equals pooling by windows, gradients included."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gradients import assert_close, in_both_dtypes, normal, value_and_gradients

from openset_jax.platforms import max_pool

POOLS = {"cpu": max_pool.max_pool_by_slices, "cuda": max_pool.max_pool_by_parity}


@pytest.mark.parametrize(
    ("size", "dtype", "tolerance"),
    in_both_dtypes(((13, 13),), ((3, 3),), ((6, 6),), ((28, 32),), ((27, 30),), ((55, 55),), tolerance=1e-6),
)
@pytest.mark.parametrize("pool", POOLS.values(), ids=POOLS)
def test_pooling_is_that_by_windows(pool, size, dtype, tolerance):
    x = normal(0, 2, *size, 5, dtype=dtype)
    by_windows = jax.vjp(max_pool.max_pool_by_windows, x)[0]
    chex.assert_trees_all_equal(pool(x), by_windows)
    found, expected = (value_and_gradients(f, x) for f in (pool, max_pool.max_pool_by_windows))
    assert_close(found, expected, tolerance)


@pytest.mark.parametrize("pool", POOLS.values(), ids=POOLS)
def test_of_equal_elements_the_first_gets_the_gradient_of_the_window(pool):
    x = jnp.zeros((1, 5, 7, 1)).at[0, 1, 1].set(1).at[0, 1, 2].set(1)
    found, expected = (value_and_gradients(f, x)[1] for f in (pool, max_pool.max_pool_by_windows))
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert found[0, 1, 1] != 0 and found[0, 0, 4] != 0


def test_pooling_before_the_bias_is_pooling_after_it():
    x, bias = normal(0, 2, 13, 13, 6), normal(1, 6)
    before = jax.nn.relu(max_pool.max_pool(x) + bias)
    chex.assert_trees_all_equal(before, max_pool.max_pool_by_windows(jax.nn.relu(x + bias)))


def test_a_function_for_several_platforms_can_be_exported():
    traced = jax.export.export(jax.jit(jax.grad(lambda x: max_pool.max_pool(x).sum())), platforms=["cpu", "tpu"])
    assert traced(jax.ShapeDtypeStruct((2, 13, 13, 4), jnp.float32)).platforms == ("cpu", "tpu")
