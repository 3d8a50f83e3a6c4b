"""Layers that Flax does not have, compared with their definitions."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from openset_jax.model import layers


@pytest.mark.accelerator
def test_dropout_keeps_the_expected_value():
    dropout = layers.Dropout(0.3)
    x, position = jnp.ones((64, 1000)), jnp.arange(64)
    dropped = dropout.apply({}, x, position, True, rngs={"dropout": jax.random.key(0)})
    assert np.isclose((dropped == 0).mean(), 0.3, atol=0.01)
    assert np.isclose(dropped.mean(), 1, atol=0.01)
    chex.assert_trees_all_equal(dropout.apply({}, x, position, False), x)


@pytest.mark.accelerator
def test_local_response_norm_is_the_formula_of_2012():
    x = np.random.default_rng(0).normal(size=(1, 2, 2, 8)).astype(np.float32) * 20
    expected = np.empty_like(x)
    for i in range(8):
        around = x[..., max(0, i - 2) : i + 3]
        expected[..., i] = x[..., i] / (2 + 1e-4 * (around**2).sum(-1)) ** 0.75
    np.testing.assert_allclose(layers.local_response_norm(jnp.asarray(x)), expected, rtol=1e-5)


@pytest.mark.accelerator
@pytest.mark.parametrize("size", [3, 6, 7, 13])
def test_adaptive_average_pool_averages_pytorchs_bins(size):
    x = np.random.default_rng(0).normal(size=(2, size, size, 3)).astype(np.float32)
    bins = [(i * size // 6, -(-(i + 1) * size // 6)) for i in range(6)]
    expected = np.stack([np.stack([x[:, a:b, c:d].mean((1, 2)) for c, d in bins], 1) for a, b in bins], 1)
    np.testing.assert_allclose(layers.adaptive_average_pool(jnp.asarray(x), 6), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.accelerator
def test_relu6_is_clipping_and_its_gradient_is_0_outside():
    x = jnp.array([-7.0, -0.5, 0.0, 0.5, 5.9, 6.0, 7.0])
    value, gradient = jax.vmap(jax.value_and_grad(layers.relu6))(x)
    np.testing.assert_array_equal(value, np.clip(x, 0, 6))
    np.testing.assert_array_equal(gradient, [0, 0, 0, 1, 1, 0, 0])
