"""Recognises image files by their first bytes, whatever their names are. Does not need TensorFlow."""

import re

from PIL import features

HEAD = 64  # bytes: enough of a file for `image_format`

_MAGIC = {
    "jpeg": rb"\xff\xd8\xff",
    "png": rb"\x89PNG\r\n\x1a\n",
    "gif": rb"GIF8[79]a",
    # "BM" alone also begins texts: the size of the second header must be one of those that exist
    "bmp": rb"BM.{12}[\x0c\x10\x28\x34\x38\x40\x6c\x7c]\0\0\0",
    "webp": rb"RIFF.{4}WEBP",
    "tiff": rb"II[*+]\0|MM\0[*+]",
    "jpeg2000": rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51",
    "netpbm": rb"P[1-6]\s+[#0-9]",
}
_PATTERNS = {name: re.compile(magic, re.DOTALL) for name, magic in _MAGIC.items()}
# ISO base media files, with the four-letter codes of the kinds that they hold
_BRANDS = {"avif": {b"avif", b"avis"}, "heic": {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}}

_INSTALLED = set(features.get_supported())
_NEEDS = {"webp": "webp", "avif": "avif", "jpeg2000": "jpg_2000", "heic": "heif"}  # no Pillow has "heif" yet
# the formats that the installed Pillow can decode
READABLE = frozenset(name for name in (*_MAGIC, *_BRANDS) if name not in _NEEDS or _NEEDS[name] in _INSTALLED)


def image_format(head: bytes) -> str:
    """Returns the format of an image file, from its first `HEAD` bytes or more; "" if it is no image.

    One of "jpeg", "png", "gif", "bmp", "webp", "tiff", "jpeg2000", "netpbm", "avif" and "heic".
    """
    if head[4:8] == b"ftyp":
        end = min(int.from_bytes(head[:4], "big"), HEAD)
        brands = {head[i : i + 4] for i in (8, *range(16, end, 4))}
        return next((name for name, known in _BRANDS.items() if brands & known), "")
    return next((name for name, magic in _PATTERNS.items() if magic.match(head)), "")
