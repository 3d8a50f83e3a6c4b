"""Losses against independent NumPy."""

import jax.numpy as jnp
import numpy as np
import pytest

from openset_jax.errors import UserError
from openset_jax.openset import objectives


def test_background_is_softmax_cross_entropy_over_classes_and_none():
    rng = np.random.default_rng(0)
    logits, label = rng.normal(size=(7, 4)), rng.integers(0, 4, 7)
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    expected = -np.log(p[np.arange(7), label])
    np.testing.assert_allclose(objectives.background(jnp.asarray(logits), jnp.asarray(label)), expected, rtol=1e-5)


def test_an_unknown_objective_is_refused_with_those_that_exist():
    with pytest.raises(UserError, match="background"):
        objectives.get("hinge")
