"""The saved outputs of an arm: checked when they are read; a bug in what follows is not called a damaged file."""

import json

import numpy as np
import pytest

from openset_jax.errors import UserError
from openset_jax.spec import DecisionSpec
from openset_jax.study.runs import arm_folder
from openset_jax.study.runs.grid import Arm
from openset_jax.study.stats.treatments import Treatment

ARM = Arm(Treatment(()), 0, "a")
ABOUT = {
    "objective": "background", "classes": ["a", "b"], "kinds": {"seen_negatives": ["n"], "unseen_unknowns": ["u"]},
    "groups": ["a", "b", "n", "u"], "training_prior": [0.25, 0.25, 0.5], "negatives": 9, "negative_groups": 1,
    "class_sizes": [5, 6], "fingerprint": "x",
    "training": {
        "start": "/w/arms/a", "trainable": "head", "layers": 1, "all_layers": 8, "flops": 1e9, "memory": 2**20,
        "images_per_second": None,
    },
}  # fmt: skip
ARRAYS = {
    "logits": np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32),
    "label": np.array([0, 0, 1, 1, -1, -1, -2, -2], np.int32),
    "group": np.array([0, 0, 1, 1, 2, 2, 3, 3], np.int32),
    "key": np.arange(8, dtype=np.uint64),
    "validation_logits": np.random.default_rng(1).normal(size=(6, 3)).astype(np.float32),
    "validation_label": np.array([0, 1, 2, 0, 1, 2], np.int32),
}


def read(folder, *, arm=ARM, prior="", about=ABOUT, **changed):
    np.savez(folder / arm_folder.OUTCOME, **{**ARRAYS, "about": np.array(json.dumps(about)), **changed})
    decision = DecisionSpec("keep_knowns", 0.95, 0.05, prior=prior, costs="", calibration="")
    return arm_folder.read_outcome(folder, arm, decision)


def test_an_outcome_is_read(tmp_path):
    found = read(tmp_path)
    assert found.classes == ("a", "b") and found.class_sizes == (5, 6) and len(found.decisions) == 4
    assert found.training.start == "/w/arms/a", "the folder of the run's init_from"
    arm = Arm(Treatment((("init_from", "arm:x=1"),)), 0, "a")
    assert read(tmp_path, arm=arm).training.start == "arm:x=1", "not the arm's folder, which has no name"


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"logits": np.full((8, 3), np.nan)}, "logits: row 0 of 8 is not finite"),
        ({"logits": np.zeros((8, 2))}, "logits has 2 outputs; background has 3"),
        ({"label": np.array([0, 0, 1, 2, -1, -1, -2, -2])}, "label must be from -2 to 1; it is from -2 to 2"),
        ({"group": np.zeros(7, int)}, "group must be 8 whole numbers"),
        ({"group": np.arange(8)}, "group must be from 0 to 3"),
        ({"key": np.zeros(8)}, "key must be 8 whole numbers, not float64"),
        ({"validation_label": np.array([0, 1, 2, 0, 1, -1])}, "validation_label must be from 0 to 2"),
        ({"about": ABOUT | {"training_prior": [0.5, 0.5]}}, "training_prior must have 3 numbers"),
        ({"about": ABOUT | {"class_sizes": [5]}}, "class_sizes has 1 numbers for 2 classes"),
        ({"about": ABOUT | {"negatives": -1}}, "negatives must be a whole number"),
        ({"about": ABOUT | {"kinds": {"seen_negatives": ["m"]}}}, "kinds: 'm' is not one of the groups"),
        ({"about": ABOUT | {"training": ABOUT["training"] | {"layers": 1.5}}}, "training.layers must be a whole number"),
        ({"about": ABOUT | {"training": ABOUT["training"] | {"memory": -1}}}, "training.memory: -1 is not 0 or more"),
        ({"about": ABOUT | {"training": ABOUT["training"] | {"flops": float("nan")}}}, "training.flops: nan is not"),
        ({"about": ABOUT | {"objective": "newer"}}, "newer"),
        ({"about": {"objective": "background"}}, "classes"),
    ],
)
def test_the_file_and_the_field_are_named(tmp_path, changed, says):
    with pytest.raises(UserError, match=f"outcome.npz is damaged .*{says}.*; remove the file"):
        read(tmp_path, **changed)


def test_a_prior_that_does_not_fit_the_classes_does_not_blame_the_file(tmp_path):
    with pytest.raises(UserError, match="^decision.prior: no class 'owl'"):
        read(tmp_path, prior="owl=0.5")


def test_a_bug_does_not_blame_the_file(tmp_path, monkeypatch):
    def fit(*_, **__):
        raise ValueError("operands could not be broadcast together")

    monkeypatch.setattr("openset_jax.study.runs.outcome.classifier.fit", fit)
    with pytest.raises(ValueError, match="^operands"):
        read(tmp_path)
