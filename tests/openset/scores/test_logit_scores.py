"""Scores and probabilities from logits."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from openset_jax.openset.scores import logit_scores

LOGITS = arrays(np.float32, (5, 4), elements=st.floats(-20, 20, width=32))
MILD = arrays(np.float64, (5, 4), elements=st.floats(-5, 5))
EXTREME = np.array([[1e4, 0, -1e4], [1e4, 1e4, 0], [-1e4, -1e4, -1e4], [1e4 + 1, 0, 0]])


@settings(deadline=None)
@given(LOGITS)
def test_log_odds_are_those_of_the_softmax(logits):
    p = logit_scores.softmax(logits)
    np.testing.assert_allclose(p.sum(1), 1)
    np.testing.assert_allclose(logit_scores.none_log_odds(logits), np.log(p[:, -1]) - np.log(p[:, :-1].sum(1)), atol=1e-6)


def test_log_odds_still_order_images_whose_probabilities_are_equal():
    logits = np.array([[0.0, 0.0, 200.0], [0.0, 0.0, 300.0]], np.float32)
    assert logit_scores.softmax(logits)[0, -1] == logit_scores.softmax(logits)[1, -1] == 1
    first, second = logit_scores.none_log_odds(logits)
    assert first < second


@settings(deadline=None)
@given(MILD)
def test_scores_are_what_their_formulas_say_of_probabilities(logits):
    p = logit_scores.softmax(logits)
    largest = p.max(1)
    np.testing.assert_allclose(logit_scores.msp(logits), np.log((1 - largest) / largest), atol=1e-9)
    np.testing.assert_allclose(logit_scores.max_logit(logits), [-max(row) for row in logits])
    np.testing.assert_allclose(logit_scores.energy(logits, 2.0), -2 * np.log(np.exp(logits / 2).sum(1)), atol=1e-9)
    np.testing.assert_allclose(logit_scores.entropy(logits), stats.entropy(p, axis=1), atol=1e-9)
    for top in (1, 3, 100):
        chosen = np.sort(p, axis=1)[:, -top:]
        expected = (chosen**0.3 * (1 - chosen) ** 0.3).sum(1)
        np.testing.assert_allclose(logit_scores.generalised_entropy(logits, gamma=0.3, top=top), expected, rtol=1e-6)
    typical = np.array([[0.7, 0.1, 0.1, 0.1], [0.1, 0.2, 0.3, 0.4]])
    expected = [min(stats.entropy(row, d) for d in typical) for row in p]
    np.testing.assert_allclose(logit_scores.kl_matching(logits, np.log(typical)), expected, atol=1e-9)


def test_a_uniform_posterior_is_the_most_unknown_and_a_small_temperature_is_the_largest_logit():
    uniform = np.zeros((1, 5))
    np.testing.assert_allclose(logit_scores.msp(uniform), np.log(4))
    np.testing.assert_allclose(logit_scores.entropy(uniform), np.log(5))
    np.testing.assert_allclose(logit_scores.generalised_entropy(uniform), 5 * (0.2 * 0.8) ** 0.1)
    logits = np.array([[1.0, 2.0, 7.0], [3.0, 4.0, 4.5]])
    np.testing.assert_allclose(logit_scores.energy(logits, 1e-3), logit_scores.max_logit(logits))


@pytest.mark.parametrize("score", [logit_scores.msp, logit_scores.generalised_entropy])
def test_confident_images_whose_probability_is_1_are_still_in_order(score):
    """For these logits 1 minus the probability is 0 in floating point."""
    logits = np.array([[40.0, 0.0, 0.0], [60.0, 0.0, 0.0], [90.0, 0.0, 0.0]])
    assert (logit_scores.softmax(logits)[:, 0] == 1).all()
    assert (np.diff(score(logits)) < 0).all()


def test_what_is_left_of_a_confident_image_is_right_to_the_last_digits():
    """1 - p is 2 exp(-50), and the generalised entropy is about its power."""
    left = 2 * np.exp(-50)
    expected = left**0.1 + 2 * (left / 2) ** 0.1
    np.testing.assert_allclose(logit_scores.generalised_entropy(np.array([[50.0, 0.0, 0.0]])), expected, rtol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_extreme_logits_stay_finite(dtype):
    logits = EXTREME.astype(dtype)
    typical = np.log(np.full((2, 3), 1 / 3))
    for score in (
        logit_scores.msp,
        logit_scores.max_logit,
        logit_scores.energy,
        logit_scores.entropy,
        logit_scores.generalised_entropy,
    ):
        values = score(logits)
        assert np.isfinite(values).all() and values.dtype == np.float64 and values.shape == (4,)
    assert np.isfinite(logit_scores.kl_matching(logits, typical)).all()
    assert logit_scores.msp(logits)[3] < logit_scores.msp(logits)[0]


def test_one_class_and_options_out_of_range_are_refused():
    for score in (logit_scores.msp, logit_scores.generalised_entropy):
        with pytest.raises(ValueError, match="at least two"):
            score(np.zeros((3, 1)))
    with pytest.raises(ValueError, match="temperature must be positive"):
        logit_scores.energy(np.zeros((3, 2)), 0.0)
    for options in ({"gamma": 1.0}, {"gamma": 0.0}, {"top": 0}):
        with pytest.raises(ValueError, match=r"gamma must be in \(0, 1\) and M at least 1"):
            logit_scores.generalised_entropy(np.zeros((3, 2)), **options)
