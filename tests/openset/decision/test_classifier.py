"""Posteriors and decisions from logits, for Gaussian classes whose posterior is known exactly."""

import json

import numpy as np
import pytest
from scipy.special import logsumexp

from openset_jax.errors import UserError
from openset_jax.openset.decision import classifier, prior_and_costs, thresholds
from openset_jax.openset.decision.classifier import Classifier
from openset_jax.openset.losses import objectives

CLASSES = ("a", "b")
MEANS = np.array([[2.0, 0.0], [-2.0, 0.0], [0.0, 3.0]])  # of Gaussian classes: a, b, none
TRAINING = np.array([0.4, 0.4, 0.2])


def cloud(prior, count, seed):
    """(points [n, 2], label [n] in 0..2)."""
    rng = np.random.default_rng(seed)
    label = rng.choice(3, count, p=prior)
    return MEANS[label] + rng.normal(size=(count, 2)), label


def log_joint(points, prior):
    return np.log(prior) - ((points[:, None] - MEANS) ** 2).sum(-1) / 2


def bayes(points, prior):
    joint = log_joint(points, prior)
    return np.exp(joint - logsumexp(joint, 1, keepdims=True))


def outputs(name, points):
    """Logits of a perfect network under the training prior; `background` is overconfident by a factor of 2."""
    joint = log_joint(points, TRAINING)
    if name == "background":
        return 2 * joint
    if name == "one_vs_rest":
        p = bayes(points, TRAINING)
        return np.log(p[:, :2]) - np.log1p(-p[:, :2])
    return joint[:, :2] - joint[:, 2:]  # so that every score depends on "none"


def fit(name, prior=None, seed=1, calibrate="", rule=("keep_knowns", 0.95), count=20_000, costs=None):
    points, label = cloud(TRAINING, count, seed)
    return classifier.fit(
        objectives.get(name), CLASSES, outputs(name, points), label, training_prior=TRAINING, calibrate=calibrate,
        prior=TRAINING if prior is None else np.asarray(prior), costs=prior_and_costs.cost_matrix(costs, CLASSES),
        rule=thresholds.Rule(*rule), resamples=50,
    )  # fmt: skip


@pytest.mark.parametrize("prior", [TRAINING, [0.1, 0.1, 0.8], [0.1, 0.9, 0.0]])
@pytest.mark.parametrize("name", ["background", "one_vs_rest"])
def test_the_posterior_is_bayes_under_any_deployment(name, prior):
    points, _ = cloud(TRAINING, 500, 2)
    ours = fit(name, prior).posterior(outputs(name, points))
    np.testing.assert_allclose(ours, bayes(points, np.asarray(prior) + 1e-300), atol=0.03)


def test_temperature_takes_the_overconfidence_out():
    calibrated = fit("background")
    assert calibrated.temperature.temperature == pytest.approx(2, rel=0.05)
    points, _ = cloud(TRAINING, 500, 2)
    raw = classifier.own_posterior(objectives.get("background"), outputs("background", points))
    assert np.abs(raw - bayes(points, TRAINING)).max() > 0.1


@pytest.mark.parametrize(("calibrate", "within"), [("", 0.05), ("isotonic", 0.15)])
def test_a_network_without_a_none_output_gets_p_none_from_its_score(calibrate, within):
    """The energy of these logits is -log(p_known / p_none), so that p(none) is a function of it."""
    points, _ = cloud(TRAINING, 500, 2)
    for prior in (TRAINING, [0.1, 0.1, 0.8]):
        ours = fit("energy_margin", prior, calibrate=calibrate).posterior(outputs("energy_margin", points))
        np.testing.assert_allclose(ours, bayes(points, np.asarray(prior)), atol=within)
    assert classifier.own_posterior(objectives.get("energy_margin"), outputs("energy_margin", points)) is None


@pytest.mark.parametrize("name", objectives.OBJECTIVES)
def test_probabilities_sum_to_one_and_survive_the_file(name):
    points, label = cloud(TRAINING, 300, 3)
    calibrated = fit(name, [0.2, 0.3, 0.5], count=500)
    again = Classifier.from_json(json.loads(json.dumps(calibrated.to_json())))
    group = np.array(["g"] * 300, object)
    one, other = (c.classify(outputs(name, points), label, group) for c in (calibrated, again))
    np.testing.assert_array_equal(one[1], other[1])
    np.testing.assert_array_equal(one[0].decision, other[0].decision)
    np.testing.assert_allclose(one[1].sum(1), 1)
    assert one[0].decision.max() == 2
    kept = np.mean(one[0].decision[label < 2] < 2)
    assert kept == pytest.approx(0.95, abs=0.05)


def test_sigmoids_calibrated_by_their_score_keep_their_shares_of_the_classes():
    points, _ = cloud(TRAINING, 200, 2)
    own, by_score = (
        fit("one_vs_rest", calibrate=kind).posterior(outputs("one_vs_rest", points)) for kind in ("", "logistic")
    )
    share = lambda p: p[:, 0] / p[:, :2].sum(1)
    np.testing.assert_allclose(share(by_score), share(own), atol=0.01)


def test_an_infinite_threshold_survives_json_that_others_can_read():
    calibrated = fit("background", rule=("least_cost", None), costs={"accept_none": 100, "reject_known": 0}, count=500)
    assert calibrated.threshold.value == -np.inf
    text = json.dumps(calibrated.to_json(), allow_nan=False)
    assert Classifier.from_json(json.loads(text)).threshold == calibrated.threshold


NAN, THRESHOLD = float("nan"), {"value": 1.0, "low": 0.5, "high": 1.5, "knowns": 9, "negatives": 9, "kept": 8}


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("threshold", THRESHOLD | {"value": NAN}, "threshold.value must be a number from -inf to inf, not nan"),
        ("threshold", THRESHOLD | {"high": "nan"}, "threshold.high must be a number"),
        ("threshold", THRESHOLD | {"low": [1]}, "threshold.low must be a number"),
        ("threshold", THRESHOLD | {"knowns": -1}, "threshold.knowns must be a whole number from 0"),
        ("threshold", THRESHOLD | {"kept": 10}, "threshold.kept must be a whole number from 0 to 9"),
        ("threshold", {}, "KeyError"),
        ("rule", {"name": "keep_all", "target": 1}, "rule.name must be one of"),
        ("rule", {"name": "keep_knowns", "target": NAN}, "rule.target must be a number from 0 to 1"),
        (
            "temperature",
            {"kind": "temperature", "temperature": NAN},
            "temperature must be a number from 0.05 to 20, not nan",
        ),
        ("temperature", {"kind": "temperature", "temperature": 0}, "temperature must be a number"),
        ("temperature", {"kind": "logistic", "slope": 1.0, "intercept": 0.0}, "not one of none, temperature"),
        ("temperature", None, "TypeError"),
        ("none", {"kind": "temperature", "temperature": 1.0}, "not one of logistic, isotonic"),
        ("none", {"kind": "logistic", "slope": NAN, "intercept": 0.0}, "slope must be a number"),
        ("none", {"kind": "isotonic", "score": [1.0, 0.0], "p_none": [0.1, 0.2]}, "values of score do not ascend"),
        ("none", {"kind": "isotonic", "score": [0.0, 1.0], "p_none": [0.1, 1.2]}, "p_none must be a number from 0 to 1"),
        ("none", {"kind": "isotonic", "score": [0.0], "p_none": []}, "1 scores and 0 values"),
        ("prior", [0.5, 0.5], "must have 3 numbers"),
        ("prior", [NAN, 0.5, 0.5], "entry 0 is nan"),
        ("fitted_prior", [[0.5, 0.5, 0]], "must have 3 numbers"),
        ("training_prior", "none", "could not convert"),
        ("costs", {"accept_none": NAN}, "costs nan"),
        ("costs", [[0, 1], [1, 0]], r"must be \(3, 3\)"),
        ("classes", ["a", "a"], "different names"),
        ("classes", [1, 2], "different names"),
        ("objective", "newer", "newer"),
    ],
)
def test_what_is_read_back_is_checked_and_the_field_is_named(saved, field, value, says):
    with pytest.raises(ValueError, match=rf"^classifier\.{field} is not valid: .*{says}"):
        Classifier.from_json(saved | {field: value})


@pytest.fixture(scope="module")
def saved():
    return fit("energy_margin", count=200).to_json()


def test_the_costs_of_1000_classes_are_saved_in_a_few_numbers(saved):
    assert saved["costs"] == {"accept_none": 1, "confuse_knowns": 1, "reject_known": 1}
    matrix = [[0, 1, 2], [3, 0, 1], [1, 1, 0]]
    assert fit("energy_margin", count=200, costs=matrix).to_json()["costs"] == matrix


def cost_of(decided, label, prior, costs):
    return sum(prior[y] * costs[y, decided[label == y]].mean() for y in range(3))


@pytest.mark.parametrize("name", ["background", "one_vs_rest", "energy_margin"])
def test_prior_correction_lowers_the_cost_where_the_mix_is_another(name):
    """Trained with 20 % none, deployed with 80 %: with the correct prior the cost is lower, and almost optimal."""
    deployment, asked = np.array([0.1, 0.1, 0.8]), {"accept_none": 1, "reject_known": 1}
    costs = prior_and_costs.cost_matrix(asked, CLASSES)
    points, label = cloud(deployment, 40_000, 4)
    group = np.array(["g"] * len(label), object)
    of = {}
    for corrected, prior in (("no", TRAINING), ("yes", deployment)):
        calibrated = fit(name, prior, rule=("least_cost", None), costs=asked)
        of[corrected] = cost_of(
            calibrated.classify(outputs(name, points), label, group)[0].decision, label, deployment, costs
        )
    best = cost_of((bayes(points, deployment) @ costs).argmin(1), label, deployment, costs)
    assert best <= of["yes"] + 0.002
    assert of["yes"] < of["no"] - 0.005
    assert of["yes"] == pytest.approx(best, abs=0.01)


def test_a_network_without_validation_negatives_has_no_p_none_and_still_a_threshold():
    points, label = cloud([0.5, 0.5, 0.0], 1_000, 5)
    costs, logits = prior_and_costs.cost_matrix(None, CLASSES), outputs("softmax", points)
    softmax = objectives.get("softmax")
    asked = {"training_prior": np.array([0.5, 0.5, 0.0]), "prior": np.full(3, 1 / 3), "costs": costs}
    calibrated = classifier.fit(softmax, CLASSES, logits, label, rule=thresholds.Rule("keep_knowns", 0.9), **asked)
    scored, posterior = calibrated.classify(logits, label, np.array(["g"] * 1_000, object))
    assert posterior is None
    assert np.mean(scored.decision < 2) == pytest.approx(0.9, abs=0.001)
    for rule, calibrate in ((thresholds.Rule("least_cost", None), ""), (thresholds.Rule("keep_knowns", 0.9), "logistic")):
        with pytest.raises(UserError, match="needs negatives in the validation split"):
            classifier.fit(softmax, CLASSES, logits, label, rule=rule, calibrate=calibrate, **asked)


@pytest.mark.parametrize("calibrate", ["", "logistic", "isotonic"])
@pytest.mark.parametrize("name", ["background", "one_vs_rest"])
def test_the_posterior_of_one_known_class_is_bayes_under_any_deployment(name, calibrate):
    """Two Gaussians, at 0 and at 2; the log-odds of "none" are linear in the place, and the network is overconfident."""
    rng, training, deployment = np.random.default_rng(0), np.array([0.3, 0.7]), np.array([0.8, 0.2])

    def draw(count):
        label = rng.choice(2, count, p=training)
        x = 2.0 * label + rng.normal(size=count)
        return label, 2 * x - 2 + np.log(training[1] / training[0])

    outputs = lambda odds: np.stack([-odds, odds], 1) if name == "background" else -2 * odds[:, None]
    label, odds = draw(20_000)
    fitted = classifier.fit(
        objectives.get(name), ("cat",), outputs(odds), label, training_prior=training, prior=deployment,
        costs=prior_and_costs.cost_matrix(None, ("cat",)), rule=thresholds.Rule("least_cost", None), calibrate=calibrate,
        resamples=0,
    )  # fmt: skip
    _, odds = draw(500)
    shifted = odds + np.log(deployment[1] / deployment[0]) - np.log(training[1] / training[0])
    found = Classifier.from_json(json.loads(json.dumps(fitted.to_json()))).posterior(outputs(odds))
    np.testing.assert_allclose(found[:, 1], 1 / (1 + np.exp(-shifted)), atol=0.15 if calibrate == "isotonic" else 0.03)
    np.testing.assert_allclose(found.sum(1), 1)
    scored, _ = fitted.classify(outputs(odds), np.zeros(500, int), np.zeros(500, int))
    assert np.mean(scored.decision == (shifted > 0)) > 0.95, "Bayes' decisions"
