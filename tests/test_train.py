"""A run from its config to its files, and the errors that end it before training."""

import csv
import json
import re

import numpy as np
import pytest
import vectors
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score
from small_run import (
    LEARNS,
    SAVES_OFTEN,
    SMALL,
    assert_same_run,
    command,
    lines,
    restore_and_evaluate,
    run,
    small_config,
    train,
)

from openset_jax.errors import UserError
from openset_jax.openset.losses import objectives
from openset_jax.prepare import prepare
from openset_jax.training import forecast, training_loop
from openset_jax.training.restore import restore


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of a few seconds that learns something, by the command."""
    workdir = tmp_path_factory.mktemp("trained")
    done = run(command("train", f"--workdir={workdir}", **LEARNS | {"steps": 150, "eval.every": 50, "log_every": 25}))
    assert done.returncode == 0, done.stderr
    return workdir, done.stdout


def test_it_learns_and_says_so(trained):
    workdir, said = trained
    result = json.loads((workdir / "metrics.json").read_text())
    assert result["known"]["accuracy"]["value"] > 0.8
    assert result["open_set"]["seen_negatives"]["auroc"]["value"] > 0.8
    assert "150 steps of 32 images: 5.5 epochs of the 622 training images of the known classes." in said
    assert len(re.findall(r"About .* for the 150 steps, measured on \d+ of them; evaluation is not included\.", said)) == 1
    assert "Warning" not in said
    for word in ("known classes", "seen negatives", "unseen unknowns", "Confusion", "fc: fc6, fc7", str(workdir)):
        assert word in said
    losses = [row["loss"] for row in lines(workdir)]
    assert losses[-1] < losses[0] / 2


def test_metrics_json_has_the_documented_schema_and_counts_every_test_image(trained):
    workdir, _ = trained
    result = json.loads((workdir / "metrics.json").read_text())
    assert result["step"] in (50, 100, 150)
    assert set(result["open_set"]) == {"seen_negatives", "unseen_unknowns", "together", "by_group"}
    assert set(result["open_set"]["by_group"]) == {"5", "6", "8", "9"}
    counts = result["counts"]
    total = sum(sum(counts[k].values()) for k in ("known", "seen_negatives", "unseen_unknowns"))
    assert counts["skipped"] == 0
    assert total == np.sum(result["confusion"]["counts"]) == len((workdir / "scores.csv").read_text().splitlines()) - 1
    assert np.sum(result["confusion"]["counts"][5]) == sum(counts["seen_negatives"].values())


def test_scores_csv_gives_the_same_numbers_as_metrics_json(trained):
    workdir, _ = trained
    result = json.loads((workdir / "metrics.json").read_text())
    with (workdir / "scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    label, score = np.array([int(r["label"]) for r in rows]), np.array([float(r["score"]) for r in rows])
    for name, negative in (("seen_negatives", -1), ("unseen_unknowns", -2)):
        use = (label >= 0) | (label == negative)
        assert roc_auc_score(label[use] < 0, score[use]) == pytest.approx(
            result["open_set"][name]["auroc"]["value"], abs=1e-12
        )
        rejected = np.mean([r["decision"] == "none" for r in rows if int(r["label"]) == negative])
        assert rejected == pytest.approx(result["operating_point"]["rejected"][name]["value"])
    threshold = json.loads((workdir / "decision.json").read_text())["classifier"]["threshold"]["value"]
    assert [r["decision"] == "none" for r in rows] == (score > threshold).tolist()
    assert threshold == result["operating_point"]["threshold"]["value"]
    p = np.array([[float(r[f"p_{c}"]) for c in ("0", "1", "2", "3", "4", "none")] for r in rows])
    np.testing.assert_allclose(p.sum(1), 1)
    known = label >= 0
    assert (p[known, :5].argmax(1) == label[known]).mean() == pytest.approx(result["known"]["accuracy"]["value"])


def test_metrics_jsonl_has_a_line_per_logging_step_with_the_documented_fields(trained):
    workdir, _ = trained
    rows = lines(workdir)
    assert [row["step"] for row in rows] == [25, 50, 75, 100, 125, 150]
    for row in rows:
        assert {"loss", "accuracy", "none_rate", "learning_rate"} <= row.keys()
        assert ("validation_auroc" in row) == (row["step"] % 50 == 0)
    assert json.loads((workdir / "config.json").read_text())["steps"] == 150


def test_equal_runs_leave_equal_files(tmp_path, uninterrupted_again):
    train(small_config(), tmp_path)
    for name in ("metrics.json", "scores.csv"):
        assert (tmp_path / name).read_bytes() == (uninterrupted_again / name).read_bytes()


@pytest.fixture(scope="module")
def uninterrupted_again(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("again")
    train(small_config(), workdir)
    return workdir


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"data.known.source": "folder:/nowhere"}, "data.known: folder:/nowhere: there is no folder"),
        ({"data.known.source": "tfds:no_such_set"}, "data.known: tfds:no_such_set"),
        ({"data.negatives.source": "imagenet"}, "data.negatives: source 'imagenet': not one of"),
        ({"data.negatives.classes": ("twelve",)}, "data.negatives: no class 'twelve' in digits; it has 0, 1, 2"),
        ({"data.negatives.classes": ("3",)}, "'3' .* is already in data.known"),
        (
            {"data.known.classes": ("1",), "objective.name": "softmax"},
            "objective.name: softmax is a softmax over the known classes, and there is only one, '1'",
        ),
        (
            {"data.known.classes": ("1",), "early_stopping.metric": "accuracy"},
            "early_stopping.metric: there is only one known class, '1', .* use auroc",
        ),
        ({"data.known.limit": 2}, "data.known: class .* has no .* images"),
        ({"data.known": None}, "data.known: empty"),
        ({"sampling.policy": "smote"}, "sampling.policy: 'smote' is not one of natural"),
        ({"sampling.negatives": 10**6}, "sampling.negatives: 1,000,000 is not between 1 and "),
        ({"objective.name": "hinge"}, "objective.name"),
        ({"model.name": "resnet"}, "model.name"),
        ({"optimizer.schedule": "step"}, "optimizer.schedule"),
        ({"data.held_out_negatives": None, "data.negatives.limit": 1}, "early_stopping.metric: auroc needs negatives"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_training(tmp_path, changes, says):
    with pytest.raises(UserError, match=says):
        train(small_config(**changes), tmp_path)
    assert not (tmp_path / "metrics.jsonl").exists()


def test_a_workdir_of_another_network_is_refused_and_left_as_it_was(tmp_path):
    train(small_config(steps=2), tmp_path)
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    with pytest.raises(UserError, match="model.width: the run in .* has 0.0625, but this config 0.125"):
        train(small_config(**{"steps": 2, "model.width": 0.125}), tmp_path)
    with pytest.raises(UserError, match="data.known: the run in .* has the classes 0, .*; this config has 0, 1, 2, 3;"):
        train(small_config(**{"steps": 2, "data.known.classes": ("0", "1", "2", "3")}), tmp_path)
    with pytest.raises(UserError, match="the images, their roles or their splits differ"):
        train(small_config(**{"steps": 2, "data.negatives.classes": ("5",)}), tmp_path)
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")} == before


def test_a_run_may_be_made_longer_and_says_from_where_it_goes_on(tmp_path, capsys):
    config = lambda steps: small_config(**{"steps": steps, "optimizer.schedule": "constant"})
    train(config(4), tmp_path)
    train(config(4), tmp_path)
    assert "All 4 steps are done: nothing is trained, the network is evaluated again." in capsys.readouterr().out
    longer = config(1)
    longer.epochs = 0.14  # of 870 images in batches of 16: 7.6 steps, rounded up
    train(longer, tmp_path)
    assert "steps was 4, now 8: training goes on from step 4.\n" in capsys.readouterr().out
    saved = json.loads((tmp_path / "config.json").read_text())
    assert (saved["steps"], saved["epochs"]) == (8, 0.14)
    assert restore(tmp_path).spec.program.steps == 8
    assert [row["step"] for row in lines(tmp_path)] == [2, 4, 6, 8]


def test_every_call_is_timed_once_and_begins_anew_after_each_pause(tmp_path, monkeypatch):
    begun, ended = [], []

    class Recorded(forecast.Forecast):
        def begin(self, *, compiles):
            begun.append((len(ended), compiles))

        def end(self, step):
            ended.append(step)
            return ""

    monkeypatch.setattr(training_loop, "Forecast", Recorded)
    train(small_config(**SAVES_OFTEN), tmp_path)
    assert ended == list(range(1, 13))
    assert begun == [(0, True), *((step, False) for step in (3, 4, 6, 8, 9))], "after checkpoints and evaluations"


def test_fewer_steps_than_are_done_are_refused(tmp_path):
    train(small_config(steps=4), tmp_path)
    with pytest.raises(UserError, match="steps: 2 is less than the checkpoint's 4; raise it"):
        train(small_config(steps=2), tmp_path)


def test_a_run_with_fewer_kinds_of_negatives_has_the_same_ones_packed_and_when_it_is_evaluated(tmp_path):
    changes = {"data.negative_groups": 1, "data.negatives.classes": ("5", "6", "9"), "data.unknown.classes": ("8",)}
    files, packed, folder = tmp_path / "files", tmp_path / "packed", tmp_path / "of"
    for made in (files, packed, folder):
        made.mkdir()
    prepare(small_config(**changes), folder)
    config = small_config(trainable="head", seed=1, **changes)
    result = train(config, files)
    assert restore_and_evaluate(files) == result
    assert set(result["counts"]["seen_negatives"]) == {"6"}
    assert set(result["open_set"]["by_group"]) == {"6", "8"}
    config.data.packed = str(folder)
    train(config, packed)
    assert_same_run(packed, files)


@pytest.fixture(scope="module")
def digits_as_vectors(tmp_path_factory):
    """The digits' pixels as vectors, on which a hidden layer is trained in a second."""
    digits, roles = load_digits(), dict.fromkeys("01234", "known") | dict.fromkeys("56", "negatives")
    roles |= {"7": "held_out_negatives"} | dict.fromkeys("89", "unknown")
    rows = [{"id": f"{d}/{i}", "class": str(d), "role": roles[str(d)]} for i, d in enumerate(digits.target)]
    return vectors.write(tmp_path_factory.mktemp("digits"), digits.data.astype(np.float16), rows)


@pytest.mark.parametrize("name", objectives.OBJECTIVES)
def test_every_objective_trains_and_ends_in_the_same_files(tmp_path, digits_as_vectors, name):
    changes = {"objective.class_weights": "inverse_frequency"}
    if objectives.get(name).softmax:
        changes["objective.logit_adjustment"] = 0.5
    if name == "outlier_exposure":
        changes = {"decision.rule": "least_cost", "decision.prior": "none=0.7", "decision.costs": "accept_none=5"}
    size = {"steps": 80, "eval.every": 80, "batch_size": 64, "log_every": 50, "checkpoint.every": 80,
            "model.name": "mlp", "model.width": 0.1, "optimizer.warmup_steps": 10, "optimizer.learning_rate": 0.01,
            "optimizer.eps": 1e-8, "optimizer.weight_decay": 1e-4, "objective.negative_weight": None,
            "eval.compare_scores": False}  # fmt: skip
    train(vectors.config(digits_as_vectors, **{"objective.name": name} | size | changes), tmp_path)
    result = json.loads((tmp_path / "metrics.json").read_text())
    assert result["objective"] == name
    assert result["known"]["accuracy"]["value"] > 0.9
    assert result["calibration"]["seen_negatives"]["after"]["negative_log_likelihood"]["value"] < np.log(6)
    point = result["operating_point"]
    assert sum(point["prior"].values()) == pytest.approx(1)
    with (tmp_path / "scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    p = np.array([[float(r[f"p_{c}"]) for c in ("0", "1", "2", "3", "4", "none")] for r in rows])
    np.testing.assert_allclose(p.sum(1), 1)
    assert len({r["score"] for r in rows}) > len(rows) * 0.9, "scores that tie order nothing"
    if name == "one_vs_rest":
        assert restore_and_evaluate(tmp_path) == result, "the decision is used as it was saved"


def test_knowns_alone_need_no_negatives_anywhere(tmp_path):
    without = {"data.negatives": None, "data.held_out_negatives": None}
    softmax = {"objective.name": "softmax", "early_stopping.metric": "accuracy", "seed": 1}
    result = train(small_config(**LEARNS | without | softmax), tmp_path)
    assert result["open_set"]["seen_negatives"]["auroc"] is None
    # 0.88 on jax 0.10 and 0.11; without training 0.62
    assert result["open_set"]["unseen_unknowns"]["auroc"]["value"] > 0.75
    assert result["known"]["accuracy"]["value"] > 0.85
    assert result["calibration"]["unseen_unknowns"] == {"before": None, "after": None}
    with (tmp_path / "scores.csv").open() as file:
        assert next(csv.DictReader(file))["p_none"] == ""


@pytest.fixture(scope="module")
def closed_folder(tmp_path_factory):
    """A folder with known/ alone: reddish and bluish images."""
    root, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for channel, name in ((0, "red"), (2, "blue")):
        (root / "known" / name).mkdir(parents=True)
        for i in range(40):
            pixels = rng.integers(0, 100, (18, 20, 3), np.uint8)
            pixels[..., channel] += 150
            Image.fromarray(pixels).save(root / "known" / name / f"{i}.png")
    return root


def folder_config(root, **changes):
    from configs import folder

    config = folder.get_config()
    small = SMALL | {"data.root": str(root), "model.stem": "small", "model.dtype": "float32", "objective.name": "softmax"}
    config.update_from_flattened_dict(small | changes)
    return config


def test_a_folder_without_negatives_trains_an_objective_that_uses_none(tmp_path, closed_folder):
    changes = {"early_stopping.metric": "accuracy", "steps": 40, "eval.every": 20, "checkpoint.every": 20}
    changes |= {"optimizer.learning_rate": 3e-3}
    result = train(folder_config(closed_folder, **changes), tmp_path)
    assert list(result["counts"]["known"]) == ["blue", "red"]
    assert result["counts"]["seen_negatives"] == result["counts"]["unseen_unknowns"] == {}
    assert result["known"]["accuracy"]["value"] > 0.9
    assert restore_and_evaluate(tmp_path) == result


@pytest.mark.parametrize("packed", [False, True])
def test_a_metric_that_the_images_cannot_give_is_refused_before_training(tmp_path, closed_folder, packed):
    config = folder_config(closed_folder)  # early_stopping.metric=auroc
    if packed:
        prepare(config, tmp_path)
        config.data.packed, config.input = str(tmp_path), "resident"
    before = sorted(tmp_path.iterdir())
    with pytest.raises(UserError, match="^early_stopping.metric: auroc needs negatives in the validation split"):
        train(config, tmp_path)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"decision.prior": "9=0.5"}, "decision.prior: no class '9'"),
        ({"decision.prior": "none=0.5,0=0.9"}, "sum to 1.4"),
        ({"decision.costs": "[[0, 1], [1, 0]]"}, r"decision.costs: the matrix's shape is \(2, 2\).*\(6, 6\)"),
        ({"decision.rule": "best"}, "decision.rule: 'best' is not one of"),
        ({"decision.accept_negatives": 0.0001, "decision.rule": "accept_negatives"}, "needs at least 10,000 negatives"),
        ({"decision.calibration": "platt"}, "decision.calibration: 'platt'"),
        ({"objective.class_weights": "focal"}, "objective.class_weights: 'focal'"),
        ({"objective.name": "one_vs_rest", "objective.logit_adjustment": 1.0}, "has no softmax to adjust"),
        ({"objective.name": "softmax", "sampling.policy": "negative_fraction"}, "draws negatives"),
        ({"objective.negative_weight": -1.0}, "objective.negative_weight: -1.0 is not"),
        ({"objective.negative_weight": float("nan")}, "objective.negative_weight: nan is not"),
        ({"objective.margins": (-5.0, -23.0)}, "objective.margins"),
        ({"objective.margins": ("a", "b")}, "objective.margins"),
        ({"objective.name": "entropic", "early_stopping.metric": "balanced_accuracy"}, "never says 'none' by itself"),
    ],
)
def test_decisions_that_cannot_be_are_refused_before_training(tmp_path, changes, says):
    with pytest.raises(UserError, match=says):
        train(small_config(**changes), tmp_path)
    assert not (tmp_path / "checkpoints").exists()
