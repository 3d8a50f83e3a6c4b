"""Trains a grid of runs and compares them: number of negatives, sampling policy, trained layers.

python -m openset_jax.experiment --config=configs/imbalance_digits.py --workdir=runs/imbalance_digits
"""

from __future__ import annotations

import contextlib
import json
import pathlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

from absl import flags

from openset_jax import cli, lock, unattended
from openset_jax.errors import Stopped, UserError
from openset_jax.files import write_whole
from openset_jax.train import StopRequested

if TYPE_CHECKING:  # imported where they are used, so that --help answers at once
    from ml_collections import ConfigDict

    from openset_jax.spec import DecisionSpec
    from openset_jax.study.runs.grid import Arm
    from openset_jax.training.run_cache import RunCache

FIELDS = "--config.run"  # for --help: the fields that all arms share

# Fields of `run` that may change when an experiment is resumed.
_MAY_CHANGE = ("log_every", "input", "shard_resident", "data.packed", "data.root", "data.tfds_data_dir", "eval.batch_size")


def define_flags() -> None:
    """Defines the command's flags."""
    cli.define_config(help="Experiment file, as configs/imbalance.py; --config.run.a.b=value overrides a.b of all runs.")
    flags.DEFINE_string("workdir", None, "Folder of the experiment; finished arms in it are not run again.", required=True)
    flags.DEFINE_string("shard", "0/1", "I/N: run part I (from 0) of N, for array jobs; each writes the summary of all.")
    flags.DEFINE_bool("dry_run", False, "Print the arms, their sizes and an estimate of their time, and stop.")


def main() -> None:
    """Runs the command."""
    from openset_jax.platforms import xla

    part, workdir = _part(flags.FLAGS.shard), cli.make_workdir(flags.FLAGS.workdir)
    xla.check_platform()
    xla.cache_compilations()
    with unattended.stop_on_signal() as stop_requested:
        experiment(flags.FLAGS.config, workdir, stop_requested, part=part, dry_run=flags.FLAGS.dry_run)


def _part(text: str) -> tuple[int, int]:
    try:
        i, n = map(int, text.split("/"))
    except ValueError:
        i, n = 0, 0
    if not 0 <= i < n:
        raise UserError(f"--shard: {text!r} is not I/N with I from 0 to N - 1")
    return i, n


def experiment(
    config: ConfigDict, workdir: pathlib.Path, stop_requested: StopRequested = lambda: "", cache: RunCache | None = None, *,
    part: tuple[int, int] = (0, 1), dry_run: bool = False,
) -> None:  # fmt: skip
    """Runs the unfinished arms of one part, and writes the summary of all finished arms.

    Args:
      config: as configs/imbalance.py: `run`, `seeds` and `grid`.
      workdir: absolute path of the experiment's folder.
      part: (i, n): run part i, from 0, of n parts of the arms.
      dry_run: only print the arms and an estimate of their time.

    Raises:
      UserError: the grid must be changed, or an arm failed.
      Stopped: a signal arrived; the state of the current arm is saved.
    """
    from openset_jax import config as configs
    from openset_jax.report import console
    from openset_jax.study.runs import arm_folder, arm_run, check, eta, grid
    from openset_jax.training import checkpoints, frozen_features, run_length, run_setup
    from openset_jax.training.run_cache import RunCache
    from openset_jax.training.run_log import say

    if missing := [field for field in ("run", "seeds", "grid") if field not in config]:
        raise UserError(f"--config: an experiment needs the field {missing[0]!r}; see configs/imbalance.py")

    # The arms and their resolved specs. All arms compute in the same dtype.
    if checkpoints.latest_step(workdir) is not None:
        raise UserError(f"--workdir: {workdir} has a single run; use another --workdir for the experiment")
    dtype, arms = _saved_dtype(workdir), grid.arms_of(config)
    cache = cache or RunCache(workdir / frozen_features.FOLDER)
    folder = {arm: workdir / "arms" / arm.name for arm in arms}
    run, phases = check.with_shared_steps(config.run, cache), {}
    for arm in arms:
        by_label = {other.treatment.label: str(folder[other]) for other in arms if other.seed == arm.seed}
        phases[arm] = check.resolve_arm(arm, grid.config_of(arm, run, by_label), folder[arm], cache, dtype=dtype)
    base = configs.resolve(check.natural_run(run), workdir, dtype=dtype)[-1]
    sizes = check.check_grid(arms, phases, cache)
    pool = cache.pool(base)
    with contextlib.nullcontext() if dry_run else lock.claimed(workdir, wait=True):
        _check_same(configs.with_dtype(config.run, dtype), config, pool.fingerprint(), workdir, write=not dry_run)

    # The unfinished arms of this part.
    work = {arm.name: eta.work(phases[arm], sizes[arm.name]) for arm in arms}
    finished = lambda arm: (folder[arm] / arm_folder.OUTCOME).exists()
    arms_of_part = grid.share(arms, work, part)
    unfinished = [arm for arm in arms_of_part if not finished(arm)]
    check.check_starts([arm for arm in unfinished if arm.starts_from(arms) is None], phases, cache)
    say(run_setup.computation_line(base, cache.input_choice(base, pool)))
    say(console.pool_table(pool))
    say(run_length.description(base, run_length.sampled(base, pool)[1], pool.num_classes, flags=FIELDS))
    say(check.arm_table(arms, sizes, [arm for arm in arms if finished(arm)]))
    if dry_run:
        works = [work[arm.name] for arm in unfinished]
        say(eta.estimate(phases[unfinished[0]], works, cache) if works else "All arms are finished.")
        return

    runs = arm_run.ArmRuns(folder, stop_requested, cache)
    clock = eta.Clock(sum(work[arm.name] for arm in unfinished))
    starts_from_arm = lambda arm: arm.starts_from(arms) is not None
    for at_once in arm_run.units(unfinished, phases, starts_from_arm, cache):
        if reason := stop_requested():
            raise Stopped(f"Stopped by {reason} between two arms. Run the same command again to continue.")
        arm, which = at_once[0], f"[{arms_of_part.index(at_once[0]) + 1}/{len(arms_of_part)}] {at_once[0].label}"
        say(which + (f", and {len(at_once) - 1} other arms at once" if len(at_once) > 1 else ""))
        if (start := arm.starts_from(arms)) and not finished(start):
            if start in runs.failed:
                runs.failed[arm] = UserError(f"its base arm failed: {start.label!r}")
            else:
                say("    skipped: its base arm is running in another process")
            continue
        runs.run(at_once, phases)
        for other in at_once:
            if isinstance(error := runs.failed.get(other), Stopped):
                raise Stopped(f"{error} (arm {other.label!r} in {folder[other]})") from error
            if error:
                say(f"    failed: {error}" if len(at_once) == 1 else f"    {other.label} failed: {error}")
        if skipped := [other for other in at_once if other in runs.skipped]:
            which = "this arm is" if len(at_once) == 1 else f"{len(skipped)} of these arms are"
            say(f"    skipped: {which} running in another process")
        if any(finished(other) for other in at_once):
            say(f"    {clock.line(sum(work[other.name] for other in at_once))}")
    failed = {arm: error for arm, error in runs.failed.items() if not finished(arm)}
    sum_up(workdir, folder, base.decision, failed)
    if defects := [error for error in failed.values() if not isinstance(error, UserError)]:
        raise defects[0]
    if failed:
        first, why = next(iter(failed.items()))
        text = f"the first, {first.label!r}: {why}. See {folder[first] / 'log.txt'}"
        raise UserError(f"{len(failed)} of {len(arms_of_part)} arms failed; {text}")


def _saved_dtype(workdir: pathlib.Path) -> str | None:
    """The dtype saved in experiment.json; None if the file is missing or damaged (`_check_same` then raises UserError)."""
    from openset_jax.study.runs import arm_folder

    try:
        return json.loads((workdir / arm_folder.EXPERIMENT).read_text())["run"]["model"]["dtype"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _check_same(run: ConfigDict, config: ConfigDict, fingerprint: str, workdir: pathlib.Path, *, write: bool) -> None:
    """Raises UserError unless the experiment in this folder has the same `run` and images; writes experiment.json.

    `seeds` and `grid` may change; they are saved so that `arm_folder.read_outcomes` finds the arms from the folder alone.

    Args:
      run: `config.run` with its dtype resolved.
      write: False for a dry run, which writes nothing.
    """
    from openset_jax import config_json
    from openset_jax.study.runs import arm_folder

    path = workdir / arm_folder.EXPERIMENT
    now = {**config_json.to_json(config), "run": config_json.to_json(run), "fingerprint": fingerprint}
    if path.exists():
        try:
            saved = json.loads(path.read_text())
            before, after = (dict(config_json.flatten(values)) for values in (saved["run"], now["run"]))
            same_images = saved["fingerprint"] == fingerprint
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"--workdir: {path} is damaged ({error}); use another --workdir") from error
        fixed = [f for f in before.keys() | after.keys() if f not in _MAY_CHANGE and not f.startswith("decision.")]
        for field in sorted(fixed, key=lambda field: (field.count("."), field)):  # steps before a reference to it
            if before.get(field) != after.get(field):
                raise UserError(
                    f"run.{field}: the experiment in {workdir} has {before.get(field)!r}, but this config has "
                    f"{after.get(field)!r}; restore the field, or use a new --workdir"
                )
        if not same_images:
            raise UserError(f"run.data: the images differ from those of the experiment in {workdir}; use a new --workdir")
    if write:
        with write_whole(path) as file:
            file.write(json.dumps(now, indent=2) + "\n")


def sum_up(
    workdir: pathlib.Path, folder: Mapping[Arm, pathlib.Path], decision: DecisionSpec, failed: Mapping[Arm, Exception]
) -> None:
    """Writes results.csv, comparisons.csv, figure.png, ANSWER.md and report.html of all finished arms.

    One process writes at a time, so that the last one includes all arms. `decision` is that of `config.run`.
    """
    from openset_jax.study.answer import answer_markdown
    from openset_jax.study.charts import figure, page
    from openset_jax.study.runs import arm_folder
    from openset_jax.study.stats import csv_tables
    from openset_jax.study.stats.analysis import Analysis
    from openset_jax.training.run_log import say

    with lock.claimed(workdir, wait=True):
        done = [arm for arm in folder if (folder[arm] / arm_folder.OUTCOME).exists()]
        missing = [(arm.label, str(failed.get(arm, "not finished"))) for arm in folder if arm not in done]
        if not done:
            return
        say(f"Writing the summary of {len(done)} of {len(folder)} arms.")
        analysis = Analysis([arm_folder.read_outcome(folder[arm], arm, decision) for arm in done])
        csv_tables.write_results(analysis, workdir / "results.csv")
        csv_tables.write_comparisons(analysis, workdir / "comparisons.csv")
        text = answer_markdown.answer(analysis)
        if missing:
            which = "; ".join(f"{label} ({reason})" for label, reason in missing)
            text += f"\n{len(missing)} of {len(folder)} arms are not included: {which}.\n"
        figure.write_figure(analysis, workdir / "figure.png")
        with write_whole(workdir / "report.html") as file:
            file.write(page.render(analysis, text, missing=missing))
        with write_whole(workdir / "ANSWER.md") as file:
            file.write(text)
    say(text)
    say(f"Written to {workdir}: report.html (open it in a browser), ANSWER.md, figure.png, results.csv, comparisons.csv")


if __name__ == "__main__":
    cli.run(main, define_flags)
