"""Caches pools, resident images, networks and compiled programs across the runs of one process.

An experiment has many runs; most of them use the same images and compile to the same programs.
"""

import collections
import dataclasses
import functools
import hashlib
import pathlib
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np
import optax

from openset_jax.data import pool_builder, vector_files
from openset_jax.data.pools import Pool
from openset_jax.data.unreadable import Unreadable
from openset_jax.errors import UserError
from openset_jax.model.head import head_of
from openset_jax.model.network import Network
from openset_jax.openset.losses.weights import Weights
from openset_jax.spec import ForwardSpec, InputSpec, LossSpec, ProgramSpec, RunSpec, VectorSpec
from openset_jax.training import devices, frozen_features, input_choice, standardise, state, train_program
from openset_jax.training.eval_program import make_eval_steps
from openset_jax.training.image_input import LoadedImages
from openset_jax.training.inference import FeatureInference, Inference
from openset_jax.training.input_choice import InputChoice
from openset_jax.training.state import Variables
from openset_jax.training.steps import Batch, Metrics
from openset_jax.training.train_program import TrainProgram

# Maximum number of cached entries, the newest, by kind; other kinds hold images and keep one entry.
_MOST = {"pool": 4, "network": 8, "train": 8, "inference": 8, "statistics": 32}

T = TypeVar("T")
TrainStep = Callable[[state.TrainState, Batch], tuple[state.TrainState, Metrics]]


class TrainableNetwork(NamedTuple):
    """A network, its learning rate schedule and its optimizer."""

    model: Network
    schedule: optax.Schedule
    optimizer: optax.GradientTransformation


class RunCache:
    """Keeps the most recent pools, networks and programs, and the images of the most recent pool.

    Args:
      features: folder of the features of frozen layers; None for that in the workdir of each run.
    """

    def __init__(self, features: pathlib.Path | None = None) -> None:
        self._features = features
        self._kept: dict[str, collections.OrderedDict[Hashable, Any]] = collections.defaultdict(collections.OrderedDict)

    def pool(self, spec: RunSpec) -> Pool:
        """The images of a run; see `pool_builder.open_pool`."""
        stored_size, seed = spec.stored_size, spec.seed if spec.data.negative_groups else 0

        def make():
            pool = pool_builder.open_pool(spec.data, stored_size=stored_size, seed=seed)
            if pool.array.is_vector:
                vector_files.check_finite(pool)
            return pool

        pool = self._once("pool", (spec.data, stored_size, seed), make)
        if isinstance(spec.inputs, VectorSpec) and spec.inputs.vector_size and spec.inputs.shape != pool.array.shape:
            (there,), here = pool.array.shape, spec.inputs.vector_size
            raise UserError(f"data.vector_size: {here:,}, but the vectors have {there:,} features; set it to 0 to use these")
        if spec.objective.uses_negatives:
            pool_builder.check_negatives(pool)
        return pool

    def input_choice(self, spec: RunSpec, pool: Pool) -> InputChoice:
        """Returns the choice of the input, made once per pool, because loaded resident images reduce the free memory."""

        def make():
            if spec.input.name == "auto":
                self._release_images()
            return input_choice.choose(spec.input, pool)

        return self._once("choice", (pool, spec.input), make)

    def images(self, spec: RunSpec, pool: Pool) -> LoadedImages:
        """Returns the input of the pool's images; see `input_choice.make_image_input`."""
        name, sharded, most = self.input_choice(spec, pool).name, spec.input.sharded, spec.data.max_bad_fraction

        def make():
            self._release_images()
            unreadable = Unreadable(pool, most, spec.data.max_pixels)
            made = input_choice.make_image_input(name, pool, unreadable=unreadable, sharded=sharded)
            return LoadedImages(made, unreadable)

        return self._once("images", (pool, name, sharded, most), make)

    def examples(
        self, spec: RunSpec, pool: Pool, variables: Variables, stop_requested: Callable[[], str] = lambda: ""
    ) -> LoadedImages:
        """Returns the input of what a run trains on: the images, or, if this suits the run, their features.

        Args:
          variables: of the whole network, on the host.
          stop_requested: see `frozen_features.load`.
        """
        if not frozen_features.suits(spec):
            return self.images(spec, pool)
        folder = self._features or spec.workdir / frozen_features.FOLDER
        compute = lambda: self.inference(spec, pool, self.images(spec, pool))
        found = frozen_features.load(spec, pool, variables, folder, inference=compute, stop_requested=stop_requested)
        if found is None:
            return self.images(spec, pool)

        def make():
            name = input_choice.choose(InputSpec("auto", spec.input.sharded), found.pool).name
            made = input_choice.make_image_input(name, found.pool, unreadable=found.unreadable, sharded=spec.input.sharded)
            return LoadedImages(made, found.unreadable, found.pool)

        return self._once("features", (found.pool.sources[0].name, spec.input.sharded), make)

    def statistics(self, pool: Pool, rows_by_class: Sequence[np.ndarray]) -> state.Params:
        """Those of vectors; see `standardise.statistics`."""
        rows = hashlib.blake2b(np.sort(np.concatenate(rows_by_class)).tobytes()).digest()
        return self._once("statistics", (pool, rows), lambda: standardise.statistics(pool, rows_by_class))

    def _release_images(self) -> None:
        """Drops the images of another pool, and the programs that hold them."""
        for kind in ("images", "train", "inference"):
            self._kept[kind].clear()

    def network(self, program: ProgramSpec, num_classes: int) -> TrainableNetwork:
        """The network for K known classes, and its optimizer."""

        def make():
            outputs, trainable = program.loss.objective.num_outputs(num_classes), program.trainable
            model = program.forward.network.make(outputs, trainable=trainable, axis_name=devices.AXIS)
            schedule = jax.jit(state.make_schedule(program.optimizer, program.steps))  # logs need single values, fast
            return TrainableNetwork(model, schedule, state.make_optimizer(program.optimizer, schedule))

        return self._once("network", (num_classes, program), make)

    def train_step(self, spec: RunSpec, loss: LossSpec, images: LoadedImages, weights: Weights) -> TrainStep:
        """The compiled step with the run's constants bound: (state, batches of one call) -> (state, metrics of each step).

        `loss` is `spec.program.loss`, with the measured margins if there are any.
        """
        run, model = self._train_program(spec, loss, images, len(weights.prior) - 1)
        return functools.partial(run, devices.replicate(train_program.make_constants(spec, model, weights)))

    def step_of_runs(self, runs: Sequence[tuple[RunSpec, Weights]], images: LoadedImages, slots: int) -> TrainStep:
        """As `train_step`, for runs with equal programs; states, batches and metrics are as from `devices.shard_runs`."""
        spec, weights = runs[0]
        run, model = self._train_program(spec, spec.program.loss, images, len(weights.prior) - 1, slots=slots)
        constants = [train_program.make_constants(spec, model, weights) for spec, weights in runs]
        return functools.partial(run, devices.shard_runs(constants, slots))

    def _train_program(
        self, spec: RunSpec, loss: LossSpec, images: LoadedImages, num_classes: int, *, slots: int = 0
    ) -> tuple[TrainProgram, Network]:
        """The compiled program, and its network. `slots`: number of runs of `devices.shard_runs`; 0 for one run alone."""
        image_input = images.image_input
        network, program = self.network(spec.program, num_classes), dataclasses.replace(spec.program, loss=loss)
        model = network.model
        if images.features is not None:
            forward = _of_features(program.forward, images.features)
            program, model = dataclasses.replace(program, forward=forward), head_of(model)
        made_of = program, model, network.optimizer, image_input
        make = lambda: train_program.make_train_program(*made_of, of_runs=slots > 0)
        return self._once("train", (id(image_input.store), num_classes, program, slots), make), model

    def inference(self, spec: RunSpec, pool: Pool, images: LoadedImages) -> Inference:
        """The forward pass over the pool."""
        forward, batch_size = spec.program.forward, spec.evaluation.batch_size

        def make():
            model = forward.network.make(pool.num_classes + forward.none_output, axis_name=devices.AXIS)
            common = {"image_input": images.image_input, "batch_size": batch_size, "unreadable": images.unreadable}
            if images.features is None:
                return Inference(model, make_eval_steps(forward, model, images.image_input), pool, **common)
            head = head_of(model)
            steps = make_eval_steps(_of_features(forward, images.features), head, images.image_input)
            of_features = Inference(head, steps, images.features, **common)
            of_images = lambda: self.inference(spec, pool, self.images(spec, pool))
            return FeatureInference(model, {}, pool, **common, of_features=of_features, of_images=of_images)

        return self._once("inference", (pool, id(images.image_input.store), forward, batch_size), make)

    def _once(self, kind: str, key: Hashable, make: Callable[[], T]) -> T:
        kept = self._kept[kind]
        if key not in kept:
            kept[key] = make()
        kept.move_to_end(key)
        while len(kept) > _MOST.get(kind, 1):
            kept.popitem(last=False)
        return kept[key]


def _of_features(forward: ForwardSpec, features: Pool) -> ForwardSpec:
    """The same for a head whose inputs are features."""
    return dataclasses.replace(forward, inputs=VectorSpec(features.array.shape[0]))
