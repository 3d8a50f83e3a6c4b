"""What the validation split is for: selecting the checkpoint while training, and then fitting the decision."""

import json
import pathlib
import zipfile
import zlib
from typing import Any, NamedTuple

import numpy as np

from openset_jax.errors import UserError
from openset_jax.files import write_whole

DECISION, OUTPUTS = "decision.json", "validation.npz"  # in the workdir


def check(pool: Any, config: Any, training_prior: Any) -> None:
    """Says what the validation split is used for.

    Args:
      training_prior: float [K + 1], the effective prior of training.

    Raises:
      UserError: it cannot give the metric that selects checkpoints, or what `config.decision` asks for.
    """
    from openset_jax import build
    from openset_jax.data.pools import VALIDATION
    from openset_jax.openset.decision import thresholds
    from openset_jax.openset.losses import objectives
    from openset_jax.training.run_log import say

    metric, objective = config.early_stopping.metric, objectives.get(config.objective.name)
    negatives = _negatives(pool)
    if not len(negatives) and metric == "auroc":
        raise UserError(
            "early_stopping.metric: auroc needs negatives in the validation split; set data.held_out_negatives, or raise "
            "data.validation_fraction"
        )
    asked = build.make_decision(config, pool.classes, training_prior)
    thresholds.check_negatives(asked["rule"], asked["calibrate"], len(negatives))
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


def _negatives(pool):
    """Held-out negatives of the validation split, or those of the kinds trained on where none are held out."""
    from openset_jax.data.pools import VALIDATION

    held_out = pool.rows(VALIDATION, "held_out_negatives")
    return held_out if len(held_out) else pool.rows(VALIDATION, "negatives")


class Seen(NamedTuple):
    """A network's outputs on the validation split.

    Attributes:
      rows: that could be read, int64 [n].
      logits: float32 [n, outputs].
    """

    rows: np.ndarray
    logits: np.ndarray


def look(pool: Any, inference: Any, variables: Any) -> Seen:
    """One pass over the validation split, which is all that this module needs of a network."""
    from openset_jax.data.pools import VALIDATION

    return Seen(*inference.logits(variables, pool.rows(VALIDATION)))


def measure(pool: Any, seen: Seen, *, objective: str) -> dict[str, float | None]:
    """What is logged during training.

    `validation_auroc` and `validation_balanced_accuracy` (K+1 classes) are of knowns and held-out negatives, or seen ones
    where none are held out.
    """
    from openset_jax.openset.decision import classifier
    from openset_jax.openset.metrics import evaluation

    kinds = pool.kinds({"trained_on": "negatives", "held_out": "held_out_negatives"})
    scored = classifier.read(objective, seen.logits, pool.label[seen.rows], pool.group_names(seen.rows))
    result = evaluation.evaluate_split(scored, classes=pool.classes, kinds=kinds, with_intervals=False)
    trained_on, held_out = result["open_set"]["trained_on"], result["open_set"]["held_out"]
    selecting = trained_on if held_out["auroc"] is None else held_out
    return {
        "validation_auroc": selecting["auroc"],
        "validation_auroc_seen": trained_on["auroc"],
        "validation_accuracy": result["known"]["accuracy"],
        "validation_balanced_accuracy": selecting["balanced_accuracy"],
    }


def outputs(pool: Any, seen: Seen) -> tuple[np.ndarray, np.ndarray]:
    """(logits float32 [n, outputs], label int32 [n] in [0, K], K for "none") of what decisions are fitted on."""
    known, negatives = pool.label[seen.rows] >= 0, np.isin(seen.rows, _negatives(pool))
    chosen = np.append(np.flatnonzero(known), np.flatnonzero(negatives))
    label = pool.label[seen.rows[chosen]]
    return seen.logits[chosen], np.where(label < 0, pool.num_classes, label).astype(np.int32)


def fit_decision(pool: Any, seen: Seen, *, config: Any, training_prior: Any, step: int, save_in: pathlib.Path | None) -> Any:
    """Fits a `Classifier` on validation images. Saves it, and the outputs that it was fitted on, unless `save_in` is None.

    Args:
      training_prior: float [K + 1], the effective prior of training.
    """
    from openset_jax import build
    from openset_jax.openset.decision import classifier
    from openset_jax.training.devices import is_first_process

    logits, label = outputs(pool, seen)
    asked = build.make_decision(config, pool.classes, training_prior)
    fitted = classifier.fit(config.objective.name, pool.classes, logits, label, training_prior=training_prior, **asked)
    if save_in and is_first_process():
        save_decision(fitted, logits, label, config=config, step=step, workdir=save_in)
    return fitted


def save_decision(
    fitted: Any, logits: np.ndarray, label: np.ndarray, *, config: Any, step: int, workdir: pathlib.Path
) -> None:
    """Writes what `saved_decision` and `saved_outputs` read."""
    with write_whole(workdir / OUTPUTS, "wb") as file:
        np.savez(file, logits=logits, label=label, step=step)
    with write_whole(workdir / DECISION) as file:
        file.write(json.dumps({"step": step, "asked": _asked(config), "classifier": fitted.to_json()}, indent=2) + "\n")


def _asked(config):
    from openset_jax import build

    return build.DECISION | dict(config.get("decision", {}))


def read_decision(config: Any, *, step: int, workdir: pathlib.Path) -> Any:
    """The `Classifier` that was saved; None if there is none, or it is of another step or another `config.decision`."""
    try:
        saved_step, fitted, asked = saved_decision(workdir)
    except UserError:
        return None
    return fitted if saved_step == step and asked == _asked(config) else None


def saved_decision(workdir: pathlib.Path) -> tuple[int, Any, dict[str, Any]]:
    """(step, `Classifier`, the `config.decision` it was fitted for), as they were saved.

    Raises:
      UserError: there is none, or it cannot be read.
    """
    from openset_jax.openset.decision.classifier import Classifier

    again = f"run python -m openset_jax.evaluate --workdir={workdir}"
    try:
        saved = json.loads((workdir / DECISION).read_text())
        return saved["step"], Classifier.from_json(saved["classifier"]), saved["asked"]
    except FileNotFoundError as error:
        raise UserError(f"--workdir: {workdir} has no {DECISION}, which training ends with; {again}") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, UserError) as error:
        raise UserError(
            f"--workdir: {workdir / DECISION} is broken, or of another version ({type(error).__name__}: {error}); to write "
            f"it anew, {again}"
        ) from error


def saved_outputs(workdir: pathlib.Path, step: int) -> tuple[np.ndarray, np.ndarray]:
    """What `outputs` gave when the decision of this step was fitted.

    Raises:
      UserError: it was not saved.
    """
    try:
        with np.load(workdir / OUTPUTS) as saved:
            if int(saved["step"]) == step:
                return saved["logits"], saved["label"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        pass
    raise UserError(
        f"--workdir: {workdir} has no whole {OUTPUTS} of step {step}; remove {DECISION} there and run python -m "
        f"openset_jax.evaluate --workdir={workdir}"
    )
