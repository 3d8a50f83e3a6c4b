"""The compiled training step of a `ProgramSpec`."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax

from openset_jax.data import augment
from openset_jax.model.network import Network
from openset_jax.openset.losses.weights import Weights
from openset_jax.spec import ImageSpec, ProgramSpec, RunSpec, VectorSpec
from openset_jax.training import devices, steps
from openset_jax.training.image_input import ImageInput
from openset_jax.training.state import TrainState
from openset_jax.training.steps import Batch, Metrics, RunConstants

TrainProgram = Callable[[RunConstants, TrainState, Batch], tuple[TrainState, Metrics]]


def make_train_program(
    program: ProgramSpec,
    model: Network,
    optimizer: optax.GradientTransformation,
    image_input: ImageInput,
    *,
    of_runs: bool = False,
) -> TrainProgram:
    """(constants, state, batches of the steps of one call) -> (state, metrics of each step), on all devices.

    `of_runs`: for many runs at once, see `devices.pmap_runs`.
    """
    place = devices.pmap_runs if of_runs else devices.pmap_train
    return place(make_device_step(program, model, optimizer), image_input)


def make_device_step(
    program: ProgramSpec, model: Network, optimizer: optax.GradientTransformation
) -> functools.partial[tuple[TrainState, Metrics]]:
    """`steps.train_step` with its keywords bound: (constants, state, one device's batch) -> (state, metrics)."""
    return functools.partial(
        steps.train_step,
        model=model,
        optimizer=optimizer,
        loss=program.loss.function,
        objective=program.loss.objective,
        weighs_negatives=program.loss.weighs_negatives,
        augment=make_augment(program),
        normalise=make_normalise(program.forward.inputs),
        all_reduce_dtype=program.all_reduce_dtype,
    )


def make_constants(spec: RunSpec, model: Network, weights: Weights) -> RunConstants:
    """The per-run values, on the host."""
    return RunConstants(
        seed=np.uint32(spec.seed),
        learning_rate=np.float32(spec.learning_rate),
        by_class=weights.by_class.astype(np.float32),
        adjustment=weights.adjustment(model.num_outputs),
        negative_weight=np.float32(0 if weights.negative_weight is None else weights.negative_weight),
    )


def make_augment(program: ProgramSpec) -> Callable[[jax.Array, jax.Array, jax.Array], jax.Array]:
    """(stored images, key, position) -> crops; see `augment.augment`. Vectors are not changed."""
    inputs, centre = program.forward.inputs, make_crop(program.forward.inputs)
    if not program.augments:
        return lambda stored, key, position: centre(stored)
    assert isinstance(inputs, ImageSpec)
    cut = functools.partial(augment.augment, image_size=inputs.image_size, pad=program.pad, flip=program.flip)
    return cut if program.crop else lambda stored, key, position: cut(centre(stored), key, position)


def make_crop(inputs: ImageSpec | VectorSpec) -> Callable[[jax.Array], jax.Array]:
    """Stored images -> their centres; see `augment.centre_crop`. Vectors are not changed."""
    if isinstance(inputs, VectorSpec):
        return lambda vectors: vectors
    return functools.partial(augment.centre_crop, image_size=inputs.image_size)


def make_normalise(inputs: ImageSpec | VectorSpec) -> Callable[[jax.Array], jax.Array]:
    """uint8 images -> normalised float32 images; see `augment.normalise`. Vectors become float32."""
    if isinstance(inputs, VectorSpec):
        return lambda vectors: vectors.astype(jnp.float32)
    return functools.partial(augment.normalise, mean=inputs.mean, std=inputs.std, grey=inputs.grey)
