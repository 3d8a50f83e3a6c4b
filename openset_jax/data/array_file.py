"""Arrays in .npy files, read in parts without a memory map, which would count against limits on address space."""

import os
import pathlib
import weakref
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from openset_jax.data.pools import ArrayType


class ArrayFile(NamedTuple):
    """An array [rows, *array.shape] in a file."""

    path: pathlib.Path
    rows: int
    array: ArrayType  # of one example
    offset: int  # of the first example, in bytes

    def fetcher(self) -> Callable[[np.ndarray], np.ndarray]:
        """Opens the file; returns `Source.fetch`. The file is closed when nothing uses it."""
        file = os.open(self.path, os.O_RDONLY)
        fetch = lambda records: _fetch(file, self, records)
        weakref.finalize(fetch, os.close, file).atexit = False  # at exit, threads may still read
        return fetch


def open_array(path: pathlib.Path) -> ArrayFile:
    """Reads the header of a .npy file. Raises OSError; ValueError if it is no array in row order, or is truncated."""
    with open(path, "rb") as file:
        try:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, by_columns, dtype = read(file)
        except ValueError as error:
            raise ValueError(f"{path.name}: not a file of numpy.save: {error}") from error
        found = ArrayFile(path, shape[0] if shape else 0, ArrayType(shape[1:], dtype), file.tell())
        there = file.seek(0, os.SEEK_END)
    if dtype.hasobject:
        raise ValueError(f"{path.name}: an array {list(shape)} of Python objects, such as rows of several lengths")
    if not shape or by_columns:
        raise ValueError(
            f"{path.name}: an array {dtype} {list(shape)} is not stored row by row; save numpy.ascontiguousarray of it"
        )
    if there < found.offset + found.rows * found.array.nbytes:
        raise ValueError(f"{path.name}: {there:,} bytes are too few for {dtype} {list(shape)}; the file is truncated")
    return found


def _fetch(file, of, records):
    """Reads arrays of an open file: [n, *shape]. Consecutive records are read together."""
    examples, size = np.empty((len(records), *of.array.shape), of.array.dtype), of.array.nbytes
    starts = [0, *(np.flatnonzero(np.diff(records) != 1) + 1).tolist()] if len(records) else []
    for start, stop in zip(starts, [*starts[1:], len(records)], strict=False):
        room, at, there = examples[start:stop].reshape(-1).view(np.uint8), of.offset + int(records[start]) * size, 0
        while there < len(room):  # one call reads at most 2 GiB
            count = os.preadv(file, [room[there:]], at + there)
            if not count:
                place = records[start] + there // size
                raise OSError(f"{of.path.name} ends at example {place}: it was truncated while in use")
            there += count
    return examples
