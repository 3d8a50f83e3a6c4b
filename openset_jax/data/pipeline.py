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

from openset_jax.data.batches import BLANK, Batches
from openset_jax.data.pools import Pool, check_stored_size
from openset_jax.data.skipped import Skipped


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

from openset_jax.data.decode import record_square  # noqa: E402 (TensorFlow is set up above)

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
    forms = sorted({source.form for source in pool.sources})

    def load(n):
        rows = rows_of(int(n))
        content, form = np.full(size, b"", object), np.zeros(size, np.int32)
        for i in np.unique(pool.source[rows[rows != BLANK]]):
            here = np.flatnonzero((rows != BLANK) & (pool.source[rows] == i))
            content[here] = pool.sources[i].fetch(pool.record[rows[here]])
            form[here] = forms.index(pool.sources[i].form)
        return rows, content, form

    def read(n):
        columns = tf.numpy_function(load, [n], (tf.int64, tf.string, tf.int32), stateful=False)
        return tuple(tf.ensure_shape(column, [size]) for column in columns)

    def image(row, content, form):
        branches = [lambda f=f: record_square(content, f, stored_size) for f in forms]
        decoded = branches[0]() if len(forms) == 1 else tf.switch_case(form, branches)
        return row, tf.ensure_shape(decoded, [stored_size, stored_size, 3])

    def blank_or_image(row, content, form):
        blank = tf.zeros([stored_size, stored_size, 3], tf.uint8)
        return tf.cond(row == BLANK, lambda: (row, blank), lambda: image(row, content, form))

    dataset = tf.data.Dataset.range(start, stop).map(read).prefetch(2)  # the next rows are known before they are needed
    dataset = dataset.flat_map(lambda *columns: tf.data.Dataset.from_tensor_slices(columns))
    dataset = dataset.map(blank_or_image if blanks else image, num_parallel_calls=2 * _CORES)
    dataset = dataset.batch(size, drop_remainder=True).prefetch(2)
    options = tf.data.Options()
    options.deterministic = True
    # What decodes is known: a thread on each core. Looking for better costs 4 % of the time, and memory without bound
    options.autotune.enabled = False
    options.threading.private_threadpool_size = _CORES
    options.threading.max_intra_op_parallelism = 1
    options.experimental_optimization.map_and_batch_fusion = True  # each image goes straight into its batch
    return dataset.with_options(options).as_numpy_iterator()
