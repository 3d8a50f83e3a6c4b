"""Decodes one image in TensorFlow's graph: to an upright RGB square of the stored size. Needs TensorFlow."""

import numpy as np
from PIL import Image

from openset_jax.data import pillow_image
from openset_jax.data.tensorflow_cpu import tf

_JPEG, _PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"


def decode_record(content: tf.Tensor, format: str, stored_size: int, max_pixels: int) -> tf.Tensor:
    """Decodes one record of a source in `Source.format`, a scalar string: uint8 [stored_size, stored_size, 3]."""
    kind, _, detail = format.partition(":")
    if kind == "array":
        return tf.reshape(tf.io.decode_raw(content, tf.uint8), [stored_size, stored_size, 3])
    if kind == "path":
        content = tf.io.read_file(content)
    if kind == "example":
        content = tf.io.parse_single_example(content, {detail: tf.io.FixedLenFeature([], tf.string)})[detail]
    return decode_square(content, stored_size, max_pixels)


def decode_square(encoded: tf.Tensor, stored_size: int, max_pixels: int) -> tf.Tensor:
    """Returns the centre square of an encoded image, upright, in RGB, scaled: uint8 [stored_size, stored_size, 3].

    The first bytes decide how it is decoded, not a name. JPEGs and usual PNGs are decoded by TensorFlow, which is fast; all
    others by `_unusual`, which also states why an image with too many pixels is not read. Transparency is dropped.

    Deterministic. Scaling is antialiased bilinear; JPEGs much larger than needed are first scaled by 1/2, 1/4 or 1/8 inside
    the decoder. The square is cropped before it is scaled, which gives the same picture as scaling the shorter side and
    cropping then, with less work.
    """
    # bytes 0 to 27, as big-endian integers; zeros stand for the bytes behind the end of a short file
    header = tf.io.decode_raw(encoded, tf.int32, little_endian=False, fixed_length=28)
    is_jpeg = tf.strings.substr(encoded, 0, len(_JPEG)) == _JPEG
    square = tf.cond(
        is_jpeg,
        lambda: _jpeg_square(encoded, header, stored_size, max_pixels),
        lambda: _other_square(encoded, header, stored_size, max_pixels),
    )
    return tf.ensure_shape(square, [stored_size, stored_size, 3])


def _scaled(square, stored_size):
    """Returns exactly the rounded `tf.image.resize(square, antialias=True)`, in less than half of its time.

    TensorFlow first scales along one axis, with vector instructions, and then along the other, with scalar instructions.
    Here the image is transposed in between, so that both axes are scaled as the first one, as a picture one pixel wide whose
    channels are the numbers of a row. Clipping is not needed: the weights sum to 1 up to rounding. A square that already has
    the stored size is returned unchanged.
    """
    side, size = tf.shape(square)[0], tf.constant([stored_size, 1])
    scale = tf.stack([stored_size / tf.cast(side, tf.float32), 1.0])

    def scaled():
        image = square
        for _ in range(2):
            rows = tf.raw_ops.ScaleAndTranslate(
                images=tf.reshape(image, [1, side, 1, -1]), size=size, scale=scale, translation=tf.zeros(2),
                kernel_type="triangle", antialias=True,
            )  # fmt: skip
            image = tf.transpose(tf.reshape(rows, [stored_size, -1, 3]), [1, 0, 2])
        return tf.cast(tf.round(image), tf.uint8)

    return tf.cond(side == stored_size, lambda: square, scaled)


def _jpeg_square(encoded, header, stored_size, max_pixels):
    shape = tf.io.extract_jpeg_shape(encoded)
    height, width, _ = tf.unstack(shape)
    side = tf.minimum(height, width)
    # without an EXIF block, a quantisation table follows the start marker or the JFIF block
    second, eleventh = header[0] & 0xFFFF, tf.bitwise.right_shift(header[5], 16) & 0xFFFF
    has_exif = (second != 0xFFDB) & ((second != 0xFFE0) | (eleventh != 0xFFDB))

    def decode(ratio):
        size = lambda n: -(-n // ratio)  # the decoder rounds up
        crop = _centre(size(height), size(width))
        return tf.io.decode_and_crop_jpeg(encoded, tf.stack(crop), channels=3, ratio=ratio)

    def scaled():
        # the largest reduction that leaves at least stored_size pixels a side
        steps = tf.reduce_sum(tf.cast(side // tf.constant([2, 4, 8]) >= stored_size, tf.int32))
        square = tf.switch_case(steps, [lambda r=r: decode(r) for r in (1, 2, 4, 8)])
        return _scaled(_upright(square, has_exif, encoded), stored_size)

    # a shortcut for images of the stored size, which are common: the branches in `scaled` take 5 % of the decoding time
    is_plain = ~has_exif & (side == stored_size)
    most = tf.minimum(tf.cast(tf.strings.length(encoded), tf.int64) * pillow_image.PIXELS_PER_JPEG_BYTE, max_pixels)
    is_refused = tf.reduce_prod(tf.cast(shape[:2], tf.int64)) > most
    kind = tf.where(is_refused, 2, tf.where(is_plain, 0, 1))
    return tf.switch_case(kind, [lambda: decode(1), scaled, lambda: _unusual(encoded, max_pixels)])


def _other_square(encoded, header, stored_size, max_pixels):
    width, height, bits = header[4], header[5], tf.bitwise.right_shift(header[6], 24)
    # searches the whole file for an EXIF block, which may also follow the pixels; it takes 1 % of the decoding time
    without_exif = tf.strings.regex_replace(encoded, "eXIf", "", replace_global=False)
    is_usual_png = (
        (tf.strings.substr(encoded, 0, len(_PNG)) == _PNG) & (bits <= 8) & (height > 0) & (width > 0)
        & (tf.cast(height, tf.int64) * tf.cast(width, tf.int64) <= max_pixels)
        & (tf.strings.length(without_exif) == tf.strings.length(encoded))
    )  # fmt: skip

    def png():
        image = tf.io.decode_png(encoded, channels=3)
        top, left, side, _ = _centre(tf.shape(image)[0], tf.shape(image)[1])
        return image[top : top + side, left : left + side]

    return _scaled(tf.cond(is_usual_png, png, lambda: _unusual(encoded, max_pixels)), stored_size)


def _centre(height, width):
    side = tf.minimum(height, width)
    return (height - side) // 2, (width - side) // 2, side, side


def _unusual(encoded, max_pixels):
    """The centre square, by Pillow: uint8 [s, s, 3]. PNGs of 16 bits are decoded by TensorFlow, because Pillow drops 8."""
    deep_png = lambda content: tf.io.decode_png(content, channels=3, dtype=tf.uint16).numpy()
    decode = lambda encoded: pillow_image.centre_square(_bytes(encoded), max_pixels, deep_png)
    return tf.ensure_shape(tf.numpy_function(decode, [encoded], tf.uint8, stateful=False), [None, None, 3])


def _upright(square, has_exif, encoded):
    """Applies the EXIF orientation of a JPEG."""

    def turned():
        code = tf.numpy_function(_orientation, [tf.strings.substr(encoded, 0, 1 << 16)], tf.int32, stateful=False)
        image = tf.image.rot90(square, tf.gather(tf.constant(pillow_image.QUARTER_TURNS), code))
        mirrored = tf.gather(tf.constant(pillow_image.MIRRORED), code)
        return tf.cond(mirrored, lambda: tf.image.flip_left_right(image), lambda: image)

    return tf.cond(has_exif, turned, lambda: square)


def _orientation(head) -> np.int32:
    """The EXIF orientation in the first bytes of a JPEG."""

    def exif():
        block, content = Image.Exif(), _bytes(head)
        block.load(content[content.index(b"Exif\0\0") :])
        return block

    return np.int32(pillow_image.orientation(exif))


def _bytes(content):
    """The value of a scalar string in a `tf.numpy_function`: bytes in a graph, an array in eager mode."""
    return content if isinstance(content, bytes) else content.item()
