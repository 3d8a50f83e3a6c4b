"""The statistics that vectors are standardised by, and the optimizer that keeps their proportions."""

import numpy as np
import pytest
import vectors

from openset_jax import config as configs
from openset_jax.data import packed, pools, sources
from openset_jax.data.pool_builder import Selection, build_pool
from openset_jax.training import standardise, state


def test_mean_and_std_are_those_of_the_training_rows(tmp_path, monkeypatch):
    array, rows = vectors.vectors(count=40)
    array = array.astype(np.float32) + 1000  # the variance is small beside the squares
    array[:, 3] = 0
    source = sources.open_source(f"features:{vectors.write(tmp_path, array, rows)}")
    pool = build_pool({role: [Selection(source)] for role in pools.ROLES}, stored_size=None)
    training = pool.training_rows()
    chosen = pool.record[np.concatenate(training)]
    expected = array[chosen].astype(np.float64)
    monkeypatch.setattr(packed, "_AT_ONCE", 7 * vectors.SIZE * 4)
    found = standardise.statistics(pool, training)["standardise"]
    np.testing.assert_allclose(found["mean"], expected.mean(0), rtol=1e-7)
    np.testing.assert_allclose(found["std"], np.sqrt(expected.var(0).mean()), rtol=1e-6)
    equal = vectors.write(tmp_path / "equal", np.full_like(array, 0.1), rows)
    source = sources.open_source(f"features:{equal}")
    pool = build_pool({role: [Selection(source)] for role in pools.ROLES}, stored_size=None)
    assert standardise.statistics(pool, pool.training_rows())["standardise"]["std"] == 1
    assert {np.asarray(values).dtype for values in found.values()} == {np.dtype(np.float32)}


def test_the_default_optimizer_for_vectors_keeps_the_proportions_of_the_gradients(tmp_path):
    config = vectors.config(tmp_path, **{"optimizer.warmup_steps": 0, "optimizer.schedule": "constant"})
    optimizer = configs.resolve(config, tmp_path)[-1].program.optimizer
    tx = state.make_optimizer(optimizer, state.make_schedule(optimizer, steps=20))
    kernel, gradient = {"kernel": np.zeros((2, 1), np.float32)}, {"kernel": np.float32([[1e-1], [1e-4]])}
    updates, _ = tx.update(gradient, tx.init(kernel), kernel)
    assert updates["kernel"][0, 0] / updates["kernel"][1, 0] == pytest.approx(1000, rel=0.1)  # of Adam itself: 1
