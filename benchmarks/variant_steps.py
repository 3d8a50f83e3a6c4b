"""The compiled step of a variant, its state, and what is timed of it. No command: see `benchmarks.variants`."""

import concurrent.futures
import contextlib
import copy
import functools
import math
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.changes import Variant
from openset_jax import build, programs
from openset_jax.data import resident
from openset_jax.platforms.forms import Forms
from openset_jax.training import devices, state
from openset_jax.training.feed import Feed

STORED_BATCHES = 4


class Setting:
    """What all variants share: the config, the images on the devices, and the parameters before the first step.

    Args:
      config: as `configs/default.py`. The learning rate has no warm-up, so that ten steps change the loss.
    """

    def __init__(self, config: Any, num_classes: int):
        self.config, self.num_classes = copy.deepcopy(config), num_classes
        self.config.optimizer.warmup_steps = 0
        rng, size, side = np.random.default_rng(0), config.batch_size, config.data.stored_size
        self.store = devices.replicate(rng.integers(0, 256, (STORED_BATCHES * size, side, side, 3), np.uint8))
        self.batch = {
            "row": rng.permutation(STORED_BATCHES * size)[:size].astype(np.int32),
            "label": rng.integers(0, num_classes + 1, size, np.int32),
            "position": np.arange(size, dtype=np.int32),
            "mask": np.ones(size, bool),
        }
        self.weights = build.make_weights(self.config, num_classes)
        _, optimizer = build.make_optimizer(self.config)
        model = build.make_model(self.config, num_classes)
        first = state.create_state(model, optimizer, seed=config.seed, image_size=config.data.image_size)
        self.state = devices.replicate(first)


class VariantStep:
    """The step of one variant.

    Attributes:
      compile_s: seconds that XLA took; programs compiled at the same time share the cores.
    """

    def __init__(self, setting: Setting, variant: Variant):
        config = copy.deepcopy(setting.config)
        config.update_from_flattened_dict(dict(variant.fields))
        self._size, self._per_call = config.batch_size, config.steps_per_call
        model = build.make_model(config, setting.num_classes)
        model = model.clone(forms=Forms(**variant.forms))
        schedule, self._optimizer = build.make_optimizer(config)
        if variant.optimizer:
            options = config.optimizer.to_dict()
            given = {name: options[name] for name in ("b1", "b2", "eps", "weight_decay", "grad_clip")}
            self._optimizer = variant.optimizer(schedule, **given)
        step = programs.make_step_of_device(config, model, self._optimizer, setting.weights)
        gather = lambda store, batch: batch | {"image": resident.gather(store, batch["row"])}
        feed = Feed(read=iter, store=setting.store, store_axis=None, load=gather)
        program = devices.pmap_train(functools.partial(step, **variant.step), feed)
        self._first_state, self._batch = setting.state, devices.shard_steps([setting.batch] * self._per_call)
        if variant.optimizer:
            opt_state = jax.jit(self._optimizer.init)(setting.state.params)
            self._first_state = setting.state.replace(opt_state=opt_state)
        given = programs.make_given(config, model, setting.weights)
        shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), self._first_state)
        with jax.default_prng_impl(variant.prng) if variant.prng else contextlib.nullcontext():
            lowered = program.func.run.lower(*program.args, given, shapes, self._batch)
        begun = time.perf_counter()
        compiled = devices.compile_lowered(lowered, variant.options)
        self.compile_s = time.perf_counter() - begun
        self._call = functools.partial(compiled, *program.args, given)
        self.state, self._seconds, self._losses = None, 0.0, []

    def begin(self) -> None:
        """Goes back to the state before the first step."""
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

    def group(self, calls: int) -> float:
        """Seconds per step of calls dispatched one after another, from an idle device to an idle device."""
        jax.block_until_ready(self.state)
        start = time.perf_counter()
        for _ in range(calls):
            self.state, metrics = self._call(self.state, self._batch)
        jax.block_until_ready((self.state, metrics))
        return (time.perf_counter() - start) / (calls * self._per_call)

    def rate(self, seconds: float) -> float:
        """Images per second of a round of about so many seconds."""
        if self.state is None:
            self.begin()
        if not self._seconds:
            self._seconds = self.group(1)
            self._seconds = self.group(max(1, round(2 / self._per_call)))
        return self._size / self.group(math.ceil(seconds / (self._seconds * self._per_call)))

    def rates(self, rounds: int, seconds: float) -> list[float]:
        """Images per second of some rounds."""
        self.rate(seconds)
        return [self.rate(seconds) for _ in range(rounds)]


@jax.jit
def _copy(tree):
    return jax.tree.map(jnp.copy, tree)


def compile_all(
    setting: Setting, variants: list[Variant], pool: concurrent.futures.Executor
) -> list[VariantStep | Exception]:
    """Compiles all at once. Returns the step of each, or what went wrong with it."""
    futures = [pool.submit(VariantStep, setting, variant) for variant in variants]
    return [future.exception() or future.result() for future in futures]
