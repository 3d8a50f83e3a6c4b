"""Batch normalisation: results, gradients and statistics equal those of Flax."""

import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn
from gradients import assert_close, normal

from openset_jax.model.batch_norm import BatchNorm


@pytest.mark.accelerator
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("bfloat16", 0.02)])
@pytest.mark.parametrize("axis_name", [None, "device"])
def test_it_is_that_of_flax(axis_name, dtype, tolerance):
    x, cotangent = (normal(seed, 2, 4, 5, 5, 6, dtype=dtype) + 1 for seed in (0, 1))  # of two devices
    ours = BatchNorm(jnp.dtype(dtype), axis_name, epsilon=1e-3)
    flax = nn.BatchNorm(momentum=0.9, epsilon=1e-3, dtype=dtype, axis_name=axis_name)
    statistics = {"mean": normal(2, 6), "var": normal(3, 6) ** 2}
    params = {"scale": normal(4, 6), "bias": normal(5, 6)}

    def outputs(apply):
        def one(x, cotangent):
            y, pull, updated = jax.vjp(lambda *given: apply(*given, True), params, x, has_aux=True)
            return y, *jax.tree.leaves((pull(cotangent), updated)), apply(params, x, False)[0]

        return jax.jit(jax.vmap(one, axis_name="device"))(x, cotangent)

    def apply_of(module, flag):
        def apply(params, x, train):
            variables = {"params": params, "batch_stats": statistics}
            y, updated = module.apply(variables, x, **flag(train), mutable=["batch_stats"])
            return y, updated["batch_stats"]

        return apply

    found = outputs(apply_of(ours, lambda train: {"train": train}))
    expected = outputs(apply_of(flax, lambda train: {"use_running_average": not train}))
    assert_close(found, expected, tolerance)
