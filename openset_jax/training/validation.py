"""The validation split: it selects the checkpoint during training, and the decision is fitted on it afterwards."""

import numpy as np

from openset_jax.data.pools import VALIDATION, Pool
from openset_jax.errors import UserError
from openset_jax.openset.decision import classifier, thresholds
from openset_jax.openset.losses.objectives import Objective
from openset_jax.openset.metrics import evaluation
from openset_jax.spec import RunSpec
from openset_jax.training.inference import Inference
from openset_jax.training.state import Variables

Outputs = tuple[np.ndarray, np.ndarray]  # the readable rows of the split, int64 [n]; their logits, float32 [n, outputs]


def check(pool: Pool, spec: RunSpec, training_prior: np.ndarray) -> str:
    """Returns a warning or ""; raises UserError if `early_stopping.metric` or `decision` does not suit the split's images.

    Args:
      training_prior: float [K + 1], the effective prior of training.
    """
    negatives, metric, one_class = _negatives(pool), spec.stopping.metric, pool.num_classes == 1
    if one_class and metric == "accuracy":
        raise UserError(
            f"early_stopping.metric: there is only one known class, {pool.classes[0]!r}, so that the accuracy among the "
            "known classes is always 1; use auroc or balanced_accuracy"
        )
    if not len(negatives) and metric != "accuracy":
        raise UserError(
            f"early_stopping.metric: {metric} needs negatives in the validation split; set data.held_out_negatives, or "
            f"raise data.validation_fraction{'' if one_class else ', or use early_stopping.metric=accuracy'}"
        )
    decision = spec.decision.resolve(pool.classes, training_prior)
    thresholds.check_negatives(decision.rule, decision.calibrate, len(negatives))
    if len(negatives) and not len(pool.rows(VALIDATION, "held_out_negatives")):
        return (
            "No data.held_out_negatives: checkpoint and threshold are chosen on validation images of the negatives that are "
            "trained on; they may suit unseen unknowns less well."
        )
    return ""


def _negatives(pool: Pool) -> np.ndarray:
    """Held-out negatives of the validation split; if there are none, its images of the negatives that are trained on."""
    held_out = pool.rows(VALIDATION, "held_out_negatives")
    return held_out if len(held_out) else pool.rows(VALIDATION, "negatives")


def compute_outputs(pool: Pool, inference: Inference, variables: Variables) -> Outputs:
    """Runs the network over the validation split. Raises UserError if no image of a class, or no negative, is readable."""
    split = pool.rows(VALIDATION)
    outputs = inference.logits(variables, split)
    readable = np.zeros(len(pool), bool)
    readable[outputs[0]] = True
    needed = {name: split[pool.label[split] == k] for k, name in enumerate(pool.classes)} | {"none": _negatives(pool)}
    for name, rows in needed.items():
        if len(rows) and not readable[rows].any():
            raise UserError(
                f"none of the {len(rows)} validation images of {name!r} is readable, and the decision is fitted on them; "
                "replace them"
            )
    return outputs


def metrics(pool: Pool, outputs: Outputs, objective: Objective) -> dict[str, float | None]:
    """Returns the validation metrics that are logged during training; `evaluate_split` says which are None.

    `validation_auroc` and `validation_balanced_accuracy` (K + 1 classes) compare knowns with held-out negatives, or
    with seen negatives if none are held out. Unknowns are the positive side of the AUROC.
    """
    kinds = pool.kinds({"trained_on": "negatives", "held_out": "held_out_negatives"})
    rows, logits = outputs
    scored = classifier.interpret(objective, logits, pool.label[rows], pool.group_names(rows))
    result = evaluation.evaluate_split(scored, classes=pool.classes, kinds=kinds, with_intervals=False)
    trained_on, held_out = result["open_set"]["trained_on"], result["open_set"]["held_out"]
    selecting = trained_on if held_out["auroc"] is None else held_out
    return {
        "validation_auroc": selecting["auroc"],
        "validation_auroc_seen": trained_on["auroc"],
        "validation_accuracy": result["known"]["accuracy"],
        "validation_balanced_accuracy": selecting["balanced_accuracy"],
    }


def decision_data(pool: Pool, outputs: Outputs) -> tuple[np.ndarray, np.ndarray]:
    """(logits float32 [n, outputs], label int32 [n] in [0, K], K for "none") of the images that decisions are fitted on."""
    rows, logits = outputs
    known, negatives = pool.label[rows] >= 0, np.isin(rows, _negatives(pool))
    chosen = np.append(np.flatnonzero(known), np.flatnonzero(negatives))
    label = pool.label[rows[chosen]]
    return logits[chosen], np.where(label < 0, pool.num_classes, label).astype(np.int32)
