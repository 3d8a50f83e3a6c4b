"""Which runs can train at once, and how many."""

import pytest
import vectors
from small_run import shared_cache, small_spec

from openset_jax import config as configs
from openset_jax.training import device_memory, together, vector_size
from openset_jax.training.run_cache import RunCache

SAME = {"augment.crop": False, "augment.pad": 0, "augment.flip": False, "trainable": "head"}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return vectors.write(tmp_path_factory.mktemp("vectors"), *vectors.vectors())


@pytest.fixture(scope="module")
def spec_of(source):
    def made(**changes):
        config = vector_size.with_vector_size(vectors.config(source, **changes), shared_cache())
        return configs.resolve(config, source)[-1]

    return made


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({"seed": 3}, True),
        ({"optimizer.learning_rate": 0.01, "objective.class_weights": "inverse_frequency"}, True),
        ({"objective.negative_weight": 0.5}, True),
        ({"sampling.policy": "balanced", "sampling.negatives": 10}, True),
        ({"checkpoint.every": 20, "decision.prior": "none=0.5"}, True),
        ({"optimizer.weight_decay": 0.5}, False),
        ({"objective.negative_weight": None}, False),
        ({"objective.name": "background"}, False),
        ({"model.name": "mlp"}, False),
        ({"steps": 40}, False),
        ({"data.negatives.limit": 20}, False),
    ],
)
def test_runs_with_one_program_on_the_same_vectors_can_train_at_once(spec_of, changes, same):
    plain, other = (together.shared_by(spec, shared_cache()) for spec in (spec_of(), spec_of(**changes)))
    assert None not in (plain, other) and (plain == other) == same


@pytest.mark.parametrize(
    "changes",
    [{"input": "stream"}, {"shard_resident": True}, {"objective.name": "energy_margin", "objective.margins": None}],
)
def test_streamed_and_sharded_vectors_and_losses_that_are_measured_train_alone(spec_of, changes):
    assert together.shared_by(spec_of(**changes), shared_cache()) is None


def test_heads_on_images_can_train_at_once_if_their_frozen_layers_are_the_same():
    shared = lambda **changes: together.shared_by(small_spec(**SAME | changes), RunCache())
    assert shared() is not None and shared() == shared(**{"optimizer.learning_rate": 0.5})
    assert shared() != shared(seed=1), "the frozen layers are random"
    assert shared(init_from="/w") == shared(init_from="/w", seed=1) != shared(init_from="/v")
    assert shared(trainable="all") is None and shared(**{"augment.flip": True}) is None


def test_as_many_as_fit_a_share_of_the_free_memory(spec_of, monkeypatch):
    free = []
    monkeypatch.setattr(device_memory, "free_for_each_device", lambda: free[-1])
    spec = spec_of()
    each = 4 * 4 * (3 * (vectors.SIZE + 1) * 2 + vectors.SIZE + 3 + 1 + 16 * vectors.SIZE)  # see `_COPIES`
    for memory, most in ((None, 128), (10**12, 128), (4 * each * 10 + 100 * each, 35), (0, 1)):
        free.append(memory)
        found = together.most_at_once(spec, shared_cache())
        assert abs(found - most) <= 1, (memory, found)
