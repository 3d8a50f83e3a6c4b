"""Rows of a pool -> batches of uint8 images: read, decode, square, batch. The one home of tf.data.

The pipeline holds no state: it is built from a function "batch n -> rows", so it can start at any n. That is also how it
survives a file that is not an image. The fast path decodes inside TensorFlow's graph, where one bad file ends the
iterator; the batch at fault is then examined image by image, what is bad is named and remembered (`Skipped`), and the
pipeline starts again at that very batch.
"""

import contextlib
import os
from collections.abc import Iterator

import numpy as np

from openset_jax.data import packed
from openset_jax.data.batches import BLANK, Batches
from openset_jax.data.pools import Pool, check_stored_size
from openset_jax.data.unreadable import Skipped


@contextlib.contextmanager
def _silent_stderr() -> Iterator[None]:
    """What C++ code writes to standard error in the meantime is lost; Python's exceptions are not."""
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)


with _silent_stderr():  # TensorFlow announces oneDNN at every start, whatever its log level
    import tensorflow as tf

try:
    tf.config.set_visible_devices([], "GPU")  # the accelerators belong to JAX
except RuntimeError as error:  # somebody used TensorFlow before us
    raise RuntimeError("import openset_jax.data.pipeline before TensorFlow runs its first operation") from error

_CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def stream(pool: Pool, batches: Batches, *, stored_size: int, skipped: Skipped) -> Iterator[dict[str, np.ndarray]]:
    """Reads and decodes batches, in order.

    Yields:
      {"image": uint8 [b, S, S, 3], zeros where blank, and what `Batches.columns` gives}.
    """
    for n, (rows, image) in enumerate(_batches(pool, batches, stored_size, skipped), batches.start):
        yield {"image": image, **batches.columns(n, rows)}


def read_images(pool: Pool, rows: np.ndarray, stored_size: int) -> np.ndarray:
    """The images at `rows` at once: uint8 [n, S, S, 3]. For small numbers of images; errors are TensorFlow's."""
    (_, image), *_ = _dataset(pool, lambda _: np.asarray(rows, np.int64), 0, 1, len(rows), stored_size)
    return image


def _batches(pool, batches, stored_size, skipped):
    """Yields (rows, images) for each batch, starting again behind each bad image."""
    check_stored_size(pool, stored_size)
    unreadable = (tf.errors.OpError, OSError)  # a local name: at interpreter exit, `tf` goes before this generator
    start, stop, retried = batches.start, batches.stop, -1
    while start < stop:
        try:
            for rows, image in _dataset(pool, batches.rows, start, stop, batches.size, stored_size, batches.blanks):
                yield rows, image
                start += 1
        except unreadable:
            if not _examine(pool, batches.rows(start), stored_size, skipped) and retried == start:
                raise  # it failed twice, and no image of it is to blame
            retried = start


def _examine(pool, rows, stored_size, skipped) -> int:
    """Decodes one image at a time and reports those that fail; how many did."""
    rows, bad, done = np.unique(rows[rows != BLANK]), 0, 0
    while done < len(rows):
        try:
            for _ in _dataset(pool, lambda n: rows[n : n + 1], done, len(rows), 1, stored_size):
                done += 1
        except (tf.errors.OpError, OSError):
            if (error := _error_of(pool, rows[done], stored_size)) is None:
                done += 1
                continue
            lines = str(getattr(error, "message", error)).strip().splitlines() or [type(error).__name__]
            skipped.add(int(rows[done]), lines[0].split("}} ")[-1].split(" [Op")[0])
            done, bad = done + 1, bad + 1
    return bad


def _error_of(pool, row, stored_size) -> Exception | None:
    """What goes wrong when one image is read again: a failure that passes is not the image's."""
    try:
        read_images(pool, np.array([row]), stored_size)
    except (tf.errors.OpError, OSError) as error:
        return error
    return None


def _dataset(pool, rows_of, start, stop, size, stored_size, blanks=False) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """tf.data from "n -> rows" to (rows, images), in order, in bounded memory; `blanks`: rows may be BLANK."""
    dataset = tf.data.Dataset.range(start, stop)
    if all(source.form.startswith("pixels:") for source in pool.sources):
        dataset = _packed_batches(dataset, pool, rows_of, size, stored_size)
    else:
        dataset = _decoded_batches(dataset, pool, rows_of, size, stored_size, blanks)
    options = tf.data.Options()
    options.deterministic = True
    # What decodes is known: a thread on each core. Looking for better costs 4 % of the time, and memory without bound
    options.autotune.enabled = False
    options.threading.private_threadpool_size = _CORES
    options.threading.max_intra_op_parallelism = 1
    options.experimental_optimization.map_and_batch_fusion = True  # each image goes straight into its batch
    return dataset.prefetch(2).with_options(options).as_numpy_iterator()


def _packed_batches(dataset, pool, rows_of, size, stored_size):
    """Nothing to decode: a batch is read at once."""

    def load(n):
        rows = rows_of(int(n))
        return rows, packed.read(pool, rows, stored_size)

    def batch(n):
        rows, images = tf.numpy_function(load, [n], (tf.int64, tf.uint8), stateful=False)
        return tf.ensure_shape(rows, [size]), tf.ensure_shape(images, [size, stored_size, stored_size, 3])

    return dataset.map(batch, num_parallel_calls=2)


def _decoded_batches(dataset, pool, rows_of, size, stored_size, blanks):
    forms = sorted({source.form for source in pool.sources})

    def load(n):
        rows = rows_of(int(n))
        content, form = np.full(size, b"", object), np.zeros(size, np.int32)
        for i in np.unique(pool.source[rows[rows != BLANK]]):
            here = np.flatnonzero((rows != BLANK) & (pool.source[rows] == i))
            fetched = pool.sources[i].fetch(pool.record[rows[here]])
            content[here] = [c if isinstance(c, bytes) else c.tobytes() for c in fetched]
            form[here] = forms.index(pool.sources[i].form)
        return rows, content, form

    def read(n):
        columns = tf.numpy_function(load, [n], (tf.int64, tf.string, tf.int32), stateful=False)
        return tuple(tf.ensure_shape(column, [size]) for column in columns)

    def image(row, content, form):
        branches = [lambda f=f: _record_square(content, f, stored_size) for f in forms]
        decoded = branches[0]() if len(forms) == 1 else tf.switch_case(form, branches)
        return row, tf.ensure_shape(decoded, [stored_size, stored_size, 3])

    def blank_or_image(row, content, form):
        blank = tf.zeros([stored_size, stored_size, 3], tf.uint8)
        return tf.cond(row == BLANK, lambda: (row, blank), lambda: image(row, content, form))

    dataset = dataset.map(read).prefetch(2)  # the next rows are known before they are needed
    dataset = dataset.flat_map(lambda *columns: tf.data.Dataset.from_tensor_slices(columns))
    dataset = dataset.map(blank_or_image if blanks else image, num_parallel_calls=2 * _CORES)
    return dataset.batch(size, drop_remainder=True)


# --- one image, inside TensorFlow's graph ---------------------------------------------------------------------------------


def _record_square(content: tf.Tensor, form: str, stored_size: int) -> tf.Tensor:
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
