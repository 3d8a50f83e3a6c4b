"""Restores a checkpoint, scores every test image, and says how well knowns are told apart and unknowns rejected.

python -m openset_jax.evaluate --workdir=runs/digits
"""

import csv
import json
import pathlib
from typing import Any

import numpy as np
from absl import flags

from openset_jax import cli
from openset_jax.errors import UserError


def define_flags() -> None:
    flags.DEFINE_string("workdir", None, "Folder of a training run.", required=True)
    flags.DEFINE_enum("checkpoint", "best", ["best", "last"], "Which checkpoint to evaluate.")
    cli.define_config(
        required=False,
        help="Only for data that has moved: where `data` is now, and its `input`, given as in training.",
    )


def main() -> None:
    from openset_jax.training import devices

    workdir = pathlib.Path(flags.FLAGS.workdir).expanduser().resolve()
    devices.cache_compilations()
    restore_and_evaluate(workdir, best=flags.FLAGS.checkpoint == "best", moved=flags.FLAGS.config)


def restore_and_evaluate(workdir: pathlib.Path, *, best: bool = True, moved: Any = None) -> dict[str, Any]:
    """Evaluates the best or the last checkpoint of a run on this process's devices; returns `metrics.json`.

    Args:
      moved: a config whose `data` says where the run's images are now; None where they were.

    Raises:
      UserError: no checkpoint, or images that are not those of the run.
    """
    import jax

    from openset_jax import build
    from openset_jax import config as configs
    from openset_jax.data.skipped import Skipped
    from openset_jax.report import table
    from openset_jax.training import checkpoints, devices, state
    from openset_jax.training.run_log import say

    saved = checkpoints.open_checkpoints(workdir)
    step = saved.latest()
    meta = saved.meta(step)
    if best and meta["progress"]["best_step"] is not None:
        step = meta["progress"]["best_step"]
    config = configs.from_json(meta["config"])
    config.eval.batch_size += -config.eval.batch_size % jax.device_count()  # padding is masked
    if moved is not None:
        configs.check(moved)
        if moved.data.stored_size != config.data.stored_size:
            raise UserError(f"data.stored_size: the run in {workdir} has {config.data.stored_size}; give --config the same")
    pool = build.open_pool(moved or config)
    configs.check_same_data(meta, pool.classes, pool.fingerprint(), workdir)
    say(table.pool_table(pool))

    model = build.make_model(config, pool.num_classes)
    like = jax.eval_shape(lambda: state.initial_variables(model, seed=config.seed, image_size=config.data.image_size))
    variables = devices.replicate(saved.restore_model(step, like))
    saved.close()
    skipped = Skipped(pool, config.data.max_bad_fraction)
    feed = build.make_feed(moved or config, pool, skipped)
    inference = build.make_inference(config, model, pool, feed, skipped)
    used = {"training_prior": meta["prior"], "step": step, "workdir": workdir}
    fitted = read_decision(config, step=step, workdir=workdir)
    if fitted is None:  # what is deployed is the best step's: another is looked at, and not saved
        deployed = meta["progress"]["best_step"] in (None, step)
        given = {"config": config, "training_prior": meta["prior"], "step": step}
        fitted = fit_decision(pool, inference, variables, **given, save_in=workdir if deployed else None)
    return evaluate(pool, inference, variables, fitted, **used)


def check_validation(pool: Any, config: Any, training_prior: Any) -> None:
    """Says what the validation split is used for.

    Args:
      training_prior: float [K + 1], the effective prior of training.

    Raises:
      UserError: it cannot give the metric that selects checkpoints, or what `config.decision` asks for.
    """
    from openset_jax import build
    from openset_jax.data.pools import VALIDATION
    from openset_jax.openset import decision, objectives
    from openset_jax.training.run_log import say

    metric, objective = config.early_stopping.metric, objectives.get(config.objective.name)
    negatives = _validation_negatives(pool)
    if not len(negatives) and metric == "auroc":
        raise UserError(
            "early_stopping.metric: auroc needs negatives in the validation split; set data.held_out_negatives, or raise "
            "data.validation_fraction"
        )
    asked = build.make_decision(config, pool.classes, training_prior)
    decision.check_negatives(asked["rule"], asked["calibrate"], len(negatives))
    if metric == "balanced_accuracy" and objective.softmax and not objective.none_output:
        raise UserError(
            f"early_stopping.metric: with objective.name={config.objective.name} the network never says 'none' by itself, "
            "so that balanced_accuracy of K + 1 classes is not defined; use auroc"
        )
    if len(negatives) and not len(pool.rows(VALIDATION, "held_out_negatives")):
        say(
            "No data.held_out_negatives: checkpoints and the threshold are chosen on validation images of the negatives "
            "trained on, which favours what is already seen."
        )


def _validation_negatives(pool):
    """Held-out negatives of the validation split, or those of the kinds trained on where none are held out."""
    from openset_jax.data.pools import VALIDATION

    held_out = pool.rows(VALIDATION, "held_out_negatives")
    return held_out if len(held_out) else pool.rows(VALIDATION, "negatives")


def validate(pool: Any, inference: Any, variables: Any, *, objective: str) -> dict[str, float | None]:
    """What is logged during training, on the validation split.

    `validation_auroc` and `validation_balanced_accuracy` (K+1 classes) are of knowns and held-out negatives, or seen ones
    where none are held out.
    """
    from openset_jax.data.pools import VALIDATION
    from openset_jax.openset import classifier, evaluation

    kinds = _groups(pool, {"seen": "negatives", "held_out": "held_out_negatives"})
    rows, logits = inference.logits(variables, pool.rows(VALIDATION))
    scored = classifier.read(objective, logits, pool.label[rows], _names(pool, rows))
    result = evaluation.evaluate_split(scored, classes=pool.classes, kinds=kinds, with_intervals=False)
    seen, held_out = result["open_set"]["seen"], result["open_set"]["held_out"]
    selecting = seen if held_out["auroc"] is None else held_out
    return {
        "validation_auroc": selecting["auroc"],
        "validation_auroc_seen": seen["auroc"],
        "validation_accuracy": result["known"]["accuracy"],
        "validation_balanced_accuracy": selecting["balanced_accuracy"],
    }


def fit_decision(
    pool: Any, inference: Any, variables: Any, *, config: Any, training_prior: Any, step: int, save_in: pathlib.Path | None
) -> Any:
    """Fits a `Classifier` on validation images, and saves it as `decision.json`, unless `save_in` is None.

    Args:
      training_prior: float [K + 1], the effective prior of training.
    """
    from openset_jax import build
    from openset_jax.data.pools import VALIDATION
    from openset_jax.openset import classifier
    from openset_jax.training.devices import is_first_process

    rows, logits = inference.logits(variables, np.append(pool.rows(VALIDATION, "known"), _validation_negatives(pool)))
    label = np.where(pool.label[rows] < 0, pool.num_classes, pool.label[rows])
    asked = build.make_decision(config, pool.classes, training_prior)
    fitted = classifier.fit(config.objective.name, pool.classes, logits, label, training_prior=training_prior, **asked)
    if save_in and is_first_process():
        saved = {"step": step, "asked": _asked(config), "classifier": fitted.to_json()}
        _write_whole(save_in / "decision.json", lambda file: file.write(json.dumps(saved, indent=2) + "\n"))
    return fitted


def _asked(config):
    from openset_jax import build

    return build.DECISION | dict(config.get("decision", {}))


def read_decision(config: Any, *, step: int, workdir: pathlib.Path) -> Any:
    """The `Classifier` in `decision.json`; None if there is none, or it is of another step or another `config.decision`."""
    from openset_jax.openset import classifier

    try:
        saved = json.loads((workdir / "decision.json").read_text())
    except (OSError, ValueError):
        return None
    same = saved.get("step") == step and saved.get("asked") == _asked(config)
    return classifier.Classifier.from_json(saved["classifier"]) if same else None


def evaluate(
    pool: Any, inference: Any, variables: Any, fitted: Any, *, training_prior: Any, step: int, workdir: pathlib.Path
) -> dict[str, Any]:
    """Scores the test split; prints a table, writes `metrics.json` and `scores.csv`, and returns the former.

    Args:
      fitted: the `Classifier` that decides.
      training_prior: float [K + 1], the effective prior of training.
    """
    from openset_jax.data.pools import TEST, VALIDATION
    from openset_jax.openset import classifier, evaluation
    from openset_jax.report import table
    from openset_jax.training.devices import is_first_process
    from openset_jax.training.run_log import say

    kinds = _groups(pool, {"seen_negatives": "negatives", "unseen_unknowns": "unknown"})
    asked = pool.rows(TEST)
    rows, logits = inference.logits(variables, asked)
    scored, posterior = fitted.classify(logits, pool.label[rows], _names(pool, rows))
    result = {"step": step, "objective": fitted.objective}
    result |= evaluation.evaluate_split(scored, classes=pool.classes, kinds=kinds)
    result["counts"]["skipped"] = len(asked) - len(rows)
    held_out = len(pool.rows(VALIDATION, "held_out_negatives")) > 0
    alike = fitted.rule.name == "keep_knowns" or not held_out  # held-out negatives are of other kinds than those tested on
    result |= evaluation.operating_point(scored, classes=pool.classes, kinds=kinds, fitted=fitted, promised=alike)
    before = classifier.uncalibrated(fitted.objective, logits), np.asarray(training_prior)
    posteriors = {"before": before, "after": (posterior, fitted.prior)}
    result["calibration"] = evaluation.calibration(scored, posteriors, kinds=kinds)
    if is_first_process():
        _write_whole(workdir / "metrics.json", lambda file: file.write(json.dumps(result, indent=2) + "\n"))
        _write_whole(workdir / "scores.csv", lambda file: _write_scores(file, pool, rows, scored, posterior))
    say(table.result_table(result))
    say(
        f"Written to {workdir}: metrics.json, scores.csv (one row per test image), decision.json (the threshold and how it "
        "was chosen), metrics.jsonl, config.json, checkpoints/"
    )
    return result


def _groups(pool, kinds):
    """`kinds` maps names of kinds of "none" to roles; the same with the groups of each."""
    return {kind: [g for g, r in zip(pool.groups, pool.roles, strict=True) if r == role] for kind, role in kinds.items()}


def _names(pool, rows):
    return np.array(pool.groups, object)[pool.group[rows]]


def _write_scores(file, pool, rows, scored, posterior):
    names = [*pool.classes, "none"]
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["id", "group", "label", "decision", "score", "p_none", *(f"p_{name}" for name in pool.classes)])
    if posterior is None:  # nothing told of "none": no validation negatives
        posterior = np.full((len(rows), len(names)), np.nan)
    columns = zip(pool.ids(rows), scored.group, scored.label, scored.decision, scored.score, posterior, strict=True)
    for id_, group, label, k, score, p in columns:
        numbers = (repr(float(x)) if np.isfinite(x) else "" for x in (score, p[-1], *p[:-1]))
        writer.writerow([id_, group, int(label), names[k], *numbers])


def _write_whole(path, write):
    """Writes a file that is there whole or not at all."""
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("w", encoding="utf-8", errors="surrogateescape") as file:  # ids are file names
        write(file)
    temporary.replace(path)


if __name__ == "__main__":
    cli.run(main, define_flags)
