"""ODIN's perturbation against the analytic gradient, and its independence of other images."""

import jax
import jax.numpy as jnp
import numpy as np
import peer_scores
import pytest
from scipy.special import log_softmax, softmax

from openset_jax.openset.scores import logit_scores
from openset_jax.training.eval_program import perturbed_logits

RNG = np.random.default_rng(0)
KERNEL = RNG.normal(size=(2 * 2 * 3, 4)).astype(np.float32)
IMAGES = RNG.normal(size=(5, 2, 2, 3)).astype(np.float32)
STD = (0.2, 0.25, 0.5)


def linear(images):
    return images.reshape(len(images), -1) @ KERNEL


def by_hand(known, epsilon, temperature):
    """d max log softmax / dx of a linear network is W (e_top - p) / T."""
    z = (IMAGES.reshape(5, -1) @ KERNEL)[:, known] / temperature
    slope = (np.eye(z.shape[1])[z.argmax(1)] - softmax(z, 1)) @ KERNEL[:, known].T / temperature
    moved = IMAGES + epsilon / np.array(STD) * np.sign(slope).reshape(IMAGES.shape)
    return moved.reshape(5, -1) @ KERNEL


def test_images_move_towards_their_predicted_class():
    for known in (slice(None), slice(-1)):
        for temperature in (1.0, 1000.0):
            options = {"known": known, "std": STD, "temperature": temperature}
            moved = np.asarray(perturbed_logits(linear, IMAGES, **options, epsilon=0.01))
            np.testing.assert_allclose(moved, by_hand(known, 0.01, temperature), rtol=1e-4, atol=1e-5)
            confidence = lambda z, known=known, t=temperature: log_softmax(z[:, known] / t, 1).max(1)
            assert (confidence(moved) > confidence(np.asarray(linear(IMAGES)))).all()


def test_an_image_does_not_move_another():
    options = {"known": slice(None), "std": STD}
    whole = perturbed_logits(linear, jnp.asarray(IMAGES), **options)
    for i in range(len(IMAGES)):
        alone = perturbed_logits(linear, jnp.asarray(IMAGES[i : i + 1]), **options)
        np.testing.assert_allclose(alone[0], whole[i], rtol=1e-5)


def test_the_score_ranks_as_the_probability_and_keeps_differences_that_float32_probabilities_lose():
    logits = np.array([[3.0, 1.0, 0.0], [2.0, 1.5, 0.0], [1.0, 1.0, 1.0], [1e-5, 0.0, 0.0]])
    p = softmax(logits / 1000, 1).max(1)
    score = logit_scores.odin(logits, 1000.0)
    np.testing.assert_allclose(1 / (1 + np.exp(score)), p, rtol=1e-12)
    np.testing.assert_array_equal(np.argsort(score), np.argsort(-p))
    assert logit_scores.odin(logits[3:], 1000.0) < logit_scores.odin(logits[2:3], 1000.0)


# Recorded once with torch 2.13 on a CPU, on the network and images below; confidences are negated. pytorch-ood got
# criterion=cross_entropy: its default gives logits to nll_loss, which raises the logit instead of the probability.
RECORDED = {
    (peer_scores.OPENOOD, 1000.0, 0.0014): [-0.2503392, -0.2512044, -0.2525334, -0.2535112, -0.2515513, -0.2531799],
    (peer_scores.PYTORCH_OOD, 1000.0, 0.0014): [-0.2503392, -0.2512044, -0.2525334, -0.2535112, -0.2515513, -0.2531799],
    (peer_scores.OPENOOD, 2.0, 0.1): [-0.8288841, -0.9916529, -0.9452673, -0.9976141, -0.9659382, -0.9998227],
    (peer_scores.PYTORCH_OOD, 2.0, 0.1): [-0.8288841, -0.9916529, -0.9452673, -0.9976141, -0.9659382, -0.9998227],
}


@pytest.mark.parametrize("recorded", RECORDED, ids=str)
def test_the_score_is_the_peers(recorded):
    _, temperature, epsilon = recorded
    rng = np.random.RandomState(7)
    images, first, second = (rng.randn(*shape).astype(np.float32) for shape in ((6, 2, 2, 3), (12, 8), (8, 4)))
    apply = lambda x: jax.nn.relu(x.reshape(len(x), -1) @ first) @ second
    options = {"known": slice(None), "std": STD, "temperature": temperature, "epsilon": epsilon}
    score = logit_scores.odin(perturbed_logits(apply, jnp.asarray(images), **options), temperature)
    np.testing.assert_allclose(-1 / (1 + np.exp(score)), RECORDED[recorded], rtol=1e-5)
