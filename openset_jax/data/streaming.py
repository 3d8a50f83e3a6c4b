"""Batches of a pool that the host reads: images decoded by the tf.data pipeline, or arrays read from files.

A reader is made from a function "batch n -> rows", so it can start at any batch. Unreadable examples are handled by such a
restart: one of them ends the reader; then those of its batch are read one by one, the unreadable ones are reported and
remembered (`Unreadable`), and the reader starts again at the same batch. Arrays need no TensorFlow.
"""

import collections
import concurrent.futures
import os
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from openset_jax.data import packed
from openset_jax.data.batches import BLANK, Batches
from openset_jax.data.pools import Pool
from openset_jax.data.unreadable import Unreadable
from openset_jax.errors import needing_tensorflow

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
_AHEAD = 2  # batches of arrays that are read before they are needed


class Reader(NamedTuple):
    """Reads the examples of a pool.

    Attributes:
      read: (pool, batches, first, max_pixels) -> iterator over (rows, examples) of the batches from `first` on, in order, in
        bounded memory.
      read_one: (pool, row, max_pixels) -> None; raises one of `failures` if the example cannot be read.
      failures: the exceptions of examples that cannot be read.
    """

    read: Callable[[Pool, Batches, int, int], Iterator[tuple[np.ndarray, np.ndarray]]]
    read_one: Callable[[Pool, int, int], None]
    failures: tuple[type[Exception], ...]


def reader_of(pool: Pool) -> Reader:
    """Returns the reader of a pool. Raises UserError if images must be decoded, and TensorFlow is not installed."""
    if pool.is_packed:
        return _ARRAYS
    with needing_tensorflow("input: stream"):
        from openset_jax.data import pipeline
    return Reader(pipeline.read, pipeline.read_one, pipeline.FAILURES)


def stream(pool: Pool, batches: Batches, *, unreadable: Unreadable) -> Iterator[dict[str, np.ndarray]]:
    """Reads batches, in order; after a failure, starts again at the batch that failed.

    Yields:
      {"example": [b, *pool.array.shape], zeros where blank, and the columns of `Batches.columns`}.
    """
    reader, n, retried = reader_of(pool), batches.start, -1
    failures = reader.failures  # a local name: at interpreter exit, names of the module are deleted before this generator
    while n < batches.stop:
        try:
            for rows, examples in reader.read(pool, batches, n, unreadable.max_pixels):
                yield {"example": examples, **batches.columns(n, rows)}
                n += 1
        except failures:
            if not _examine(pool, batches.rows(n), reader, unreadable) and retried == n:
                raise  # the batch failed twice, although all of its examples are readable
            retried = n


def _examine(pool, rows, reader, unreadable) -> int:
    """Reads the examples one by one, adds those that fail to `unreadable`, and returns their number."""
    rows, bad = np.unique(rows[rows != BLANK]).tolist(), 0
    with concurrent.futures.ThreadPoolExecutor(CORES) as threads:
        errors = threads.map(lambda row: _error_of(pool, row, reader, unreadable.max_pixels), rows)
        for row, error in zip(rows, errors, strict=True):
            if error:
                unreadable.add(row, _reason(error))
                bad += 1
    return bad


def _error_of(pool, row, reader, max_pixels) -> Exception | None:
    """Reads an example and returns the error, or None: a failure that does not recur is not caused by the example."""
    found = None
    for _ in range(2):
        try:
            reader.read_one(pool, row, max_pixels)
            return None
        except reader.failures as error:
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


def _read_arrays(pool: Pool, batches: Batches, first: int, _: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    def load(n: int) -> tuple[np.ndarray, np.ndarray]:
        rows = batches.rows(n)
        return rows, packed.read(pool, rows)

    with concurrent.futures.ThreadPoolExecutor(_AHEAD) as threads:
        waiting = collections.deque[concurrent.futures.Future[tuple[np.ndarray, np.ndarray]]]()
        for n in range(first, batches.stop):
            waiting.append(threads.submit(load, n))
            if len(waiting) > _AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _read_array(pool: Pool, row: int, _: int) -> None:
    packed.read(pool, np.array([row]))


_ARRAYS = Reader(_read_arrays, _read_array, (OSError,))
