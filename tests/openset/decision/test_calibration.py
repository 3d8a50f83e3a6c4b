"""Calibrators against known posteriors, scikit-learn and brute force."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit, logsumexp
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from openset_jax.openset.decision import calibration, posterior
from openset_jax.openset.scores.logit_scores import softmax

K = 3
# scores with ties, labels of knowns and "none", small counts as weights
ROWS = st.lists(st.tuples(st.integers(-3, 3), st.integers(0, K), st.integers(0, 3)), max_size=25).map(
    lambda rows: [*rows, (-1, 0, 1), (1, K, 1), (0, K, 2)]
)


def overconfident(temperature, columns, count=30_000, seed=0):
    """(logits that are `temperature` times too large, labels drawn from the correct posterior)."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (count, columns))
    p = softmax(logits)
    return logits * temperature, (rng.random((count, 1)) > p.cumsum(1)).sum(1)


def scored(count=4000, seed=0):
    """(score, label, P(none | score))."""
    rng = np.random.default_rng(seed)
    score = rng.normal(0, 2, count)
    p = expit(1.5 * score - 1)
    return score, np.where(rng.random(count) < p, K, rng.integers(0, K, count)), p


@pytest.mark.parametrize("truth", [0.5, 1.0, 3.0])
def test_temperature_finds_how_much_too_large_logits_are(truth):
    logits, label = overconfident(truth, K + 1)
    assert calibration.fit("temperature", logits, label, K).temperature == pytest.approx(truth, rel=0.03)
    logits, label = overconfident(truth, K)  # no output for "none": negatives are not used
    logits, label = np.r_[logits, logits[:500]], np.r_[label, np.full(500, K)]
    assert calibration.fit("temperature", logits, label, K).temperature == pytest.approx(truth, rel=0.03)


@pytest.mark.parametrize("truth", [0.5, 3.0])
def test_temperature_of_sigmoids_calibrates_every_head(truth):
    logits, label = overconfident(1, K + 1)
    p = softmax(logits)[:, :-1]
    heads = truth * np.log(p / (1 - p))
    found = calibration.fit("temperature", heads, label, K, heads="sigmoid")
    assert found.temperature == pytest.approx(truth, rel=0.03)
    np.testing.assert_allclose(posterior.from_sigmoids(found.apply(heads)), softmax(logits), atol=0.02)


@pytest.mark.parametrize("heads", ["softmax", "sigmoid"])
def test_no_other_temperature_is_likelier(heads):
    rng = np.random.default_rng(1)
    logits, label, weight = rng.normal(0, 3, (200, K)), rng.integers(0, K + 1, 200), rng.random(200)
    logits[np.arange(200), np.minimum(label, K - 1)] += 2
    found = calibration.fit("temperature", logits, label, K, heads=heads, weight=weight).temperature
    truth = np.eye(K + 1)[label][:, :K]

    def loss(temperature):
        z = logits / temperature
        if heads == "sigmoid":
            return weight @ (np.logaddexp(0, z) - truth * z).sum(1)
        return weight @ (truth * (logsumexp(z, axis=1, keepdims=True) - z)).sum(1)

    grid = np.exp(np.linspace(np.log(0.05), np.log(20), 2001))
    assert 0.05 < found < 20
    assert loss(found) <= min(map(loss, grid))
    assert loss(found) <= min(loss(found * 0.999), loss(found * 1.001))


def test_temperature_stays_in_its_range_and_at_1_where_nothing_depends_on_it():
    right, label = np.eye(3)[[0, 1, 2]], np.arange(3)
    assert calibration.fit("temperature", right, label, 2).temperature == 0.05
    assert calibration.fit("temperature", 1000 * right, label[::-1].copy(), 2).temperature == 20
    assert calibration.fit("temperature", np.ones((3, 3)), label, 2).temperature == 1
    assert calibration.fit("temperature", np.zeros((3, 2)), label, 2, heads="sigmoid").temperature == 1
    logits, label = overconfident(3, K + 1, 2000)
    shifted = calibration.fit("temperature", logits + 1e5, label, K).temperature
    assert shifted == pytest.approx(calibration.fit("temperature", logits, label, K).temperature, rel=1e-6)


def test_logistic_is_scikit_learns_regression_of_platts_targets():
    score, label, _ = scored(400)
    weight = np.random.default_rng(1).random(400)
    is_none = label == K
    high, low = (weight @ is_none + 1) / (weight @ is_none + 2), 1 / (weight @ ~is_none + 2)
    target = np.where(is_none, high, low)
    model = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(
        np.r_[score, score][:, None], np.repeat([1, 0], 400), sample_weight=np.r_[weight * target, weight * (1 - target)]
    )
    found = calibration.fit("logistic", score, label, K, weight=weight)
    assert (found.slope, found.intercept) == pytest.approx((model.coef_[0, 0], model.intercept_[0]), rel=1e-5)
    np.testing.assert_allclose(found.apply(score), model.predict_proba(score[:, None])[:, 1], rtol=1e-5)


def test_logistic_is_nearly_the_plain_regression_and_finds_the_truth():
    score, label, p = scored(40_000)
    found = calibration.fit("logistic", score, label, K)
    plain = LogisticRegression(C=np.inf, tol=1e-10).fit(score[:, None], label == K)
    assert (found.slope, found.intercept) == pytest.approx((plain.coef_[0, 0], plain.intercept_[0]), rel=2e-3)
    np.testing.assert_allclose(found.apply(score), p, atol=0.01)


def test_logistic_is_finite_where_the_score_separates_and_of_any_scale():
    score, label = np.array([-3.0, -2, -1, 1, 2, 3]), np.array([0, 1, 2, K, K, K])
    found = calibration.fit("logistic", score, label, K)
    assert 0 < found.slope < 10
    assert found.apply(score)[[0, -1]] == pytest.approx([0.2, 0.8], abs=0.15)  # 1 / (N + 2), (N + 1) / (N + 2)
    far = calibration.fit("logistic", 1e8 * score + 1e9, label, K)
    np.testing.assert_allclose(far.apply(1e8 * score + 1e9), found.apply(score), rtol=1e-6)
    flat = calibration.fit("logistic", np.full(6, 7.0), label, K)
    assert flat == calibration.Logistic(0.0, 0.0)
    np.testing.assert_array_equal(found.apply([-1e9, 1e9, np.inf]), [1e-12, 1 - 1e-12, 1 - 1e-12])


@given(ROWS)
def test_logistic_is_where_the_gradient_is_zero(rows):
    score, label, weight = np.array(rows, float).T
    found = calibration.fit("logistic", score, label, K, weight=weight)
    is_none = label == K
    target = np.where(is_none, (weight @ is_none + 1) / (weight @ is_none + 2), 1 / (weight @ ~is_none + 2))
    error = weight * (expit(found.slope * score + found.intercept) - target)
    np.testing.assert_allclose([error.sum(), error @ score], 0, atol=1e-9)


@given(ROWS)
def test_isotonic_is_scikit_learns_within_the_bounds(rows):
    score, label, weight = np.array(rows, float).T
    is_none = label == K
    low, high = 1 / (weight @ ~is_none + 2), (weight @ is_none + 1) / (weight @ is_none + 2)
    used = weight > 0
    expected = IsotonicRegression(out_of_bounds="clip").fit(score[used], is_none[used], sample_weight=weight[used])
    found = calibration.fit("isotonic", score, label, K, weight=weight)
    np.testing.assert_allclose(found.apply(score[used]), np.clip(expected.predict(score[used]), low, high), atol=1e-12)
    grid = found.apply(np.linspace(-9, 9, 99))
    assert (np.diff(grid) >= -1e-15).all() and grid[0] > 0 and grid[-1] < 1


def test_isotonic_finds_the_truth():
    score, label, p = scored(40_000)
    assert np.abs(calibration.fit("isotonic", score, label, K).apply(score) - p).mean() < 0.02


@pytest.mark.parametrize("kind", ["temperature", "logistic", "isotonic"])
@given(ROWS)
def test_a_weight_is_how_often_a_row_stands_there(kind, rows):
    score, label, weight = np.array(rows).T
    values = score.astype(float)
    if kind == "temperature":
        values = np.stack([values, values**2 / 2, -values, np.sin(values)], axis=1)
    weighted = calibration.fit(kind, values, label, K, weight=weight)
    repeated = calibration.fit(kind, values.repeat(weight, 0), label.repeat(weight), K)
    np.testing.assert_allclose(weighted.apply(values), repeated.apply(values), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("kind", list(calibration.KINDS))
def test_json_keeps_every_digit(kind):
    score, label, _ = scored(300)
    logits, truth = overconfident(2, K + 1, 300)
    on_logits = kind in ("none", "temperature")
    found = calibration.fit(kind, logits if on_logits else score, truth if on_logits else label, K)
    saved = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert saved["kind"] == kind
    again = calibration.from_json(saved)
    assert again == found and type(found).from_json(saved) == found
    values = logits if on_logits else score
    np.testing.assert_array_equal(again.apply(values), found.apply(values))


def test_json_of_something_else_is_refused():
    with pytest.raises(ValueError, match="calibration 'magic' is not one of none, temperature, logistic, isotonic"):
        calibration.from_json({"kind": "magic"})
    with pytest.raises(
        ValueError, match=r"a saved 'temperature' calibrator has a kind and the fields \['temperature'\], not"
    ):
        calibration.from_json({"kind": "temperature", "slope": 1.0})
    with pytest.raises(ValueError, match="a saved 'logistic' calibrator"):
        calibration.Logistic.from_json({"kind": "temperature", "slope": 1.0, "intercept": 0.0})


def test_no_calibration_changes_nothing_and_needs_nothing():
    logits = np.array([[1, 2, np.inf]], np.float32)
    np.testing.assert_array_equal(calibration.fit("none", logits, np.array([0]), 2).apply(logits), logits)


@pytest.mark.parametrize("kind", ["temperature", "logistic", "isotonic"])
@pytest.mark.parametrize(("label", "side"), [([0, 1, 1], "negatives"), ([2, 2, 2], "knowns"), ([2, 0, 2], "knowns")])
def test_both_sides_are_needed(kind, label, side):
    values = np.eye(3) if kind == "temperature" else np.arange(3.0)
    weight = np.array([1.0, label[1] != 0, 1])  # the only known has no weight
    with pytest.raises(ValueError, match=f"calibration '{kind}' needs validation images of {side}; there are none"):
        calibration.fit(kind, values, np.array(label), 2, weight=weight)


def test_a_softmax_without_none_needs_knowns_alone():
    assert calibration.fit("temperature", np.eye(2), np.array([0, 1]), 2).temperature == 0.05
    with pytest.raises(ValueError, match="needs validation images of knowns"):
        calibration.fit("temperature", np.eye(2), np.array([2, 2]), 2)


@pytest.mark.parametrize(
    ("kind", "values", "options", "message"),
    [
        ("platt", np.zeros(3), {}, "calibration 'platt' is not one of none, temperature, logistic, isotonic"),
        ("temperature", np.zeros((3, 5)), {}, "softmax heads of 2 classes cannot have 5 logits"),
        ("temperature", np.zeros((3, 3)), {"heads": "sigmoid"}, "sigmoid heads of 2 classes cannot have 3 logits"),
        ("temperature", np.zeros(3), {}, "logits must have 2 axes"),
        ("temperature", np.full((3, 3), np.nan), {}, "logits: row 0 of 3 is not finite"),
        ("logistic", np.zeros((3, 3)), {}, "the score must have 1 axis"),
        ("isotonic", np.array([0, 1, np.inf]), {}, "the score: row 2 of 3 is not finite"),
        ("isotonic", np.zeros(2), {}, r"labels must have shape \(2,\), one for each image, not"),
        ("isotonic", np.zeros(3), {"weight": [1, 1]}, r"weights must have shape \(3,\), one for each image, not \(2,\)"),
        ("logistic", np.zeros(3), {"weight": [1, 1, -1]}, "weight 2 of 3 is -1"),
    ],
)
def test_what_cannot_be_fitted_is_refused(kind, values, options, message):
    with pytest.raises(ValueError, match=message):
        calibration.fit(kind, values, np.array([0, 1, 2]), 2, **options)


def test_mix_weights_give_the_mix_and_calibration_in_it_corrects_to_any_other():
    score, label, p = scored(40_000)
    share = np.bincount(label, minlength=K + 1) / len(label)
    prior = np.array([0.3, 0.3, 0.3, 0.1])
    weight = calibration.mix_weights(label, prior)
    np.testing.assert_allclose(np.bincount(label, weight) / len(label), prior)
    fitted = calibration.fit("logistic", score, label, K, weight=weight).apply(score)
    back = posterior.correct_prior(np.stack([1 - fitted, fitted], 1), [0.9, 0.1], [1 - share[K], share[K]])
    np.testing.assert_allclose(back[:, 1], p, atol=0.02)
    np.testing.assert_array_equal(calibration.mix_weights([0, 2], [0.25, 0, 0.75]), [0.5, 1.5])
    with pytest.raises(ValueError, match="class 1 of 3 has a prior of 0.2, but no validation image"):
        calibration.mix_weights([0, 2], [0.3, 0.2, 0.5])
