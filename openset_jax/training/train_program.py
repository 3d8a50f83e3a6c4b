"""The compiled training step of a `ProgramSpec`."""

import functools
from collections.abc import Callable

import jax
import numpy as np
import optax

from openset_jax.data import augment
from openset_jax.model.network import Network
from openset_jax.openset.losses.weights import Weights
from openset_jax.spec import ImageSpec, ProgramSpec
from openset_jax.training import devices, steps
from openset_jax.training.image_input import ImageInput
from openset_jax.training.state import TrainState
from openset_jax.training.steps import Batch, Metrics, RunConstants

TrainProgram = Callable[[RunConstants, TrainState, Batch], tuple[TrainState, Metrics]]


def make_train_program(
    program: ProgramSpec, model: Network, optimizer: optax.GradientTransformation, image_input: ImageInput
) -> TrainProgram:
    """(constants, state, batches of the steps of one call) -> (state, metrics of each step), on all devices."""
    return devices.pmap_train(make_device_step(program, model, optimizer), image_input)


def make_device_step(
    program: ProgramSpec, model: Network, optimizer: optax.GradientTransformation
) -> functools.partial[tuple[TrainState, Metrics]]:
    """`steps.train_step` with its keywords bound: (constants, state, one device's batch) -> (state, metrics)."""
    images = program.forward.images
    return functools.partial(
        steps.train_step,
        model=model,
        optimizer=optimizer,
        loss=program.loss.function,
        objective=program.loss.objective,
        negative_weight=program.loss.negative_weight,
        augment=functools.partial(augment.augment, image_size=images.image_size, pad=program.pad, flip=program.flip),
        normalise=make_normalise(images),
        all_reduce_dtype=program.all_reduce_dtype,
    )


def make_constants(seed: int, model: Network, weights: Weights) -> RunConstants:
    """The per-run values, replicated on the devices."""
    by_class, adjustment = weights.by_class.astype(np.float32), weights.adjustment(model.num_outputs)
    return RunConstants(*devices.replicate((np.uint32(seed), by_class, adjustment)))


def make_normalise(images: ImageSpec) -> Callable[[jax.Array], jax.Array]:
    """uint8 images -> normalised float32 images; see `augment.normalise`."""
    return functools.partial(augment.normalise, mean=images.mean, std=images.std, grey=images.grey)
