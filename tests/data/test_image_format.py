"""Image files are recognised by their first bytes."""

import io

import pytest
from PIL import Image, features

from openset_jax.data.image_format import HEAD, READABLE, image_format

PILLOWS_NAMES = {"jpeg2000": "jpeg2000", "netpbm": "ppm"}


@pytest.mark.parametrize("name", sorted(READABLE))
def test_a_file_that_pillow_writes_is_recognised(name):
    file = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(file, PILLOWS_NAMES.get(name, name))
    assert image_format(file.getvalue()[:HEAD]) == name
    assert image_format(file.getvalue()) == name


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "heic"),
        (b"\0\0\0\x1cftypmif1\0\0\0\0mif1avifmiaf", "avif"),
        (b"\0\0\0\x18ftypisom\0\0\0\0mp41avc1", ""),  # a film
        (b"\0\0\0\x10ftypisom\0\0\0\0avif", ""),  # behind the list of brands
        (b"MM\0*\0\0\0\x08", "tiff"),
        (b"\xff\xd8\xff", "jpeg"),
        (b"\xff\xd8", ""),
        (b"BMW and other cars are in this folder", ""),
        (b"P5\n# by a camera\n8 8\n255\n", "netpbm"),
        (b"P1 is the first photograph", ""),
        (b"RIFF\x24\0\0\0WAVEfmt ", ""),
        (b"", ""),
        (b"\0\0\0\0ftyp", ""),
    ],
)
def test_recognised_by_the_first_bytes(head, name):
    assert image_format(head) == name


def test_what_this_pillow_can_decode():
    assert {"jpeg", "png", "gif", "bmp", "tiff"} <= READABLE
    assert "heic" not in READABLE
    assert ("webp" in READABLE) == features.check("webp")
