"""A few steps of a small network, on batches that are made up."""

import numpy as np

from openset_jax import build, programs
from openset_jax.training import devices, state
from openset_jax.training.feed import IMAGES_IN_BATCH


def make(config):
    model = build.make_model(config, 5)
    schedule, optimizer = build.make_optimizer(config)
    return model, schedule, optimizer, state.create_state(model, optimizer, seed=0, image_size=config.data.image_size)


def batch_of(size=8, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "image": rng.integers(0, 256, (size, 16, 16, 3), np.uint8),
        "label": rng.integers(0, 6, size, np.int32),
        "position": np.arange(size, dtype=np.int32),
        "mask": np.ones(size, bool),
    }


def make_step(config, model, optimizer):
    return programs.make_train_step(config, model, optimizer, IMAGES_IN_BATCH, build.make_weights(config, 5))


def one_call(config, model, optimizer, begin, *batches):
    """(state, metrics) after a call with these batches."""
    return make_step(config, model, optimizer)(devices.replicate(begin), devices.shard_steps(batches))
