"""Restores a checkpoint, scores every test image, and says how well knowns are told apart and unknowns rejected.

python -m openset_jax.evaluate --workdir=runs/digits
"""

import csv
import json
import math
import pathlib
from typing import Any, NamedTuple

import numpy as np
from absl import flags

from openset_jax import cli
from openset_jax.errors import UserError
from openset_jax.files import write_whole


def define_flags() -> None:
    flags.DEFINE_string("workdir", None, "Folder of a training run.", required=True)
    flags.DEFINE_enum("checkpoint", "best", ["best", "last"], "Which checkpoint to evaluate.")
    cli.define_config(
        required=False,
        help="Only for data that has moved: where `data` is now, and its `input`, given as in training.",
    )


def main() -> None:
    from openset_jax.training import devices

    devices.cache_compilations()
    restore_and_evaluate(flags.FLAGS.workdir, best=flags.FLAGS.checkpoint == "best", moved=flags.FLAGS.config)


def restore_and_evaluate(workdir: str | pathlib.Path, *, best: bool = True, moved: Any = None) -> dict[str, Any]:
    """Evaluates the best or the last checkpoint of a run on this process's devices; returns `metrics.json`.

    Args:
      moved: a config whose `data` says where the run's images are now; None where they were.

    Raises:
      UserError: no checkpoint, or images that are not those of the run.
    """
    from openset_jax.report import console
    from openset_jax.training import validation
    from openset_jax.training.restore import restore
    from openset_jax.training.run_log import say

    run = restore(workdir, best=best)
    pool, inference = open_images(run, moved)
    say(console.pool_table(pool))
    fitted = validation.read_decision(run.config, step=run.step, workdir=run.workdir)
    if fitted is None:  # what is deployed is the best step's: another is looked at, and not saved
        given = {"config": run.config, "training_prior": run.meta["prior"], "step": run.step}
        saved_in = run.workdir if run.best else None
        seen = validation.look(pool, inference, run.variables)
        fitted = validation.fit_decision(pool, seen, **given, save_in=saved_in)
    if moved is not None:
        run.config.eval.compare_scores = moved.eval.compare_scores
    used = {"config": run.config, "training_prior": run.meta["prior"], "step": run.step, "workdir": run.workdir}
    return evaluate(Network(pool, inference, run.variables, fitted, **used))


def open_images(run: Any, moved: Any = None) -> tuple[Any, Any]:
    """(the `Pool` of a restored run, the `Inference` of its network over it).

    Args:
      run: a `restore.Restored`.
      moved: as in `restore_and_evaluate`.

    Raises:
      UserError: these are not the images of the run.
    """
    from openset_jax import build, programs
    from openset_jax import config as configs
    from openset_jax.data.unreadable import Skipped

    if moved is not None:
        configs.check(moved)
        if moved.data.stored_size != run.config.data.stored_size:
            size = run.config.data.stored_size
            raise UserError(f"data.stored_size: the run in {run.workdir} has {size}; give --config the same")
    pool = build.open_pool(moved or run.config)
    configs.check_same_data(run.meta, pool.classes, pool.fingerprint(), run.workdir)
    skipped = Skipped(pool, run.config.data.max_bad_fraction)
    feed = build.make_feed(moved or run.config, pool, skipped)
    return pool, programs.make_inference(run.config, run.model, pool, feed, skipped)


class Network(NamedTuple):
    """A trained network with what decides, and the images to judge it by.

    Attributes:
      pool, inference: the `Pool`, and the `Inference` over it.
      variables: replicated parameters and batch statistics.
      fitted: the `Classifier` that decides.
      config: of the run.
      training_prior: float [K + 1], the effective prior of training.
      step: of the checkpoint.
      workdir: where what is found is written.
    """

    pool: Any
    inference: Any
    variables: Any
    fitted: Any
    config: Any
    training_prior: Any
    step: int
    workdir: pathlib.Path


def evaluate(network: Network) -> dict[str, Any]:
    """Scores the test split; prints a table, writes `report.html`, `scores.csv` and `metrics.json`, and returns the last."""
    from openset_jax import build
    from openset_jax.data.pools import TEST, VALIDATION
    from openset_jax.openset.decision import classifier
    from openset_jax.openset.metrics import evaluation
    from openset_jax.report import console, page
    from openset_jax.training import scoring
    from openset_jax.training.devices import is_first_process
    from openset_jax.training.run_log import say

    pool, inference, variables, fitted, config, training_prior, step, workdir = network
    kinds = pool.kinds({"seen_negatives": "negatives", "unseen_unknowns": "unknown"})
    asked = pool.rows(TEST)
    if config.eval.get("compare_scores", True):
        members = build.training_members(config, pool)[: pool.num_classes]
        found = scoring.Scorers(inference, variables, members, pool.label).score(asked)
    else:
        found = scoring.bare(inference, variables, asked)
    rows = found.rows
    scored, posterior = fitted.classify(found.logits, pool.label[rows], pool.group_names(rows))
    result = {"step": step, "objective": fitted.objective}
    result |= evaluation.evaluate_split(scored, classes=pool.classes, kinds=kinds)
    result["counts"]["skipped"] = len(asked) - len(rows)
    held_out = len(pool.rows(VALIDATION, "held_out_negatives")) > 0
    alike = fitted.rule.name == "keep_knowns" or not held_out  # held-out negatives are of other kinds than those tested on
    result |= evaluation.operating_point(scored, classes=pool.classes, kinds=kinds, fitted=fitted, promised=alike)
    before = classifier.uncalibrated(fitted.objective, found.logits), np.asarray(training_prior)
    posteriors = {"before": before, "after": (posterior, fitted.prior)}
    result["calibration"] = evaluation.calibration(scored, posteriors, kinds=kinds)
    result["scores"] = evaluation.compare_scores(scored, found.values, kinds=kinds, own=result["open_set"])
    result["scores_left_out"] = found.left_out
    shown = _mistakes(pool, inference, variables, rows, scored, posterior, kinds)
    if is_first_process():
        about = {"kinds": kinds, "fitted": fitted, "under_fitted": fitted.fitted(found.logits), "gallery": shown}
        with write_whole(workdir / "report.html") as file:
            file.write(page.render(result, scored, **about))
        with write_whole(workdir / "scores.csv") as file:
            _write_scores(file, pool, rows, scored, posterior, found.values)
        with write_whole(workdir / "metrics.json") as file:  # the last: it says that all is there
            file.write(json.dumps(result, indent=2) + "\n")
    say(console.result_table(result))
    say(
        f"Written to {workdir}: report.html (open it in a browser), metrics.json, scores.csv (one row per test image), "
        "decision.json (the threshold and how it was chosen), metrics.jsonl, config.json, checkpoints/"
    )
    return result


def _mistakes(pool, inference, variables, rows, scored, posterior, kinds):
    """What the page's gallery shows: title -> mistakes."""
    from openset_jax.report import gallery

    chosen, names = gallery.worst(scored, posterior, kinds), [*pool.classes, "none"]
    every = np.unique(np.concatenate(list(chosen.values())))
    if not len(every):
        return {}
    _, images = inference.whole("images", variables, rows[every])
    shown = {i: (image, id_) for i, image, id_ in zip(every.tolist(), images, pool.ids(rows[every]), strict=True)}

    def mistake(i):
        answer, score = scored.decision[i], float(scored.score[i])
        p = None if posterior is None else float(posterior[i, answer])
        return gallery.Mistake(*shown[i], scored.group[i], names[answer], score, p)

    return {title: [mistake(i) for i in found.tolist()] for title, found in chosen.items()}


def _write_scores(file, pool, rows, scored, posterior, further):
    names = [*pool.classes, "none"]
    writer = csv.writer(file, lineterminator="\n")
    probabilities = ["p_none", *(f"p_{name}" for name in pool.classes)]
    writer.writerow(["id", "group", "label", "decision", "score", *probabilities, *further])
    if posterior is None:  # nothing told of "none": no validation negatives
        posterior = np.full((len(rows), len(names)), np.nan)
    numbers = np.column_stack([scored.score, posterior[:, -1], posterior[:, :-1], *further.values()])
    columns = zip(pool.ids(rows), scored.group, scored.label, scored.decision, numbers, strict=True)
    for id_, group, label, k, values in columns:
        numbers = (repr(x) if math.isfinite(x) else "" for x in values.tolist())
        writer.writerow([id_, group, int(label), names[k], *numbers])


if __name__ == "__main__":
    cli.run(main, define_flags)
