"""Standard errors of estimated priors: the spread of estimates from many samples of Gaussian classes."""

import numpy as np
import pytest

from openset_jax.openset.decision import calibration, label_shift, prior_error

MEANS, FITTED = np.array([[0.0, 0], [3, 0], [0, 3]]), np.array([0.3, 0.2, 0.5])


def draw(rng, mix, count):
    """(the posterior under `FITTED`, label) of images under the prior `mix`."""
    label = rng.choice(3, count, p=mix)
    x = MEANS[label] + rng.normal(size=(count, 2))
    joint = FITTED * np.exp(-((x[:, None] - MEANS) ** 2).sum(-1) / 2)
    return joint / joint.sum(1, keepdims=True), label


@pytest.mark.parametrize(("images", "validation"), [(100, 2_000), (1_000, 150)])
def test_the_error_is_the_spread_of_estimates(images, validation):
    """The second case has mainly the error of the validation images."""
    rng, mix = np.random.default_rng(0), [0.1, 0.1, 0.8]
    found = {"em": [], "bbse": []}
    for _ in range(150):
        (posterior, label), (unlabelled, _) = draw(rng, FITTED, validation), draw(rng, mix, images)
        weight = calibration.mix_weights(label, FITTED)
        reference = weight @ posterior / weight.sum()
        q = label_shift.estimate_prior_em(unlabelled, reference).prior
        prior = FITTED * q / reference
        errors = prior_error.of_em(unlabelled, q, posterior, label, FITTED, reference)
        found["em"].append((prior / prior.sum(), errors))
        bbse = label_shift.estimate_prior_bbse(posterior, label, unlabelled)
        found["bbse"].append((bbse.prior, bbse.standard_error))
    for how, pairs in found.items():
        priors, errors = map(np.array, zip(*pairs, strict=True))
        np.testing.assert_allclose(np.sqrt((errors**2).mean(0)), priors.std(0), rtol=0.25, err_msg=how)


def test_of_a_perfect_network_it_is_that_of_a_share_and_never_0():
    """Posteriors of 0 and 1, so that the images are as good as labelled; the third class has none of them."""
    label, unlabelled = np.arange(9_000) % 3, np.eye(3)[np.repeat([0, 1], [30, 70])]
    estimate, uniform = np.array([0.3, 0.7, 0.0]), np.full(3, 1 / 3)
    shares = [np.eye(3)[label], label, uniform, uniform]
    errors = (
        prior_error.of_em(unlabelled, estimate, *shares),
        prior_error.of_bbse(np.eye(3), estimate, estimate, np.full(3, 3_000), 100),
    )
    for found in errors:
        np.testing.assert_allclose(found[:2], np.sqrt(0.3 * 0.7 / 100), rtol=0.02)
        assert 0.003 < found[2] < 0.01


def test_a_class_that_no_validation_image_is_given_has_no_error():
    posterior = np.array([[0.5, 0.5, 0.0], [0.2, 0.8, 0.0]] * 60)
    found = prior_error.of_em(
        posterior, np.array([0.4, 0.6, 0]), posterior, np.arange(120) % 2, *[np.array([0.4, 0.6, 0])] * 2
    )
    assert np.isfinite(found).all() and found[2] == 0
