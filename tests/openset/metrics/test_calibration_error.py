"""Calibration metrics against brute force and scikit-learn."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import brier_score_loss, log_loss

from openset_jax.openset.metrics import calibration_error
from openset_jax.openset.scores.logit_scores import softmax

MEASURES = ("expected_calibration_error", "negative_log_likelihood", "brier")


def measure(name, p, label, weight=None, bins=15):
    weight = np.ones(len(label)) if weight is None else np.asarray(weight, float)
    return calibration_error.measures(p, label, bins=bins)[name](weight)


def sample(count=500, seed=0, digits=None):
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (count, 4))
    p = softmax(logits if digits is None else logits.round(digits))
    return p, rng.integers(0, 4, count), rng.integers(0, 4, count)


def test_likelihood_and_brier_are_scikit_learns():
    p, label, weight = sample()
    expected = log_loss(label, p, sample_weight=weight, labels=range(4))
    assert measure("negative_log_likelihood", p, label, weight) == pytest.approx(expected, rel=1e-12)
    each = [brier_score_loss(label == k, p[:, k], sample_weight=weight) for k in range(4)]
    assert measure("brier", p, label, weight) == pytest.approx(sum(each), rel=1e-12)


def test_likelihood_of_the_impossible_is_36_nats():
    found = measure("negative_log_likelihood", np.array([[1.0, 0.0], [1.0, 0.0]]), np.array([1, 0]))
    assert found == pytest.approx(26 * np.log(2))


@pytest.mark.parametrize(("count", "bins"), [(500, 10), (30, 15), (45, 15)])
def test_bins_without_ties_are_equal_slices_of_the_order(count, bins):
    p, label, _ = sample(count)
    order = np.argsort(p.max(1))
    slices = np.split(order, bins)
    right = p.argmax(1) == label
    table = calibration_error.reliability(p, label, bins)
    np.testing.assert_allclose(table.mass, 1 / bins)
    np.testing.assert_allclose(table.confidence, [p.max(1)[s].mean() for s in slices])
    np.testing.assert_allclose(table.accuracy, [right[s].mean() for s in slices])
    expected = np.mean([abs(right[s].mean() - p.max(1)[s].mean()) for s in slices])
    assert measure("expected_calibration_error", p, label, bins=bins) == pytest.approx(expected, rel=1e-12)


@given(
    arrays(np.int64, st.tuples(st.integers(1, 20), st.just(3)), elements=st.integers(0, 3)),
    st.integers(1, 20),
    st.integers(0, 10**6),
)
def test_ties_go_together_in_any_order_and_every_image_is_in_one_bin(logits, bins, seed):
    rng, p = np.random.default_rng(seed), softmax(logits.astype(float))
    label, weight = rng.integers(0, 3, len(p)), rng.integers(0, 3, len(p))
    table = calibration_error.reliability(p, label, bins, weight)
    if not weight.sum():
        assert len(table.mass) == 0
        return
    assert len(table.mass) <= min(bins, len(np.unique(p.max(1)))) and (table.mass > 0).all()
    assert table.mass.sum() == pytest.approx(1)
    share = weight / weight.sum()
    assert table.mass @ table.confidence == pytest.approx(share @ p.max(1))
    assert table.mass @ table.accuracy == pytest.approx(share @ (p.argmax(1) == label))
    assert (np.diff(table.confidence) > 0).all()
    order = rng.permutation(len(p))
    again = calibration_error.reliability(p[order], label[order], bins, weight[order])
    for one, other in zip(table, again, strict=True):
        np.testing.assert_allclose(one, other)


@given(st.integers(0, 10**6))
def test_a_weight_is_how_often_an_image_stands_there_and_its_scale_is_nothing(seed):
    p, label, weight = sample(30, seed, digits=0)
    rows = np.arange(30).repeat(weight)
    for name in MEASURES:
        value = measure(name, p, label, weight)
        assert value == pytest.approx(measure(name, p[rows], label[rows]), rel=1e-12)
        assert value == pytest.approx(measure(name, p, label, 4 * weight), rel=1e-12)
    for one, other in zip(
        calibration_error.reliability(p, label), calibration_error.reliability(p, label, weight=np.ones(30)), strict=True
    ):
        np.testing.assert_array_equal(one, other)


def test_one_bin_is_accuracy_against_confidence_and_a_constant_posterior_has_one():
    p, label, _ = sample()
    expected = abs((p.argmax(1) == label).mean() - p.max(1).mean())
    assert measure("expected_calibration_error", p, label, bins=1) == pytest.approx(expected)
    table = calibration_error.reliability(np.tile([0.7, 0.3], (10, 1)), np.arange(10) // 7)
    assert [float(values[0]) for values in table] == pytest.approx([0.7, 0.7, 1]) and len(table.mass) == 1


def test_a_right_posterior_has_a_small_error_and_an_overconfident_one_has_not():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 1, (30_000, 4))
    p = softmax(logits)
    label = (rng.random((30_000, 1)) > p.cumsum(1)).sum(1)
    assert measure("expected_calibration_error", p, label) < 0.015
    assert measure("expected_calibration_error", softmax(3 * logits), label) > 0.2
    for name in MEASURES:
        assert measure(name, p, label) < measure(name, softmax(3 * logits), label)


def test_nothing_is_known_of_no_images():
    for name in MEASURES:
        assert measure(name, np.empty((0, 3)), np.empty(0, int)) is None
        assert measure(name, np.eye(3), np.arange(3), np.zeros(3)) is None
        assert measure(name, np.eye(3), np.arange(3)) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("metric", [calibration_error.measures, calibration_error.reliability])
def test_what_is_no_posterior_label_or_weight_is_refused(metric):
    with pytest.raises(ValueError, match="posterior: row 0 of 1 is not a distribution"):
        metric(np.array([[0.5, 0.6]]), np.array([0]))
    with pytest.raises(ValueError, match="label 0 of 1 is -1"):
        metric(np.array([[0.5, 0.5]]), np.array([-1]))
    with pytest.raises(ValueError, match="weight 0 of 1 is -1"):
        calibration_error.reliability(np.array([[0.5, 0.5]]), np.array([0]), weight=[-1])


def test_there_must_be_a_bin():
    with pytest.raises(ValueError, match="at least one bin, not 0"):
        calibration_error.reliability(np.eye(2), np.arange(2), bins=0)


def test_the_calibration_error_is_that_of_the_reliability_diagram():
    p, label, weight = sample(digits=0)
    table = calibration_error.reliability(p, label, weight=weight)
    expected = table.mass @ np.abs(table.accuracy - table.confidence)
    assert measure("expected_calibration_error", p, label, weight) == pytest.approx(expected, rel=1e-12)
    assert all(measure(name, p, label, np.zeros(len(label))) is None for name in MEASURES)


def test_what_chance_makes_of_a_calibration_error():
    """The error of a correct posterior exceeds it in about 1 of 40 cases; that of a very overconfident one always does."""
    rng, above = np.random.default_rng(0), 0
    for seed in range(120):
        p = softmax(rng.normal(0, 2, (300, 4)))
        label = (p.cumsum(1) > rng.random((300, 1))).argmax(1)
        chance = calibration_error.by_chance(p, np.ones(300), resamples=100, seed=seed)
        above += measure("expected_calibration_error", p, label) > chance
        sure = p**4 / (p**4).sum(1, keepdims=True)
        limit = calibration_error.by_chance(sure, np.ones(300), resamples=100)
        assert measure("expected_calibration_error", sure, label) > limit
    assert above / 120 <= 0.08
    assert calibration_error.by_chance(p, np.zeros(300)) == 0.0
