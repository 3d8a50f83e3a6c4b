import time

import numpy as np
import pytest
from scipy import stats

from openset_jax.openset.metrics import ranking
from openset_jax.openset.metrics.bands import bands
from openset_jax.openset.metrics.ranking import rank


def samples(m, n, *, seed=0, decimals=None):
    rng = np.random.default_rng(seed)
    known, unknown, correct = rng.normal(0, 1, m), rng.normal(1.5, 1, n), rng.random(m) < 0.9
    return (known, unknown, correct) if decimals is None else (known.round(decimals), unknown.round(decimals), correct)


@pytest.mark.parametrize("decimals", [None, 0])
def test_they_are_percentiles_of_curves_of_other_draws(decimals):
    known, unknown, correct = samples(60, 40, decimals=decimals)
    found = bands(rank(known, unknown, correct), points=21, most=2_000)
    rng, curves = np.random.default_rng(1), []
    for _ in range(2_000):  # image by image
        k, u = rng.integers(0, 60, 60), rng.integers(0, 40, 40)
        x, *shares = ranking.curve(rank(known[k], unknown[u], correct[k]))
        curves.append([np.interp(found.unknown, x, share) for share in shares])
    expected = np.quantile(curves, [0.025, 0.975], axis=0)
    inner = slice(1, -1)  # at the ends all may be alike
    for band, by_hand in ((found.known, expected[:, 0]), (found.correct, expected[:, 1])):
        assert np.abs(band - by_hand)[:, inner].max() < 3 / 60  # steps of one image
        assert np.abs(band - by_hand)[:, inner].mean() < 0.01


def test_they_cover_what_they_should():
    hit = []
    for seed in range(150):
        found = bands(rank(*samples(80, 80, seed=seed)), points=11, most=200)
        truth = stats.norm.cdf(stats.norm.ppf(found.unknown) + 1.5)
        hit.append((found.known[0] <= truth) & (truth <= found.known[1]))
    assert 0.88 <= np.mean(hit, axis=0)[2:-2].mean() <= 0.99


def test_order_within_and_between_the_bands():
    found = bands(rank(*samples(50, 70)))
    assert found.unknown[0] == 0 and found.unknown[-1] == 1
    assert found.known[:, -1].tolist() == [1, 1]
    for low, high in (found.known, found.correct):
        assert (low >= 0).all() and (low <= high).all() and (high <= 1).all()
        assert (np.diff(low) >= -1e-12).all() and (np.diff(high) >= -1e-12).all()
    assert (found.correct <= found.known + 1e-12).all()


def test_a_perfect_sample_is_no_proof_of_a_perfect_score():
    low, high = bands(rank(np.zeros(30), np.ones(50))).known
    assert low[0] == pytest.approx(0.025 ** (1 / 30)) and high[0] == 1


def test_one_image_says_nothing():
    found = bands(rank(np.zeros(1), np.arange(9.0)))
    assert found.known[0].max() == 0 and found.known[1].min() == 1


def test_many_images_stay_quick():
    start = time.monotonic()
    bands(rank(*samples(60_000, 60_000)))
    assert time.monotonic() - start < 30
