"""Declared and estimated priors, for images of Gaussian classes and "none"."""

import dataclasses
import re

import numpy as np
import pytest

from openset_jax.errors import UserError
from openset_jax.openset.decision import classifier, deployment, prior_and_costs, thresholds
from openset_jax.openset.losses import objectives
from openset_jax.spec import DecisionSpec

CLASSES, MEANS = ("cat", "dog"), np.array([[0.0, 0], [3, 0], [0, 3]])  # and "none"
TRAINING = np.array([0.3, 0.2, 0.5])


def draw(prior, count, *, seed, sharpness=1.0):
    """(logits of K + 1 outputs, label) of images under this prior; a sharpness other than 1 is over- or underconfident."""
    rng = np.random.default_rng(seed)
    label = rng.choice(3, count, p=prior)
    x = MEANS[label] + rng.normal(0, 1, (count, 2))
    return sharpness * (-((x[:, None] - MEANS) ** 2).sum(-1) / 2 + np.log(TRAINING)), label


def fit(objective="background", *, calibrate="", logits=None, label=None, training=TRAINING):
    costs, rule = prior_and_costs.cost_matrix(None, CLASSES), thresholds.Rule("keep_knowns", 0.95)
    given = {"training_prior": training, "prior": training, "costs": costs, "rule": rule, "calibrate": calibrate}
    return classifier.fit(objectives.get(objective), CLASSES, logits, label, **given)


VALIDATION = draw([0.4, 0.4, 0.2], 3000, seed=0)
FITTED = fit(logits=VALIDATION[0], label=VALIDATION[1])


def test_what_is_declared_takes_the_place_of_what_was_saved_and_the_threshold_stays():
    changed = deployment.declare(FITTED, priors="none=0.9", costs="accept_none=7")
    np.testing.assert_allclose(changed.prior, [0.06, 0.04, 0.9])
    assert changed.costs[-1].tolist() == [7, 7, 0]
    assert changed.threshold == FITTED.threshold
    assert deployment.declare(FITTED, threshold=-np.inf).threshold.value == -np.inf
    same = deployment.declare(FITTED)
    assert all(getattr(same, f.name) is getattr(FITTED, f.name) for f in dataclasses.fields(FITTED))


@pytest.mark.parametrize("method", deployment.ESTIMATES)
@pytest.mark.parametrize("objective", ["background", "one_vs_rest"])
def test_the_share_of_one_known_class_is_estimated(objective, method):
    rng, training = np.random.default_rng(0), np.array([0.4, 0.6])
    draw = lambda prior, count: rng.choice(2, count, p=prior)
    odds = lambda label: 3.0 * label + rng.normal(size=len(label)) * np.sqrt(3) - 1.5 + np.log(1.5)
    outputs = lambda odds: np.stack([-odds / 2, odds / 2], 1) if objective == "background" else -odds[:, None]
    label = draw([0.5, 0.5], 4000)
    fitted = classifier.fit(
        objectives.get(objective), ("cat",), logits := outputs(odds(label)), label, training_prior=training,
        prior=training, costs=prior_and_costs.cost_matrix(None, ("cat",)), rule=thresholds.Rule("keep_knowns", 0.95),
    )  # fmt: skip
    prior, text = deployment.estimate_prior(method, fitted, logits, label, outputs(odds(draw([0.8, 0.2], 3000))))
    assert prior == pytest.approx([0.8, 0.2], abs=0.04)
    assert text.startswith("estimated class prior of 3,000 images") and "WARNING" not in text


@pytest.mark.parametrize("objective", ["background", "entropic", "softmax"])
@pytest.mark.parametrize("given", ["cat=0.2", "none=0.3", "cat=0.2,dog=0.2", "cat=0.2,dog=0.3,none=0.5"])
def test_a_flag_gives_the_prior_that_the_config_gives(objective, given):
    """Networks without an output for "none" are calibrated with half of the images "none", whatever training had."""
    columns, training = 3 if objective == "background" else 2, np.array([0.5, 0.4, 0.1])
    fitted = fit(objective, logits=VALIDATION[0][:, :columns], label=VALIDATION[1], training=training)
    config = DecisionSpec("keep_knowns", 0.95, 0.05, prior=given, costs="", calibration="")
    expected = config.resolve(CLASSES, training).prior
    np.testing.assert_array_equal(deployment.declare(fitted, priors=given).prior, expected)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"priors": "owl=0.5"}, "^--priors: no class 'owl'; the classes are cat, dog, none"),
        ({"priors": "EM"}, "^--priors: 'EM' is neither em nor bbse, nor shares as in"),
        ({"priors": "none=nan"}, "^--priors: none: nan is not between 0 and 1"),
        ({"costs": "accept_none=nan"}, "^--costs: 'cat' for an image of 'none' costs nan"),
        ({"costs": "[[0, 1], [1, 0]]"}, r"^--costs: .* must be \(3, 3\)"),
        ({"threshold": float("nan")}, "^--threshold: nan"),
    ],
)
def test_errors_name_the_flag(options, says):
    with pytest.raises(UserError, match=says):
        deployment.declare(FITTED, **options)


def test_without_a_probability_of_none_priors_and_costs_would_change_nothing():
    known = VALIDATION[1] < 2
    silent = fit("softmax", logits=VALIDATION[0][known, :2], label=VALIDATION[1][known])
    assert not silent.has_posterior and silent.posterior(VALIDATION[0][:1, :2]) is None
    assert deployment.declare(silent, threshold=1.0).threshold.value == 1
    for options in ({"priors": "none=0.5"}, {"costs": "accept_none=5"}):
        with pytest.raises(UserError, match=f"^--{next(iter(options))}: .* no probability of 'none'.*--threshold alone"):
            deployment.declare(silent, **options)
    with pytest.raises(UserError, match="^--priors=em: .* no probability of 'none'"):
        deployment.estimate_prior("em", silent, VALIDATION[0][:, :2], VALIDATION[1], VALIDATION[0][:5, :2])


@pytest.mark.parametrize("how", deployment.ESTIMATES)
@pytest.mark.parametrize("mix", [(0.1, 0.1, 0.8), (0.6, 0.3, 0.1)])
def test_the_mix_of_unlabelled_images_is_found(how, mix):
    prior, text = deployment.estimate_prior(how, FITTED, *VALIDATION, draw(mix, 5000, seed=1)[0])
    np.testing.assert_allclose(prior, mix, atol=0.02)
    assert prior.sum() == pytest.approx(1)
    assert text.startswith("estimated class prior of 5,000 images +/- standard error (") and "\n" not in text
    assert re.search(
        rf": cat {prior[0]:.1%} \+/- \d\.\d%, dog {prior[1]:.1%} \+/- \d\.\d%, none {prior[2]:.1%} \+/- \d\.\d%$", text
    )
    assert ("converged" in text) == (how == "em")


def test_without_a_shift_em_corrects_nothing_however_bad_the_calibration():
    logits, label = draw(TRAINING, 3000, seed=2, sharpness=0.3)
    logits[:, -1] -= 1.0
    unsure = fit(calibrate="none", logits=logits, label=label)
    weight = (TRAINING / np.bincount(label) * len(label))[label]
    assert np.abs(np.average(unsure.fitted_posterior(logits), axis=0, weights=weight) - TRAINING).max() > 0.05
    same = np.repeat(logits, np.round(10 * weight).astype(int), axis=0)  # the mix of training, up to rounding
    prior, _ = deployment.estimate_prior("em", unsure, logits, label, same)
    np.testing.assert_allclose(prior, TRAINING, atol=0.01)


@pytest.mark.parametrize("how", deployment.ESTIMATES)
def test_unknowns_of_another_kind_are_a_warning(how):
    elsewhere = draw([0.3, 0.2, 0.5], 2000, seed=3)[0]
    elsewhere[:1000] = -((np.array([1.2, 1.2]) - MEANS) ** 2).sum(-1) / 2 + np.log(TRAINING)
    _, text = deployment.estimate_prior(how, FITTED, *VALIDATION, elsewhere)
    assert "\nWARNING: label shift is implausible: " in text


def test_a_bug_in_an_estimate_is_not_an_error_of_the_user(monkeypatch):
    monkeypatch.setattr(deployment.label_shift, "estimate_prior_bbse", lambda *_, **__: np.zeros(3) @ np.zeros(2))
    with pytest.raises(ValueError, match="matmul"):
        deployment.estimate_prior("bbse", FITTED, *VALIDATION, VALIDATION[0])


def test_what_cannot_be_estimated():
    logits, label = VALIDATION
    for how, few in (("em", 1), ("bbse", 99), ("em", 0)):
        with pytest.raises(UserError, match=f'^--priors={how}: {few} images are too few .* needs 100 .*"none=0.6"'):
            deployment.estimate_prior(how, FITTED, logits, label, logits[:few])
    with pytest.raises(UserError, match="^--priors=em: the validation split has no images of 'none'.*give the class prior"):
        deployment.estimate_prior("em", FITTED, logits[label < 2], label[label < 2], logits)
    alike = np.where(np.arange(3) == 2, 9.0, logits)  # always "none"
    with pytest.raises(UserError, match="^--priors=bbse: .*ill-conditioned.* does not distinguish"):
        deployment.estimate_prior("bbse", FITTED, alike, label, alike)
