"""Trains a grid of runs, and answers from them: how many negatives, sampled how, and how much of the network.

python -m openset_jax.experiment --config=configs/imbalance_digits.py --workdir=runs/imbalance_digits
"""

import contextlib
import json
import pathlib
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from absl import flags

from openset_jax import cli
from openset_jax.errors import Stopped, UserError
from openset_jax.files import write_whole

FIELDS = "--config.run"  # what all arms share; in --help

# what may be another when an experiment goes on: where images are, and how they get to the devices
_MAY_CHANGE = ("log_every", "input", "shard_resident", "data.packed", "data.root", "data.tfds_data_dir", "eval.batch_size")


def define_flags() -> None:
    cli.define_config(help="Experiment file, such as configs/imbalance.py; --config.run.a.b=value is for all runs.")
    flags.DEFINE_string("workdir", None, "Folder of the experiment; what is finished in it is not run again.", required=True)
    flags.DEFINE_string("shard", "0/1", "I/N: do part I (from 0) of N, as in array jobs; the last to end sums up all.")
    flags.DEFINE_bool("dry_run", False, "Print the arms, their sizes and about how long they take, and stop.")


def main() -> None:
    from openset_jax.training import devices

    part, workdir = _part(flags.FLAGS.shard), cli.make_workdir(flags.FLAGS.workdir)
    devices.cache_compilations()
    with cli.stop_on_signal() as stop:
        experiment(flags.FLAGS.config, workdir, stop, part=part, dry_run=flags.FLAGS.dry_run)


def _part(text):
    try:
        i, n = map(int, text.split("/"))
    except ValueError:
        i, n = 0, 0
    if not 0 <= i < n:
        raise UserError(f"--shard: {text!r} is not I/N with I from 0 to N - 1")
    return i, n


def experiment(
    config: Any,
    workdir: pathlib.Path,
    stop: Callable[[], str] = str,
    *,
    part: tuple[int, int] = (0, 1),
    dry_run: bool = False,
) -> None:
    """Runs the arms of one part that are not finished, and sums up all that are.

    Args:
      config: as configs/imbalance.py: `run`, `seeds` and `grid`.
      workdir: an absolute path.
      stop: why to save and stop now, "" to go on.
      part: (i, n), this part of n.
      dry_run: only say what would be done.

    Raises:
      UserError: the grid must be changed, or an arm failed.
      Stopped: by a signal; the arm that was being trained is saved.
    """
    from openset_jax import auto
    from openset_jax.report import console
    from openset_jax.study.runs import arms as folders
    from openset_jax.study.runs import check, eta, grid
    from openset_jax.training.run_cache import Workshop
    from openset_jax.training.run_log import say

    if missing := [field for field in ("run", "seeds", "grid") if field not in config]:
        raise UserError(f"--config: an experiment needs the field {missing[0]!r}; see configs/imbalance.py")
    config, asked_dtype = config.copy_and_resolve_references(), config.run.model.dtype
    config.run = auto.with_dtype(config.run, _dtype_of_started(workdir))  # all arms compute in one dtype
    arms, workshop = grid.arms_of(config), Workshop()
    folder = {arm: workdir / "arms" / arm.name for arm in arms}
    configs = {arm: grid.config_of(arm, config.run, _by_label(folder, arm.seed)) for arm in arms}
    sizes = check.check_grid(arms, list(configs.values()), workshop)
    pool = workshop.pool(config.run)
    with contextlib.nullcontext() if dry_run else folders.claimed(workdir, wait=True):
        _check_same(config, pool.fingerprint(), workdir, write=not dry_run)
    work = {arm.name: eta.work(configs[arm]) for arm in arms}
    finished = lambda arm: (folder[arm] / folders.OUTCOME).exists()
    mine = grid.share(arms, work, part)
    left = [arm for arm in mine if not finished(arm)]
    say(auto.line(config.run, workshop.input(config.run, pool), asked_dtype=asked_dtype))
    say(console.pool_table(pool))
    say(console.arm_table(arms, sizes, [arm for arm in arms if finished(arm)]))
    if dry_run:
        say(eta.estimate([configs[arm] for arm in left], workshop))
        return

    failed, clock = {}, eta.Clock(sum(work[arm.name] for arm in left))
    for arm in left:
        if why := stop():
            raise Stopped(f"Stopped by {why} between two arms; the same command goes on.")
        say(f"[{mine.index(arm) + 1}/{len(mine)}] {arm.label}")
        if (base := arm.begins_with(arms)) and not finished(base):
            if base in failed:
                failed[arm] = UserError(f"the arm that it begins with, {base.label!r}, failed")
            else:
                say("    another process is at the arm that it begins with: left to that one")
            continue
        try:
            done = run_arm(configs[arm], folder[arm], stop, workshop)
            say(f"    {clock.line(work[arm.name])}" if done else "    another process is at it: left to that one")
        except Stopped as stopped:
            raise Stopped(f"{stopped} The arm was {arm.label!r} in {folder[arm]}.") from stopped
        except Exception as error:  # whatever it is, the other arms do not depend on it
            failed[arm] = error
            say(f"    failed: {error}")
    failed = {arm: error for arm, error in failed.items() if not finished(arm)}
    sum_up(arms, folder, config.run.decision, workdir, failed)
    for error in failed.values():
        if not isinstance(error, UserError):
            raise error
    if failed:
        arm, error = next(iter(failed.items()))
        raise UserError(
            f"{len(failed)} of {len(mine)} arms failed; the first, {arm.label!r}: {error}. See {folder[arm] / 'log.txt'}"
        )


def _by_label(folder, seed):
    return {arm.treatment.label: str(there) for arm, there in folder.items() if arm.seed == seed}


def _dtype_of_started(workdir):
    """The dtype of the experiment in this folder, None without one; `_check_same` refuses a damaged file."""
    from openset_jax.study.runs import arms as folders

    try:
        return json.loads((workdir / folders.EXPERIMENT).read_text())["run"]["model"]["dtype"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _check_same(config, fingerprint, workdir, write):
    """Raises UserError unless the experiment in this folder was begun with this config and these images; notes them.

    Seeds and the grid may grow; they are noted so that the folder alone says which arms there are (`arms.read_outcomes`).
    """
    from openset_jax import config as configs
    from openset_jax.study.runs import arms as folders

    path, now = workdir / folders.EXPERIMENT, configs.to_json(config) | {"fingerprint": fingerprint}
    if path.exists():
        try:
            before = json.loads(path.read_text())
            runs = {"before": before["run"], "now": now["run"]}
            fields = {name: configs.BEFORE | dict(configs.fields(run)) for name, run in runs.items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"--workdir: {path} is damaged ({error}); use another --workdir") from error
        every = fields["before"].keys() | fields["now"].keys()
        for field in sorted(every, key=lambda field: (field.count("."), field)):  # eval.every may follow steps
            values = [fields[name].get(field) for name in ("before", "now")]
            if values[0] != values[1] and field not in _MAY_CHANGE and not field.startswith("decision."):
                raise UserError(
                    f"run.{field}: the experiment in {workdir} has {values[0]!r}, this start {values[1]!r}; use another "
                    "--workdir for another experiment"
                )
        if before["fingerprint"] != fingerprint:
            raise UserError(f"run.data: the images are not those that the experiment in {workdir} began with")
    if write:
        with write_whole(path) as file:
            file.write(json.dumps(now, indent=2) + "\n")


def run_arm(config: Any, folder: pathlib.Path, stop: Callable[[], str], workshop: Any) -> bool:
    """Trains one arm, or goes on with it, to its outcome; what it says is in its log.txt.

    Returns:
      False where another process has it.
    """
    from openset_jax.study.runs import arms as folders
    from openset_jax.train import train

    with folders.claimed(folder) as mine:
        if not mine:
            return False
        if not (folder / folders.OUTCOME).exists():  # another process may have finished it in the meantime
            with (folder / "log.txt").open("a") as log, contextlib.redirect_stdout(log):
                try:
                    train(config, folder, stop, workshop=workshop, finish=folders.save_outcome)
                except Stopped:
                    raise
                except Exception:
                    traceback.print_exc(file=log)
                    raise
    return True


def sum_up(
    arms: Sequence[Any],
    folder: Mapping[Any, pathlib.Path],
    decision: Any,
    workdir: pathlib.Path,
    failed: Mapping[Any, Exception],
) -> None:
    """Writes results.csv, comparisons.csv, the figure, ANSWER.md and report.html of all finished arms.

    One process at a time, so that the last one has all arms.
    """
    from openset_jax.study.answer import document
    from openset_jax.study.charts import figure, page
    from openset_jax.study.runs import arms as folders
    from openset_jax.study.stats import results
    from openset_jax.study.stats.analysis import Analysis
    from openset_jax.training.run_log import say

    with folders.claimed(workdir, wait=True):
        there = [arm for arm in arms if (folder[arm] / folders.OUTCOME).exists()]
        missing = [(arm.label, str(failed.get(arm, "not finished"))) for arm in arms if arm not in there]
        if not there:
            return
        say(f"Summing up {len(there)} of {len(arms)} arms.")
        analysis = Analysis([folders.read_outcome(folder[arm], arm, decision) for arm in there])
        results.write_results(analysis, workdir / "results.csv")
        results.write_comparisons(analysis, workdir / "comparisons.csv")
        text = document.answer(analysis)
        if missing:
            which = "; ".join(f"{label} ({why})" for label, why in missing)
            text += f"\n{len(missing)} of {len(arms)} arms are not in it: {which}.\n"
        figure.write_figure(analysis, workdir / "figure.png")
        with write_whole(workdir / "report.html") as file:
            file.write(page.render(analysis, text, missing=missing))
        with write_whole(workdir / "ANSWER.md") as file:
            file.write(text)
    say(text)
    say(f"Written to {workdir}: report.html (open it in a browser), ANSWER.md, figure.png, results.csv, comparisons.csv")


if __name__ == "__main__":
    cli.run(main, define_flags)
