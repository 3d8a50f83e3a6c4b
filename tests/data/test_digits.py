"""The embedded digits are arrays of any size, enlarged without TensorFlow."""

import numpy as np
import pytest

from openset_jax.data.digits import open_digits


@pytest.mark.parametrize("stored_size", [8, 9, 16, 28])
def test_digits_are_enlarged_to_the_bit_as_tensorflow_does_it(stored_size):
    """Recorded results depend on these pixels."""
    tf = pytest.importorskip("tensorflow")
    records = np.arange(40)
    images = open_digits(stored_size).fetch(records)
    assert (images.dtype, images.shape) == (np.uint8, (40, stored_size, stored_size, 3))
    plain = tf.image.resize(open_digits(8).fetch(records), [stored_size, stored_size], method="bilinear", antialias=True)
    np.testing.assert_array_equal(images, np.round(plain))


def test_digits_are_grey_and_do_not_depend_on_what_is_read_with_them():
    source = open_digits(28)
    images = source.fetch(np.array([3, 1000, 5]))
    np.testing.assert_array_equal(images[..., 0], images[..., 2])
    np.testing.assert_array_equal(source.fetch(np.array([1000]))[0], images[1])
