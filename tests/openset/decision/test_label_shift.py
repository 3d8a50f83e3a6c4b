"""Estimated priors of unlabelled images of Gaussian classes, whose posterior is known exactly."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openset_jax.openset.decision import label_shift
from openset_jax.openset.decision.posterior import correct_prior
from openset_jax.openset.scores.logit_scores import softmax

MEANS = np.array([[0.0, 0], [3, 0], [0, 3], [3, 3]])  # three classes and "none"
TRAINING = np.full(4, 0.25)
DEPLOYMENT = np.array([0.1, 0.05, 0.25, 0.6])


def draw(prior, count, *, seed, none_at=None):
    """(posterior under TRAINING, label) of images under another prior; `none_at` is another centre of the unknowns."""
    rng = np.random.default_rng(seed)
    label, means = rng.choice(4, count, p=prior), MEANS.copy()
    means[3] = means[3] if none_at is None else none_at
    x = means[label] + rng.normal(0, 1, (count, 2))
    return softmax(-((x[:, None] - MEANS) ** 2).sum(-1) / 2 + np.log(TRAINING)), label


def test_both_estimates_find_the_mix_and_em_is_the_likeliest():
    p, _ = draw(DEPLOYMENT, 20_000, seed=0)
    em = label_shift.estimate_prior_em(p, TRAINING)
    assert em.converged and em.iterations < 100
    np.testing.assert_allclose(em.prior, DEPLOYMENT, atol=0.01)
    np.testing.assert_allclose(em.prior, correct_prior(p, TRAINING, em.prior).mean(0), atol=1e-6)
    bbse = label_shift.estimate_prior_bbse(*draw([0.4, 0.3, 0.2, 0.1], 20_000, seed=1), p)
    np.testing.assert_allclose(bbse.prior, DEPLOYMENT, atol=0.015)
    assert 1 <= bbse.condition < 2
    likelihood = lambda prior: np.log(p @ (prior / TRAINING)).sum()
    assert likelihood(em.prior) > max(likelihood(bbse.prior), likelihood(DEPLOYMENT))
    assert em.prior.sum() == pytest.approx(1) and bbse.prior.sum() == pytest.approx(1)


def test_bbse_is_the_papers_weights_times_the_mix_of_validation():
    (pv, label), (p, _) = draw([0.4, 0.3, 0.2, 0.1], 3000, seed=2), draw(DEPLOYMENT, 2000, seed=3)
    joint = np.zeros((4, 4))
    np.add.at(joint, (pv.argmax(1), label), 1 / len(label))
    weights = np.linalg.solve(joint, np.bincount(p.argmax(1), minlength=4) / len(p))
    np.testing.assert_allclose(label_shift.estimate_prior_bbse(pv, label, p).prior, weights * joint.sum(0), atol=1e-12)


def test_em_stops_when_told_to_and_leaves_classes_out_that_were_never_trained():
    p, _ = draw(DEPLOYMENT, 500, seed=4)
    stopped = label_shift.estimate_prior_em(p, TRAINING, max_iterations=2)
    assert (stopped.iterations, stopped.converged) == (2, False)
    assert label_shift.estimate_prior_em(p, [0.5, 0.5, 0, 0]).prior[2:].tolist() == [0, 0]
    same = label_shift.estimate_prior_em(p, p.mean(0))  # the mean posterior as the training mix: nothing to correct
    assert same.iterations == 1
    np.testing.assert_allclose(same.prior, p.mean(0))


@given(st.integers(0, 10**6))
def test_bbse_has_no_negative_shares(seed):
    rng = np.random.default_rng(seed)
    label = np.arange(40) % 4
    decided = np.where(rng.random(40) < 0.7, label, rng.integers(0, 4, 40))
    eye = np.eye(4)
    prior = label_shift.estimate_prior_bbse(eye[decided], label, eye[rng.integers(0, 4, 5)], max_condition=np.inf).prior
    assert (prior >= 0).all() and prior.sum() == pytest.approx(1)


def test_bbse_refuses_what_it_cannot_know():
    eye, label = np.eye(3), np.arange(30) % 3
    with pytest.raises(ValueError, match="'class 1' has no validation image"):
        label_shift.estimate_prior_bbse(eye[[0, 2]], [0, 2], eye)
    alike = np.where(label == 2, 1, label)
    with pytest.raises(
        ValueError, match=r"ill-conditioned.*\(inf > 100\): the network does not distinguish 'class 1' from 'none'"
    ):
        label_shift.estimate_prior_bbse(eye[alike], label, eye)
    with pytest.raises(ValueError, match="does not distinguish 'dog' from 'rest'"):
        label_shift.estimate_prior_bbse(eye[alike], label, eye, names=["cat", "dog", "rest"])
    with pytest.raises(ValueError, match="ill-conditioned"):
        label_shift.estimate_prior_bbse(eye[np.full(30, 2)], label, eye)  # always "none"
    with pytest.raises(ValueError, match="validation_posterior has 3 classes and posterior has 2"):
        label_shift.estimate_prior_bbse(eye[label], label, np.eye(2))
    with pytest.raises(ValueError, match='label 0 of 2 is -1, not in 0 to 2, of which the last is "none"'):
        label_shift.estimate_prior_bbse(eye[[0, 2]], [-1, 2], eye)


def test_nothing_can_be_estimated_from_no_image():
    none = np.empty((0, 3))
    with pytest.raises(ValueError, match="posterior has no image"):
        label_shift.estimate_prior_em(none, np.full(3, 1 / 3))
    with pytest.raises(ValueError, match="posterior has no image"):
        label_shift.estimate_prior_bbse(np.eye(3), np.arange(3), none)
    with pytest.raises(ValueError, match="validation_posterior has no image"):
        label_shift.estimate_prior_bbse(none, np.empty(0), np.eye(3))


def warnings_of(none_at, *, estimate, count=2000, validation=1000, seeds=40, **options):
    texts = []
    for seed in range(seeds):
        (pv, label), (p, _) = (
            draw(TRAINING, validation, seed=seed),
            draw(DEPLOYMENT, count, seed=seed + 999, none_at=none_at),
        )
        if estimate == "em":
            prior = label_shift.estimate_prior_em(p, TRAINING, tolerance=1e-5).prior
        else:
            prior = label_shift.estimate_prior_bbse(pv, label, p).prior
        texts.append(label_shift.implausibility(pv, label, p, prior, **options))
    return texts


@pytest.mark.parametrize("estimate", ["em", "bbse"])
@pytest.mark.parametrize(("count", "validation"), [(300, 400), (2000, 1000), (5000, 400)])
def test_under_label_shift_there_is_almost_never_a_warning(estimate, count, validation):
    texts = warnings_of(None, estimate=estimate, count=count, validation=validation)
    assert sum(map(bool, texts)) <= 1
    often = warnings_of(None, estimate=estimate, count=count, validation=validation, level=0.05, min_distance=0)
    assert sum(map(bool, often)) <= 6


@pytest.mark.parametrize("estimate", ["em", "bbse"])
def test_unknowns_from_elsewhere_are_a_warning_that_says_where_they_show(estimate):
    texts = warnings_of((1.5, 1.5), estimate=estimate, seeds=20, names=["cat", "dog", "owl", "none"])
    assert all(texts)
    assert texts[0].startswith("label shift is implausible: ") and "2000 unlabelled images have a p_none of" in texts[0]
    assert not any(warnings_of((1.5, 1.5), estimate=estimate, seeds=3, min_distance=0.9))  # significant, but small


def test_a_declared_mix_that_is_not_there_is_a_warning_that_names_the_class():
    (pv, label), (p, _) = draw(TRAINING, 1000, seed=1), draw(DEPLOYMENT, 1000, seed=2)
    assert 'of the 1000 unlabelled images are decided "none", but ' in label_shift.implausibility(pv, label, p, TRAINING)
    named = label_shift.implausibility(pv, label, p, [0.7, 0.1, 0.1, 0.1], names=["cat", "dog", "owl", "?"])
    assert 'decided "cat"' in named or 'decided "?"' in named


def test_too_few_images_and_equal_posteriors_are_no_reason_to_warn():
    (pv, label), (p, _) = draw(TRAINING, 1000, seed=1), draw(DEPLOYMENT, 5, seed=2)
    assert label_shift.implausibility(pv, label, p, TRAINING) == ""
    assert label_shift.implausibility(pv, label, p[:0], TRAINING) == ""
    equal = np.full((30, 3), 1 / 3)
    assert label_shift.implausibility(equal, np.arange(30) % 3, equal, np.full(3, 1 / 3)) == ""


def test_a_class_of_the_mix_must_have_validation_images():
    eye = np.eye(3)
    with pytest.raises(ValueError, match=r"class 1 of 3 has a prior of 0.2 but no validation image"):
        label_shift.implausibility(eye[[0, 2]], [0, 2], eye, [0.5, 0.2, 0.3])
    assert label_shift.implausibility(eye[[0, 2]], [0, 2], eye, [0.5, 0.0, 0.5]) == ""
