"""The tf.data pipeline: rows of a pool -> batches of decoded uint8 images. Needs TensorFlow.

The pipeline has no state: it is built from a function "batch n -> rows", so it can start at any batch. Unreadable images are
handled by such a restart. The fast path decodes inside TensorFlow's graph, where one unreadable file ends the iterator. The
images of that batch are then decoded one by one, the unreadable ones are reported and remembered (`Unreadable`), and the
pipeline starts again at the same batch.
"""

import concurrent.futures
import functools
import os
from collections.abc import Iterator

import numpy as np

from openset_jax.data import packed
from openset_jax.data.batches import BLANK, Batches
from openset_jax.data.decode import decode_record
from openset_jax.data.pools import Pool
from openset_jax.data.tensorflow_cpu import tf
from openset_jax.data.unreadable import MAX_PIXELS, Unreadable

_CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
# TensorFlow's messages may quote bytes that are no UTF-8: then UnicodeDecodeError, a ValueError, is raised in their place
_FAILURES = (tf.errors.OpError, OSError, ValueError)


def stream(pool: Pool, batches: Batches, *, unreadable: Unreadable) -> Iterator[dict[str, np.ndarray]]:
    """Reads and decodes batches, in order; after a failure, starts again at the batch that failed.

    Yields:
      {"example": uint8 [b, S, S, 3], zeros where blank, and the columns of `Batches.columns`}.
    """
    n, stop, retried = batches.start, batches.stop, -1
    sizes = batches.size, unreadable.max_pixels
    failures = _FAILURES  # a local name: at interpreter exit, `_FAILURES` is deleted before this generator
    while n < stop:
        try:
            for rows, image in _dataset(pool, batches.rows, n, stop, *sizes, batches.blanks):
                yield {"example": image, **batches.columns(n, rows)}
                n += 1
        except failures:
            if not _examine(pool, batches.rows(n), unreadable) and retried == n:
                raise  # the batch failed twice, although all of its images are readable
            retried = n


def read_images(pool: Pool, rows: np.ndarray) -> np.ndarray:
    """Returns the images at `rows`, decoded as one batch: uint8 [n, S, S, 3]. Raises OpError, OSError or ValueError."""
    (_, image), *_ = _dataset(pool, lambda _: np.asarray(rows, np.int64), 0, 1, len(rows), MAX_PIXELS)
    return image


def _examine(pool, rows, unreadable) -> int:
    """Decodes the images one by one, adds those that fail to `unreadable`, and returns their number."""
    rows, bad = np.unique(rows[rows != BLANK]).tolist(), 0
    with concurrent.futures.ThreadPoolExecutor(_CORES) as threads:
        errors = threads.map(lambda row: _error_of(pool, row, unreadable.max_pixels), rows)
        for row, error in zip(rows, errors, strict=True):
            if error:
                unreadable.add(row, _reason(error))
                bad += 1
    return bad


def _error_of(pool, row, max_pixels) -> Exception | None:
    """Reads an image and returns the error, or None: a failure that does not recur is not caused by the image."""
    source, record, found = pool.sources[pool.source[row]], pool.record[[row]], None
    for _ in range(2):
        try:
            (content,) = source.fetch(record)
            if source.array is None:
                decode_record(tf.constant(content), source.format, pool.array.shape[0], max_pixels)
            return None
        except _FAILURES as error:
            found = error
    return found


def _reason(error: Exception) -> str:
    """The first line of an error, without TensorFlow's names of operations, and in characters that can be printed."""
    text = str(getattr(error, "message", error))
    if isinstance(error, UnicodeDecodeError):  # the whole message of TensorFlow, with bytes of the file or of its name
        text = error.object.decode(errors="backslashreplace")
    lines = text.strip().splitlines() or [type(error).__name__]
    line = lines[0].split("}} ")[-1].split(" [Op")[0]
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)


def _dataset(pool, rows_of, start, stop, size, max_pixels, blanks=False) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields (rows, images) of batches `start` to `stop`, in order, in bounded memory; other arguments as in `Batches`."""
    dataset = tf.data.Dataset.range(start, stop)
    if pool.is_packed:
        dataset = _packed_batches(dataset, pool, rows_of, size)
    else:
        dataset = _decoded_batches(dataset, pool, rows_of, size, max_pixels, blanks)
    options = tf.data.Options()
    options.deterministic = True
    # Decoding needs one thread per core. Autotuning would cost 4 % of the time, and memory without bound.
    options.autotune.enabled = False
    options.threading.private_threadpool_size = _CORES
    options.threading.max_intra_op_parallelism = 1
    options.experimental_optimization.map_and_batch_fusion = True  # writes each image directly into its batch
    return dataset.prefetch(2).with_options(options).as_numpy_iterator()


def _packed_batches(dataset, pool, rows_of, size):
    def load(n):
        rows = rows_of(int(n))
        return rows, packed.read(pool, rows)

    @tf.autograph.experimental.do_not_convert
    def batch(n):
        rows, images = tf.numpy_function(load, [n], (tf.int64, pool.array.dtype), stateful=False)
        return tf.ensure_shape(rows, [size]), tf.ensure_shape(images, [size, *pool.array.shape])

    return dataset.map(batch, num_parallel_calls=2)


def _decoded_batches(dataset, pool, rows_of, size, max_pixels, blanks):
    """Fetches the records of a batch together, then decodes them in parallel."""
    formats = sorted({source.format for source in pool.sources})

    def load(n):
        rows = rows_of(int(n))
        content, format = np.full(size, b"", object), np.zeros(size, np.int32)
        for i in np.unique(pool.source[rows[rows != BLANK]]):
            here = np.flatnonzero((rows != BLANK) & (pool.source[rows] == i))
            fetched = pool.sources[i].fetch(pool.record[rows[here]])
            content[here] = [c if isinstance(c, bytes) else c.tobytes() for c in fetched]
            format[here] = formats.index(pool.sources[i].format)
        return rows, content, format

    @tf.autograph.experimental.do_not_convert
    def read(n):
        columns = tf.numpy_function(load, [n], (tf.int64, tf.string, tf.int32), stateful=False)
        return tuple(tf.ensure_shape(column, [size]) for column in columns)

    dataset = dataset.map(read).prefetch(2).unbatch()  # reads the next batches ahead of decoding
    dataset = dataset.map(_decoder(tuple(formats), pool.array, max_pixels, blanks), num_parallel_calls=2 * _CORES)
    return dataset.batch(size, drop_remainder=True)


@functools.cache
def _decoder(formats, array, max_pixels, blanks):
    """A graph, traced once: (row, record, index of its format) -> (row, image); with `blanks`, row BLANK is all zeros."""

    def image(row, content, format):
        branches = [lambda f=f: decode_record(content, f, array.shape[0], max_pixels) for f in formats]
        decoded = branches[0]() if len(formats) == 1 else tf.switch_case(format, branches)
        return row, tf.ensure_shape(decoded, array.shape)

    def blank_or_image(row, content, format):
        blank = tf.zeros(array.shape, tf.uint8)
        return tf.cond(row == BLANK, lambda: (row, blank), lambda: image(row, content, format))

    scalars = [tf.TensorSpec([], dtype) for dtype in (tf.int64, tf.string, tf.int32)]
    return tf.function(blank_or_image if blanks else image, autograph=False).get_concrete_function(*scalars)
