"""Estimates how long an experiment takes: before the start from a few training steps, then from the finished arms."""

import time
from collections.abc import Sequence

import jax

from openset_jax.spec import RunSpec
from openset_jax.study.runs import step_cost
from openset_jax.study.runs.check import Phases, Size
from openset_jax.training import devices, frozen_features, run_setup, state
from openset_jax.training.progress import Progress
from openset_jax.training.run_cache import RunCache
from openset_jax.training.run_log import clock

_CALLS = 5
_ENOUGH = 0.02  # share of the work


def work(phases: Phases, size: Size) -> float:
    """Returns the work of an arm with its evaluation, in floating-point operations."""
    training = sum(spec.program.steps * spec.program.batch_size * _flops(spec) for spec in phases)
    return training + size.classified * _flops(phases[-1], train=False)


def _flops(spec: RunSpec, *, train: bool = True) -> float:
    return step_cost.flops(spec, train=train, features=frozen_features.suits(spec))


class Clock:
    """Reports the time taken and the time left, from the work done and the work left; `total` is the work of all arms.

    Before `_ENOUGH` of the work is done there is no estimate, because arms with little work take most time for other things.
    """

    def __init__(self, total: float):
        self._enough = _ENOUGH * total
        self._left, self._done, self._began, self._last = total, 0.0, time.monotonic(), time.monotonic()

    def line(self, work: float) -> str:
        """Returns as text how long the work since the previous call took, and the time left."""
        now = time.monotonic()
        took, self._last = now - self._last, now
        self._done, self._left = self._done + work, self._left - work
        if self._done < self._enough:
            return f"took {clock(took)}"
        return f"took {clock(took)}; about {clock((now - self._began) / self._done * self._left)} left"


def estimate(first: Phases, works: Sequence[float], cache: RunCache) -> str:
    """Returns as text how long arms of this `work` take, estimated from a few training calls of one of them, `first`."""
    seconds = _seconds_per_example(first[0], cache) * sum(works) / step_cost.flops(first[0])
    measured = f"from {_CALLS} training calls of the first arm, and the operations of the others and of evaluations"
    return f"{len(works)} arms to run; about {clock(seconds)} of training and evaluation ({measured})."


def _seconds_per_example(spec: RunSpec, cache: RunCache) -> float:
    run = run_setup.make_run(spec, cache)
    images = cache.images(spec, run.pool)
    step, network, per_call = run.train_step(images, Progress()), run.network, spec.program.steps_per_call
    current = devices.replicate(
        state.create_state(network.model, network.optimizer, seed=spec.seed, shape=spec.inputs.shape)
    )
    began = 0.0
    for i, batch in enumerate(run.calls(images, 0, stop=(_CALLS + 1) * per_call)):  # the run may have fewer steps
        if i == 1:  # the first call compiles
            jax.block_until_ready(current)
            began = time.monotonic()
        current, _ = step(current, batch)
    jax.block_until_ready(current)
    return (time.monotonic() - began) / (_CALLS * per_call * spec.program.batch_size)
