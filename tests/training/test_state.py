"""Learning rate schedules, weight decay and gradient clipping."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from small_run import small_spec

from openset_jax.errors import UserError
from openset_jax.spec import OptimizerSpec
from openset_jax.training.state import make_optimizer, make_schedule

ADAM = OptimizerSpec(schedule="cosine", warmup_steps=10, b1=0.9, b2=0.99, eps=1e-8, weight_decay=0.0, grad_clip=0.0)


def test_cosine_warms_up_linearly_peaks_and_ends_at_zero():
    rate = make_schedule(ADAM, 110)
    np.testing.assert_allclose([rate(0), rate(5), rate(10), rate(60), rate(110)], [0, 0.5, 1, 0.5, 0], atol=1e-7)


@pytest.mark.parametrize(("warmup", "expected"), [(0, [1, 1]), (10, [0.5, 1])])
def test_constant_stays_after_the_warm_up(warmup, expected):
    rate = make_schedule(dataclasses.replace(ADAM, warmup_steps=warmup, schedule="constant"), 100)
    np.testing.assert_allclose([rate(5), rate(99)], expected, atol=1e-7)


def test_a_warm_up_longer_than_the_run_is_no_error():
    rate = make_schedule(dataclasses.replace(ADAM, warmup_steps=1000), 10)
    assert rate(10) == pytest.approx(0.01, rel=1e-5)


def test_an_unknown_schedule_is_refused():
    with pytest.raises(UserError, match="optimizer.schedule"):
        small_spec(**{"optimizer.schedule": "linear"})


def test_weight_decay_applies_to_kernels_only():
    params = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}
    optimizer = make_optimizer(dataclasses.replace(ADAM, weight_decay=0.5), lambda _: 0.1)
    updates, _ = optimizer.update({"kernel": jnp.zeros((2, 2)), "bias": jnp.zeros(2)}, optimizer.init(params), params)
    np.testing.assert_allclose(updates["kernel"], -0.05)
    np.testing.assert_allclose(updates["bias"], 0)


def test_clipping_bounds_the_norm_that_adam_sees():
    params = {"a": jnp.zeros(4)}
    optimizer = make_optimizer(dataclasses.replace(ADAM, grad_clip=1.0, eps=1.0), lambda _: 1.0)
    updates, _ = optimizer.update({"a": jnp.full(4, 100.0)}, optimizer.init(params), params)
    np.testing.assert_allclose(updates["a"], -0.5 / 1.5, rtol=1e-5)  # norm 1 is 0.5 each; g / (|g| + eps)
