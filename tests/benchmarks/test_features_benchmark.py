"""A network for vectors beside logistic regression: the figures, their differences, and the regression itself."""

import json
import pathlib
import sys

import numpy as np
import pytest
import vectors
from sklearn.metrics import roc_auc_score
from small_run import run

from benchmarks import features
from openset_jax import config as configs
from openset_jax.data import pool_builder
from openset_jax.errors import UserError
from openset_jax.openset.scored import Scored


def scored(score, known_class, label):
    return Scored(
        np.asarray(label), np.full(len(label), "g", object), np.asarray(score, float), np.asarray(known_class), None
    )


def made_up(separation, count=60, seed=0):
    """Knowns of two classes, negatives and unknowns: scores of the others are larger by `separation`."""
    rng = np.random.default_rng(seed)
    label = np.repeat([0, 1, -1, -2], count)
    known_class = np.where(rng.random(4 * count) < 0.5 + separation / 4, np.maximum(label, 0), 1 - np.maximum(label, 0))
    return scored(rng.normal(size=4 * count) + separation * (label < 0), known_class, label)


def make_pool(root, **changes):
    spec = configs.resolve(vectors.config(vectors.write(root, *vectors.vectors()), **changes), pathlib.Path("/nowhere"))[-1]
    return pool_builder.open_pool(spec.data, stored_size=None, seed=0)


def test_figures_are_of_the_knowns_and_of_each_kind_of_others():
    one = made_up(1.0)
    found = features.figures(one)
    known = one.label >= 0
    assert found["known accuracy"].value == (one.known_class == one.label)[known].mean()
    for name, label in features.LABELS.items():
        chosen = known | (one.label == label)
        assert found[name].value == pytest.approx(roc_auc_score(one.label[chosen] < 0, one.score[chosen]))
        assert found[name].low < found[name].value < found[name].high
    assert list(features.figures(one[one.label >= -1])) == ["known accuracy", "AUROC, seen"]


def test_differences_are_of_the_means_over_seeds_on_the_same_resamples():
    good, bad = made_up(1.5), made_up(0.5)
    name = features.K_CLASSES
    same = features.compare({features.OURS: [good, good], name: [good]}, resamples=10)[name]["difference"]
    assert all(tuple(interval) == (0, 0, 0) for interval in same.values())
    found = features.compare({features.OURS: [good, bad], name: [bad]}, resamples=200)
    for figure, interval in found[name]["difference"].items():
        first, second = (one[figure].value for one in found[features.OURS]["seeds"])
        assert interval.value == pytest.approx((first - second) / 2)
        assert 0 < interval.low < interval.value < interval.high


def test_the_table_has_all_models_and_the_range_of_the_seconds():
    models = {name: [made_up(1.0)] for name in (features.OURS, features.K_CLASSES, features.WITH_NONE)}
    models[features.OURS] *= 2
    costs = {name: [{"seconds": 2.0}] for name in models}
    costs[features.OURS] = [{"seconds": 9.0, "peak_bytes": 2**29}, {"seconds": 11.0, "peak_bytes": 2**30}]
    lines = features.report(features.compare(models, resamples=10), costs).splitlines()
    assert lines[0] == "|  | known accuracy | AUROC, seen | AUROC, unseen | seconds |"
    assert lines[2].startswith("| openset_jax, 2 seeds | ") and lines[2].endswith(" | 9.0 to 11.0 |")
    assert lines[3].startswith(f"| {features.K_CLASSES} | ") and lines[3].endswith(" | 2.0 |")
    assert lines[4] == f"| openset_jax less {features.K_CLASSES}" + " | +0.000 (+0.000 to +0.000)" * 3 + " |  |"
    assert "512 to 1,024 MiB" in lines[-1]


def test_the_regression_of_two_classes_separates_them_and_that_with_none_also_its_negatives(tmp_path):
    pool = make_pool(tmp_path / "vectors")
    for with_none in (False, True):
        found = features.figures(features.regression(pool, with_none=with_none))
        assert found["known accuracy"].value == 1
    assert found["AUROC, seen"].value == 1


def test_the_regression_with_none_needs_negatives(tmp_path):
    pool = make_pool(tmp_path / "vectors", **{"data.negatives": None, "objective.name": "softmax"})
    features.regression(pool, with_none=False)
    with pytest.raises(UserError, match="there are no negatives to train on"):
        features.regression(pool, with_none=True)


@pytest.mark.slow
def test_the_command_trains_each_seed_and_writes_the_table(tmp_path):
    root, out = vectors.write(tmp_path / "vectors", *vectors.vectors()), tmp_path / "result.json"
    fields = ("--config=configs/features.py", f"--config.data.root={root}", "--config.steps=20", "--config.batch_size=16")
    command = [sys.executable, "-m", "benchmarks.features", *fields, "--seeds=1", "--resamples=10", f"--json={out}"]
    done = run(command)
    assert done.returncode == 0, done.stderr
    assert "| openset_jax, 1 seeds | 1.000 (" in done.stdout
    assert json.loads(out.read_text())["costs"]["openset_jax"][0]["peak_bytes"] > 1e8
    done = run([*command[:3], *fields, "--config.objective.name=nothing"])
    assert done.returncode == 2
    assert "exit code 2" in done.stderr and "objective.name" in done.stderr
