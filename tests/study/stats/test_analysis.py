"""What is measured of an arm, and how certain it is."""

import dataclasses

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sklearn
from study import made_up

from openset_jax.openset.metrics import evaluation, intervals, ranking
from openset_jax.study.stats import analysis as analyses
from openset_jax.study.stats.analysis import KNOWN, Analysis, Measure, measure, over_seeds, poisson

K = len(made_up.CLASSES)
exactly = lambda value: pytest.approx(value, abs=1e-12)


@pytest.fixture(scope="module")
def arm():
    return made_up.outcome(answered_none=0.2, jitter=0.3)


@pytest.fixture(scope="module")
def measured(arm):
    return {of: values[0] for of, values in measure(arm).items()}


def images(arm, name):
    return np.isin(arm.scored.group, arm.kinds.get(name, [name])) & (arm.scored.label < 0)


@pytest.mark.parametrize("name", ["seen_negatives", "unseen_unknowns", "n1", "u2"])
def test_rankings_are_those_of_scikit_learn_and_of_a_run(arm, measured, name):
    known, none = arm.scored.label >= 0, images(arm, name)
    assert measured[Measure("auroc", name)] == exactly(
        sklearn.roc_auc_score(none[known | none], arm.scored.score[known | none])
    )
    right = (arm.scored.known_class == arm.scored.label)[known]
    ranked = ranking.rank(arm.scored.score[known], arm.scored.score[none], right)
    assert measured[Measure("oscr", name)] == exactly(ranking.oscr(ranked))


@pytest.mark.parametrize("kind", list(made_up.KINDS))
def test_answers_are_those_of_scikit_learn_and_of_a_run(arm, measured, kind):
    there = (arm.scored.label >= 0) | images(arm, kind)
    truth = np.where(arm.scored.label < 0, K, arm.scored.label)[there]
    for decision, answer in arm.decisions.items():
        found = sklearn.balanced_accuracy_score(truth, answer[there])
        assert measured[Measure("balanced_accuracy", kind, decision)] == exactly(found)
        confusion = sklearn.confusion_matrix(truth, answer[there], labels=range(K + 1))
        cost = intervals.expected_cost(confusion, arm.costs, arm.deployment).value
        assert measured[Measure("expected_cost", kind, decision)] == exactly(cost)
        assert measured[Measure("rejected", kind, decision)] == exactly(confusion[K, K] / confusion[K].sum())
        knowns = confusion[:K]
        assert measured[Measure("recall", KNOWN, decision)] == exactly(1 - knowns[:, K].sum() / knowns.sum())
        assert measured[Measure("correct", KNOWN, decision)] == exactly(np.trace(knowns) / knowns.sum())


def test_arms_tested_on_other_groups_of_a_kind_have_no_difference_in_it():
    arms = [made_up.outcome({"data.negative_groups": g}, s) for g in (1, 2) for s in (0, 1)]
    few, many = (made_up.treatment({"data.negative_groups": g}) for g in (1, 2))
    analysis = Analysis([made_up.shown(a, "n1") if a.treatment == few else a for a in arms])
    assert not analysis.tested_alike((few, many), "seen_negatives") and analysis.tested_alike((few, many), KNOWN)
    assert analysis.difference(many, few, Measure("auroc", "seen_negatives")) is None
    assert analysis.difference(many, few, Measure("balanced_accuracy", "seen_negatives", "argmax")) is None
    for of in (Measure("auroc", "unseen_unknowns"), Measure("auroc", "n1"), Measure("accuracy", KNOWN)):
        assert analysis.difference(many, few, of) is not None
    assert Analysis(arms).difference(many, few, Measure("auroc", "seen_negatives")) is not None


def test_the_networks_own_answers_are_what_a_run_says_of_them(arm, measured):
    result = evaluation.evaluate_split(arm.scored, classes=arm.classes, kinds=arm.kinds, with_intervals=False)
    for kind in arm.kinds:
        for metric in ("auroc", "balanced_accuracy"):
            found = measured.get(Measure(metric, kind), measured.get(Measure(metric, kind, "argmax")))
            assert found == exactly(result["open_set"][kind][metric])
    assert measured[Measure("accuracy", KNOWN)] == exactly(result["known"]["accuracy"])


def test_of_a_closed_set_there_are_the_area_of_each_class_and_the_knowns():
    arm = made_up.outcome(closed=True, answered_none=0.1)
    found = {of: values[0] for of, values in measure(arm).items()}
    p = arm.probabilities.astype(np.float64)
    area = np.mean([sklearn.roc_auc_score(arm.scored.label == i, p[:, i]) for i in range(K)])
    assert found[Measure("one_vs_rest_auc", KNOWN)] == exactly(area)
    p /= p.sum(1, keepdims=True)  # which scikit-learn insists on to 1e-8; the order stays
    of_all = sklearn.roc_auc_score(arm.scored.label, p, multi_class="ovr", average="macro")
    assert found[Measure("one_vs_rest_auc", KNOWN)] == pytest.approx(of_all, abs=1e-6)
    recalls = [(arm.decisions["argmax"] == i)[arm.scored.label == i].mean() for i in range(K)]
    assert found[Measure("balanced_accuracy", KNOWN, "argmax")] == exactly(np.mean(recalls))
    assert {of.of for of in found} == {KNOWN}


@pytest.mark.parametrize("closed", [False, True])
def test_weights_are_counts_of_images(monkeypatch, closed):
    arm = made_up.outcome(answered_none=0.3, images=20, closed=closed)
    count = poisson(arm.key, 3)[2]
    weighted = measure(arm)
    rows = np.repeat(np.arange(len(count)), count)
    repeated = dataclasses.replace(
        arm,
        key=arm.key[rows],
        scored=arm.scored[rows],
        probabilities=arm.probabilities[rows],
        decisions={name: answer[rows] for name, answer in arm.decisions.items()},
    )
    monkeypatch.setattr(analyses, "poisson", lambda key: np.ones((1, len(key)), np.int64))
    plain = measure(repeated)
    assert plain.keys() == weighted.keys()
    for of, values in plain.items():
        assert weighted[of][2] == exactly(values[0]), of


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
    assert (found[Measure("rejected", "u1", "rule")] == 1).all(), "one image, rejected"
    assert found[Measure("auroc", "u1")].min() > 0, "which lies above some known image"


def test_poisson_weights_have_mean_and_variance_1_and_are_of_each_key_alone():
    key = np.random.default_rng(0).integers(0, 2**63, 4_000).astype(np.uint64)
    count = poisson(key, 50)
    assert (count[0] == 1).all()
    drawn = count[1:]
    assert drawn.mean() == pytest.approx(1, abs=0.01) and drawn.var() == pytest.approx(1, abs=0.02)
    expected = stats.poisson.pmf(np.arange(5), 1.0)
    assert np.bincount(drawn.ravel())[:5] / drawn.size == pytest.approx(expected, abs=0.005)
    assert abs(np.corrcoef(drawn)[np.triu_indices(50, 1)]).max() < 0.1, "resamples are independent"
    some = np.random.default_rng(1).permutation(len(key))[:100]
    np.testing.assert_array_equal(poisson(key[some], 50), count[:, some])
    consecutive = poisson(np.arange(4_000, dtype=np.uint64), 50)[1:]
    assert consecutive.var() == pytest.approx(1, abs=0.02)


def test_without_variance_of_test_images_it_is_students_t_and_with_it_it_is_wider():
    of_seeds = np.array([0.81, 0.84, 0.86, 0.80])
    table = np.repeat(of_seeds[:, None], 21, 1)
    found = over_seeds(table)
    low, high = stats.t.interval(0.95, 3, of_seeds.mean(), stats.sem(of_seeds))
    assert (found.value, found.low, found.high) == exactly((of_seeds.mean(), low, high))
    noisy = table.copy()
    noisy[:, 1:] += np.linspace(-0.03, 0.03, 20)
    wider = over_seeds(noisy)
    assert wider.value == found.value
    assert wider.high - wider.low > found.high - found.low
    same = over_seeds(np.full((3, 21), 0.5))
    assert same == (0.5, 0.5, 0.5)


def test_without_variance_of_seeds_it_is_normal():
    table = 0.5 + np.concatenate([[0.0], np.linspace(-0.1, 0.1, 30)]) * np.ones((3, 1))
    half = stats.norm.ppf(0.975) * np.std(np.linspace(-0.1, 0.1, 30), ddof=1)
    assert over_seeds(table) == exactly((0.5, 0.5 - half, 0.5 + half))


@pytest.mark.parametrize(("of_seed", "of_test"), [(1.0, 0.0), (1.0, 1.0), (0.2, 1.0), (0.0, 1.0)])
def test_intervals_cover_what_they_estimate(of_seed, of_test):
    rng, hits, trials = np.random.default_rng(0), 0, 2_000
    for _ in range(trials):
        # the truth is 0; all seeds see the same test images, and a resample is off from the sample as that from the truth
        seeds, test = of_seed * rng.normal(size=(3, 1)), of_test * rng.normal()
        off = np.concatenate([[0.0], of_test * rng.normal(size=analyses.RESAMPLES)])
        found = over_seeds(seeds + test + off)
        hits += found.low <= 0 <= found.high
    assert hits / trials > 0.93


def test_differences_are_paired():
    arms = made_up.arms(({}, {}), ({"a": 1}, {}), ({"b": 1}, {"seen": 2.3}), images=40)
    found = Analysis(arms[::-1])
    as_configured, same, better = (made_up.treatment(fields) for fields in ({}, {"a": 1}, {"b": 1}))
    seen = Measure("auroc", "seen_negatives")
    assert found.difference(same, as_configured, seen) == (0.0, 0.0, 0.0)
    difference, mean = found.difference(better, as_configured, seen), found.mean(better, seen)
    assert difference.value == exactly(mean.value - found.mean(as_configured, seen).value)
    assert difference.low > 0 and difference.high - difference.low < (mean.high - mean.low) / 2
    argmax, rule = (Measure("balanced_accuracy", "seen_negatives", name) for name in ("argmax", "rule"))
    both = found.difference(same, as_configured, rule, argmax)
    assert both.value == exactly(found.mean(same, rule).value - found.mean(as_configured, argmax).value)


def test_one_seed_says_nothing_of_another_and_without_a_pair_there_is_no_difference():
    one, other = made_up.treatment({"a": 1}), made_up.treatment({"a": 2})
    found = Analysis([*(made_up.outcome({"a": 1}, s) for s in (0, 1)), *(made_up.outcome({"a": 2}, s) for s in (1, 2))])
    seen = Measure("auroc", "seen_negatives")
    assert found.difference(one, other, seen)[1:] == (-np.inf, np.inf)
    assert np.isfinite(found.mean(one, seen)).all()
    assert found.difference(one, other, Measure("auroc", "nothing")) is None
    apart = Analysis([made_up.outcome({"a": 1}, 0), made_up.outcome({"a": 2}, 1)])
    assert apart.difference(one, other, seen) is None
    assert apart.mean(one, seen)[1:] == (-np.inf, np.inf)
