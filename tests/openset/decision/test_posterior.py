"""Posteriors and their correction to another prior, also against an exact Bayes posterior."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import expit

from openset_jax.openset.decision import posterior
from openset_jax.openset.scores.logit_scores import softmax

LOGITS = arrays(np.float32, (5, 4), elements=st.floats(-60, 60, width=32))
PRIOR = arrays(np.float64, 4, elements=st.floats(0.01, 1)).map(lambda p: p / p.sum())


@given(LOGITS)
def test_sigmoids_are_the_probabilities_and_none_is_what_they_leave(logits):
    p, s = posterior.from_sigmoids(logits), expit(logits.astype(np.float64))
    assert p.shape == (5, 5) and p.dtype == np.float64
    np.testing.assert_allclose(p.sum(1), 1, rtol=1e-12)
    assert (p >= 0).all() and (p[:, -1] >= posterior.EPSILON * (1 - 1e-9)).all()
    for row, heads in zip(p, s, strict=True):
        if heads.sum() <= 1 - posterior.EPSILON:
            np.testing.assert_array_equal(row[:-1], heads)
        else:
            assert row[-1] == posterior.EPSILON
            np.testing.assert_allclose(row[:-1] / row[:-1].sum(), heads / heads.sum(), rtol=1e-12)


def test_sigmoids_that_say_no_to_all_are_none_and_exact_heads_give_the_exact_posterior():
    np.testing.assert_array_equal(posterior.from_sigmoids(np.full((1, 2), -1000.0)), [[0, 0, 1]])
    truth = np.array([[0.2, 0.5, 0.3], [0.01, 0.02, 0.97]])
    heads = np.log(truth[:, :-1] / (1 - truth[:, :-1]))
    np.testing.assert_allclose(posterior.from_sigmoids(heads), truth, atol=1e-15)
    with pytest.raises(ValueError, match="logits: row 1 of 2 is not finite"):
        posterior.from_sigmoids(np.array([[0.0], [np.nan]]))


@given(LOGITS, arrays(np.float64, 5, elements=st.floats(0, 1)))
def test_none_beside_the_classes_leaves_their_shares_as_they_are(logits, p_none):
    p = posterior.with_none(softmax(logits).astype(np.float32), p_none)
    np.testing.assert_array_equal(p[:, -1], p_none)
    np.testing.assert_allclose(p.sum(1), 1, rtol=1e-12)
    np.testing.assert_allclose(p[:, :-1], softmax(logits) * (1 - p_none)[:, None], rtol=1e-5, atol=1e-30)


def test_a_softmax_over_none_is_the_classes_and_none_beside_them():
    logits = np.random.default_rng(0).normal(0, 3, (50, 4))
    p = softmax(logits)
    np.testing.assert_allclose(posterior.with_none(softmax(logits[:, :-1]), p[:, -1]), p, rtol=1e-12)


def test_none_beside_the_classes_refuses_what_is_no_probability():
    with pytest.raises(ValueError, match="class_posterior: row 0 of 1"):
        posterior.with_none(np.array([[0.5, 0.6]]), np.zeros(1))
    with pytest.raises(ValueError, match="one p_none for each of 1 images"):
        posterior.with_none(np.array([[0.5, 0.5]]), np.zeros(2))
    for wrong in (-0.1, 1.1, np.nan):
        with pytest.raises(ValueError, match=f"number 1 is {wrong}"):
            posterior.with_none(np.full((2, 2), 0.5), np.array([0.5, wrong]))


@given(PRIOR, PRIOR)
def test_gaussian_classes_corrected_are_bayes_posterior_in_the_other_mix(training, deployment):
    x = np.random.default_rng(0).normal(0, 3, 200)
    density = np.exp(-((x[:, None] - np.array([-3.0, 0, 1, 4])) ** 2) / np.array([2.0, 1, 4, 8])) / np.sqrt([2.0, 1, 4, 8])
    bayes = lambda prior: density * prior / (density * prior).sum(1, keepdims=True)
    corrected = posterior.correct_prior(bayes(training), training, deployment)
    np.testing.assert_allclose(corrected, bayes(deployment), atol=1e-12)
    np.testing.assert_allclose(posterior.correct_prior(corrected, deployment, training), bayes(training), atol=1e-12)


@given(LOGITS, PRIOR, PRIOR)
def test_correction_adds_the_change_of_the_log_prior_to_the_logits(logits, training, deployment):
    expected = softmax(logits + np.log(deployment) - np.log(training))
    np.testing.assert_allclose(posterior.correct_prior(softmax(logits), training, deployment), expected, atol=1e-12)
    np.testing.assert_allclose(posterior.correct_prior(softmax(logits), training, training), softmax(logits), atol=1e-12)


def test_two_classes_are_corrected_as_in_elkans_theorem_2():
    p, b, c = np.linspace(0, 1, 11), 0.3, 0.8
    expected = c * (p - p * b) / (b - p * b + c * p - b * c)
    found = posterior.correct_prior(np.stack([1 - p, p], 1), [1 - b, b], [1 - c, c])
    np.testing.assert_allclose(found[:, 1], expected, atol=1e-14)


def test_classes_that_are_not_deployed_leave_and_rows_without_another_know_only_the_mix():
    p = np.array([[0.2, 0.3, 0.5], [1.0, 0.0, 0.0]])
    found = posterior.correct_prior(p, [0.0, 0.5, 0.5], [0.0, 0.25, 0.75])
    np.testing.assert_allclose(found, [[0, 1 / 6, 5 / 6], [0, 0.25, 0.75]])


@pytest.mark.parametrize(
    ("training", "deployment", "message"),
    [
        ([0.5, 0.5], [0.2, 0.3, 0.5], "the training prior must have 3 numbers"),
        ([0.2, 0.3, 0.5], [0.5, 0.5], "the deployment prior must have 3 numbers"),
        ([0.2, 0.3, 0.5], [-0.5, 1.0, 0.5], "the deployment prior must not be negative: entry 0"),
        ([0.2, 0.3, 0.4], [0.2, 0.3, 0.5], "the training prior must sum to 1, not to 0.9"),
        ([0.5, 0.5, 0.0], [0.2, 0.3, 0.5], "the training prior of class 2 of 3 is 0 but its deployment prior is 0.5"),
    ],
)
def test_priors_that_cannot_be(training, deployment, message):
    with pytest.raises(ValueError, match=message):
        posterior.correct_prior(np.full((1, 3), 1 / 3), training, deployment)
