"""Trains a classifier with a "none of these" output, evaluates it at the end, and resumes when called again.

python -m openset_jax.train --config=configs/digits.py --workdir=runs/digits
"""

import contextlib
import functools
import json
import pathlib
from collections.abc import Callable
from typing import Any

from absl import flags

from openset_jax import cli
from openset_jax.errors import Stopped, UserError


def define_flags() -> None:
    cli.define_config()
    flags.DEFINE_string("workdir", None, "Folder of the run; one that has a checkpoint is resumed.", required=True)
    flags.DEFINE_string("coordinator", "", 'Several processes: HOST:PORT of the first, or "auto".')
    flags.DEFINE_integer("process_id", None, "Several processes: number of this one, from 0.")
    flags.DEFINE_integer("num_processes", None, "Several processes: how many.")


def main() -> None:
    from openset_jax.training import devices

    workdir = cli.make_workdir(flags.FLAGS.workdir)
    devices.cache_compilations()
    devices.connect(flags.FLAGS.coordinator, flags.FLAGS.process_id, flags.FLAGS.num_processes)
    with cli.stop_on_signal() as stop:
        train(flags.FLAGS.config, workdir, stop)


def train(
    config: Any,
    workdir: pathlib.Path,
    stop: Callable[[], str] = str,
    *,
    workshop: Any = None,
    finish: Callable[..., Any] | None = None,
) -> Any:
    """One run, from its config to its `metrics.json`, which is also returned.

    Args:
      config: as `configs/default.py`.
      workdir: an absolute path; one with a checkpoint is resumed.
      stop: asked before each call of `steps_per_call` steps: why to save and stop now, "" to go on.
      workshop: a `Workshop` of runs that share what they are made of.
      finish: what is done with the best checkpoint, an `evaluate.Network`, and returned; None for `evaluate.evaluate`.

    Raises:
      UserError: the config, the data or the workdir must be changed.
      Stopped: by a signal, after saving.
    """
    # Imported here, so that --help and mistakes in flags answer at once.
    import jax

    from openset_jax import auto, build, evaluate
    from openset_jax import config as configs
    from openset_jax.data import batches
    from openset_jax.report import console
    from openset_jax.training import devices, margins, progress, state, two_phase, validation, warm_start
    from openset_jax.training.checkpoints import Checkpoints
    from openset_jax.training.run_cache import Workshop
    from openset_jax.training.run_log import RunLog, say

    workshop, finish = workshop or Workshop(), finish or evaluate.evaluate

    # What is asked for: is it possible?
    configs.check(config)
    asked_dtype, config = config.model.dtype, auto.with_dtype_of_run(config, workdir)
    if config.sampling.policy == "two_phase":
        config = two_phase.after_first(config, workdir, functools.partial(train, stop=stop, workshop=workshop))
    devices.check_batch_size("batch_size", config.batch_size)
    devices.check_batch_size("eval.batch_size", config.eval.batch_size)
    pool = workshop.pool(config)
    say(auto.line(config, workshop.input(config, pool), asked_dtype=asked_dtype))
    members = build.training_members(config, pool)
    sampler = build.make_sampler(config, members)
    weights = build.make_weights(config, pool.num_classes, sampler)
    plateau = build.plateau_loss(config, weights)
    validation.check(pool, config, weights.effective_prior)
    say(console.pool_table(pool))
    say(console.sampler_lines(sampler, [*pool.classes, "none"], plateau))

    # Network, optimizer, and the state before the first step.
    model, schedule, optimizer = workshop.network(config, pool.num_classes)
    host_state = state.create_state(model, optimizer, seed=config.seed, image_size=config.data.image_size)
    say(console.parameters(host_state.params))

    # Where the run stands: at step 0, or at its last checkpoint.
    meta = {
        "config": configs.to_json(config),
        "classes": list(pool.classes),
        "fingerprint": pool.fingerprint(),
        "prior": weights.effective_prior.tolist(),
    }
    checkpoints, so_far, start = Checkpoints(workdir, writing=True), progress.Progress(), 0
    if (latest := checkpoints.latest()) is not None:
        before = checkpoints.meta(latest)
        configs.check_same_run(before, meta, workdir)
        host_state, so_far, start = checkpoints.restore(latest, host_state), progress.Progress(**before["progress"]), latest
        say(f"Resuming at step {start}.")
        if start > config.steps:
            raise UserError(f"steps: {config.steps}, but the run in {workdir} is at step {start} already")
        if start % config.steps_per_call:
            raise UserError(f"steps_per_call: {config.steps_per_call} does not divide {start}, the step {workdir} is at")
        if before["config"]["steps"] != config.steps and config.optimizer.schedule != "constant":
            say(f"steps was {before['config']['steps']}, now {config.steps}: the learning rate jumps to the new schedule.")
    elif config.init_from:
        given = {"config": config, "classes": pool.classes, "none_output": model.num_outputs > pool.num_classes}
        variables, kept = warm_start.begin_with(host_state.variables, config.init_from, **given)
        host_state = host_state.replace(**variables)
        say(kept)
    devices.check_agreement(meta, start)
    if devices.is_first_process():
        (workdir / "config.json").write_text(json.dumps(meta["config"], indent=2) + "\n")

    # What runs on the devices: the images or the way to them, the step, and the forward pass over a split.
    current = devices.replicate(host_state)
    del host_state
    feed, skipped = workshop.feed(config, pool)
    margins_at = margins.due(config.steps, config.steps_per_call) if build.measures_margins(config) else None
    make_train_step = functools.partial(workshop.train_step, config, model, optimizer, feed, weights)
    train_step = make_train_step(so_far.margins)
    inference = workshop.inference(config, model, pool, feed, skipped)
    plan = batches.training(
        pool, members, sampler, start=start, stop=config.steps, skipped=skipped, part=devices.host_part()
    )
    calls = devices.prefetch_steps(feed.read(plan), config.steps_per_call)
    log = RunLog(workdir, step=start, steps=config.steps, batch_size=config.batch_size, lines_after=bool(so_far.count))
    patience, selected_by = config.early_stopping.patience, f"validation_{config.early_stopping.metric}"

    def write_line(step, measured):
        if so_far.count:
            means = so_far.means() | {"learning_rate": devices.on_host(schedule, step - 1)}
            log.line(step, means | measured)
            if step > config.optimizer.warmup_steps:  # before, a network that has learned nothing is no news
                say(progress.plateau_warning(so_far, means, plateau, weights.prior, [*pool.classes, "none"]))

    # evaluate -> save -> next batch -> call -> log the call before; a call is one step, or several that the devices do by
    # themselves. Evaluating and saving wait for the devices; between them, the metrics of a call are fetched when the next
    # one is under way, so that the devices never wait for the host.
    pending, saved_at, seen = None, start, None
    with contextlib.closing(checkpoints), contextlib.closing(log), contextlib.closing(calls):
        for step in range(start, config.steps + 1, config.steps_per_call):
            last = step == config.steps
            stopping = not last and devices.any_process(bool(stop()), step % config.log_every == 0)
            evaluating = step > so_far.evaluated and (last or step % config.eval.every == 0)
            saving = stopping or last or step % config.checkpoint.every == 0
            if evaluating or saving:
                if pending is not None:
                    so_far.add_steps(jax.device_get(pending))
                pending, measured = None, {}
                log.stop_clock(step)
                if evaluating and not stopping:
                    seen = validation.look(pool, inference, current.variables)
                    measured = validation.measure(pool, seen, objective=config.objective.name)
                    better = so_far.add_evaluation(step, measured[selected_by])
                    saving = saving or better or so_far.out_of_patience(patience)
                if measured or (step % config.log_every == 0 and not evaluating):
                    write_line(step, measured)  # an evaluation that a stop put off writes the line when it comes
                if saving and step > saved_at:
                    checkpoints.save(step, current, meta | {"progress": vars(so_far)}, best=so_far.best_step)
                    saved_at = step
                log.start_clock(step)
            if stopping or last or so_far.out_of_patience(patience):
                break
            if margins_at is not None and step >= margins_at and so_far.margins is None:
                so_far.margins = margins.measure(pool, inference, current.variables, members)
                say(margins.line(*so_far.margins))
                train_step, plateau = (
                    make_train_step(so_far.margins), build.plateau_loss(config, weights, so_far.margins)
                )  # fmt: skip
            batch = next(calls)
            with jax.transfer_guard("disallow"):
                current, metrics = train_step(current, batch)
            if pending is not None:
                so_far.add_steps(jax.device_get(pending))
                if step % config.log_every == 0:
                    write_line(step, {})
            pending = metrics

        checkpoints.wait()
        if stopping:
            why = stop() or "another process"
            raise Stopped(f"Stopped by {why} at step {step}; {workdir} is as of that step. The same command goes on.")
        if not last:
            say(f"Stopped early: {patience} evaluations, none with {selected_by} above {so_far.best_value}.")
        best = step if so_far.best_step is None else so_far.best_step
        say(f"Evaluating step {best}, the best by {config.early_stopping.metric} on validation.")
        if skipped.rows:
            say(f"{len(skipped.rows)} images could not be read so far, and were skipped.")
        variables = current.variables
        if best != step or seen is None:
            variables = devices.replicate(checkpoints.restore_model(best, current.variables))
            seen = validation.look(pool, inference, variables)
    used = {"config": config, "training_prior": meta["prior"], "step": best}
    fitted = validation.fit_decision(pool, seen, **used, save_in=workdir)
    return finish(evaluate.Network(pool, inference, variables, fitted, **used, workdir=workdir))


if __name__ == "__main__":
    cli.run(main, define_flags)
