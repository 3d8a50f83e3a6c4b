"""Trains a classifier that can also answer "none of these", evaluates it at the end, and resumes when called again.

python -m openset_jax.train --config=configs/digits.py --workdir=runs/digits
"""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from absl import flags

from openset_jax import cli, unattended
from openset_jax.errors import Stopped

if TYPE_CHECKING:  # imported where they are used, so that --help answers at once
    from ml_collections import ConfigDict

    from openset_jax.spec import RunSpec
    from openset_jax.training.run_cache import RunCache
    from openset_jax.training.trained_network import TrainedNetwork

StopRequested = Callable[[], str]  # returns the reason to save and stop now, "" to continue


def define_flags() -> None:
    """Defines the command's flags."""
    cli.define_config()
    flags.DEFINE_string("workdir", None, "Folder of the run; if it has a checkpoint, the run is resumed.", required=True)
    flags.DEFINE_string("coordinator", "", 'For several processes: HOST:PORT of process 0, or "auto".')
    flags.DEFINE_integer("process_id", None, "For several processes: the index of this process, from 0.")
    flags.DEFINE_integer("num_processes", None, "For several processes: their number.")


def main() -> None:
    """Runs the command."""
    from openset_jax.platforms import xla
    from openset_jax.training import hosts

    workdir = cli.make_workdir(flags.FLAGS.workdir)
    xla.cache_compilations()
    hosts.connect(flags.FLAGS.coordinator, flags.FLAGS.process_id, flags.FLAGS.num_processes)
    xla.check_platform()
    with unattended.stop_on_signal() as stop_requested:
        train(flags.FLAGS.config, workdir, stop_requested)


def train(
    config: ConfigDict, workdir: pathlib.Path, stop_requested: StopRequested = lambda: "", cache: RunCache | None = None
) -> dict[str, Any]:
    """Trains and evaluates a run, or resumes it in its workdir, an absolute path; returns its `metrics.json`.

    Raises UserError if the config, data or workdir must be changed, or another process writes the workdir; Stopped after a
    signal, when the state is saved.
    """
    from openset_jax import config as configs
    from openset_jax import evaluate
    from openset_jax.training import checkpoints, hosts, run_cache, run_length, run_setup, vector_size

    with hosts.claimed(workdir):
        dtype = checkpoints.saved_dtype(workdir, workdir / configs.FIRST_PHASE)
        cache = cache or run_cache.RunCache()
        config = run_length.with_steps(vector_size.with_vector_size(config, cache), cache)
        phases = configs.resolve(config, workdir, dtype=dtype)
        run_setup.check_workdir(workdir, phases)
        return evaluate.evaluate(fit(phases, stop_requested, cache))


def fit(phases: Sequence[RunSpec], stop_requested: StopRequested, cache: RunCache) -> TrainedNetwork:
    """Trains the phases of a run that are not finished; returns the network of the last one."""
    from openset_jax.training import checkpoints
    from openset_jax.training.run_log import say

    *earlier, last = phases
    for spec in earlier:
        if checkpoints.latest_step(last.workdir) is None and checkpoints.latest_step(spec.workdir) != spec.program.steps:
            say(f"First of two phases: {spec.program.steps} steps, policy {spec.sampling.policy}, trainable=all.")
            fit_run(spec, stop_requested, cache)
        say(f"Second of two phases: {last.program.steps} steps, policy natural, trainable={last.program.trainable}.")
    return fit_run(last, stop_requested, cache)


def fit_run(spec: RunSpec, stop_requested: StopRequested, cache: RunCache) -> TrainedNetwork:
    """Trains one run, or resumes it; returns its best network with a classifier fitted on validation images."""
    import jax

    from openset_jax.report import console
    from openset_jax.training import devices, divergence, hosts, run_setup, trained_network, validation
    from openset_jax.training.forecast import Forecast
    from openset_jax.training.run_log import RunLog, say

    # Images, sampler, network; then the initial state: random, from weights (init_from), or from the last checkpoint.
    run = run_setup.make_run(spec, cache)
    say(console.run_description(run))
    checkpoints, state, progress, start = run_setup.start(run)

    # On the devices: the state, the images (resident or streamed) or their features, the forward pass, the training step.
    images = cache.examples(spec, run.pool, state.variables, stop_requested)
    state = devices.replicate(state)
    inference = cache.inference(spec, run.pool, images)
    train_step, progress.plateau_loss = run.train_step(images, progress), run.plateau_loss(progress)
    calls = run.calls(images, start)
    log, forecast = RunLog(spec, start, step_unlogged=bool(progress.count)), Forecast(spec.program, start)
    patience, selecting = spec.stopping.patience, f"validation_{spec.stopping.metric}"

    # Order: evaluate, save, measure margins, fetch the next batch, dispatch a call, log the previous call. A call is
    # `steps_per_call` steps that run without the host. The first three wait for the devices. Otherwise the metrics of a call
    # are fetched after the next call is dispatched, so that the devices never wait for the host.
    pending, saved_at, outputs = None, start, None
    explained = divergence.explained(spec, lambda: (step, state.variables))
    with explained, contextlib.closing(checkpoints), contextlib.closing(log), contextlib.closing(calls):
        for step in range(start, spec.program.steps + 1, spec.program.steps_per_call):
            last = step == spec.program.steps
            stopping = not last and hosts.any_process(bool(stop_requested()), step % spec.log_every == 0)
            evaluating = step > progress.evaluated and (last or step % spec.evaluation.every == 0)
            saving = stopping or last or step % spec.checkpoint_every == 0
            measuring = run.needs_margins(step, progress)
            if evaluating or saving or measuring:
                if pending is not None:
                    progress.add_steps(jax.device_get(pending))
                    say(forecast.end(step))
                pending, measured = None, {}
                log.stop_clock(step)
                if evaluating and not stopping:
                    outputs = validation.compute_outputs(run.pool, inference, state.variables)
                    measured = validation.metrics(run.pool, outputs, spec.objective)
                    better = progress.add_evaluation(step, measured[selecting])
                    saving = saving or better or progress.out_of_patience(patience)
                if measured or (step % spec.log_every == 0 and not evaluating):  # a resumed run logs a postponed evaluation
                    run.log_line(log, step, progress, measured)
                if saving and step > saved_at:
                    checkpoints.save(step, state, {**run.record, "progress": vars(progress)}, best=progress.best_step)
                    saved_at = step
            if stopping or last or progress.out_of_patience(patience):
                break
            if measuring:
                progress.margins = run.measure_margins(inference, state.variables)
                train_step, progress.plateau_loss = run.train_step(images, progress), run.plateau_loss(progress)
            if pending is None:
                log.start_clock(step)
                forecast.begin(compiles=measuring or step == start)
            batch = next(calls)
            with jax.transfer_guard("disallow"):
                state, metrics = train_step(state, batch)
            if pending is not None:
                progress.add_steps(jax.device_get(pending))
                say(forecast.end(step))
                if step % spec.log_every == 0:
                    run.log_line(log, step, progress, {})
            pending = metrics
        checkpoints.wait()
        if stopping:
            reason = stop_requested() or hosts.ELSEWHERE
            raise Stopped(f"Stopped by {reason}. The state at step {step} is saved; run the same command again to continue.")
        inference = dataclasses.replace(inference, stop_requested=stop_requested)
        return trained_network.best_network(run, inference, checkpoints, progress, step, state.variables, outputs)


if __name__ == "__main__":
    cli.run(main, define_flags)
