"""A few steps of a small network, on batches of random images."""

import functools

import numpy as np
from small_run import shared_cache

from openset_jax.training import devices, run_setup, state, train_program
from openset_jax.training.image_input import streamed

NO_READER = streamed(lambda batches: iter(()))  # of tests that make their batches themselves


def make(spec):
    """(model, learning rate schedule, optimizer, initial state) of the network for five classes."""
    model, schedule, optimizer = shared_cache().network(spec.program, 5)
    begin = state.create_state(model, optimizer, seed=0, shape=spec.inputs.shape)
    return model, schedule, optimizer, begin


def batch_of(size=8, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "example": rng.integers(0, 256, (size, 16, 16, 3), np.uint8),
        "label": rng.integers(0, 6, size, np.int32),
        "position": np.arange(size, dtype=np.int32),
        "mask": np.ones(size, bool),
    }


def make_step(spec, model, optimizer, num_classes=5):
    """(state, batches of one call) -> (state, metrics of each step), with the weights of equally frequent classes."""
    return _bind(train_program.make_train_program(spec.program, model, optimizer, NO_READER), spec, model, num_classes)


def one_call(spec, model, optimizer, begin, *batches):
    """(state, metrics) after a call with these batches. Calls of one test that differ in the seed share their program."""
    program = _shared_program(spec.program, model, optimizer, len(batches))
    return _bind(program, spec, model, 5)(devices.replicate(begin), devices.shard_steps(batches))


@functools.lru_cache(maxsize=4)
def _shared_program(program, model, optimizer, steps_per_call):
    return train_program.make_train_program(program, model, optimizer, NO_READER)


def _bind(program, spec, model, num_classes):
    weights = run_setup.make_weights(spec, num_classes)
    return functools.partial(program, devices.replicate(train_program.make_constants(spec, model, weights)))
