"""Runs that train at once, as one program: heads, or small networks, on vectors that the devices hold.

A step of one head is too small for a device: most of its time is the start of its operations. `Group` stacks the states of
many runs; a call of the group is a call of each of them. Each run has its own loop (`training_loop.py`), with its own
batches, log, checkpoints and decision, and its result is that of the run alone, up to rounding.
"""

import dataclasses
import functools
import math
from collections.abc import Generator, Hashable, Sequence

import jax
import numpy as np

from openset_jax.model.head import head_of
from openset_jax.spec import RunSpec, VectorSpec
from openset_jax.training import device_memory, devices, frozen_features, state
from openset_jax.training.run_cache import RunCache
from openset_jax.training.state import TrainState
from openset_jax.training.training_loop import FetchMetrics, Trainer, Training

MOST = 128  # runs at once
_SHARE = 0.25  # they may take this share of the free memory of a device
_COPIES = 4  # of a state and of a batch that a step has in memory at a time

Calls = Generator[dict[str, np.ndarray]]  # the batches of each call, arrays [steps, b]


def shared_by(spec: RunSpec, cache: RunCache) -> Hashable | None:
    """Returns a value that is equal for runs that can train at once; None if a run must train alone.

    They have the same program and train on the same vectors, or on the same features of images. Their seeds, sampling,
    numbers of negatives, weights and learning rates may differ. Raises UserError as `RunCache.pool`.
    """
    program = spec.program
    if jax.process_count() > 1 or spec.input.sharded or program.loss.measures_margins:
        return None
    images = spec.seed if spec.data.negative_groups else 0  # as `RunCache.pool`
    if isinstance(spec.inputs, VectorSpec):
        resident = cache.input_choice(spec, cache.pool(spec)).name == "resident"
        return (program, spec.data, spec.input, images) if resident else None
    if not frozen_features.suits(spec):
        return None
    return program, spec.data, spec.input, images, spec.init_from or spec.seed  # the frozen layers


def most_at_once(spec: RunSpec, cache: RunCache) -> int:
    """Returns the maximum number of runs as `spec` in one group, at least 1."""
    model, _, optimizer = cache.network(spec.program, cache.pool(spec).num_classes)
    shape = spec.inputs.shape
    if frozen_features.suits(spec):
        model, shape = head_of(model), (model.feature_size,)
    values = jax.tree.leaves(state.state_shape(model, optimizer, shape))
    each = _COPIES * 4 * (sum(math.prod(value.shape) for value in values) + spec.program.batch_size * shape[0])
    free = device_memory.free_for_each_device()
    return MOST if free is None else min(MOST, max(int(_SHARE * free / each), 1) * jax.local_device_count())


class Group:
    """Runs that train at once; `shared_by` is equal for all.

    Attributes:
      steps: until all runs are at their last step; known after `begin`.
      steps_per_call: of all runs.
    """

    steps = steps_per_call = 0

    def __init__(self) -> None:
        self._trainings: list[Training] = []
        self._first_states: list[TrainState] = []  # on the host
        self._head, self._whole = "", None  # the layer that trains if the others are frozen; all variables of one run
        self._host: TrainState | None = None  # the present states, if they were fetched

    def add(self, training: Training, state: TrainState) -> None:
        """Adds a run, from `training_loop.prepare`; of frozen layers, which are equal in all runs, it keeps one copy."""
        if training.images.features is not None:
            self._head = training.run.network.model.head
            self._whole = self._whole or devices.replicate(state.variables)
            state = state.replace(params={self._head: state.params[self._head]}, batch_stats={})
        self._trainings.append(training)
        self._first_states.append(state)

    def begin(self) -> list[Trainer]:
        """Copies the states to the devices; returns the trainers for the loops of the runs, in their order."""
        trainings, here = self._trainings, jax.local_device_count()
        self._slots = -(-len(trainings) // here) * here
        self._states = devices.shard_runs(self._first_states, self._slots)
        self._first_states.clear()
        runs = [(training.run.spec, training.run.weights) for training in trainings]
        self._step = trainings[0].run.cache.step_of_runs(runs, trainings[0].images, self._slots)
        program = trainings[0].run.spec.program
        self.steps_per_call = program.steps_per_call
        self.steps = program.steps - min(training.start for training in trainings)
        return [_Trainer(self, i, len(trainings), training) for i, training in enumerate(trainings)]

    def step(self, batches: Sequence[dict[str, np.ndarray] | None]) -> list[FetchMetrics]:
        """Runs a call of each run. A run that has ended has None; it trains on with the batches of another, for nothing."""
        any_batch = next((batch for batch in batches if batch is not None), None)
        if any_batch is None:
            return [dict] * len(batches)
        stacked = devices.shard_runs([any_batch if batch is None else batch for batch in batches], self._slots)
        self._host = None
        with jax.transfer_guard("disallow"):
            self._states, metrics = self._step(self._states, stacked)
        fetched: list[dict[str, np.ndarray]] = []  # of all runs, once

        def fetch(i: int) -> dict[str, np.ndarray]:
            if not fetched:
                fetched.append(devices.unshard_runs(metrics))
            return {name: value[i] for name, value in fetched[0].items()}

        return [functools.partial(fetch, i) for i in range(len(batches))]

    def state_of(self, i: int) -> TrainState:
        """The state of a run, replicated."""
        if self._host is None:
            self._host = devices.unshard_runs(self._states)
        mine = devices.replicate(jax.tree.map(lambda x: np.array(x[i]), self._host))
        if self._whole is None:
            return mine
        return mine.replace(params=self._whole["params"] | mine.params, batch_stats=self._whole["batch_stats"])


@dataclasses.dataclass(frozen=True)
class _Trainer:
    """The trainer of a run in a group."""

    group: Group
    index: int
    at_once: int
    training: Training

    @property
    def state(self) -> TrainState:
        return self.group.state_of(self.index)

    def calls(self, start: int) -> Calls:
        run = self.training.run
        for batches in devices.in_calls(run.batches(self.training.images, start), run.spec.program.steps_per_call):
            yield {name: np.stack([batch[name] for batch in batches]) for name in batches[0]}
