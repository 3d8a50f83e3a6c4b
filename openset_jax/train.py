"""Trains a classifier with a "none of these" output, evaluates it at the end, and resumes when called again.

    python -m openset_jax.train --config=configs/digits.py --workdir=runs/digits
"""

import json
import pathlib
from typing import Any

from absl import flags

from openset_jax import cli
from openset_jax.errors import Stopped

def define_flags() -> None:
    cli.define_config()
    flags.DEFINE_string("workdir", None, "Folder of the run; one that has a checkpoint is resumed.", required=True)
    flags.DEFINE_string("coordinator", "", 'Several processes: HOST:PORT of the first, or "auto".')
    flags.DEFINE_integer("process_id", None, "Several processes: number of this one, from 0.")
    flags.DEFINE_integer("num_processes", None, "Several processes: how many.")


def main() -> None:
    from openset_jax.training import devices

    workdir = cli.make_workdir(flags.FLAGS.workdir)
    devices.connect(flags.FLAGS.coordinator, flags.FLAGS.process_id, flags.FLAGS.num_processes)
    train(flags.FLAGS.config, workdir)


def train(config: Any, workdir: pathlib.Path) -> dict[str, Any]:
    """One run, from its config to its `metrics.json`, which is also returned.

    Args:
      config: as `configs/default.py`.
      workdir: an absolute path; one with a checkpoint is resumed.

    Raises:
      UserError: the config, the data or the workdir must be changed.
      Stopped: by a signal, after saving.
    """
    # Imported here, so that --help and mistakes in flags answer at once.
    import jax

    from openset_jax import config as configs
    from openset_jax import evaluate
    from openset_jax.data import pipeline
    from openset_jax.report import table
    from openset_jax.training import devices, progress, state
    from openset_jax.training.checkpoints import Checkpoints
    from openset_jax.training.run_log import RunLog, say

    stop = cli.StopOnSignal()

    # What is asked for: is it possible?
    configs.check(config)
    devices.check_batch_size("batch_size", config.batch_size)
    devices.check_batch_size("eval.batch_size", config.eval.batch_size)
    pool = configs.open_pool(config)
    evaluate.check_validation(pool, config.early_stopping.metric)
    members = pool.training_members(config.sampling.negatives)
    sampler = configs.make_sampler(config, members)
    say(table.pool_table(pool))
    say(table.sampler_lines(sampler, [*pool.classes, "none"]))

    # Network, optimizer, and the state before the first step.
    model = configs.make_model(config, pool.num_classes)
    schedule, optimizer = configs.make_optimizer(config)
    host_state = state.create_state(model, optimizer, seed=config.seed, image_size=config.data.image_size)
    say(table.parameters(host_state.params))

    # Where the run stands: at step 0, or at its last checkpoint.
    meta = {
        "config": configs.to_json(config),
        "classes": list(pool.classes),
        "fingerprint": pool.fingerprint(),
        "prior": sampler.prior.tolist(),
    }
    checkpoints, so_far, start = Checkpoints(workdir, writing=True), progress.Progress(), 0
    if (latest := checkpoints.latest()) is not None:
        before = checkpoints.meta(latest)
        configs.check_same_run(before, meta, workdir)
        host_state, so_far, start = checkpoints.restore(latest, host_state), progress.Progress(**before["progress"]), latest
        say(f"Resuming at step {start}.")
    if devices.is_first_process():
        (workdir / "config.json").write_text(json.dumps(meta["config"], indent=2) + "\n")

    # What runs on the devices: the step, its batches, and the forward pass over a split.
    train_step = configs.make_train_step(config, model, optimizer)
    skipped = pipeline.Skipped(pool, config.data.max_bad_fraction, report=say)
    inference = configs.make_inference(config, model, pool, skipped)
    batches = devices.prefetch(
        pipeline.training_batches(
            pool,
            members,
            sampler,
            start=start,
            stop=config.steps,
            stored_size=config.data.stored_size,
            skipped=skipped,
            part=devices.host_part(),
        )
    )
    log = RunLog(workdir, step=start, steps=config.steps, batch_size=config.batch_size)

    patience, selected_by = config.early_stopping.patience, f"validation_{config.early_stopping.metric}"

    def record(step, metrics, validation, line_due):
        """Takes note of the metrics of a step, and writes the line of metrics.jsonl that ends with it."""
        if metrics is not None:
            so_far.add_step(jax.device_get(metrics))
        if line_due and so_far.count:
            means = so_far.means() | {"learning_rate": float(schedule(step - 1))} | validation
            log.line(step, means)
            progress.check_finite(step, means)
            if warning := progress.plateau_warning(so_far, means, sampler.prior, [*pool.classes, "none"]):
                say(warning)

    # evaluate -> save -> next batch -> step -> log the step before. Evaluating and saving wait for the devices; between
    # them, the metrics of a step are fetched when the next one is under way, so that the devices never wait for the host.
    current, pending, validation = devices.replicate(host_state), None, {}
    del host_state
    for step in range(start, config.steps + 1):
        last = step == config.steps
        stopping = not last and devices.any_process(bool(stop.requested), step % config.log_every == 0)
        evaluating = step > so_far.evaluated and (last or step % config.eval.every == 0)
        better, validation = False, {}
        if evaluating and not stopping:
            validation = evaluate.validate(pool, inference, current.variables)
            better = so_far.add_evaluation(step, validation[selected_by])
        done = last or so_far.out_of_patience(patience)
        if stopping or evaluating or done or step % config.checkpoint.every == 0:
            # a line that an evaluation belongs to is written with it: if need be after resuming
            record(step, pending, validation, line_due=bool(validation) or not (evaluating or step % config.log_every))
            pending = None
            if (stopping or better or done or step % config.checkpoint.every == 0) and step != checkpoints.latest():
                checkpoints.save(step, current, meta | {"progress": vars(so_far)}, best=so_far.best_step)
            log.restart_clock(step)
        if stopping or done:
            break
        batch = next(batches)
        with jax.transfer_guard("disallow"):
            current, metrics = train_step(current, batch)
        if pending is not None:
            record(step, pending, {}, line_due=step % config.log_every == 0)
        pending = metrics

    checkpoints.wait()
    log.close()
    if stopping:
        raise Stopped(f"Stopped by {stop.requested or 'another process'} at step {step}, saved in {workdir}. The same command goes on.")
    if not last:
        say(f"Stopped early: {patience} evaluations without a better {config.early_stopping.metric} than {so_far.best_value:.4f}.")
    best = step if so_far.best_step is None else so_far.best_step
    say(f"Evaluating step {best}, the best by {config.early_stopping.metric} on validation.")
    current = devices.replicate(checkpoints.restore_model(best, jax.device_get(current.variables)))
    checkpoints.close()
    return evaluate.evaluate(pool, inference, current, step=best, workdir=workdir)


if __name__ == "__main__":
    cli.run(main, define_flags)
