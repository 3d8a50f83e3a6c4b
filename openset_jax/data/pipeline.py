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

from openset_jax.data.pools import Pool, check_stored_size
from openset_jax.data.sampler import Sampler
from openset_jax.data.skipped import Skipped
from openset_jax.errors import UserError


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

_BLANK = -1  # a row that stands for no image
_CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def training_batches(
    pool: Pool,
    members: list[np.ndarray],
    sampler: Sampler,
    *,
    start: int,
    stop: int,
    stored_size: int,
    skipped: Skipped,
    part: tuple[int, int] = (0, 1),
) -> Iterator[dict[str, np.ndarray]]:
    """Batches `start` to `stop` of the sampler's stream.

    A bad image is replaced by the next good one of its class, whenever it was found to be bad, so that the stream is a
    function of the files alone.

    Args:
      members: rows of each class, from `Pool.training_members`.
      part: (host, hosts); a host reads only its slice of each global batch.

    Yields:
      {"image": uint8 [b, S, S, 3], "label": int32 [b] ("none" is K), "position": int32 [b] in the global batch,
      "mask": bool [b], all True}, with b = batch_size / hosts.
    """
    size = sampler.batch_size // part[1]
    position = np.arange(part[0] * size, (part[0] + 1) * size, dtype=np.int32)
    first = np.cumsum([0, *map(len, members[:-1])])
    all_members = np.concatenate(members)

    def rows_of(n):
        label, index = sampler.batch(n, position[0], position[-1] + 1)
        rows = all_members[first[label] + index]
        for i in np.flatnonzero(skipped.mask(rows)):
            candidates = np.roll(members[label[i]], -int(index[i]))
            good = candidates[~skipped.mask(candidates)]
            if not len(good):
                raise UserError(f"{pool.groups[pool.group[rows[i]]]!r} has no readable image to train on")
            rows[i] = good[0]
        return rows

    for rows, image in _batches(pool, rows_of, start, stop, size, stored_size, skipped):
        label = np.where(pool.label[rows] < 0, pool.num_classes, pool.label[rows]).astype(np.int32)
        yield {"image": image, "label": label, "position": position, "mask": np.ones(size, bool)}


def evaluation_batches(
    pool: Pool,
    rows: np.ndarray,
    *,
    batch_size: int,
    stored_size: int,
    skipped: Skipped,
    part: tuple[int, int] = (0, 1),
) -> Iterator[dict[str, np.ndarray]]:
    """Every row once, in order; the last batch is padded, and padding and bad images are masked.

    Yields:
      As `training_batches`, with `position` the place in `rows`, and labels as in `Pool.label`.
    """
    count = -(-len(rows) // batch_size)
    size = batch_size // part[1]
    padded = np.full(count * batch_size, _BLANK, np.int64)
    padded[: len(rows)] = rows

    def rows_of(n):
        mine = padded[n * batch_size + part[0] * size :][:size]
        return np.where(skipped.mask(mine), _BLANK, mine)

    for n, (mine, image) in enumerate(_batches(pool, rows_of, 0, count, size, stored_size, skipped, blanks=True)):
        first = n * batch_size + part[0] * size
        yield {
            "image": image,
            "label": np.where(mine == _BLANK, _BLANK, pool.label[mine]).astype(np.int32),
            "position": np.arange(first, first + size, dtype=np.int32),
            "mask": mine != _BLANK,
        }


def read_images(pool: Pool, rows: np.ndarray, stored_size: int) -> np.ndarray:
    """The images at `rows` at once: uint8 [n, S, S, 3]. For small numbers of images; errors are TensorFlow's."""
    (_, image), *_ = _dataset(pool, lambda _: np.asarray(rows, np.int64), 0, 1, len(rows), stored_size)
    return image


def _batches(pool, rows_of, start, stop, size, stored_size, skipped, blanks=False):
    """Yields (rows, images) for each batch, starting again behind each bad image."""
    check_stored_size(pool, stored_size)
    unreadable = (tf.errors.OpError, OSError)  # a local name: at interpreter exit, `tf` goes before this generator
    retried = -1
    while start < stop:
        try:
            for rows, image in _dataset(pool, rows_of, start, stop, size, stored_size, blanks):
                yield rows, image
                start += 1
        except unreadable:
            if not _examine(pool, rows_of(start), stored_size, skipped) and retried == start:
                raise  # it failed twice, and no image of it is to blame
            retried = start


def _examine(pool, rows, stored_size, skipped) -> int:
    """Decodes one image at a time and reports those that fail; how many did."""
    rows, bad, done = np.unique(rows[rows != _BLANK]), 0, 0
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
    """tf.data from "n -> rows" to (rows, images), in order, in bounded memory; `blanks`: rows may be _BLANK."""
    forms = sorted({source.form for source in pool.sources})

    def load(n):
        rows = rows_of(int(n))
        content, form = np.full(size, b"", object), np.zeros(size, np.int32)
        for i in np.unique(pool.source[rows[rows != _BLANK]]):
            here = np.flatnonzero((rows != _BLANK) & (pool.source[rows] == i))
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
        return tf.cond(row == _BLANK, lambda: (row, blank), lambda: image(row, content, form))

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
