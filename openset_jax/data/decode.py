"""One record of a source -> its square of pixels, inside TensorFlow's graph.

To be imported through `pipeline`, which sets TensorFlow up before its first operation.
"""

import numpy as np
import tensorflow as tf


def record_square(content: tf.Tensor, form: str, stored_size: int) -> tf.Tensor:
    """One record of a source -> uint8 [S, S, 3]."""
    kind, _, detail = form.partition(":")
    if kind == "pixels":
        return tf.reshape(tf.io.decode_raw(content, tf.uint8), [stored_size, stored_size, 3])
    if kind == "path":
        content = tf.io.read_file(content)
    if kind == "example":
        content = tf.io.parse_single_example(content, {detail: tf.io.FixedLenFeature([], tf.string)})[detail]
    return decode_square(content, stored_size)


def decode_square(encoded: tf.Tensor, stored_size: int) -> tf.Tensor:
    """An encoded image -> its centre square, upright, in RGB, scaled to [stored_size, stored_size, 3] uint8.

    Deterministic. Scaling is antialiased bilinear; JPEGs much larger than needed are first scaled by 1/2, 1/4 or 1/8
    inside the decoder. The square is cut before it is scaled, which is the same picture as scaling the shorter side and
    cutting then, for less work.
    """
    is_jpeg = tf.strings.substr(encoded, 0, 3) == b"\xff\xd8\xff"
    other = lambda: _scaled(_other_square(encoded), stored_size)
    square = tf.cond(is_jpeg, lambda: _jpeg_square(encoded, stored_size), other)
    return tf.ensure_shape(square, [stored_size, stored_size, 3])


def _scaled(square, stored_size):
    """Bit by bit `tf.image.resize(square, antialias=True)`, rounded, in less than half of its time; the same size stays.

    TensorFlow scales the rows of pixels first, with vector instructions, and then the columns, number by number. So the
    image is turned over its diagonal in between, and the columns are scaled as rows are: a picture one pixel wide, with
    all that stands in a row as its channels. Nothing is to be clipped: the weights sum to 1 up to rounding.
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


def _jpeg_square(encoded, stored_size):
    height, width, _ = tf.unstack(tf.io.extract_jpeg_shape(encoded))
    side = tf.minimum(height, width)

    def decode(ratio):
        size = lambda n: -(-n // ratio)  # the decoder rounds up
        crop = _centre(size(height), size(width))
        return tf.io.decode_and_crop_jpeg(encoded, tf.stack(crop), channels=3, ratio=ratio)

    def scaled():
        # the largest reduction that keeps every pixel the result needs
        steps = tf.reduce_sum(tf.cast(side // tf.constant([2, 4, 8]) >= stored_size, tf.int32))
        square = tf.switch_case(steps, [lambda r=r: decode(r) for r in (1, 2, 4, 8)])
        return _scaled(_upright(square, encoded), stored_size)

    # decoding and no more, without the conditions of all else, which cost 5 % of it: what was scaled before comes often
    return tf.cond(_has_no_turn(encoded) & (side == stored_size), lambda: decode(1), scaled)


def _other_square(encoded):
    image = tf.io.decode_image(encoded, channels=3, expand_animations=False)
    top, left, side, _ = _centre(tf.shape(image)[0], tf.shape(image)[1])
    return image[top : top + side, left : left + side]


def _centre(height, width):
    side = tf.minimum(height, width)
    return (height - side) // 2, (width - side) // 2, side, side


def _has_no_turn(encoded):
    """True for a JPEG that goes from its start (and JFIF block) to a table: there is no EXIF block in it."""
    first, second = tf.strings.substr(encoded, 2, 2), tf.strings.substr(encoded, 20, 2)
    return (first == b"\xff\xdb") | ((first == b"\xff\xe0") & (second == b"\xff\xdb"))


def _upright(square, encoded):
    """Applies the EXIF turn of a JPEG."""

    def turned():
        code = tf.numpy_function(_orientation, [tf.strings.substr(encoded, 0, 1 << 16)], tf.int32, stateful=False)
        image = tf.image.rot90(square, tf.gather(tf.constant(_QUARTER_TURNS), code))
        mirrored = tf.gather(tf.constant(_MIRRORED), code)
        return tf.cond(mirrored, lambda: tf.image.flip_left_right(image), lambda: image)

    return tf.cond(_has_no_turn(encoded), lambda: square, turned)


# By EXIF orientation, 1 to 8 (0 is unused): quarter turns counter-clockwise, then a mirror image or not.
_QUARTER_TURNS = (0, 0, 0, 2, 2, 3, 3, 1, 1)
_MIRRORED = (False, False, True, False, True, True, False, True, False)


def _orientation(head: bytes) -> np.int32:
    from PIL import Image

    try:
        head = np.asarray(head).item()  # in a graph it comes as bytes, outside as an array
        exif = Image.Exif()
        exif.load(head[head.index(b"Exif\0\0") :])
        code = int(exif.get(0x0112, 1))
        return np.int32(code if 1 <= code <= 8 else 1)
    except Exception:  # a damaged EXIF block is no reason to lose the image
        return np.int32(1)
