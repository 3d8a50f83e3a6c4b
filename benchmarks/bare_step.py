"""The training step alone: built as `openset_jax.train` builds it, on one random batch that stays on the devices."""

import functools
import math
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.compilations import Compilations
from openset_jax.model.network import Network
from openset_jax.spec import ProgramSpec, RunSpec
from openset_jax.training import devices, run_setup, state, train_program
from openset_jax.training.image_input import ImageInput, streamed
from openset_jax.training.run_cache import RunCache, TrainStep
from openset_jax.training.state import TrainState

NO_IMAGES = streamed(lambda batches: iter(()))  # reads nothing: the batch already has its images


def time_calls(call: TrainStep, state: TrainState, batch: Any, calls: int) -> tuple[TrainState, float]:
    """Dispatches calls one after another, from idle devices until the devices are idle again.

    Returns:
      (the last state, seconds).
    """
    jax.block_until_ready(state)
    start = time.perf_counter()
    for _ in range(calls):
        state, metrics = call(state, batch)
    jax.block_until_ready((state, metrics))
    return state, time.perf_counter() - start


class Step:
    """A training step, its state, and one random batch, on the devices.

    Args:
      spec: its images are not opened.
      num_classes: K.
      image_input: of batches without images; `batch` has its images, and needs none.
      function: of another `Step` with this spec and input, which is compiled already.

    Attributes:
      model, optimizer: of the network.
      state, batch: on the devices.
      function: the compiled step, (state, batches of one call) -> (state, metrics of each step).
      cold: False if `compile` read the program from JAX's compilation cache.
      seconds_saved: see `Compilations.seconds_saved`, of `compile`.
    """

    def __init__(
        self,
        spec: RunSpec,
        num_classes: int,
        image_input: ImageInput = NO_IMAGES,
        function: TrainStep | None = None,
    ):
        self.model, _, self.optimizer = RunCache().network(spec.program, num_classes)
        self.state = devices.replicate(random_state(self.model, self.optimizer, spec.inputs.shape))
        self.function = function or self._make_function(spec, num_classes, image_input)
        self.cold, self.seconds_saved = True, 0.0
        self.steps_per_call = spec.program.steps_per_call
        self.batch = devices.shard_steps([random_batch(spec.program, num_classes)] * self.steps_per_call)

    def _make_function(self, spec: RunSpec, num_classes: int, image_input: ImageInput) -> TrainStep:
        program = train_program.make_train_program(spec.program, self.model, self.optimizer, image_input)
        weights = run_setup.make_weights(spec, num_classes)
        constants = train_program.make_constants(spec, self.model, weights)
        return functools.partial(program, devices.replicate(constants))

    def compile(self) -> float:
        """Runs two calls; returns the seconds of the first, almost all of which are compilation."""
        compilations = Compilations()
        seconds = self.seconds_per_step(1) * self.steps_per_call
        self.cold, self.seconds_saved = compilations.cold, compilations.seconds_saved
        self.seconds_per_step(1)
        return seconds

    def program(self) -> jax.stages.Compiled:
        """The program that XLA makes of the step; compiles it."""
        run: Any = self.function  # a partial of `devices._Compiled`
        return run.func.compile(*run.args, self.state, self.batch)

    def seconds_per_step(self, calls: int) -> float:
        """Seconds of a step; see `time_calls`."""
        self.state, seconds = time_calls(self.function, self.state, self.batch, calls)
        return seconds / (calls * self.steps_per_call)


def random_batch(program: ProgramSpec, num_classes: int, seed: int = 0) -> dict[str, np.ndarray]:
    """A batch on the host as `ImageInput.read` yields it: random uint8 images, labels in [0, K]."""
    rng, size, side = np.random.default_rng(seed), program.batch_size, program.forward.images.stored_size
    return {
        "example": rng.integers(0, 256, (size, side, side, 3), np.uint8),
        "label": rng.integers(0, num_classes + 1, size, np.int32),
        "position": np.arange(size, dtype=np.int32),
        "mask": np.ones(size, bool),
    }


def random_state(model: Network, optimizer: optax.GradientTransformation, shape: tuple[int, ...]) -> TrainState:
    """A state like that of `state.create_state`, but drawn by NumPy on the host.

    This saves the seconds that compiling the initialisation of the network takes.
    """

    def create():
        variables = state.initial_variables(model, seed=np.uint32(0), shape=shape)
        trained, _ = model.split(variables["params"])
        return state.TrainState(jnp.zeros((), jnp.int32), **variables, opt_state=optimizer.init(trained))

    rng, shapes = np.random.default_rng(0), jax.eval_shape(create)

    def draw(path, leaf):
        if leaf.ndim < 2:
            return np.full(leaf.shape, path[-1].key in ("scale", "var"), leaf.dtype)
        return rng.standard_normal(leaf.shape, np.float32) * np.float32((2 / math.prod(leaf.shape[:-1])) ** 0.5)

    drawn = {name: jax.tree.map_with_path(draw, getattr(shapes, name)) for name in ("params", "batch_stats")}
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes).replace(**drawn)
