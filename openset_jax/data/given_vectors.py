"""Vectors that a program gives, in files or in memory, as a `Pool`."""

import os
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from openset_jax.data import pools, vector_files
from openset_jax.data.pools import ArrayType
from openset_jax.errors import UserError

_SUFFIXES = (".npy", ".parquet")
_DTYPE = np.dtype(np.float32)  # of all vectors that are given, so that they share one program


class GivenVectors(NamedTuple):
    """Vectors to classify: the id of each, and their pool, without known classes."""

    ids: Sequence[str | int]
    pool: pools.Pool


def is_file_of_vectors(path: str | os.PathLike[str]) -> bool:
    """True for a .npy or .parquet file, and for a folder with features.npy."""
    path = pathlib.Path(path).expanduser()
    return (path.suffix.lower() in _SUFFIXES and not path.is_dir()) or (path / vector_files.VECTORS).is_file()


def open_files(paths: Iterable[str | os.PathLike[str]]) -> GivenVectors:
    """Opens files and folders of vectors; the ids are those of an index, or "PATH#ROW", the rows counted from 0.

    Raises UserError if a file cannot be read, or the vectors have different numbers of features.
    """
    sources, ids = [], list[str | int]()
    for path in map(pathlib.Path, paths):
        vectors, _, columns = vector_files.read(str(path), path.expanduser())
        own = columns.get("id") or [f"{path}#{row}" for row in range(vectors.rows)]
        sources.append(_source(str(path), vectors, own))
        ids += own
    return GivenVectors(ids, _pool(sources))


def of_memory(vectors: Any) -> GivenVectors:
    """Returns the vectors of an array [n, F] or [F], or of several [F]; the ids are their positions.

    Raises TypeError if they are no floating-point numbers, or not of one length.
    """
    try:
        array = np.atleast_2d(np.asarray(vectors if isinstance(vectors, np.ndarray) else list(vectors)))
    except (TypeError, ValueError) as error:
        raise TypeError(f"vectors must be an array of floating-point numbers [n, F] ({error})") from error
    if array.dtype.kind != "f" or array.ndim != 2:
        raise TypeError(
            f"vectors are an array {array.dtype} {list(array.shape)}; they must be floating-point numbers [n, F]"
        )
    array = array if array.dtype in (np.float16, np.float32) else array.astype(np.float32)
    given = vector_files.Vectors(len(array), ArrayType(array.shape[1:], array.dtype), lambda records: array[records])
    ids = range(len(array))
    return GivenVectors(ids, _pool([_source("vectors", given, list(map(str, ids)))]))


def _source(name: str, vectors: vector_files.Vectors, ids: Sequence[str]) -> pools.Source:
    return pools.Source(
        name=name, classes=("",), roles=None, label=np.zeros(vectors.rows, np.int32),
        split=np.full(vectors.rows, pools.TEST, np.uint8), format="array", ids=lambda records: [ids[r] for r in records],
        fetch=lambda records: vectors.fetch(records).astype(np.float32), array=ArrayType(vectors.array.shape, _DTYPE),
    )  # fmt: skip


def _pool(sources: list[pools.Source]) -> pools.Pool:
    arrays = [source.array for source in sources if source.array]
    sizes = {array.shape[0]: source.name for source, array in zip(sources, arrays, strict=True)}
    if len(sizes) > 1:
        text = ", ".join(f"{name} has {size:,}" for size, name in sizes.items())
        raise UserError(f"all vectors must have the same number of features, but {text}")
    rows = [len(source.label) for source in sources]
    return pools.Pool(
        sources=tuple(sources), groups=("",), roles=("unknown",), num_classes=0,
        array=arrays[0],
        source=np.repeat(np.arange(len(rows), dtype=np.int32), rows),
        record=np.concatenate([np.arange(count) for count in rows]), group=np.zeros(sum(rows), np.int32),
        split=np.full(sum(rows), pools.TEST, np.uint8), key=np.arange(sum(rows), dtype=np.uint64),
    )  # fmt: skip
