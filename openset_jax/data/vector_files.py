"""Vectors as a `Source`: features that some network computed, with a class and a role or a split of each."""

import csv
import os
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from openset_jax.data import array_file
from openset_jax.data.packed import byte_strings
from openset_jax.data.pools import ROLES, UNASSIGNED, ArrayType, Pool, Source, missing_split
from openset_jax.errors import UserError
from openset_jax.text import abridged

VECTORS, INDEXES, COLUMN = "features.npy", ("index.csv", "index.parquet"), "embedding"
_SPLITS = {"train": 0, "validation": 1, "test": 2}  # as the codes of `pools`, in an index with roles
_CHECKED_AT_ONCE = 1 << 26  # bytes


class Vectors(NamedTuple):
    """Vectors with random access: `fetch` maps records, int [n], to [n, F]."""

    rows: int
    array: ArrayType
    fetch: Callable[[np.ndarray], np.ndarray]


def open_features(name: str, path: pathlib.Path, splits: Mapping[int, str]) -> Source:
    """Opens vectors: a folder with features.npy and index.csv or index.parquet, or one .parquet file.

    features.npy is float16 or float32 [n, F]. The index has a row for each vector, with the columns "id", "class", and
    "role" (one of `pools.ROLES`) or "split" or both; "image", the path of an image relative to the folder, is optional. A
    .parquet file has the same columns and the vectors in the column "embedding".

    Args:
      splits: {TRAIN, VALIDATION, TEST or UNASSIGNED: name in the column "split"}, for an index without roles. With roles the
        splits are "train", "validation" and "test"; without a column "split" they are assigned by hash.

    Raises:
      UserError: a file is missing or damaged, the index does not match the vectors, or a value is not allowed.
    """
    folder = path if path.is_dir() else path.parent
    vectors, index, columns = read(name, path)
    if not index:
        raise UserError(f"{name}: no {' or '.join(INDEXES)}, with the id and the class of each vector")
    for column in ("id", "class"):
        if column not in columns:
            raise UserError(f"{name}: {index} has no column {column!r}; it has {abridged(list(columns))}")
    if not columns.keys() & {"role", "split"}:
        raise UserError(
            f"{name}: {index} has neither a column 'role' nor a column 'split'; it has {abridged(list(columns))}"
        )
    where = f"{name}: {index}"
    for column in ("id", "class"):
        if (empty := next((i for i, text in enumerate(columns[column]) if not text), None)) is not None:
            raise UserError(f"{where}, row {empty + 1}: {column!r} is empty")
    roles = columns.get("role")
    if roles is not None:
        _check_values(where, "role", roles, ROLES)
    split, used = _split_codes(name, where, columns, splits)
    of_role: Sequence[str | None] = [None] * vectors.rows if roles is None else roles
    pairs = list(zip(of_role, columns["class"], strict=True))
    number = {pair: i for i, pair in enumerate(dict.fromkeys(pairs))}
    ids = byte_strings(columns["id"])
    pictures = None
    if "image" in columns:
        images = byte_strings(columns["image"])
        pictures = lambda records: [str(folder / text) if text else "" for text in _decoded(images, used[records])]
    return Source(
        name=name,
        classes=tuple(class_ for _, class_ in number),
        roles=tuple(role for role, _ in number if role) if roles is not None else None,
        label=np.array([number[pair] for pair in pairs], np.int32)[used],
        split=split[used],
        format="array",
        ids=lambda records: _decoded(ids, used[records]),
        fetch=lambda records: vectors.fetch(used[records]),
        array=vectors.array,
        pictures=pictures,
    )


def read(name: str, path: pathlib.Path) -> tuple[Vectors, str, dict[str, list[str]]]:
    """Opens a folder with features.npy, a .npy file or a .parquet file.

    Returns (the vectors; the name of the index, "" without one; {column of the index: its texts}). Raises UserError.
    """
    index, columns = "", dict[str, list[str]]()
    try:
        if path.is_dir():
            vectors, (index, columns) = _of_file(path / VECTORS), _read_index(name, path)
        elif path.suffix.lower() == ".npy":
            vectors = _of_file(path)
        else:
            table = _read_parquet(path)
            vectors, index, columns = _of_column(name, table), path.name, _texts(table)
    except (OSError, EOFError, ValueError) as error:
        raise UserError(f"{name}: cannot be read ({error})") from error
    if len(vectors.array.shape) != 1 or vectors.array.dtype not in (np.float16, np.float32):
        found = f"{vectors.array.dtype} {[vectors.rows, *vectors.array.shape]}"
        raise UserError(f"{name}: the vectors are {found}; save them as float16 or float32 [n, F]")
    if not vectors.rows:
        raise UserError(f"{name}: there are no vectors")
    rows = {len(texts) for texts in columns.values()} or {vectors.rows}
    if rows != {vectors.rows}:
        raise UserError(f"{name}: {index} has {rows.pop():,} rows, but there are {vectors.rows:,} vectors")
    return vectors, index, columns


def check_finite(pool: Pool) -> None:
    """Raises UserError, naming vectors, if a pool of vectors has numbers that are not finite."""
    if bad := not_finite(pool):
        names = abridged(list(map(repr, pool.ids(bad[:5]))))
        raise UserError(
            f"{', '.join(source.name for source in pool.sources)}: {len(bad):,} of {len(pool):,} vectors have numbers that "
            f"are not finite: {names}{', ...' if bad[5:] else ''}; compute them again, or remove their rows"
        )


def not_finite(pool: Pool) -> list[int]:
    """Returns the rows of a pool of vectors with numbers that are not finite; reads all of them, in parts."""
    at_once, bad = max(1, _CHECKED_AT_ONCE // pool.array.nbytes), list[int]()
    for i, source in enumerate(pool.sources):
        rows = np.flatnonzero(pool.source == i)
        rows = rows[np.argsort(pool.record[rows], kind="stable")]
        for start in range(0, len(rows), at_once):
            part = rows[start : start + at_once]
            bad += part[~np.isfinite(np.asarray(source.fetch(pool.record[part]))).all(1)].tolist()
    return bad


def _of_file(path: pathlib.Path) -> Vectors:
    file = array_file.open_array(path)
    return Vectors(file.rows, file.array, file.fetcher())


def _of_column(name: str, table: Any) -> Vectors:
    """The vectors of a table of pyarrow, in memory."""
    if COLUMN not in table.column_names:
        raise UserError(f"{name}: no column {COLUMN!r} with the vectors; it has {abridged(table.column_names)}")
    column = table.column(COLUMN).combine_chunks()
    lengths = (
        np.diff(np.asarray(column.offsets)) if hasattr(column, "offsets") else np.full(len(column), column.type.list_size)
    )
    if column.null_count or len(np.unique(lengths)) > 1:
        usual = np.bincount(lengths).argmax()
        row = column.is_null().to_numpy(zero_copy_only=False).argmax() if column.null_count else (lengths != usual).argmax()
        raise UserError(f"{name}: the vector in row {row + 1} has {lengths[row]:,} numbers, others have {usual:,}")
    numbers = column.flatten().to_numpy(zero_copy_only=False)
    if numbers.dtype == np.float64:
        numbers = numbers.astype(np.float32)
    vectors = numbers.reshape(len(column), -1)
    return Vectors(len(vectors), ArrayType(vectors.shape[1:], vectors.dtype), lambda records: vectors[records])


def _read_index(name: str, folder: pathlib.Path) -> tuple[str, dict[str, list[str]]]:
    """(name of the file, {column: its texts}) of the index in a folder."""
    there = [index for index in INDEXES if (folder / index).is_file()]
    if not there:
        return "", {}
    if there[0].endswith(".parquet"):
        return there[0], _texts(_read_parquet(folder / there[0]))
    with open(folder / there[0], encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        rows = csv.reader(file)
        head = next(rows, [])
        columns: list[list[str]] = [[] for _ in head]
        for number, row in enumerate(rows, 1):
            if len(row) != len(head):
                raise UserError(f"{name}: {there[0]}, row {number}: {len(row)} cells, but the first line has {len(head)}")
            for column, cell in zip(columns, row, strict=True):
                column.append(cell)
    return there[0], dict(zip(head, columns, strict=True))


def _read_parquet(path: pathlib.Path) -> Any:
    try:
        import pyarrow
        from pyarrow import parquet
    except ModuleNotFoundError as error:
        raise UserError(f"{path}: Parquet files need pyarrow: python -m pip install pyarrow") from error
    try:
        return parquet.read_table(path)
    except pyarrow.ArrowException as error:
        raise ValueError(f"{path.name}: {error}") from error


def _texts(table: Any) -> dict[str, list[str]]:
    """The columns of a table except the vectors, as texts; a missing value is ""."""
    names = [name for name in table.column_names if name in ("id", "class", "role", "split", "image")]
    return {name: ["" if cell is None else str(cell) for cell in table.column(name).to_pylist()] for name in names}


def _split_codes(
    name: str, where: str, columns: Mapping[str, Sequence[str]], splits: Mapping[int, str]
) -> tuple[np.ndarray, np.ndarray]:
    """(codes of `pools`, uint8 [n]; the rows that are used, int64)."""
    given, count = columns.get("split"), len(columns["id"])
    if given is None:
        return np.full(count, UNASSIGNED, np.uint8), np.arange(count)
    if "role" in columns:
        _check_values(where, "split", given, list(_SPLITS))
        code_of = dict(_SPLITS)
    else:
        code_of = {split: code for code, split in splits.items()}
        for split in code_of:
            if split not in given:
                raise UserError(missing_split(name, split, sorted(set(given))))
    return np.array([code_of.get(split, UNASSIGNED) for split in given], np.uint8), np.flatnonzero(
        [split in code_of for split in given]
    )


def _check_values(where: str, column: str, values: Sequence[str], allowed: Iterable[str]) -> None:
    bad = next((i for i, value in enumerate(values) if value not in allowed), None)
    if bad is not None:
        raise UserError(f"{where}, row {bad + 1}: {column!r} is {values[bad]!r}, not one of {', '.join(allowed)}")


def _decoded(texts: np.ndarray, records: np.ndarray) -> list[str]:
    return [os.fsdecode(text.encode("latin-1")) for text in texts[records].tolist()]
