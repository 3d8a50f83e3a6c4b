"""Images in memory are decoded as files with the same pixels are."""

import io
import pathlib

import numpy as np
import pytest
from PIL import Image

from openset_jax.data import given_images

PIXELS = np.random.default_rng(0).integers(0, 256, (40, 57, 3), np.uint8)


def content(image, **options):
    file = io.BytesIO()
    image.save(file, "PNG", **options)
    return file.getvalue()


def decoded(images):
    """uint8 [n, 16, 16, 3], from the pipeline of all commands."""
    pipeline = pytest.importorskip("openset_jax.data.pipeline")
    pool = given_images.make_pool([str(i) for i in range(len(images))], images, 16)
    return pipeline.read_images(pool, np.arange(len(images)))


def test_files_bytes_pillow_images_and_arrays_with_equal_pixels_are_equal(tmp_path):
    picture, path = Image.fromarray(PIXELS), tmp_path / "b\udce9ret.png"
    path.write_bytes(content(picture))
    turned = Image.fromarray(np.rot90(PIXELS))
    turned.getexif()[0x0112] = 6  # to be shown turned by 90 degrees clockwise
    same = [str(path), path, path.read_bytes(), picture, PIXELS, np.asfortranarray(PIXELS), turned, picture.convert("RGBA")]
    images = decoded(same)
    assert images[0].std() > 10
    for image in images[1:]:
        np.testing.assert_array_equal(image, images[0])


@pytest.mark.parametrize("mode", ["L", "1", "P", "LA", "I;16"])
def test_pillow_images_of_each_mode_are_decoded_as_their_png_files(mode):
    picture = Image.fromarray(PIXELS[:, :, 0].astype(np.uint16) * 257) if mode == "I;16" else Image.fromarray(PIXELS)
    picture = picture.convert(mode)
    one, other = decoded([content(picture), picture])
    np.testing.assert_array_equal(one, other)


def test_grey_arrays_are_grey():
    one, other = decoded([PIXELS[:, :, 0], np.repeat(PIXELS[:, :, :1], 3, axis=2)])
    np.testing.assert_array_equal(one, other)


def test_one_image_and_several():
    images = ["a.jpg", pathlib.Path("a.jpg"), b"x", PIXELS, Image.fromarray(PIXELS)]
    for image in images:
        (only,) = given_images.as_list(image)
        assert only is image, "not its characters, rows or bytes"
    assert all(one is other for one, other in zip(given_images.as_list(x for x in images), images, strict=True))


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (5, "^image 0 is of type int; an image is a path, bytes"),
        (["a", None], "^image 1 is of type NoneType"),
        (PIXELS.astype(np.float32), r"^image 0 is an array float32 \[40, 57, 3\]; an array must be uint8 \[H, W, 3\]"),
        (["a", PIXELS[None]], r"^image 1 is an array uint8 \[1, 40, 57, 3\].*; give several images as a list"),
        (PIXELS[:, :, :2], r"\[40, 57, 2\]"),
        (PIXELS[:0], r"\[0, 57, 3\]"),
        (PIXELS.tolist(), "^image 0 is of type list"),
        (Image.new("F", (3, 3)), "^image 0 is a Pillow image of mode F.*convert it to RGB"),
    ],
)
def test_what_is_no_image_is_named(wrong, says):
    with pytest.raises(TypeError, match=says):
        given_images.as_list(wrong)


def test_an_open_file_is_no_list_of_lines():
    with pytest.raises(TypeError, match="an open file is not an image; give its path, or the bytes of its read"):
        given_images.as_list(io.BytesIO(b"\n\n"))
