import time

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import balanced_accuracy_score

from openset_jax.openset.metrics import intervals, ranking
from openset_jax.openset.metrics.ranking import rank


def samples(m, n, shift, *, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(0, 1, m), rng.normal(shift, 1.5, n)


def delong_by_the_book(known, unknown):
    """The standard error from all pairs of images."""
    won = (unknown[None] > known[:, None]) + 0.5 * (unknown[None] == known[:, None])
    return np.sqrt(won.mean(1).var(ddof=1) / len(known) + won.mean(0).var(ddof=1) / len(unknown))


@pytest.mark.parametrize("decimals", [None, 1, 0])
def test_delongs_interval_is_that_of_all_pairs(decimals):
    known, unknown = samples(80, 50, 1.5)
    if decimals is not None:
        known, unknown = known.round(decimals), unknown.round(decimals)  # ties
    value, low, high = intervals.auroc(rank(known, unknown))
    logit = lambda p: np.log(p / (1 - p))
    half = (logit(high) - logit(low)) / 2
    assert half == pytest.approx(1.959963984540054 * delong_by_the_book(known, unknown) / (value * (1 - value)), rel=1e-9)
    assert low < value < high
    assert value == ranking.auroc(rank(known, unknown))


@pytest.mark.parametrize("shift", [0.5, 3.0])
def test_delongs_interval_covers_what_it_should(shift):
    truth = stats.norm.cdf(shift / np.sqrt(1 + 1.5**2))
    found = [intervals.auroc(rank(*samples(60, 60, shift, seed=seed))) for seed in range(400)]
    covered = np.mean([low <= truth <= high for _, low, high in found])
    assert 0.92 <= covered <= 0.99


@pytest.mark.parametrize(("order", "value"), [(1, 1.0), (-1, 0.0)])
def test_a_perfect_sample_is_no_proof_of_a_perfect_score(order, value):
    found = intervals.auroc(rank(np.zeros(30) - order, np.zeros(50) + order))
    assert found.value == value
    assert abs(value - (found.low if value else found.high)) == pytest.approx(1 - 0.025 ** (1 / 30))


def test_equal_scores_are_no_proof_of_chance():
    value, low, high = intervals.auroc(rank(np.zeros(30), np.zeros(50)))
    half = (1 - 0.025 ** (1 / 30)) / 2
    assert (value, low, high) == pytest.approx((0.5, 0.5 - half, 0.5 + half))


@pytest.mark.parametrize("images", [1, 9, 400])
@pytest.mark.parametrize(("least", "most"), [(0, 1), (-1, 1), (0, 5)])
def test_without_variance_the_ends_are_those_of_the_exact_binomial_interval(images, least, most):
    ends = {hits: stats.binomtest(hits, images).proportion_ci(method="exact") for hits in (0, images)}
    span = most - least
    low, high = intervals.without_variance(least, images, least, most)[1:]
    assert (low, high) == pytest.approx((least, least + span * ends[0].high))
    low, high = intervals.without_variance(most, images, least, most)[1:]
    assert (low, high) == pytest.approx((least + span * ends[images].low, most))
    value, low, high = intervals.without_variance((least + most) / 2, images, least, most)
    assert least <= low < value < high <= most


def test_a_cost_of_9_right_of_9_is_not_certain():
    """With costs of 1 and one class in use, the expected cost is the share of wrong answers."""
    exact = stats.binomtest(0, 9).proportion_ci(method="exact").high
    costs, prior = np.array([[0.0, 1], [1, 0]]), np.array([1.0, 0])
    assert intervals.expected_cost(np.array([[9, 0], [0, 0]]), costs, prior) == pytest.approx((0, 0, exact))
    assert intervals.expected_cost(np.array([[0, 9], [0, 0]]), costs, prior) == pytest.approx((1, 1 - exact, 1))
    both = intervals.expected_cost(np.array([[9, 0], [0, 20]]), 5 * costs, np.array([0.5, 0.5]))
    assert both == pytest.approx((0, 0, 5 * exact)), "of the smaller class"
    assert intervals.expected_cost(np.array([[9, 0], [0, 20]]), 0 * costs, np.array([0.5, 0.5])) == (0, 0, 0)


def test_recalls_of_0_and_1_are_not_certain():
    value, low, high = intervals.mean_of_proportions([9, 0], [9, 20])
    half = (1 - 0.025 ** (1 / 9)) / 2
    assert (value, low, high) == pytest.approx((0.5, 0.5 - half, 0.5 + half))


def test_a_metric_that_never_varies_has_an_interval():
    """Where all knowns rank above the unknowns, every resample has the same average precision, which is not 0."""
    ranked = rank(np.ones(30), np.zeros(50))
    value, low, high = intervals.bootstrap(ranked, {"ap": ranking.average_precision})["ap"]
    assert 0 < low < value < high < 1


def test_one_image_says_nothing():
    ranked = rank(np.zeros(1), np.arange(9.0) - 4)
    assert intervals.auroc(ranked)[1:] == (0.0, 1.0)
    assert intervals.bootstrap(ranked, {"oscr": ranking.oscr})["oscr"][1:] == (0.0, 1.0)


@pytest.mark.parametrize(("hits", "count"), [(0, 10), (3, 10), (10, 10), (999, 1000)])
def test_shares_have_the_exact_binomial_interval(hits, count):
    expected = stats.binomtest(hits, count).proportion_ci(method="exact")
    assert intervals.proportion(hits, count) == pytest.approx((hits / count, expected.low, expected.high), abs=1e-12)


def test_the_bootstrap_agrees_with_delong():
    ranked = rank(*samples(400, 300, 1.0))
    exact = intervals.auroc(ranked)
    drawn = intervals.bootstrap(ranked, {"auroc": ranking.auroc})["auroc"]
    assert drawn.value == exact.value
    assert drawn.high - drawn.low == pytest.approx(exact.high - exact.low, rel=0.1)


def test_the_bootstrap_covers_what_it_should():
    metrics = {"oscr": ranking.oscr, "accepted": ranking.unknowns_accepted}
    truth, hits = {}, dict.fromkeys(metrics, 0)
    right = lambda known: np.random.default_rng(len(known)).random(len(known)) < 0.9
    large = samples(200_000, 200_000, 1.5, seed=-1 % 2**32)
    truth = {name: float(metric(rank(*large, right(large[0])))) for name, metric in metrics.items()}
    for seed in range(150):
        known, unknown = samples(150, 150, 1.5, seed=seed)
        correct = np.random.default_rng(10_000 + seed).random(150) < 0.9
        found = intervals.bootstrap(rank(known, unknown, correct), metrics, seed=seed)
        for name, (_, low, high) in found.items():
            hits[name] += low <= truth[name] <= high
    assert all(0.88 <= count / 150 <= 0.99 for count in hits.values()), hits


def test_resamples_are_drawn_from_each_side_apart_and_with_their_classes(monkeypatch):
    monkeypatch.setattr(intervals, "_CHUNK", 500)
    ranked = rank(*samples(40, 30, 1.0), np.arange(40) < 25)
    seen = []
    intervals.bootstrap(ranked, {"all": lambda r: seen.append(r) or r.known.sum(-1)})
    drawn = seen[0]
    assert sum(len(r.known) for r in seen[:-1]) == intervals.num_resamples(70) == 2_000
    assert (drawn.known.sum(-1) == 40).all()
    assert (drawn.unknown.sum(-1) == 30).all()
    assert (drawn.correct <= drawn.known).all()
    assert not drawn.unknown[:, ranked.unknown == 0].any()
    correct = np.concatenate([r.correct.sum(-1) for r in seen[:-1]])
    assert correct.mean() == pytest.approx(25, abs=0.5)
    assert correct.std() == pytest.approx(np.sqrt(40 * 0.625 * 0.375), rel=0.1)


def test_groups_are_drawn_whole():
    """Other kinds of unknowns may be as easy or as hard as the two groups; resampled images do not show this variation."""
    rng = np.random.default_rng(0)
    known, easy, hard = rng.normal(0, 1, 300), rng.normal(6, 1, 300), rng.normal(0, 1, 300)
    ranked = rank(known, np.concatenate([easy, hard]))
    groups = np.stack([np.isin(ranked.score, kind).astype(int) for kind in (easy, hard)])
    metrics = {"auroc": ranking.auroc}
    images = intervals.bootstrap(ranked, metrics)["auroc"]
    kinds = intervals.bootstrap(ranked, metrics, groups=groups)["auroc"]
    assert images.high - images.low < 0.06
    assert kinds.low == pytest.approx(0.5, abs=0.06)
    assert kinds.high == pytest.approx(1, abs=0.01)


def test_the_same_seed_gives_the_same_interval_and_work_is_bounded():
    ranked = rank(*samples(50, 50, 1.0))
    metrics = {"oscr": ranking.oscr}
    assert intervals.bootstrap(ranked, metrics) == intervals.bootstrap(ranked, metrics)
    assert intervals.bootstrap(ranked, metrics, seed=1) != intervals.bootstrap(ranked, metrics)
    assert [intervals.num_resamples(n) for n in (1, 10**4, 10**5, 10**8)] == [2_000, 2_000, 200, 100]


def test_the_mean_of_recalls_is_scikit_learns_balanced_accuracy():
    rng = np.random.default_rng(0)
    label, answer = rng.integers(0, 4, 60), rng.integers(0, 4, 60)
    hits = [int((answer[label == k] == k).sum()) for k in range(4)]
    value, low, high = intervals.mean_of_proportions(hits, np.bincount(label).tolist())
    assert value == pytest.approx(balanced_accuracy_score(label, answer))
    assert low < value < high
    assert intervals.mean_of_proportions([], []) is None


def test_the_interval_of_a_weighted_measure_holds_the_truth_about_as_often_as_it_says():
    """The measure is the mean of two strata whose expectations are known."""
    rng, inside = np.random.default_rng(0), 0
    label = np.repeat([0, 1], [60, 140])
    for _ in range(200):
        values = rng.exponential(np.where(label == 0, 1.0, 3.0))
        found = intervals.weighted(lambda w, v=values: np.average(v, weights=w), label, np.ones(200), resamples=200)
        inside += found.low <= 0.3 * 1 + 0.7 * 3 <= found.high
        assert found.low <= found.value <= found.high
    assert 0.88 <= inside / 200 <= 0.99


def test_a_measure_of_0_on_all_images_is_not_certain():
    found = intervals.weighted(lambda w: 0.0 * w.sum(), np.repeat([0, 1], [60, 9]), np.ones(69), most=2.0, resamples=20)
    assert found == pytest.approx((0, 0, 2 * (1 - 0.025 ** (1 / 9))))


def curve_samples(m, n, *, seed=0, decimals=None):
    rng = np.random.default_rng(seed)
    known, unknown, correct = rng.normal(0, 1, m), rng.normal(1.5, 1, n), rng.random(m) < 0.9
    return (known, unknown, correct) if decimals is None else (known.round(decimals), unknown.round(decimals), correct)


@pytest.mark.parametrize("decimals", [None, 0])
def test_bands_are_percentiles_of_curves_of_other_draws(decimals):
    known, unknown, correct = curve_samples(60, 40, decimals=decimals)
    found = intervals.bands(rank(known, unknown, correct), points=21, resamples=2_000)
    rng, curves = np.random.default_rng(1), []
    for _ in range(2_000):  # one image at a time
        k, u = rng.integers(0, 60, 60), rng.integers(0, 40, 40)
        x, *shares = ranking.curve(rank(known[k], unknown[u], correct[k]))
        curves.append([np.interp(found.unknown, x, share) for share in shares])
    expected = np.quantile(curves, [0.025, 0.975], axis=0)
    inner = slice(1, -1)  # at the ends all values may be equal
    for band, by_hand in ((found.known, expected[:, 0]), (found.correct, expected[:, 1])):
        assert np.abs(band - by_hand)[:, inner].max() < 3 / 60  # steps of one image
        assert np.abs(band - by_hand)[:, inner].mean() < 0.01


def test_bands_cover_what_they_should():
    hit = []
    for seed in range(150):
        found = intervals.bands(rank(*curve_samples(80, 80, seed=seed)), points=11, resamples=200)
        truth = stats.norm.cdf(stats.norm.ppf(found.unknown) + 1.5)
        hit.append((found.known[0] <= truth) & (truth <= found.known[1]))
    assert 0.88 <= np.mean(hit, axis=0)[2:-2].mean() <= 0.99


def test_order_within_and_between_the_bands():
    found = intervals.bands(rank(*curve_samples(50, 70)))
    assert found.unknown[0] == 0 and found.unknown[-1] == 1
    assert found.known[:, -1].tolist() == [1, 1]
    for low, high in (found.known, found.correct):
        assert (low >= 0).all() and (low <= high).all() and (high <= 1).all()
        assert (np.diff(low) >= -1e-12).all() and (np.diff(high) >= -1e-12).all()
    assert (found.correct <= found.known + 1e-12).all()


def test_bands_of_a_perfect_sample_are_no_proof_of_a_perfect_score():
    low, high = intervals.bands(rank(np.zeros(30), np.ones(50))).known
    assert low[0] == pytest.approx(0.025 ** (1 / 30)) and high[0] == 1


def test_bands_of_the_worst_sample_are_no_proof_of_the_worst_score():
    low, high = intervals.bands(rank(np.ones(30), np.zeros(50))).known
    assert low[0] == 0 and high[0] == pytest.approx(1 - 0.025 ** (1 / 30)) and high[-1] == 1
    wrong = intervals.bands(rank(*samples(30, 50, 1.0), np.zeros(30, bool))).correct
    assert wrong[1] == pytest.approx(np.full(201, 1 - 0.025 ** (1 / 30)))


def test_bands_of_one_image_say_nothing():
    found = intervals.bands(rank(np.zeros(1), np.arange(9.0)))
    assert found.known[0].max() == 0 and found.known[1].min() == 1


def test_bands_of_many_images_stay_quick():
    start = time.monotonic()
    intervals.bands(rank(*curve_samples(60_000, 60_000)))
    assert time.monotonic() - start < 30
