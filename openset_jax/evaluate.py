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
    return evaluate(pool, inference, variables, step=step, workdir=workdir)


def check_validation(pool: Any, metric: str) -> None:
    """Raises UserError unless the validation split can give the metric that selects checkpoints; says what it uses."""
    from openset_jax.data.pools import VALIDATION
    from openset_jax.training.run_log import say

    if len(pool.rows(VALIDATION, "held_out_negatives")):
        return
    if not len(pool.rows(VALIDATION, "negatives")) and metric == "auroc":
        raise UserError(
            "early_stopping.metric: auroc needs negatives in the validation split; set data.held_out_negatives, or raise "
            "data.validation_fraction"
        )
    say(
        "No data.held_out_negatives: checkpoints are selected on validation images of the negatives trained on, which "
        "favours what is already seen."
    )


def validate(pool: Any, inference: Any, variables: Any) -> dict[str, float | None]:
    """What is logged during training, on the validation split.

    `validation_auroc` and `validation_balanced_accuracy` (K+1 classes) are of knowns and held-out negatives, or seen ones
    where none are held out.
    """
    from openset_jax.data.pools import VALIDATION

    result, _ = _evaluate_rows(
        pool, inference, variables, pool.rows(VALIDATION), {"seen": "negatives", "held_out": "held_out_negatives"}
    )
    seen, held_out = result["open_set"]["seen"], result["open_set"]["held_out"]
    selecting = seen if held_out["auroc"] is None else held_out
    return {
        "validation_auroc": selecting["auroc"],
        "validation_auroc_seen": seen["auroc"],
        "validation_accuracy": result["known"]["accuracy"],
        "validation_balanced_accuracy": selecting["balanced_accuracy"],
    }


def evaluate(pool: Any, inference: Any, variables: Any, *, step: int, workdir: pathlib.Path) -> dict[str, Any]:
    """Scores the test split; prints a table, writes `metrics.json` and `scores.csv`, and returns the former."""
    from openset_jax.data.pools import TEST
    from openset_jax.report import table
    from openset_jax.training.devices import is_first_process
    from openset_jax.training.run_log import say

    kinds = {"seen_negatives": "negatives", "unseen_unknowns": "unknown"}
    rows = pool.rows(TEST)
    result, scored = _evaluate_rows(pool, inference, variables, rows, kinds)
    result = {"step": step, **result}
    result["counts"]["skipped"] = len(rows) - len(scored[0])
    if is_first_process():
        _write_whole(workdir / "metrics.json", lambda file: file.write(json.dumps(result, indent=2) + "\n"))
        _write_whole(workdir / "scores.csv", lambda file: _write_scores(file, pool, *scored))
    say(table.result_table(result))
    say(f"Written to {workdir}: metrics.json, scores.csv (one row per test image), metrics.jsonl, config.json, checkpoints/")
    return result


def _evaluate_rows(pool, inference, variables, rows, kinds):
    """(metrics, (rows that could be read, their logits)); `kinds` maps names of kinds of "none" to roles."""
    from openset_jax.openset.evaluation import evaluate_split

    rows, logits = inference.logits(variables, rows)
    groups = {kind: [g for g, r in zip(pool.groups, pool.roles, strict=True) if r == role] for kind, role in kinds.items()}
    names = np.array(pool.groups, object)[pool.group[rows]]
    return evaluate_split(logits, pool.label[rows], names, classes=pool.classes, kinds=groups), (rows, logits)


def _write_scores(file, pool, rows, logits):
    from openset_jax.openset import scores

    names = [*pool.classes, "none"]
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["id", "group", "label", "decision", "score", "p_none", *(f"p_{name}" for name in pool.classes)])
    posterior, score = scores.softmax(logits), scores.none_log_odds(logits)
    for id_, row, k, s, p in zip(pool.ids(rows), rows, logits.argmax(1), score, posterior, strict=True):
        group = pool.groups[pool.group[row]]
        writer.writerow([id_, group, int(pool.label[row]), names[k], *map(repr, map(float, (s, p[-1], *p[:-1])))])


def _write_whole(path, write):
    """Writes a file that is there whole or not at all."""
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("w", encoding="utf-8", errors="surrogateescape") as file:  # ids are file names
        write(file)
    temporary.replace(path)


if __name__ == "__main__":
    cli.run(main, define_flags)
