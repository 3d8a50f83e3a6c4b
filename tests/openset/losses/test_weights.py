import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from openset_jax.errors import UserError
from openset_jax.openset.losses import objectives, weights

PRIOR = np.array([0.05] * 10 + [0.5])  # 10 classes of 7,000 images, and 70,000 negatives
COUNTS = np.array([7_000] * 10 + [70_000])
make = functools.partial(weights.make_weights, PRIOR, COUNTS)


def total(w, losses, label, devices=1):
    """The reduced loss of a batch: the mean over devices of the sum of factor x loss."""
    shares = (jnp.asarray(losses).reshape(devices, -1), jnp.asarray(label).reshape(devices, -1))
    summed = lambda loss, label: (loss * weights.example_weights(label, w.by_class, w.negative_weight, "data")).sum()
    return float(jax.vmap(summed, axis_name="data")(*shares).mean())


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    return rng.exponential(size=64), np.where(rng.random(64) < 0.4, 10, rng.integers(0, 10, 64))


@pytest.mark.parametrize("devices", [1, 2, 8])
def test_without_a_weight_of_negatives_the_loss_is_one_mean(batch, devices):
    losses, label = batch
    assert total(make(negative_weight=None), losses, label, devices) == pytest.approx(losses.mean(), rel=1e-6)


@pytest.mark.parametrize("devices", [1, 2, 8])
@pytest.mark.parametrize("weight", [0.5, 2.0])
def test_knowns_and_negatives_are_reduced_apart_over_the_global_batch(batch, devices, weight):
    losses, label = batch
    expected = losses[label < 10].mean() + weight * losses[label == 10].mean()
    assert total(make(negative_weight=weight), losses, label, devices) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("label", [np.full(8, 10), np.arange(8)])
def test_a_batch_of_one_kind_is_no_division_by_zero(label):
    assert total(make(negative_weight=0.5), np.ones(8), label) == pytest.approx(0.5 if label[0] == 10 else 1)


def test_class_weights():
    inverse = make(negative_weight=None, class_weights="inverse_frequency")
    np.testing.assert_allclose(inverse.by_class / inverse.by_class[0], [1] * 10 + [0.1])
    np.testing.assert_allclose(inverse.effective_prior, 1 / 11)
    # literature: at 7,000 against 70,000 images the ratio is 1.99 for beta = 0.9999 and 1.00 for 0.999
    for beta, ratio in ((0.9999, 1.99), (0.999, 1.0)):
        effective = make(negative_weight=None, class_weights="effective_number", beta=beta).by_class
        assert effective[0] / effective[-1] == pytest.approx(ratio, abs=0.01)
    for w in (inverse, make(negative_weight=None)):
        assert (w.by_class * PRIOR).sum() == pytest.approx(1)
    with pytest.raises(UserError, match=r"objective\.class_weights.*inverse_frequency"):
        make(negative_weight=None, class_weights="focal")


def test_the_prior_that_outputs_are_probabilities_under():
    np.testing.assert_allclose(make(negative_weight=None).effective_prior, PRIOR)
    np.testing.assert_allclose(make(negative_weight=1.0).effective_prior, PRIOR)
    np.testing.assert_allclose(make(negative_weight=0.1).effective_prior, [1 / 11] * 11)
    np.testing.assert_allclose(make(negative_weight=None, tau=1.0).effective_prior, [1 / 11] * 11)
    no_negatives = weights.make_weights([0.5, 0.5, 0], [3, 3, 0], negative_weight=None, tau=0.5)
    np.testing.assert_allclose(no_negatives.effective_prior, [0.5, 0.5, 0])


def test_logit_adjustment_is_tau_log_prior_of_the_classes_that_have_an_output():
    w = make(negative_weight=None, tau=0.5)
    np.testing.assert_allclose(w.adjustment(11), 0.5 * np.log(PRIOR), rtol=1e-6)
    np.testing.assert_allclose(w.adjustment(10), 0.5 * np.log([0.1] * 10), rtol=1e-6)
    assert not make(negative_weight=None).adjustment(11).any()


def plateau(name, w, **options):
    objective = objectives.get(name)
    return weights.plateau_loss(functools.partial(objective.loss, **options), w, objective.num_outputs(10))


def test_the_loss_of_a_network_that_ignores_its_images():
    plain = make(negative_weight=None)
    assert plateau("background", plain) == pytest.approx(stats.entropy(PRIOR), abs=1e-5)
    assert plateau("background", plain) == pytest.approx(1.844, abs=1e-3)  # nats
    assert plateau("background", make(negative_weight=None, tau=1.0)) == pytest.approx(stats.entropy(PRIOR), abs=1e-5)
    assert plateau("entropic", plain) == pytest.approx(np.log(10), abs=1e-5)
    coin = stats.entropy([0.05, 0.95])
    assert plateau("one_vs_rest", plain) == pytest.approx(10 * coin, abs=1e-4)
    dead = plateau("objectosphere", plain, magnitude=50.0, ring_weight=1e-4)
    assert dead == pytest.approx(np.log(10) + 0.5 * 1e-4 * 2500, abs=1e-4)
