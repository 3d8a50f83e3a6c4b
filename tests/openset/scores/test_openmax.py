"""OpenMax: the fitted tails, and the part of the logits that moves to "none"."""

import numpy as np
import pytest
from scipy import stats

from openset_jax.openset.scores import openmax
from openset_jax.openset.scores.unavailable import ScoreUnavailable

RNG = np.random.default_rng(1)
LABEL = np.arange(120) % 3
LOGITS = 4 * np.eye(3)[LABEL] + RNG.normal(size=(120, 3))
OWN = [LOGITS[k::3] for k in range(3)]  # the images of each class
CENTRE = np.array([own.mean(0) for own in OWN])


@pytest.mark.parametrize("shift", [1.0, 1e4])
def test_a_tail_is_the_likeliest_weibull_distribution(shift):
    tails = openmax.fit(CENTRE, LOGITS, LABEL, shift=shift)
    for k in range(3):
        distances = np.sort(np.linalg.norm(OWN[k] - CENTRE[k], axis=1))[-20:]
        assert tails.smallest[k] == pytest.approx(distances[0])
        x = 1 + (distances - distances[0]) / shift

        def log_likelihood(shape, log_scale, x=x):
            return stats.weibull_min.logpdf(x, shape, scale=np.exp(log_scale)).sum()

        best = log_likelihood(tails.shape[k], tails.log_scale[k])
        for factor in (0.999, 1.001):
            assert log_likelihood(tails.shape[k] * factor, tails.log_scale[k]) < best
            assert log_likelihood(tails.shape[k], tails.log_scale[k] + np.log(factor) / tails.shape[k]) < best


def test_scores_are_those_of_the_algorithm_written_out():
    tails = openmax.fit(CENTRE, LOGITS, LABEL, tail=15)
    images = np.concatenate([LOGITS[:6], 5 * RNG.normal(size=(6, 3))])
    expected = []
    for z in images:
        revised = z.copy()
        for rank, k in enumerate(np.argsort(-z)[:2]):
            x = 1 + np.linalg.norm(z - CENTRE[k]) - tails.smallest[k]
            w = stats.weibull_min.cdf(x, tails.shape[k], scale=np.exp(tails.log_scale[k]))
            revised[k] -= z[k] * w * (2 - rank) / 2
        none = np.exp((z - revised).sum())
        expected.append(np.log(none / np.exp(revised).sum()))
    np.testing.assert_allclose(openmax.openmax(images, tails, revised=2), expected)
    np.testing.assert_array_equal(openmax.openmax(images, tails), openmax.openmax(images, tails, revised=99))
    one_by_one = [openmax.openmax(image[None], tails)[0] for image in images]
    np.testing.assert_allclose(openmax.openmax(images, tails), one_by_one)


def test_nothing_revised_leaves_none_a_logit_of_0():
    tails = openmax.fit(CENTRE, LOGITS, LABEL)
    np.testing.assert_allclose(openmax.openmax(LOGITS, tails, revised=0), -np.log(np.exp(LOGITS).sum(1)))


@pytest.mark.parametrize("shift", [1.0, 1e4])
@pytest.mark.parametrize("size", [1.0, 1e4])
def test_extreme_logits_stay_finite(size, shift):
    tails = openmax.fit(size * CENTRE, size * LOGITS, LABEL, shift=shift)
    images = np.concatenate([LOGITS, 1e4 * LOGITS, np.zeros((1, 3))])
    assert np.isfinite(openmax.openmax(images, tails)).all()
    below = tails.below(images)
    assert ((below >= 0) & (below <= 1)).all()


def test_a_tail_without_spread_is_a_step():
    tails = openmax.fit(np.zeros((1, 1)), np.array([[1.0], [-1.0]]), np.zeros(2, int))
    np.testing.assert_allclose(tails.below(np.array([[0.9], [1.1]]))[:, 0], [0, 1])


def test_too_few_images_are_refused():
    with pytest.raises(ValueError, match="two correctly classified training images of each class; class 1 has 1"):
        openmax.fit(CENTRE, LOGITS[[0, 3, 1, 2]], LABEL[[0, 3, 1, 2]])
    with pytest.raises(ScoreUnavailable, match="of each class; 'dog' has 1"):
        openmax.fit(CENTRE, LOGITS[[0, 3, 1, 2]], LABEL[[0, 3, 1, 2]], names=("cat", "dog"))
    with pytest.raises(ValueError, match="at least two distances, not 1"):
        openmax.fit(CENTRE, LOGITS, LABEL, tail=1)
