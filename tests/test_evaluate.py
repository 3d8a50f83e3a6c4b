"""Evaluating a restored run."""

import csv
import json
import re
import shutil
import sys

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from small_run import lines, restore_and_evaluate, run, small_config, train

from openset_jax.errors import UserError
from openset_jax.openset.scores.feature_scores import SCORES


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    train(small_config(**{"eval.compare_scores": True}), folder)
    return folder


@pytest.mark.parametrize("devices", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_the_command_writes_what_training_wrote_on_one_device_and_to_rounding_on_two(tmp_path, workdir, devices):
    shutil.copytree(workdir, tmp_path, dirs_exist_ok=True)
    wrote = {name: (tmp_path / name).read_text() for name in ("metrics.json", "scores.csv", "report.html")}
    for name in wrote:
        (tmp_path / name).unlink()
    done = run([sys.executable, "-m", "openset_jax.evaluate", f"--workdir={tmp_path}"], devices=devices)
    assert done.returncode == 0, done.stderr
    assert "seen negatives" in done.stdout
    if devices == 1:
        assert {name: (tmp_path / name).read_text() for name in wrote} == wrote
    assert json.loads((tmp_path / "metrics.json").read_text())["confusion"] == json.loads(wrote["metrics.json"])["confusion"]


def test_all_scores_are_compared_and_are_columns_of_their_own(workdir):
    result = json.loads((workdir / "metrics.json").read_text())
    assert result["scores"].keys() | result["scores_left_out"].keys() == {"own", *SCORES}
    assert result["scores"]["own"]["seen_negatives"]["auroc"] == result["open_set"]["seen_negatives"]["auroc"]
    with (workdir / "scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    known = np.array([int(row["label"]) >= 0 for row in rows])
    for name, kinds in result["scores"].items():
        values = np.array([float(row[name if name != "own" else "score"]) for row in rows])
        unseen = np.array([row["label"] == "-2" for row in rows])
        auroc = roc_auc_score(unseen[known | unseen], values[known | unseen])
        assert kinds["unseen_unknowns"]["auroc"]["value"] == pytest.approx(auroc, abs=1e-9), name


def test_the_page_says_what_metrics_json_says(workdir):
    point = json.loads((workdir / "metrics.json").read_text())["operating_point"]
    saved = re.findall('data-saved="([^"]*)" data-value="([^"]*)"', (workdir / "report.html").read_text())
    assert {"known_recall", "known_accuracy", "rejected.seen_negatives", "expected_cost.unseen_unknowns"} <= dict(
        saved
    ).keys()
    for key, value in saved:
        number = point
        for name in key.split("."):
            number = number[name]
        assert float(value) == number["value"], key


def test_the_last_checkpoint_may_be_asked_for(workdir, tmp_path):
    shutil.copytree(workdir, tmp_path, dirs_exist_ok=True)
    train(small_config(), tmp_path)  # nothing is trained: from now on no scores are compared
    decided = (tmp_path / "decision.json").read_bytes()
    assert restore_and_evaluate(tmp_path, best=False)["step"] == 12
    assert (tmp_path / "decision.json").read_bytes() == decided, "what is deployed stays"
    best = max((r for r in lines(workdir) if "validation_auroc" in r),
               key=lambda r: (r["validation_auroc"], -r["step"]))  # fmt: skip
    assert restore_and_evaluate(tmp_path, best=True)["step"] == best["step"]


def test_a_run_started_again_with_another_rule_is_evaluated_by_that_rule(tmp_path, workdir):
    """The run is finished: no checkpoint is saved, and only config.json and decision.json have the new rule."""
    shutil.copytree(workdir, tmp_path, dirs_exist_ok=True)
    changes = {"decision.rule": "least_cost", "decision.costs": "accept_none=3", "eval.compare_scores": False}
    trained = train(small_config(**changes), tmp_path)
    decided = (tmp_path / "decision.json").read_bytes()
    assert trained["operating_point"]["rule"] == "least_cost"
    assert restore_and_evaluate(tmp_path) == trained
    assert (tmp_path / "decision.json").read_bytes() == decided
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match="config.json is damaged .*; start the run's training command again"):
        restore_and_evaluate(tmp_path)
    (tmp_path / "config.json").unlink()
    assert restore_and_evaluate(tmp_path)["operating_point"]["rule"] == "keep_knowns", "as the checkpoint has it"


def test_data_that_is_not_the_runs_is_refused_and_data_that_has_moved_is_found(tmp_path, workdir):
    shutil.copytree(workdir, tmp_path, dirs_exist_ok=True)
    with pytest.raises(UserError, match="the images, their roles"):
        restore_and_evaluate(tmp_path, data_config=small_config(**{"data.unknown.limit": 20}))
    with pytest.raises(UserError, match="data.known"):
        restore_and_evaluate(tmp_path, data_config=small_config(**{"data.known.classes": ("0", "1", "2")}))
    with pytest.raises(UserError, match="data.stored_size: the run in .* has 16"):
        restore_and_evaluate(tmp_path, data_config=small_config(**{"data.stored_size": 24}))
    restore_and_evaluate(tmp_path, data_config=small_config())


def test_a_folder_that_is_no_run_is_exit_code_2(tmp_path):
    done = run([sys.executable, "-m", "openset_jax.evaluate", f"--workdir={tmp_path / 'nothing'}"])
    assert done.returncode == 2
    assert "train first" in done.stderr
    assert not (tmp_path / "nothing").exists()
