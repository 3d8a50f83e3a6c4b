"""One pass over training images: exact moments, a uniform sample, bounded memory."""

import tracemalloc

import numpy as np
import pytest
from scipy.special import log_softmax

from openset_jax.openset.scores import training_features
from openset_jax.openset.scores.training_features import Accumulator

RNG = np.random.default_rng(0)
LABEL = np.concatenate([np.arange(3), RNG.integers(-1, 3, 197)])
FEATURES = (RNG.random((200, 5)) + LABEL[:, None]).astype(np.float32)
LOGITS = RNG.normal(size=(200, 3)) + 2 * np.eye(3)[LABEL]


def accumulated(size, *, features=FEATURES, logits=LOGITS, label=LABEL, **options):
    accumulator = Accumulator(3, **options)
    for i in range(0, len(label), size):
        accumulator.update(features[i : i + size], logits[i : i + size], label[i : i + size])
    return accumulator.finish()


def sampled(training):
    return training.features[np.lexsort(training.features.T)]


def test_statistics_are_those_of_all_known_images():
    known = LABEL >= 0
    features, logits, label = FEATURES[known].astype(np.float64), LOGITS[known], LABEL[known]
    training = accumulated(32)
    np.testing.assert_array_equal(training.count, np.bincount(label))
    np.testing.assert_allclose(training.mean, features.mean(0))
    np.testing.assert_allclose(training.covariance, np.cov(features.T, bias=True), atol=1e-12)
    np.testing.assert_allclose(training.class_mean, [features[label == k].mean(0) for k in range(3)])
    np.testing.assert_allclose(training.max_logit, logits.max(1).mean())
    given = logits.argmax(1)
    mean = [np.exp(log_softmax(logits[given == k], axis=1)).mean(0) for k in range(3)]
    np.testing.assert_allclose(np.exp(training.log_typical), mean)
    right = [logits[(given == label) & (label == k)].mean(0) for k in range(3)]
    np.testing.assert_allclose(training.centre, right)
    np.testing.assert_array_equal(sampled(training), FEATURES[known][np.lexsort(FEATURES[known].T)])  # all fit


def test_whitening_makes_the_covariance_the_identity():
    known = LABEL >= 0
    training = accumulated(32)
    within = FEATURES[known] - training.class_mean[LABEL[known]]
    for whitening, centred in (
        (training.whitening_total, FEATURES[known] - training.mean),
        (training.whitening_within, within),
    ):
        white = centred @ whitening
        np.testing.assert_allclose(white.T @ white / known.sum(), np.eye(5), atol=1e-9)


@pytest.mark.parametrize("size", [1, 7, 64, 200])
@pytest.mark.parametrize("cap", [1, 20, 1000])
def test_batches_of_any_size_give_the_same(size, cap):
    one, other = accumulated(13, cap=cap), accumulated(size, cap=cap)
    np.testing.assert_array_equal(sampled(one), sampled(other))
    for name in ("count", "class_mean", "mean", "covariance", "max_logit", "log_typical", "centre"):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=1e-9, atol=1e-12, err_msg=name)


def test_stored_rows_belong_together_and_never_exceed_the_cap():
    accumulator = Accumulator(3, cap=20)
    for i in range(0, 200, 30):
        accumulator.update(FEATURES[i : i + 30], LOGITS[i : i + 30], LABEL[i : i + 30])
        assert len(accumulator._features) == 20 and len(accumulator._key) <= 20
    training = accumulator.finish()
    assert len(training.features) == len(training.logits) == len(training.label) == 20
    for feature, logit, label in zip(training.features, training.logits, training.label, strict=True):
        (row,) = np.flatnonzero((feature == FEATURES).all(1))
        np.testing.assert_array_equal(logit, LOGITS[row])
        assert label == LABEL[row]


def test_the_sample_is_uniform_and_the_seed_chooses_it():
    features = np.arange(300, dtype=np.float32)[:, None]
    options = {"features": features, "logits": np.zeros((300, 3)), "label": np.arange(300) % 3, "cap": 60}
    drawn = [accumulated(50, seed=seed, **options).features[:, 0].astype(int) for seed in range(300)]
    assert all(len(set(rows)) == 60 for rows in drawn) and set(drawn[0]) != set(drawn[1])
    times = np.bincount(np.concatenate(drawn), minlength=300)  # binomial: 60 of 300 times, standard deviation 6.9
    assert abs(times - 60).max() < 35 and abs(times[:150].mean() - 60) < 2


def test_memory_does_not_grow_with_the_number_of_images():
    accumulator, label = Accumulator(3, cap=64), np.arange(100) % 3
    rng = np.random.default_rng(0)
    accumulator.update(rng.random((100, 16), np.float32), rng.random((100, 3)), label)
    tracemalloc.start()
    try:
        for _ in range(100):  # 640 kB of features
            accumulator.update(rng.random((100, 16), np.float32), rng.random((100, 3)), label)
        assert tracemalloc.get_traced_memory()[1] < 200_000
    finally:
        tracemalloc.stop()


def test_a_mean_far_above_the_spread_costs_no_precision():
    features = FEATURES.astype(np.float64) + 1e7
    near, far = accumulated(16), accumulated(16, features=features)
    np.testing.assert_allclose(far.covariance, near.covariance, rtol=1e-6)


def test_a_class_that_no_image_is_given_has_no_typical_posterior():
    logits = np.zeros((200, 3)) - [0.0, 1e4, 2e4]
    training = accumulated(32, logits=logits)
    np.testing.assert_allclose(
        training.log_typical, [[0, -1e4, -2e4]], atol=1e-9
    )  # of probabilities that are 0 in floating point
    assert np.isnan(training.centre[1:]).all()


def test_negatives_and_empty_batches_change_nothing():
    accumulator = Accumulator(3)
    accumulator.update(FEATURES[:2], LOGITS[:2], np.array([-1, -2]))
    accumulator.update(FEATURES[:0], LOGITS[:0], LABEL[:0])
    with pytest.raises(ValueError, match="no training features of class 0, 1, 2"):
        accumulator.finish()


def test_what_is_wrong_is_said():
    with pytest.raises(ValueError, match="no training features of class 1"):
        accumulated(50, label=np.where(LABEL == 1, -1, LABEL))
    with pytest.raises(ValueError, match=r"they are \(4, 5\), \(3, 3\) and \(4,\)"):
        Accumulator(3).update(FEATURES[:4], LOGITS[:3], LABEL[:4])
    with pytest.raises(ValueError, match=r"must be \[n, F\], \[n, 2\] and \[n\]"):
        Accumulator(2).update(FEATURES[:4], LOGITS[:4], np.zeros(4, int))
    with pytest.raises(ValueError, match="label 3 is not below the number of classes, 3"):
        Accumulator(3).update(FEATURES[:2], LOGITS[:2], np.array([0, 3]))
    with pytest.raises(ValueError, match="1 of 200 training images have a feature that is not finite"):
        accumulated(200, features=np.where(np.arange(200)[:, None] == 3, np.nan, FEATURES))
    with pytest.raises(ValueError, match="have a logit that is not finite"):
        accumulated(200, logits=np.where(np.arange(200)[:, None] == 3, np.inf, LOGITS))
    accumulator = Accumulator(3)
    accumulator.update(FEATURES, LOGITS, LABEL)
    with pytest.raises(ValueError, match="this batch has 4 features, the ones before it 5"):
        accumulator.update(FEATURES[:, :4], LOGITS, LABEL)
    for options in ({"num_classes": 0}, {"num_classes": 3, "cap": 0}):
        with pytest.raises(ValueError, match="at least 1"):
            training_features.Accumulator(**options)


def test_features_that_do_not_vary_have_no_whitening():
    training = accumulated(50, features=np.ones_like(FEATURES))
    with pytest.raises(ValueError, match="do not vary within the classes"):
        _ = training.whitening_total
    collapsed = accumulated(50, features=np.eye(3)[LABEL])
    assert collapsed.whitening_total.shape == (3, 2)
    with pytest.raises(ValueError, match="do not vary within the classes"):
        _ = collapsed.whitening_within
