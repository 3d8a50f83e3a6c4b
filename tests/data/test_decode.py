"""Decoding one image, against Pillow: every shape, mode and EXIF orientation."""

import io

import numpy as np
import pytest
from pictures import ORIENTATION, by_pil, decode, difference, encode, exif, flower, jpeg, photograph
from PIL import Image, ImageOps

from openset_jax.data import decode as decoding

tf = pytest.importorskip("tensorflow")

SHAPES = [(640, 427), (427, 640), (301, 300), (101, 63), (64, 64), (33, 29), (64, 100), (7, 5), (1, 1), (900, 20)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("stored_size", [28, 64])
def test_a_png_is_as_pil_makes_it(shape, stored_size):
    content = encode(photograph(shape), "PNG")
    assert difference(decode(content, stored_size), by_pil(content, stored_size)).max() <= 1


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("stored_size", [28, 64])
def test_a_jpeg_is_as_pil_makes_it(shape, stored_size):
    """Approximately: decoders differ, and scaling inside the decoder shifts an image of odd size by up to half a pixel."""
    content = encode(photograph(shape), "JPEG", quality=95)
    assert difference(decode(content, stored_size), by_pil(content, stored_size)).mean() < 3.5


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
@pytest.mark.parametrize("shape", [(640, 427), (427, 640), (300, 201), (641, 101)])
def test_cutting_first_is_the_same_picture_as_scaling_first(form, shape):
    content = encode(photograph(shape), form)
    assert difference(decode(content, 64), by_pil(content, 64, scale_first=True)).mean() < 3


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_an_image_of_the_stored_size_is_not_scaled(form):
    content = encode(photograph((64, 64)), form)
    assert difference(decode(content, 64), by_pil(content, 64)).max() <= (0 if form == "PNG" else 12)


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "1"])
def test_pngs_of_every_mode_become_rgb(mode):
    image = photograph((101, 80))
    if mode == "RGBA":
        image.putalpha(image.convert("L"))
    content = encode(image.convert(mode), "PNG")
    assert difference(decode(content, 64), by_pil(content, 64)).max() <= 1


@pytest.mark.parametrize(
    "options",
    [{"mode": "L"}, {"mode": "CMYK"}, {"progressive": True}, {"subsampling": 0}, {"subsampling": 2}, {"optimize": True}],
    ids=str,
)
def test_jpegs_of_every_kind_become_rgb(options):
    options = dict(options)
    content = encode(photograph((101, 80)).convert(options.pop("mode", "RGB")), "JPEG", quality=95, **options)
    assert difference(decode(content, 64), by_pil(content, 64)).mean() < 2


@pytest.mark.parametrize("stored_size", [8, 28, 64])
@pytest.mark.parametrize("side", [1, 5, 8, 27, 29, 63, 100, 150])
def test_scaling_is_tensorflows_to_the_bit(stored_size, side):
    """Recorded results depend on these pixels: the faster implementation must not change any."""
    rng = np.random.default_rng(side)
    for square in (rng.integers(0, 256, (side, side, 3), np.uint8), np.full((side, side, 3), 255, np.uint8)):
        plain = tf.image.resize(square, [stored_size, stored_size], method="bilinear", antialias=True)
        expected = tf.cast(tf.round(tf.clip_by_value(plain, 0.0, 255.0)), tf.uint8)
        np.testing.assert_array_equal(decoding._scaled(tf.constant(square), stored_size), expected)


def test_grey_images_have_equal_channels():
    for form in ("PNG", "JPEG"):
        image = decode(encode(photograph((50, 40)).convert("L"), form), 28)
        np.testing.assert_array_equal(image, image[..., :1].repeat(3, -1))


def test_decoding_is_deterministic():
    content = encode(flower(), "JPEG")
    np.testing.assert_array_equal(decode(content, 64), decode(content, 64))


def turned(image, orientation):
    image = Image.fromarray(image)
    image.getexif()[ORIENTATION] = orientation
    return np.asarray(ImageOps.exif_transpose(image))


@pytest.mark.parametrize("shape", [(64, 64), (90, 64), (64, 90)])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns_are_pils_exif_transpose(shape, orientation):
    image = photograph(shape)
    content = jpeg(image, orientation)
    upright = decode(content, 64)
    np.testing.assert_array_equal(upright, turned(decode(jpeg(image), 64), orientation))
    assert difference(upright, by_pil(content, 64)).mean() < 3


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns_of_images_that_are_scaled_and_cut_at_odd_places(orientation):
    content = jpeg(photograph((301, 200)), orientation)
    assert difference(decode(content, 28), by_pil(content, 28)).mean() < 4


def with_segments(content, *segments):
    """Returns a JPEG file with more segments before its own."""
    inserted = b"".join(b"\xff" + kind + (len(body) + 2).to_bytes(2, "big") + body for kind, body in segments)
    return content[:2] + inserted + content[2:]


@pytest.mark.parametrize(
    "segment",
    [
        (b"\xe2", b"ICC_PROFILE\0\1\1" + bytes(3000)),
        (b"\xe1", b"http://ns.adobe.com/xap/1.0/\0" + b"<x/>" * 100),
        (b"\xfe", b"a comment of some length, longer than sixty-four characters altogether"),
    ],
    ids=["colour profile", "XMP", "comment"],
)
def test_the_exif_turn_is_found_behind_other_segments(segment):
    image = photograph((64, 64))
    content = with_segments(jpeg(image, 6), segment)
    assert Image.open(io.BytesIO(content)).getexif()[ORIENTATION] == 6
    np.testing.assert_array_equal(decode(content, 64), turned(decode(jpeg(image), 64), 6))


def test_the_exif_turn_in_front_of_a_long_exif_block_and_a_colour_profile():
    block = exif(8)
    block[0x010E] = "a description" * 4000
    image = photograph((64, 64))
    content = jpeg(image, exif=block, icc_profile=bytes(4000))
    np.testing.assert_array_equal(decode(content, 64), turned(decode(jpeg(image), 64), 8))


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_is_none(orientation):
    image = photograph((64, 64))
    field = b"\x01\x12\x00\x03\x00\x00\x00\x01"  # its number, type and length
    content = jpeg(image, 1).replace(field + b"\0\1", field + orientation.to_bytes(2, "big"))
    assert Image.open(io.BytesIO(content)).getexif()[ORIENTATION] == orientation
    np.testing.assert_array_equal(decode(content, 64), decode(jpeg(image), 64))


def test_a_damaged_exif_block_does_not_lose_the_image():
    image = photograph((64, 64))
    content = with_segments(jpeg(image), (b"\xe1", b"Exif\0\0" + b"\xff" * 50))
    np.testing.assert_array_equal(decode(content, 64), decode(jpeg(image), 64))


def test_the_exif_turn_is_the_same_outside_a_graph():
    content = jpeg(photograph((64, 64)), 6)
    eager = decoding.decode_square(tf.constant(content), 64).numpy()
    np.testing.assert_array_equal(eager, decode(content, 64))
