"""Decoding one image, against Pillow: every shape, mode and EXIF orientation."""

import io
import struct
import zlib

import numpy as np
import pytest
from pictures import MAX_PIXELS, ORIENTATION, by_pil, decode, difference, encode, exif, flower, jpeg, photograph
from PIL import Image, ImageFile, ImageOps

from openset_jax.data import decode as decoding
from openset_jax.data.image_format import READABLE

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
    eager = decoding.decode_square(tf.constant(content), 64, MAX_PIXELS).numpy()
    np.testing.assert_array_equal(eager, decode(content, 64))


# --- what Pillow decodes ----------------------------------------------------------------------------------------------


def of_pillow(content, stored_size=64):
    """The decoded image, after a comparison with Pillow's."""
    image = decode(content, stored_size)
    assert difference(image, by_pil(content, stored_size)).max() <= 1
    return image


@pytest.mark.parametrize("form", ["BMP", "GIF", "PNG", "TIFF"])
def test_an_image_of_palette_colours_is_decoded_to_its_colours(form):
    image = photograph((101, 80)).quantize(64)
    assert decode(encode(image, form), 64).mean() > 50, "not the numbers of the palette's colours"
    of_pillow(encode(image, form))


@pytest.mark.parametrize("form", sorted(READABLE - {"jpeg", "gif"}))
def test_every_format_that_pillow_reads_is_decoded(form):
    name = {"netpbm": "PPM"}.get(form, form.upper())
    content = encode(photograph((101, 80)), name, **{"webp": {"lossless": True}}.get(form, {}))
    assert of_pillow(content).std() > 10


def test_of_a_film_the_first_picture_is_decoded():
    red, blue = Image.new("RGB", (30, 20), "red"), Image.new("RGB", (30, 20), "blue")
    content = encode(red, "GIF", save_all=True, append_images=[blue])
    np.testing.assert_array_equal(decode(content, 28), np.broadcast_to([255, 0, 0], (28, 28, 3)))


@pytest.mark.parametrize("form", ["PNG", "WEBP", "TIFF", "GIF"])
def test_transparency_is_dropped_whatever_the_format(form):
    image = Image.new("RGBA", (30, 20), (200, 100, 50, 0))
    options = {"WEBP": {"lossless": True, "exact": True}}.get(form, {})
    if form == "GIF":
        image = image.convert("RGB").quantize(4)
        options = {"transparency": image.getpixel((0, 0))}
    assert difference(decode(encode(image, form, **options), 28), np.array([200, 100, 50])).max() <= 4


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["PNG", "WEBP", "TIFF"])
def test_exif_turns_of_other_formats(form, orientation):
    options = {"exif": exif(orientation)} | {"WEBP": {"lossless": True}}.get(form, {})
    of_pillow(encode(photograph((90, 64)), form, **options))


def chunk(kind, body):
    return len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")


def test_the_exif_turn_behind_the_pixels_of_a_png():
    image = photograph((90, 64))
    content, end = encode(image, "PNG"), chunk(b"IEND", b"")
    assert content.endswith(end)
    late = content[: -len(end)] + chunk(b"eXIf", exif(6).tobytes()[6:]) + end
    np.testing.assert_array_equal(decode(late, 64), decode(encode(image, "PNG", exif=exif(6)), 64))


def deep_png(pixels):
    """A PNG file of 16 bits per sample: uint16 [h, w] or [h, w, 3]."""
    height, width = pixels.shape[:2]
    rows = pixels.astype(">u2").reshape(height, -1)
    lines = b"".join(b"\0" + row.tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", width, height, 16, 2 if pixels.ndim == 3 else 0, 0, 0, 0)
    return decoding._PNG + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


def deep_tiff(pixels):
    return encode(Image.fromarray(pixels), "TIFF")


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("make", [deep_png, lambda grey: deep_png(grey[..., None].repeat(3, -1)), deep_tiff])
def test_sixteen_bits_are_scaled_by_those_that_are_used(make, bits):
    grey = np.linspace(0, (1 << bits) - 1, 64 * 64).round().astype(np.uint16).reshape(64, 64)
    expected = np.linspace(0, 255, 64 * 64).reshape(64, 64, 1)
    assert difference(decode(make(grey), 64), expected).max() <= 1


# --- what is not read, and why ----------------------------------------------------------------------------------------


def reason(content, max_pixels=MAX_PIXELS):
    """The message of the error; outside a graph it is Pillow's own ValueError, or TensorFlow's."""
    with pytest.raises((tf.errors.OpError, ValueError)) as caught:
        decoding.decode_square(tf.constant(content), 28, max_pixels)
    assert not isinstance(caught.value, UnicodeError)
    return str(caught.value)


def with_size(content, width, height):
    """A JPEG file whose header claims another size."""
    at = content.index(b"\xff\xc0") + 5
    return content[:at] + struct.pack(">HH", height, width) + content[at + 4 :]


@pytest.mark.parametrize("form", sorted(READABLE))
def test_an_image_of_too_many_pixels_is_refused_by_its_header(form, monkeypatch):
    name = {"netpbm": "PPM"}.get(form, form.upper())
    content = encode(Image.new("RGB", (300, 200)), name)
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda image: pytest.fail("decoded"))
    assert "300 x 200 pixels, more than data.max_pixels=59,999" in reason(content, 59_999)


def test_as_many_pixels_as_allowed_are_read():
    for form in ("JPEG", "PNG", "BMP"):
        content = tf.constant(encode(Image.new("RGB", (300, 200), "red"), form))
        assert decoding.decode_square(content, 28, 60_000).numpy()[..., 0].min() > 250


def test_a_jpeg_that_claims_more_pixels_than_its_bytes_can_hold_is_refused():
    content = with_size(jpeg(photograph((64, 64))), 65_500, 65_500)
    assert "bytes are too few for a JPEG of 65,500 x 65,500 pixels" in reason(content, 10**10)
    white = encode(Image.new("RGB", (4000, 3000), "white"), "JPEG", quality=1, optimize=True)
    assert decoding.decode_square(tf.constant(white), 28, 10**8).numpy().min() > 250


@pytest.mark.parametrize("content", [b"", b"GIF", b"no image", bytes(range(256)), b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_image_is_refused(content):
    assert reason(content)


@pytest.mark.parametrize("form", sorted(READABLE))
def test_half_an_image_is_refused(form):
    name = {"netpbm": "PPM"}.get(form, form.upper())
    content = encode(photograph((101, 80)), name)
    assert reason(content[: len(content) // 2])


def test_an_image_that_pillow_cannot_read_is_refused_by_its_format():
    assert "a HEIC image" in reason(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100))
    assert "floating-point pixels" in reason(encode(Image.new("F", (30, 30)), "TIFF"))
