"""The tf.data pipeline: rows of a pool -> batches of decoded uint8 images. Needs TensorFlow.

It decodes inside TensorFlow's graph, where one unreadable file ends the iterator; `streaming.stream` starts it again.
"""

import functools
from collections.abc import Iterator

import numpy as np

from openset_jax.data.batches import BLANK, Batches
from openset_jax.data.decode import decode_record
from openset_jax.data.pools import Pool
from openset_jax.data.streaming import CORES
from openset_jax.data.tensorflow_cpu import tf
from openset_jax.data.unreadable import MAX_PIXELS

# TensorFlow's messages may quote bytes that are no UTF-8: then UnicodeDecodeError, a ValueError, is raised in their place
FAILURES = (tf.errors.OpError, OSError, ValueError)


def read(pool: Pool, batches: Batches, first: int, max_pixels: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields (rows, images) of the batches from `first` on; see `streaming.Reader`."""
    return _dataset(pool, batches.rows, first, batches.stop, batches.size, max_pixels, batches.blanks)


def read_one(pool: Pool, row: int, max_pixels: int) -> None:
    """Decodes one image; raises one of `FAILURES` if it cannot be read."""
    source = pool.sources[pool.source[row]]
    (content,) = source.fetch(pool.record[[row]])
    if source.array is None:
        decode_record(tf.constant(content), source.format, pool.array.shape[0], max_pixels)


def read_images(pool: Pool, rows: np.ndarray) -> np.ndarray:
    """Returns the images at `rows`, decoded as one batch: uint8 [n, S, S, 3]. Raises OpError, OSError or ValueError."""
    (_, image), *_ = _dataset(pool, lambda _: np.asarray(rows, np.int64), 0, 1, len(rows), MAX_PIXELS)
    return image


def _dataset(pool, rows_of, start, stop, size, max_pixels, blanks=False) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields (rows, images) of batches `start` to `stop`, in order, in bounded memory; other arguments as in `Batches`."""
    dataset = tf.data.Dataset.range(start, stop)
    dataset = _decoded_batches(dataset, pool, rows_of, size, max_pixels, blanks)
    options = tf.data.Options()
    options.deterministic = True
    # Decoding needs one thread per core. Autotuning would cost 4 % of the time, and memory without bound.
    options.autotune.enabled = False
    options.threading.private_threadpool_size = CORES
    options.threading.max_intra_op_parallelism = 1
    options.experimental_optimization.map_and_batch_fusion = True  # writes each image directly into its batch
    return dataset.prefetch(2).with_options(options).as_numpy_iterator()


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
    dataset = dataset.map(_decoder(tuple(formats), pool.array, max_pixels, blanks), num_parallel_calls=2 * CORES)
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
