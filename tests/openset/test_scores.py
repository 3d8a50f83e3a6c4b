"""Scores and probabilities from logits."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from openset_jax.openset import scores

LOGITS = arrays(np.float32, (5, 4), elements=st.floats(-20, 20, width=32))


@settings(deadline=None)
@given(LOGITS)
def test_log_odds_are_those_of_the_softmax(logits):
    p = scores.softmax(logits)
    np.testing.assert_allclose(p.sum(1), 1)
    np.testing.assert_allclose(scores.none_log_odds(logits), np.log(p[:, -1]) - np.log(p[:, :-1].sum(1)), atol=1e-6)


def test_log_odds_still_order_images_whose_probabilities_are_equal():
    logits = np.array([[0.0, 0.0, 200.0], [0.0, 0.0, 300.0]], np.float32)
    assert scores.softmax(logits)[0, -1] == scores.softmax(logits)[1, -1] == 1
    first, second = scores.none_log_odds(logits)
    assert first < second
