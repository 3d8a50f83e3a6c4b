"""Every candidate form equals the form in use, with its gradients."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from gradients import normal, value_and_gradients

from benchmarks import forms
from openset_jax.data import augment
from openset_jax.platforms import convolution, crop, max_pool
from openset_jax.spec import OptimizerSpec
from openset_jax.training import state

ADAM = OptimizerSpec(schedule="constant", warmup_steps=0, b1=0.9, b2=0.99, eps=1e-8, weight_decay=1e-2, grad_clip=1.0)


def assert_equal_with_gradients(found, expected, *arguments):
    for a, b in zip(*(value_and_gradients(function, *arguments) for function in (found, expected)), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * np.abs(b).max())


@pytest.mark.parametrize(
    "form",
    [lambda *given: forms.convolve_padded(*given, channels=4), lambda *given: forms.convolve_padded(*given, channels=8),
     forms.convolve_patches],
    ids=["4 channels", "8 channels", "patches"],
)  # fmt: skip
@pytest.mark.parametrize(("side", "stride", "padding"), [(11, 4, 2), (5, 1, 2), (3, 2, (0, 1))])
def test_first_convolutions(form, side, stride, padding):
    plain = lambda x, kernel: convolution.convolve_plainly(x, kernel, stride, padding)
    convolve = forms.first_convolution(form)
    given = normal(0, 2, 35, 32, 3), normal(1, side, side, 3, 8)
    assert_equal_with_gradients(lambda x, kernel: convolve(x, kernel, stride, padding), plain, *given)
    calls = []
    assert forms.first_convolution(lambda *given: calls.append(given))(
        normal(0, 1, 9, 9, 4), normal(1, 3, 3, 4, 2), 1, 1
    ).any()
    assert not calls  # an input of four channels is not an image


@pytest.mark.parametrize("size", [(3, 3), (6, 6), (13, 13), (28, 32), (27, 30)])
@pytest.mark.parametrize(
    "pool",
    [max_pool.max_pool_by(max_pool.spread_by_parity), max_pool.max_pool_by(max_pool.spread_by_parity, alone=True),
     max_pool.max_pool_by(max_pool.spread_by_slices), forms.max_pool_by_comparison],
    ids=["parity", "parity, alone", "slices", "comparison"],
)  # fmt: skip
def test_pools(pool, size):
    ties = jnp.round(2 * normal(0, 2, *size, 5)) / 2
    assert_equal_with_gradients(pool, max_pool.max_pool_by_windows, ties)


def test_the_relu_whose_gradient_looks_at_its_output():
    assert_equal_with_gradients(forms.relu_by_output, jax.nn.relu, normal(0, 100).at[3].set(0))


@pytest.mark.parametrize("form", [forms.crop_by_products, forms.crop_one_by_one, crop.crop_by_pixel])
def test_crops(form):
    images = jnp.asarray(np.random.default_rng(0).integers(0, 256, (6, 12, 12, 3), np.uint8))
    corner, mirrored = augment.draw(jax.random.key(0), jnp.arange(6), slack=5)
    found = form(images, corner, mirrored, 7)
    np.testing.assert_array_equal(found, crop.crop_by_slices(images, corner, mirrored, 7))
    assert found.dtype == jnp.uint8


@pytest.mark.parametrize(("p", "expected"), [(0.5, 0.5), (0.7, 179 / 256), (1.0, 255 / 256)])
def test_masks_of_bytes_keep_the_share(p, expected):
    mask = forms.bernoulli_of_bytes(jax.random.key(0), p, (400, 1000))
    assert mask.dtype == bool
    np.testing.assert_allclose(mask.mean(), expected, atol=5 * np.sqrt(0.25 / 400_000))


def train(made, steps=20):
    params = {"kernel": normal(0, 6, 4), "bias": normal(1, 4)}
    kept = made.init(params)
    for i in range(steps):
        gradients = jax.tree.map(lambda p, i=i: p + normal(i, *p.shape), params)
        updates, kept = made.update(gradients, kept, params)
        params = optax.apply_updates(params, updates)
    return params, kept


@pytest.mark.parametrize("grad_clip", [0.0, 1.0])
def test_adam_over_one_vector_is_adam(grad_clip):
    schedule, adam = optax.constant_schedule(0.1), dataclasses.replace(ADAM, grad_clip=grad_clip)
    found, expected = train(forms.flat_adam(adam, schedule)), train(state.make_optimizer(adam, schedule))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), found[0], expected[0])


@pytest.mark.parametrize("low", [("mu",), ("mu", "nu")])
def test_adam_of_bfloat16_moments_keeps_them_so_and_is_nearly_adam(low):
    schedule = optax.constant_schedule(0.1)
    params, kept = train(forms.adam_with_bfloat16(*low)(ADAM, schedule))
    adam = next(s for s in jax.tree.leaves(kept, is_leaf=lambda s: hasattr(s, "mu")) if hasattr(s, "mu"))
    for name in ("mu", "nu"):
        dtypes = {x.dtype for x in jax.tree.leaves(getattr(adam, name))}
        assert dtypes == {jnp.dtype(jnp.bfloat16 if name in low else jnp.float32)}
    expected, _ = train(state.make_optimizer(ADAM, schedule))
    difference = max(np.abs(a - b).max() for a, b in zip(*map(jax.tree.leaves, (params, expected)), strict=True))
    assert 0 < difference < 0.1
