import numpy as np
import pytest

from openset_jax.openset import checks


def test_what_is_right_comes_back_as_float64():
    p = np.array([[0.25, 0.75], [1, 0]], np.float32)
    assert checks.posterior(p).dtype == checks.finite(p, "x", 2).dtype == np.float64
    np.testing.assert_array_equal(checks.posterior(p), p)
    assert checks.posterior(np.empty((0, 3))).shape == (0, 3)
    np.testing.assert_array_equal(checks.prior([0.5, 0.5], 2), [0.5, 0.5])
    np.testing.assert_array_equal(checks.labels([0.0, 2.0], 2, 3), [0, 2])
    np.testing.assert_array_equal(checks.weights(None, 2), [1, 1])
    np.testing.assert_array_equal(checks.weights([0, 2], 2), [0, 2])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([0.5, 0.5], r"posterior must be \[images, classes\], not of shape \(2,\)"),
        (np.empty((2, 0)), "posterior must be"),
        ([[0.5, 0.5], [0.5, 0.6]], r"row 1 of 2 is not a distribution \(sum 1.1, smallest 0.5\); 1 such rows"),
        ([[-0.5, 1.5]], "row 0 of 1 is not a distribution"),
        ([[np.nan, 1.0]], "row 0 of 1 is not a distribution"),
    ],
)
def test_posteriors_that_are_none(values, message):
    with pytest.raises(ValueError, match=message):
        checks.posterior(np.array(values))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([0.5, 0.5], r'the mix must have 3 numbers, one for each class and "none" last; its shape is \(2,\)'),
        ([0.6, -0.1, 0.5], "the mix must not be negative: entry 1 is -0.1"),
        ([0.6, np.nan, 0.4], "entry 1 is nan"),
        ([0.5, 0.5, 2e-6], "the mix must sum to 1, not to 1.000002"),
        ([0.5, np.inf, 0.5], "must sum to 1, not to inf"),
    ],
)
def test_priors_that_are_none(values, message):
    with pytest.raises(ValueError, match=message):
        checks.prior(values, 3, "the mix")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([0], r"labels must have shape \(2,\), one for each image, not \(1,\)"),
        ([0, -1], 'label 1 of 2 is -1, not in 0 to 2, of which the last is "none"'),
        ([3, 0], "label 0 of 2 is 3"),
        ([0.5, 0], "label 0 of 2 is 0.5"),
    ],
)
def test_labels_that_are_none(values, message):
    with pytest.raises(ValueError, match=message):
        checks.labels(values, 2, 3)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1.0], r"weights must have shape \(2,\), one for each image, not \(1,\)"),
        ([1, -1], "weight 1 of 2 is -1"),
        ([np.nan, 1], "weight 0 of 2 is nan"),
        ([np.inf, 1], "weight 0 of 2 is inf"),
    ],
)
def test_weights_that_are_none(values, message):
    with pytest.raises(ValueError, match=message):
        checks.weights(values, 2)


def test_values_that_are_not_finite():
    with pytest.raises(ValueError, match=r"logits must have 2 axes, not the shape \(3,\)"):
        checks.finite(np.zeros(3), "logits", 2)
    with pytest.raises(ValueError, match=r"the score: row 1 of 3 is not finite \(2 such rows\)"):
        checks.finite(np.array([0, np.inf, np.nan]), "the score", 1)
