"""The compiled step of a variant, with its state, and the timing of it. No command: see `benchmarks.variants`."""

import concurrent.futures
import contextlib
import functools
import math
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.bare_step import time_calls
from benchmarks.forms import MakeOptimizer
from benchmarks.variant_list import Variant, replaced
from openset_jax.data import resident
from openset_jax.model.layers import Ops
from openset_jax.platforms import xla
from openset_jax.spec import RunSpec
from openset_jax.training import devices, run_setup, state, train_program
from openset_jax.training.image_input import ImageInput
from openset_jax.training.run_cache import RunCache
from openset_jax.training.state import TrainState

STORED_BATCHES = 4


class Setting:
    """Everything that all variants share: the program, the images on the devices, and the state before the first step.

    Args:
      spec: its images are not opened.
      num_classes: K.

    Attributes:
      program: of the plain step. The learning rate has no warm-up, so that ten steps change the loss.
    """

    def __init__(self, spec: RunSpec, num_classes: int):
        self.spec, self.num_classes = spec, num_classes
        self.program = replaced(spec.program, {"optimizer.warmup_steps": 0})
        rng, size, images = np.random.default_rng(0), spec.program.batch_size, spec.images
        side = images.stored_size
        self.store = devices.replicate(rng.integers(0, 256, (STORED_BATCHES * size, side, side, 3), np.uint8))
        self.batch = {
            "row": rng.permutation(STORED_BATCHES * size)[:size].astype(np.int32),
            "label": rng.integers(0, num_classes + 1, size, np.int32),
            "position": np.arange(size, dtype=np.int32),
            "mask": np.ones(size, bool),
        }
        self.weights = run_setup.make_weights(spec, num_classes)
        model, _, optimizer = RunCache().network(self.program, num_classes)
        first = state.create_state(model, optimizer, seed=spec.seed, shape=spec.inputs.shape)
        self.state = devices.replicate(first)


class VariantStep:
    """The step of one variant.

    Attributes:
      compile_s: seconds of XLA's compilation; programs that are compiled at the same time share the cores.
      state: on the devices; None before the first step and after `close`.
    """

    def __init__(self, setting: Setting, variant: Variant):
        program = replaced(setting.program, variant.fields)
        self._size, self._per_call = program.batch_size, program.steps_per_call
        network = RunCache().network(program, setting.num_classes)
        model = network.model.clone(ops=Ops(**variant.forms))
        make_optimizer: MakeOptimizer = variant.optimizer or state.make_optimizer
        self._optimizer = make_optimizer(program.optimizer, network.schedule)
        step = train_program.make_device_step(program, model, self._optimizer)
        gather = lambda store, batch: batch | {"example": resident.gather(store, batch["row"])}
        image_input = ImageInput(read=resident.rows, store=setting.store, store_axis=None, load=gather)
        run: Any = devices.pmap_train(functools.partial(step, **variant.step), image_input)  # a partial of `_Compiled`
        self._first_state, self._batch = setting.state, devices.shard_steps([setting.batch] * self._per_call)
        if variant.optimizer:
            opt_state = jax.jit(self._optimizer.init)(setting.state.params)
            self._first_state = setting.state.replace(opt_state=opt_state)
        constants = devices.replicate(train_program.make_constants(setting.spec, model, setting.weights))
        shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), self._first_state)
        with jax.default_prng_impl(variant.prng) if variant.prng else contextlib.nullcontext():
            lowered = run.func.run.lower(*run.args, constants, shapes, self._batch)
        begun = time.perf_counter()
        compiled = xla.compile_lowered(lowered, variant.options)
        self.compile_s = time.perf_counter() - begun
        self._call = functools.partial(compiled, *run.args, constants)
        self.state: TrainState | None = None
        self._seconds, self._losses = 0.0, list[float]()

    def begin(self) -> None:
        """Resets the state to that before the first step."""
        self.state = _copy(self._first_state)

    def close(self) -> None:
        """Frees the state."""
        self.state = None

    def losses(self, count: int) -> list[float]:
        """The losses of the first steps."""
        if len(self._losses) < count:
            self.begin()
            self._losses = []
        while len(self._losses) < count:
            self.state, metrics = self._call(self.state, self._batch)
            self._losses += np.asarray(metrics["loss"]).tolist()
        return self._losses[:count]

    def seconds_per_step(self, calls: int) -> float:
        """Seconds of a step; see `bare_step.time_calls`."""
        self.state, seconds = time_calls(self._call, self.state, self._batch, calls)
        return seconds / (calls * self._per_call)

    def rate(self, seconds: float) -> float:
        """Images per second of a round of about this length."""
        if self.state is None:
            self.begin()
        if not self._seconds:
            self._seconds = self.seconds_per_step(1)
            self._seconds = self.seconds_per_step(max(1, round(2 / self._per_call)))
        return self._size / self.seconds_per_step(math.ceil(seconds / (self._seconds * self._per_call)))

    def rates(self, rounds: int, seconds: float) -> list[float]:
        """Images per second of several rounds, after one that is not counted."""
        self.rate(seconds)
        return [self.rate(seconds) for _ in range(rounds)]


@jax.jit
def _copy(tree):
    return jax.tree.map(jnp.copy, tree)


def compile_all(
    setting: Setting, variants: list[Variant], pool: concurrent.futures.Executor
) -> list[VariantStep | BaseException]:
    """Compiles all variants at the same time. Returns the step of each, or the exception that it raised."""
    futures = [pool.submit(VariantStep, setting, variant) for variant in variants]
    return [future.exception() or future.result() for future in futures]
