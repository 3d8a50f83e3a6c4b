"""The decoder of unusual images, without TensorFlow; test_decode.py compares all formats with Pillow itself."""

import io

import numpy as np
import pytest
from PIL import Image

from openset_jax.data import pillow_image


def no_png(content):
    pytest.fail("decoded as a PNG of 16 bits")


@pytest.mark.parametrize(
    ("pixels", "expected"),
    [
        ([0, 255], [0, 255]),
        ([0, 100, 1023], [0, 25, 255]),
        ([0, 2048, 4095], [0, 128, 255]),
        ([0, 257, 65535], [0, 1, 255]),
        ([0, 0], [0, 0]),
    ],
)
def test_white_is_the_largest_number_of_the_bits_in_use(pixels, expected):
    result = pillow_image.to_8_bits(np.array([pixels], np.uint16))
    assert result.dtype == np.uint8
    assert result.tolist() == [expected]


@pytest.mark.parametrize("pixels", [[-1, 5], [0, 1 << 16]])
def test_integers_that_do_not_fit_16_bits_are_refused(pixels):
    with pytest.raises(ValueError, match="do not fit 16 bits"):
        pillow_image.to_8_bits(np.array([pixels], np.int32))


def test_an_image_is_its_centre_square():
    pixels = np.random.default_rng(0).integers(0, 256, (20, 31, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "BMP")
    np.testing.assert_array_equal(pillow_image.centre_square(file.getvalue(), 620, no_png), pixels[:, 5:25])
    with pytest.raises(ValueError, match=r"31 x 20 pixels, more than data\.max_pixels=619"):
        pillow_image.centre_square(file.getvalue(), 619, no_png)


def test_a_damaged_exif_block_does_not_lose_the_image():
    assert pillow_image.orientation(lambda: 1 / 0) == 1
    assert pillow_image.orientation(lambda: {0x0112: 6}) == 6
    assert pillow_image.orientation(lambda: {0x0112: "left"}) == 1
