"""The training loop of one run: evaluations, checkpoints, log and early stopping around the calls of the training step.

The loop is a generator, which yields the batch of each call to a driver that runs it: `train_alone` here, or `together.py`,
which runs the calls of many runs as one.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Generator
from typing import Any, Protocol

import jax
import numpy as np

from openset_jax.errors import Stopped
from openset_jax.report import console
from openset_jax.spec import RunSpec
from openset_jax.training import divergence, hosts, run_setup, validation
from openset_jax.training.checkpoints import Checkpoints
from openset_jax.training.devices import replicate
from openset_jax.training.forecast import Forecast
from openset_jax.training.image_input import LoadedImages
from openset_jax.training.progress import Progress
from openset_jax.training.run_cache import RunCache
from openset_jax.training.run_log import RunLog, say
from openset_jax.training.run_setup import Run
from openset_jax.training.state import TrainState
from openset_jax.training.trained_network import TrainedNetwork, best_network

FetchMetrics = Callable[[], dict[str, np.ndarray]]  # waits for the devices: the metrics of a call, arrays [steps, ...]


class Trainer(Protocol):
    """Holds the state of one run on the devices."""

    @property
    def at_once(self) -> int:
        """The number of runs that train at once, at least 1."""

    @property
    def state(self) -> TrainState:
        """The state after the last call, replicated."""

    def calls(self, start: int) -> Generator[Any]:
        """Yields the batches of each call from step `start` on, in the form that the driver takes."""


@dataclasses.dataclass(frozen=True, eq=False)
class Training:
    """A run that is ready to train."""

    run: Run
    checkpoints: Checkpoints
    progress: Progress
    start: int  # the step that it starts or resumes at
    images: LoadedImages  # or their features
    stop_requested: Callable[[], str]

    def loop(self, trainer: Trainer) -> Generator[Any, Any, TrainedNetwork]:
        """Yields the batch of each call; the driver runs it and sends a function that fetches its metrics, `FetchMetrics`.

        At the end it yields None, and goes on when it is resumed.

        Returns the best network with a classifier fitted on validation images. Raises Stopped, when the state is saved.
        """
        run, checkpoints, progress, start = self.run, self.checkpoints, self.progress, self.start
        spec, stop_requested = run.spec, self.stop_requested
        inference = run.cache.inference(spec, run.pool, self.images)
        progress.plateau_loss = run.plateau_loss(progress)
        calls = trainer.calls(start)
        log = RunLog(spec, start, step_unlogged=bool(progress.count), at_once=trainer.at_once)
        forecast = Forecast(spec.program, start)
        patience, selecting = spec.stopping.patience, f"validation_{spec.stopping.metric}"

        # Order: evaluate, save, measure margins, fetch the next batch, dispatch a call, log the previous call. A call is
        # `steps_per_call` steps that run without the host. The first three wait for the devices. Otherwise the metrics of a
        # call are fetched after the next call is dispatched, so that the devices never wait for the host.
        pending: FetchMetrics | None = None
        saved_at, outputs = start, None
        explained = divergence.explained(spec, lambda: (step, trainer.state.variables))
        with explained, contextlib.closing(log), contextlib.closing(calls):
            for step in range(start, spec.program.steps + 1, spec.program.steps_per_call):
                last = step == spec.program.steps
                stopping = not last and hosts.any_process(bool(stop_requested()), step % spec.log_every == 0)
                evaluating = step > progress.evaluated and (last or step % spec.evaluation.every == 0)
                saving = stopping or last or step % spec.checkpoint_every == 0
                measuring = run.needs_margins(step, progress)
                if evaluating or saving or measuring:
                    if pending is not None:
                        progress.add_steps(pending())
                        say(forecast.end(step))
                    pending, measured = None, {}
                    log.stop_clock(step)
                    if evaluating and not stopping:
                        outputs = validation.compute_outputs(run.pool, inference, trainer.state.variables)
                        measured = validation.metrics(run.pool, outputs, spec.objective)
                        better = progress.add_evaluation(step, measured[selecting])
                        saving = saving or better or progress.out_of_patience(patience)
                    if measured or (step % spec.log_every == 0 and not evaluating):  # a resumed run logs a postponed one
                        run.log_line(log, step, progress, measured)
                    if saving and step > saved_at:
                        record = {**run.record, "progress": vars(progress)}
                        checkpoints.save(step, trainer.state, record, best=progress.best_step)
                        saved_at = step
                if stopping or last or progress.out_of_patience(patience):
                    break
                if measuring:
                    progress.margins = run.measure_margins(inference, trainer.state.variables)
                    progress.plateau_loss = run.plateau_loss(progress)
                if pending is None:
                    log.start_clock(step)
                    forecast.begin(compiles=measuring or step == start)
                fetch_metrics = yield next(calls)
                if pending is not None:
                    progress.add_steps(pending())
                    say(forecast.end(step))
                    if step % spec.log_every == 0:
                        run.log_line(log, step, progress, {})
                pending = fetch_metrics
            yield None  # checkpoints are written in the background; other runs may go on
            checkpoints.wait()
            if stopping:
                reason = stop_requested() or hosts.ELSEWHERE
                raise Stopped(
                    f"Stopped by {reason}. The state at step {step} is saved; run the same command again to continue."
                )
            inference = dataclasses.replace(inference, stop_requested=stop_requested)
            return best_network(run, inference, checkpoints, progress, step, trainer.state.variables, outputs)


def prepare(spec: RunSpec, stop_requested: Callable[[], str], cache: RunCache) -> tuple[Training, TrainState]:
    """Opens the images and checkpoints of a run, prints its description, and returns also its first state, on the host."""
    run = run_setup.make_run(spec, cache)
    say(console.run_description(run))
    checkpoints, state, progress, start = run_setup.start(run)
    try:
        images = cache.examples(spec, run.pool, state.variables, stop_requested)
    except BaseException:
        checkpoints.close()
        raise
    return Training(run, checkpoints, progress, start, images, stop_requested), state


class _Alone:
    """The trainer of a run that trains alone."""

    at_once = 1

    def __init__(self, training: Training, state: TrainState):
        self.training, self.state = training, replicate(state)
        self._make_step()

    def _make_step(self):
        training = self.training
        self._train_step, self._margins = (
            training.run.train_step(training.images, training.progress),
            training.progress.margins,
        )

    def calls(self, start: int) -> Generator[Any]:
        return self.training.run.calls(self.training.images, start)

    def step(self, batch: Any) -> FetchMetrics:
        if self._margins is not self.training.progress.margins:  # they were measured
            self._make_step()
        with jax.transfer_guard("disallow"):
            self.state, metrics = self._train_step(self.state, batch)
        return functools.partial(jax.device_get, metrics)


def train_alone(spec: RunSpec, stop_requested: Callable[[], str], cache: RunCache) -> TrainedNetwork:
    """Trains one run, or resumes it; returns its best network with a classifier fitted on validation images."""
    trainer = _Alone(*prepare(spec, stop_requested, cache))  # nothing else keeps the state on the host
    with contextlib.closing(trainer.training.checkpoints), contextlib.closing(trainer.training.loop(trainer)) as loop:
        answer: Any = None  # starts the generator
        while True:
            try:
                batch = loop.send(answer)
            except StopIteration as ended:
                return ended.value
            answer = None if batch is None else trainer.step(batch)
