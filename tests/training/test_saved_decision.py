"""The saved decision of a run: what is read back is what was written, or the file and the field are named."""

import json

import numpy as np
import pytest

from openset_jax.errors import UserError
from openset_jax.openset.decision import classifier, prior_and_costs, thresholds
from openset_jax.openset.losses import objectives
from openset_jax.spec import DecisionSpec
from openset_jax.training import saved_decision

ASKED = DecisionSpec("keep_knowns", 0.95, 0.05, prior="", costs="", calibration="")


def write(workdir, classes=("a", "b")):
    """Writes the decision of step 7 for outputs of K + 1 classes; returns these outputs and their labels."""
    k, rng = len(classes), np.random.default_rng(0)
    logits, label = rng.normal(size=(3 * (k + 1), k + 1)).astype(np.float32), np.tile(np.arange(k + 1, dtype=np.int32), 3)
    prior = np.full(k + 1, 1 / (k + 1))
    fitted = classifier.fit(
        objectives.get("background"), classes, logits, label, training_prior=prior, prior=prior, resamples=1,
        calibrate="none", costs=prior_and_costs.cost_matrix(None, classes), rule=thresholds.Rule("keep_knowns", 0.95),
    )  # fmt: skip
    saved_decision.write(saved_decision.SavedDecision(7, fitted, ASKED), logits, label, workdir)
    return logits, label


def test_what_was_written_is_read(tmp_path):
    logits, label = write(tmp_path)
    step, fitted, asked = saved_decision.read(tmp_path)
    assert (step, asked, fitted.classes) == (7, ASKED, ("a", "b"))
    found = saved_decision.read_outputs(tmp_path, 7, 2)
    np.testing.assert_array_equal(found[0], logits)
    np.testing.assert_array_equal(found[1], label)


def test_the_decision_of_1000_classes_is_a_small_file(tmp_path):
    write(tmp_path, tuple(f"class {k}" for k in range(1_000)))
    assert (tmp_path / "decision.json").stat().st_size < 100_000


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"step": 7.5}, "step must be a whole number"),
        ({"classifier": None}, "NoneType"),
        ({"threshold": {"value": float("nan")}}, "classifier.threshold is not valid"),
        ({"prior": [0.5, 0.5, float("nan")]}, "classifier.prior is not valid: .* entry 2 is nan"),
    ],
)
def test_the_file_and_the_field_are_named(tmp_path, change, says):
    write(tmp_path)
    saved = json.loads((tmp_path / "decision.json").read_text())
    of_classifier = change.keys() & {"threshold", "prior"}
    changed = {"classifier": saved["classifier"] | change} if of_classifier else change
    (tmp_path / "decision.json").write_text(json.dumps(saved | changed))
    with pytest.raises(UserError, match=f"decision.json is damaged .*{says}.*; to write it anew, run"):
        saved_decision.read(tmp_path)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("step", 8, "it is of step 8"),
        ("logits", np.full((9, 3), np.nan), "logits: row 0 of 9 is not finite"),
        ("logits", np.zeros(9), "logits must have 2 axes"),
        ("label", np.arange(9), "label 3 of 9 is 3"),
        ("label", np.zeros(4, int), "one for each image"),
    ],
)
def test_validation_outputs_are_checked(tmp_path, name, value, says):
    logits, label = write(tmp_path)
    np.savez(tmp_path / "validation.npz", **{"logits": logits, "label": label, "step": 7, name: value})
    with pytest.raises(UserError, match=rf"validation.npz of step 7 is missing or damaged in .*{says}.*; delete"):
        saved_decision.read_outputs(tmp_path, 7, 2)
