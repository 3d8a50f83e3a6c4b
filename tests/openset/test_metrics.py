"""Metrics against scikit-learn and brute force."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from openset_jax.openset import metrics

# few distinct values, so that ties are common; and infinities
SCORES = st.lists(st.sampled_from([-np.inf, -3.5, -1.0, 0.0, 0.5, 2.0, np.inf]), min_size=1, max_size=30)


@settings(deadline=None)
@given(SCORES, SCORES)
def test_auroc_is_the_share_of_pairs_in_the_right_order(known, unknown):
    k, u = np.array(known)[:, None], np.array(unknown)[None]
    expected = ((u > k).sum() + 0.5 * (u == k).sum()) / (k.size * u.size)
    assert metrics.auroc(known, unknown) == pytest.approx(expected, abs=1e-12)


def test_auroc_equals_scikit_learn_on_many_scores():
    rng = np.random.default_rng(0)
    known, unknown = rng.normal(0, 1, 3000).round(2), rng.normal(1, 2, 1000).round(2)
    expected = roc_auc_score(np.r_[np.zeros(3000), np.ones(1000)], np.r_[known, unknown])
    assert metrics.auroc(known, unknown) == pytest.approx(expected, abs=1e-12)


def test_auroc_has_unknowns_on_the_positive_side():
    assert metrics.auroc(np.array([0.0]), np.array([1.0])) == 1
    assert metrics.auroc(np.array([1.0]), np.array([0.0])) == 0
    assert metrics.auroc(np.ones(7), np.ones(3)) == 0.5


def test_auroc_without_images_is_none_and_a_nan_is_an_error_that_says_where():
    assert metrics.auroc(np.array([]), np.array([1.0])) is None
    assert metrics.auroc(np.array([1.0]), np.array([])) is None
    with pytest.raises(ValueError, match="score 2 of 3"):
        metrics.auroc(np.array([0.0, 1.0]), np.array([np.nan]))


def test_confusion_counts_every_image_once_with_negatives_and_unknowns_apart():
    label, decision = np.array([0, 0, 1, -1, -1, -2]), np.array([0, 2, 1, 2, 0, 1])
    assert metrics.confusion_matrix(label, decision, 2).tolist() == [[1, 0, 1], [0, 1, 0], [1, 0, 1], [0, 1, 0]]


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=60))
def test_balanced_accuracy_equals_scikit_learn(pairs):
    label, decision = map(np.array, zip(*pairs, strict=True))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn warns of decisions that are no label
        expected = balanced_accuracy_score(label, decision)
    assert metrics.balanced_accuracy(label, decision) == pytest.approx(expected)


def test_prior_entropy_of_the_founding_problem():
    prior = np.array([0.05] * 10 + [0.5])
    assert metrics.prior_entropy(prior) == pytest.approx(1.844, abs=1e-3)
    assert metrics.prior_entropy(np.full(11, 1 / 11)) == pytest.approx(np.log(11))
    assert metrics.prior_entropy(np.array([1.0, 0.0])) == 0
