"""Means over seeds and paired differences, and the coverage of their intervals."""

import dataclasses

import numpy as np
import pytest
from scipy import stats
from study import made_up

from openset_jax.openset.decision.prior_and_costs import cost_matrix
from openset_jax.study.stats.analysis import Analysis, over_seeds
from openset_jax.study.stats.measurements import KNOWN, RESAMPLES, Measurement

exactly = lambda value: pytest.approx(value, abs=1e-12)


def test_arms_tested_on_other_groups_of_a_kind_have_no_difference_in_it():
    arms = [made_up.outcome({"data.negative_groups": g}, s) for g in (1, 2) for s in (0, 1)]
    few, many = (made_up.treatment({"data.negative_groups": g}) for g in (1, 2))
    analysis = Analysis([made_up.shown(a, "n1") if a.treatment == few else a for a in arms])
    assert not analysis.tested_alike((few, many), "seen_negatives") and analysis.tested_alike((few, many), KNOWN)
    assert analysis.difference(many, few, Measurement("auroc", "seen_negatives")) is None
    assert analysis.difference(many, few, Measurement("balanced_accuracy", "seen_negatives", "argmax")) is None
    for measurement in (Measurement("auroc", "unseen_unknowns"), Measurement("auroc", "n1"), Measurement("accuracy", KNOWN)):
        assert analysis.difference(many, few, measurement) is not None
    assert Analysis(arms).difference(many, few, Measurement("auroc", "seen_negatives")) is not None


def test_without_variance_of_test_images_it_is_students_t_and_with_it_it_is_wider():
    of_seeds = np.array([0.81, 0.84, 0.86, 0.80])
    table = np.repeat(of_seeds[:, None], 21, 1)
    found = over_seeds(table, 100)
    low, high = stats.t.interval(0.95, 3, of_seeds.mean(), stats.sem(of_seeds))
    assert (found.value, found.low, found.high) == exactly((of_seeds.mean(), low, high))
    noisy = table.copy()
    noisy[:, 1:] += np.linspace(-0.03, 0.03, 20)
    wider = over_seeds(noisy, 100)
    assert wider.value == found.value
    assert wider.high - wider.low > found.high - found.low


def test_without_variance_of_seeds_it_is_normal():
    table = 0.5 + np.concatenate([[0.0], np.linspace(-0.1, 0.1, 30)]) * np.ones((3, 1))
    half = stats.norm.ppf(0.975) * np.std(np.linspace(-0.1, 0.1, 30), ddof=1)
    assert over_seeds(table, 100) == exactly((0.5, 0.5 - half, 0.5 + half))


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_share_of_0_or_1_in_all_seeds_has_the_exact_interval_of_the_test_images(share):
    exact = stats.binomtest(round(80 * share), 80).proportion_ci(method="exact")
    assert over_seeds(np.full((3, 21), share), 80) == exactly((share, exact.low, exact.high))
    arms = made_up.arms(({}, {"answered_none": 1 - share}), ({"a": 1}, {"answered_none": 1 - share}), images=20)
    plain, same, recall = made_up.treatment(), made_up.treatment({"a": 1}), Measurement("recall", KNOWN, "argmax")
    exact = stats.binomtest(round(60 * share), 60).proportion_ci(method="exact")
    found = Analysis(arms)
    for interval in (found.mean(plain, recall), found.arm_interval(plain, 0, recall)):
        assert interval == exactly((share, exact.low, exact.high))
    width = exact.high - exact.low
    assert found.difference(same, plain, recall) == exactly((0.0, -width, width))


def test_intervals_end_where_the_metric_does():
    """Seeds that differ much give Student intervals beyond 0 and 1, and beyond the largest cost."""
    assert over_seeds([np.full(5, 0.95), np.ones(5)], 9).high == 1
    assert over_seeds([np.full(5, 0.05), np.zeros(5)], 9).low == 0
    shares = (0.05, 0.95, 0.3)
    arms = [made_up.outcome({}, seed, answered_none=share) for seed, share in enumerate(shares)]
    arms += [made_up.outcome({"a": 1}, seed, answered_none=1 - share) for seed, share in enumerate(shares)]
    dear = [dataclasses.replace(arm, costs=cost_matrix({"accept_none": 3}, arm.classes)) for arm in arms]
    plain, other, seen = made_up.treatment(), made_up.treatment({"a": 1}), "seen_negatives"
    recall, cost = Measurement("recall", KNOWN, "argmax"), Measurement("expected_cost", seen, "argmax")
    found = Analysis(dear)
    assert found.mean(plain, recall)[1:] == (0, 1)
    most = 0.6 * 1 + 0.4 * 3  # in the frequencies of the deployment
    assert found.mean(plain, cost).low >= 0 and found.mean(plain, cost).high <= most
    assert found.difference(other, plain, recall)[1:] == (-1, 1)


@pytest.mark.parametrize(("of_seed", "of_test"), [(1.0, 0.0), (1.0, 1.0), (0.2, 1.0), (0.0, 1.0)])
def test_intervals_cover_what_they_estimate(of_seed, of_test):
    rng, hits, trials = np.random.default_rng(0), 0, 2_000
    for _ in range(trials):
        # the truth is 0; all seeds see the same test images, and a resample is off from the sample as that from the truth
        seeds, test = of_seed * rng.normal(size=(3, 1)), of_test * rng.normal()
        off = np.concatenate([[0.0], of_test * rng.normal(size=RESAMPLES)])
        found = over_seeds(seeds + test + off, 100, -99, 99)
        hits += found.low <= 0 <= found.high
    assert hits / trials > 0.93


def test_differences_are_paired():
    arms = made_up.arms(({}, {}), ({"a": 1}, {}), ({"b": 1}, {"seen": 2.3}), images=40)
    found = Analysis(arms[::-1])
    as_configured, same, better = (made_up.treatment(fields) for fields in ({}, {"a": 1}, {"b": 1}))
    seen = Measurement("auroc", "seen_negatives")
    assert found.difference(same, as_configured, seen) == (0.0, 0.0, 0.0)
    difference, mean = found.difference(better, as_configured, seen), found.mean(better, seen)
    assert difference.value == exactly(mean.value - found.mean(as_configured, seen).value)
    assert difference.low > 0 and difference.high - difference.low < (mean.high - mean.low) / 2
    argmax, rule = (Measurement("balanced_accuracy", "seen_negatives", name) for name in ("argmax", "rule"))
    both = found.difference(same, as_configured, rule, argmax)
    assert both.value == exactly(found.mean(same, rule).value - found.mean(as_configured, argmax).value)


def test_one_seed_says_nothing_of_another_and_without_a_pair_there_is_no_difference():
    one, other = made_up.treatment({"a": 1}), made_up.treatment({"a": 2})
    found = Analysis([*(made_up.outcome({"a": 1}, s) for s in (0, 1)), *(made_up.outcome({"a": 2}, s) for s in (1, 2))])
    seen = Measurement("auroc", "seen_negatives")
    assert found.difference(one, other, seen)[1:] == (-np.inf, np.inf)
    assert np.isfinite(found.mean(one, seen)).all()
    assert found.difference(one, other, Measurement("auroc", "nothing")) is None
    apart = Analysis([made_up.outcome({"a": 1}, 0), made_up.outcome({"a": 2}, 1)])
    assert apart.difference(one, other, seen) is None
    assert apart.mean(one, seen)[1:] == (-np.inf, np.inf)
