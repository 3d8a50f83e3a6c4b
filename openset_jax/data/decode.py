"""Decodes one image in TensorFlow's graph: to an upright RGB square of the stored size. Needs TensorFlow."""

import numpy as np
from PIL import Image

from openset_jax.data.tensorflow_cpu import tf

# By EXIF orientation, 1 to 8 (0 is unused): quarter turns counter-clockwise, then whether to mirror from left to right.
_QUARTER_TURNS = (0, 0, 0, 2, 2, 3, 3, 1, 1)
_MIRRORED = (False, False, True, False, True, True, False, True, False)


def decode_record(content: tf.Tensor, format: str, stored_size: int) -> tf.Tensor:
    """Decodes one record of a source in `Source.format`, a scalar string: uint8 [stored_size, stored_size, 3]."""
    kind, _, detail = format.partition(":")
    if kind == "pixels":
        return tf.reshape(tf.io.decode_raw(content, tf.uint8), [stored_size, stored_size, 3])
    if kind == "path":
        content = tf.io.read_file(content)
    if kind == "example":
        content = tf.io.parse_single_example(content, {detail: tf.io.FixedLenFeature([], tf.string)})[detail]
    return decode_square(content, stored_size)


def decode_square(encoded: tf.Tensor, stored_size: int) -> tf.Tensor:
    """Returns the centre square of an encoded image, upright, in RGB, scaled: uint8 [stored_size, stored_size, 3].

    Deterministic. Scaling is antialiased bilinear; JPEGs much larger than needed are first scaled by 1/2, 1/4 or 1/8 inside
    the decoder. The square is cropped before it is scaled, which gives the same picture as scaling the shorter side and
    cropping then, with less work.
    """
    is_jpeg = tf.strings.substr(encoded, 0, 3) == b"\xff\xd8\xff"
    square = tf.cond(is_jpeg, lambda: _jpeg_square(encoded, stored_size), lambda: _other_square(encoded, stored_size))
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


def _jpeg_square(encoded, stored_size):
    height, width, _ = tf.unstack(tf.io.extract_jpeg_shape(encoded))
    side = tf.minimum(height, width)

    def decode(ratio):
        size = lambda n: -(-n // ratio)  # the decoder rounds up
        crop = _centre(size(height), size(width))
        return tf.io.decode_and_crop_jpeg(encoded, tf.stack(crop), channels=3, ratio=ratio)

    def scaled():
        # the largest reduction that leaves at least stored_size pixels a side
        steps = tf.reduce_sum(tf.cast(side // tf.constant([2, 4, 8]) >= stored_size, tf.int32))
        square = tf.switch_case(steps, [lambda r=r: decode(r) for r in (1, 2, 4, 8)])
        return _scaled(_upright(square, encoded), stored_size)

    # a shortcut for images of the stored size, which are common: the `tf.cond`s in `scaled` take 5 % of the decoding time
    return tf.cond(_has_no_exif(encoded) & (side == stored_size), lambda: decode(1), scaled)


def _other_square(encoded, stored_size):
    image = tf.io.decode_image(encoded, channels=3, expand_animations=False)
    top, left, side, _ = _centre(tf.shape(image)[0], tf.shape(image)[1])
    return _scaled(image[top : top + side, left : left + side], stored_size)


def _centre(height, width):
    side = tf.minimum(height, width)
    return (height - side) // 2, (width - side) // 2, side, side


def _has_no_exif(encoded):
    """True if the start marker of a JPEG, or its JFIF block, is followed by a quantisation table: there is no EXIF block."""
    first, second = tf.strings.substr(encoded, 2, 2), tf.strings.substr(encoded, 20, 2)
    return (first == b"\xff\xdb") | ((first == b"\xff\xe0") & (second == b"\xff\xdb"))


def _upright(square, encoded):
    """Applies the EXIF orientation of a JPEG."""

    def turned():
        code = tf.numpy_function(_orientation, [tf.strings.substr(encoded, 0, 1 << 16)], tf.int32, stateful=False)
        image = tf.image.rot90(square, tf.gather(tf.constant(_QUARTER_TURNS), code))
        mirrored = tf.gather(tf.constant(_MIRRORED), code)
        return tf.cond(mirrored, lambda: tf.image.flip_left_right(image), lambda: image)

    return tf.cond(_has_no_exif(encoded), lambda: square, turned)


def _orientation(head) -> np.int32:
    """The EXIF orientation in the first bytes of a JPEG, 1 to 8; 1, upright, if there is none or it is damaged."""
    try:
        head = np.asarray(head).item()  # bytes in a graph, an array in eager mode
        exif = Image.Exif()
        exif.load(head[head.index(b"Exif\0\0") :])
        code = int(exif.get(0x0112, 1))
        return np.int32(code if 1 <= code <= 8 else 1)
    except Exception:  # the image is readable even if its EXIF block is damaged
        return np.int32(1)
