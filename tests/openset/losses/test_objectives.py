"""Losses against independent NumPy, example by example."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from openset_jax.errors import UserError
from openset_jax.openset.losses import objectives

K, F = 4, 6
RNG = np.random.default_rng(0)
LABEL = np.array([0, 1, 2, 3, 4, 4, 2, 4])
LOGITS, FEATURES = RNG.normal(0, 3, (len(LABEL), K)), RNG.normal(0, 2, (len(LABEL), F))
ADJUSTMENT = np.log([0.4, 0.3, 0.2, 0.1])


def loss_of(function, logits=LOGITS, features=FEATURES, **options):
    return np.asarray(function(jnp.asarray(logits), jnp.asarray(features), jnp.asarray(LABEL), **options))


def cross_entropy(logits, target):
    return -special.log_softmax(logits)[target]


def each(known, negative, logits=LOGITS):
    """The losses of all examples, computed one at a time."""
    pairs = zip(logits, FEATURES, LABEL, strict=True)
    return np.array([known(z, f, y) if y < K else negative(z, f) for z, f, y in pairs])


@pytest.mark.parametrize("adjustment", [np.zeros(K + 1), np.log([0.1, 0.1, 0.1, 0.1, 0.6])])
def test_background_is_softmax_cross_entropy_over_classes_and_none(adjustment):
    logits = RNG.normal(size=(len(LABEL), K + 1))
    expected = [cross_entropy(z + adjustment, y) for z, y in zip(logits, LABEL, strict=True)]
    np.testing.assert_allclose(loss_of(objectives.background, logits, adjustment=adjustment), expected, rtol=1e-5)


def test_one_vs_rest_is_k_coins_and_all_of_them_tails_for_a_negative():
    def coins(z, heads):
        return -np.log(special.expit(np.where(heads, z, -z))).sum()

    expected = each(lambda z, f, y: coins(z, np.arange(K) == y), lambda z, f: coins(z, np.zeros(K, bool)))
    np.testing.assert_allclose(loss_of(objectives.one_vs_rest, adjustment=np.zeros(K)), expected, rtol=1e-5)


@pytest.mark.parametrize("adjustment", [np.zeros(K), ADJUSTMENT])
def test_softmax_does_not_see_negatives(adjustment):
    expected = each(lambda z, f, y: cross_entropy(z + adjustment, y), lambda z, f: 0.0)
    np.testing.assert_allclose(loss_of(objectives.softmax, adjustment=adjustment), expected, rtol=1e-5)


def uniform(z, f):
    return -special.log_softmax(z).mean()


@pytest.mark.parametrize("adjustment", [np.zeros(K), ADJUSTMENT])
def test_entropic_wants_negatives_to_be_uniform(adjustment):
    expected = each(lambda z, f, y: cross_entropy(z + adjustment, y), uniform)
    np.testing.assert_allclose(loss_of(objectives.entropic, adjustment=adjustment), expected, rtol=1e-5)
    at_best = loss_of(objectives.entropic, np.zeros((len(LABEL), K)), adjustment=np.zeros(K))
    np.testing.assert_allclose(at_best, np.log(K), rtol=1e-6)


def test_outlier_exposure_is_the_entropic_loss_with_a_weight_of_its_own():
    entropic, exposure = objectives.get("entropic"), objectives.get("outlier_exposure")
    assert entropic._replace(name="outlier_exposure", negative_weight=0.5) == exposure


def test_objectosphere_wants_long_features_of_knowns_and_short_ones_of_negatives():
    length = lambda f: np.sqrt((f**2).sum())
    expected = each(
        lambda z, f, y: cross_entropy(z, y) + 0.01 * max(0, 5 - length(f)) ** 2,
        lambda z, f: uniform(z, f) + 0.01 * length(f) ** 2,
    )
    ours = loss_of(objectives.objectosphere, adjustment=np.zeros(K), magnitude=5.0, ring_weight=0.01)
    np.testing.assert_allclose(ours, expected, rtol=1e-5)


def test_objectosphere_has_a_gradient_where_all_features_are_zero():
    of_features = lambda f: objectives.objectosphere(
        jnp.asarray(LOGITS), f, jnp.asarray(LABEL), adjustment=jnp.zeros(K), magnitude=5.0, ring_weight=0.01
    ).sum()
    assert np.isfinite(jax.grad(of_features)(jnp.zeros((len(LABEL), F)))).all()


def test_energies_are_parted_by_squared_hinges():
    energy = lambda z: -special.logsumexp(z)
    expected = each(
        lambda z, f, y: cross_entropy(z, y) + 0.1 * max(0, energy(z) + 4) ** 2, lambda z, f: max(0, -2 - energy(z)) ** 2
    )
    ours = loss_of(objectives.energy_margin, adjustment=np.zeros(K), margins=(-4.0, -2.0), negative_weight=0.1)
    np.testing.assert_allclose(ours, expected, rtol=1e-5)
    without = loss_of(objectives.energy_margin, adjustment=np.zeros(K), margins=None, negative_weight=0.1)
    np.testing.assert_allclose(without, loss_of(objectives.softmax, adjustment=np.zeros(K)))


@pytest.mark.parametrize("name", objectives.OBJECTIVES)
def test_losses_and_gradients_stay_finite_for_extreme_logits(name):
    objective = objectives.get(name)
    options = {"margins": (-4.0, -2.0), "negative_weight": 0.1, "magnitude": 50.0, "ring_weight": 1e-4}
    options = {k: v for k, v in options.items() if k in objective.options}
    outputs = objective.num_outputs(K)
    for scale in (0.0, 1e4):
        logits = scale * jnp.asarray(RNG.normal(size=(len(LABEL), outputs)))
        total = lambda z: objective.loss(z, jnp.asarray(FEATURES), jnp.asarray(LABEL), jnp.zeros(outputs), **options).sum()
        value, gradient = jax.value_and_grad(total)(logits)
        assert np.isfinite(value), name
        assert np.isfinite(gradient).all(), name


def test_only_sigmoids_and_a_none_output_can_answer_none():
    logits = jnp.array([[3.0, -1, -2, -4], [-3.0, -1, -2, -4]])
    assert objectives.get("one_vs_rest").predict_class(logits, K).tolist() == [0, K]
    assert objectives.get("entropic").predict_class(logits, K).tolist() == [0, 1]
    with_none = jnp.concatenate([logits, jnp.zeros((2, 1))], axis=1)
    assert objectives.get("background").predict_class(with_none, K).tolist() == [0, K]


@pytest.mark.parametrize("name", objectives.OBJECTIVES)
def test_the_table_is_keyed_by_name_and_outputs_follow_from_the_objective(name):
    objective = objectives.get(name)
    assert objective.name == name
    assert objective.num_outputs(K) == (K + 1 if name == "background" else K)
    assert objective.says_none == (name in ("background", "one_vs_rest"))
    outputs = list(range(objective.num_outputs(K)))
    assert outputs[objective.known_outputs] == list(range(K))


def test_an_unknown_objective_is_refused_with_those_that_exist():
    with pytest.raises(UserError, match="background"):
        objectives.get("hinge")


@pytest.mark.parametrize("name", objectives.OBJECTIVES)
def test_of_one_known_class_only_objectives_with_a_none_train(name):
    """The logits of the others have no gradient: of energy_margin, before the margins are measured."""
    objective, label = objectives.get(name), jnp.array([0, 1, 1, 0])
    options = {"margins": None, "negative_weight": 0.1, "magnitude": 50.0, "ring_weight": 1e-4}
    options = {k: v for k, v in options.items() if k in objective.options}
    logits = jnp.asarray(RNG.normal(size=(4, objective.num_outputs(1))))
    total = lambda z: objective.loss(z, jnp.ones((4, F)), label, jnp.zeros(z.shape[1]), **options).sum()
    learns = bool((jnp.abs(jax.grad(total)(logits)) > 1e-3).all())
    assert learns == objective.says_none == (name in ("background", "one_vs_rest"))
    objective.check_classes(["cat", "dog"])
    if learns:
        return objective.check_classes(["cat"])
    with pytest.raises(UserError, match=rf"objective.name: {name} .* only one, 'cat': .* Use background or one_vs_rest$"):
        objective.check_classes(["cat"])


def test_of_one_known_class_the_score_is_the_log_odds_of_none():
    logits = RNG.normal(0, 9, (20, 2))
    np.testing.assert_allclose(objectives.get("background").score(logits), logits[:, 1] - logits[:, 0])
    np.testing.assert_allclose(objectives.get("one_vs_rest").score(logits[:, :1]), -logits[:, 0])
