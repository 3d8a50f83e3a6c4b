"""Measurements of one arm: equal to those of scikit-learn and of a run; properties of the bootstrap."""

import dataclasses

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sklearn
from study import made_up, made_up_arms

from openset_jax.openset.metrics import evaluation, intervals, ranking
from openset_jax.study.stats import measurements
from openset_jax.study.stats.measurements import KNOWN, Measurement, measure, poisson_counts

K = len(made_up.CLASSES)
exactly = lambda value: pytest.approx(value, abs=1e-12)


@pytest.fixture(scope="module")
def arm():
    return made_up.outcome(answered_none=0.2, jitter=0.3)


@pytest.fixture(scope="module")
def measured(arm):
    return {measurement: values[0] for measurement, values in measure(arm).items()}


def images(arm, name):
    return np.isin(arm.scored.group, arm.kinds.get(name, [name])) & (arm.scored.label < 0)


@pytest.mark.parametrize("name", ["seen_negatives", "unseen_unknowns", "n1", "u2"])
def test_rankings_are_those_of_scikit_learn_and_of_a_run(arm, measured, name):
    known, none = arm.scored.label >= 0, images(arm, name)
    assert measured[Measurement("auroc", name)] == exactly(
        sklearn.roc_auc_score(none[known | none], arm.scored.score[known | none])
    )
    right = (arm.scored.known_class == arm.scored.label)[known]
    ranked = ranking.rank(arm.scored.score[known], arm.scored.score[none], right)
    assert measured[Measurement("oscr", name)] == exactly(ranking.oscr(ranked))


@pytest.mark.parametrize("kind", list(made_up.KINDS))
def test_answers_are_those_of_scikit_learn_and_of_a_run(arm, measured, kind):
    there = (arm.scored.label >= 0) | images(arm, kind)
    truth = np.where(arm.scored.label < 0, K, arm.scored.label)[there]
    for decision, answer in arm.decisions.items():
        found = sklearn.balanced_accuracy_score(truth, answer[there])
        assert measured[Measurement("balanced_accuracy", kind, decision)] == exactly(found)
        confusion = sklearn.confusion_matrix(truth, answer[there], labels=range(K + 1))
        cost = intervals.expected_cost(confusion, arm.costs, arm.deployment).value
        assert measured[Measurement("expected_cost", kind, decision)] == exactly(cost)
        assert measured[Measurement("rejected", kind, decision)] == exactly(confusion[K, K] / confusion[K].sum())
        knowns = confusion[:K]
        assert measured[Measurement("recall", KNOWN, decision)] == exactly(1 - knowns[:, K].sum() / knowns.sum())
        assert measured[Measurement("correct", KNOWN, decision)] == exactly(np.trace(knowns) / knowns.sum())


def test_the_networks_own_answers_are_what_a_run_says_of_them(arm, measured):
    result = evaluation.evaluate_split(arm.scored, classes=arm.classes, kinds=arm.kinds, with_intervals=False)
    for kind in arm.kinds:
        for metric in ("auroc", "balanced_accuracy"):
            found = measured.get(Measurement(metric, kind), measured.get(Measurement(metric, kind, "argmax")))
            assert found == exactly(result["open_set"][kind][metric])
    assert measured[Measurement("accuracy", KNOWN)] == exactly(result["known"]["accuracy"])


def test_of_a_closed_set_there_are_the_area_of_each_class_and_the_knowns():
    arm = made_up.outcome(closed=True, answered_none=0.1)
    found = {measurement: values[0] for measurement, values in measure(arm).items()}
    p = arm.probabilities.astype(np.float64)
    area = np.mean([sklearn.roc_auc_score(arm.scored.label == i, p[:, i]) for i in range(K)])
    assert found[Measurement("one_vs_rest_auc", KNOWN)] == exactly(area)
    p /= p.sum(1, keepdims=True)  # which scikit-learn insists on to 1e-8; the order stays
    of_all = sklearn.roc_auc_score(arm.scored.label, p, multi_class="ovr", average="macro")
    assert found[Measurement("one_vs_rest_auc", KNOWN)] == pytest.approx(of_all, abs=1e-6)
    recalls = [(arm.decisions["argmax"] == i)[arm.scored.label == i].mean() for i in range(K)]
    assert found[Measurement("balanced_accuracy", KNOWN, "argmax")] == exactly(np.mean(recalls))
    assert {measurement.subset for measurement in found} == {KNOWN}


@pytest.mark.parametrize("closed", [False, True])
def test_weights_are_counts_of_images(monkeypatch, closed):
    arm = made_up.outcome(answered_none=0.3, images=20, closed=closed)
    count = poisson_counts(arm.key, 3)[2]
    weighted = measure(arm)
    rows = np.repeat(np.arange(len(count)), count)
    repeated = dataclasses.replace(
        arm,
        key=arm.key[rows],
        scored=arm.scored[rows],
        probabilities=arm.probabilities[rows],
        decisions={name: answer[rows] for name, answer in arm.decisions.items()},
    )
    monkeypatch.setattr(measurements, "poisson_counts", lambda key: np.ones((1, len(key)), np.int64))
    plain = measure(repeated)
    assert plain.keys() == weighted.keys()
    for measurement, values in plain.items():
        assert weighted[measurement][2] == exactly(values[0]), measurement


def test_a_resample_without_images_of_a_group_says_nothing_of_it():
    arm = made_up.outcome(images=20)
    kept = np.ones(len(arm.key), bool)
    kept[np.flatnonzero(arm.scored.group == "u1")[1:]] = False
    alone = dataclasses.replace(
        arm,
        key=arm.key[kept],
        scored=arm.scored[kept],
        probabilities=arm.probabilities[kept],
        decisions={"argmax": np.full(kept.sum(), K), "rule": np.full(kept.sum(), K)},
    )
    found = measure(alone)
    assert (found[Measurement("rejected", "u1", "rule")] == 1).all(), "one image, rejected"
    assert found[Measurement("auroc", "u1")].min() > 0, "which lies above some known image"


def test_poisson_weights_have_mean_and_variance_1_and_are_of_each_key_alone():
    key = np.random.default_rng(0).integers(0, 2**63, 4_000).astype(np.uint64)
    count = poisson_counts(key, 50)
    assert (count[0] == 1).all()
    drawn = count[1:]
    assert drawn.mean() == pytest.approx(1, abs=0.01) and drawn.var() == pytest.approx(1, abs=0.02)
    expected = stats.poisson.pmf(np.arange(5), 1.0)
    assert np.bincount(drawn.ravel())[:5] / drawn.size == pytest.approx(expected, abs=0.005)
    assert abs(np.corrcoef(drawn)[np.triu_indices(50, 1)]).max() < 0.1, "resamples are independent"
    some = np.random.default_rng(1).permutation(len(key))[:100]
    np.testing.assert_array_equal(poisson_counts(key[some], 50), count[:, some])
    consecutive = poisson_counts(np.arange(4_000, dtype=np.uint64), 50)[1:]
    assert consecutive.var() == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("kinds", [made_up_arms.KINDS, {kind: [] for kind in made_up_arms.KINDS}])
def test_one_known_class_has_neither_accuracy_nor_a_number_twice(kinds):
    arm = made_up_arms.outcome(made_up_arms.treatment(), 0, classes=("cat",), kinds=kinds)
    metrics = {measurement.metric for measurement in measure(arm)}
    with_none = {"auroc", "rejected", "expected_cost"} if any(kinds.values()) else set()
    assert metrics == {"recall", "balanced_accuracy"} | with_none
