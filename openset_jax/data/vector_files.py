"""Vectors as a `Source`: features that some network computed, with a class and a role or a split of each."""

import contextlib
import csv
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from openset_jax.data import array_file, packed
from openset_jax.data.packed import byte_strings
from openset_jax.data.pools import ROLES, UNASSIGNED, ArrayType, Pool, Source, missing_split
from openset_jax.errors import UserError
from openset_jax.text import abridged

VECTORS, INDEXES, COLUMN = "features.npy", ("index.csv", "index.parquet"), "embedding"
_SPLITS = {"train": 0, "validation": 1, "test": 2}  # as the codes of `pools`, in an index with roles
_READ_AT_ONCE = 4_096  # rows of a Parquet file


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
            raise UserError(f"{name}: {index} has no column {column!r}; it has {abridged(list(columns)) or 'no columns'}")
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
        pictures = lambda records: [str(folder / text) if text else "" for text in _decoded(images, records)]
    return Source(
        name=name,
        classes=tuple(class_ for _, class_ in number),
        roles=tuple(role for role, _ in number if role) if roles is not None else None,
        label=np.where(used, np.array([number[pair] for pair in pairs], np.int32), -1),
        split=split,
        format="array",
        ids=lambda records: _decoded(ids, records),
        fetch=vectors.fetch,
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
            if not (path / VECTORS).is_file():
                raise UserError(f"{name}: there is no {VECTORS}, with the vectors, in this folder")
            vectors, (index, columns) = _of_file(path / VECTORS), _read_index(name, path)
        elif path.suffix.lower() == ".npy":
            vectors = _of_file(path)
        else:
            with _parquet(path) as file:
                vectors, index, columns = _of_column(name, file), path.name, _texts(file)
    except (OSError, EOFError, ValueError) as error:
        raise UserError(f"{name}: cannot be read ({error})") from error
    if not vectors.rows:
        raise UserError(f"{name}: there are no vectors")
    if len(vectors.array.shape) != 1 or not vectors.array.nbytes or vectors.array.dtype not in (np.float16, np.float32):
        found = f"{vectors.array.dtype} {[vectors.rows, *vectors.array.shape]}"
        raise UserError(f"{name}: the vectors are {found}; save them as float16 or float32 [n, F]")
    rows = {len(texts) for texts in columns.values()} or {vectors.rows}
    if rows != {vectors.rows}:
        raise UserError(f"{name}: {index} has {rows.pop():,} rows, but there are {vectors.rows:,} vectors; each needs a row")
    return vectors, index, columns


def check_finite(pool: Pool) -> None:
    """Raises UserError, naming vectors, if a pool of vectors has numbers that are not finite."""
    if bad := not_finite(pool):
        names = np.array([source.name for source in pool.sources], object)[pool.source]
        bad = [row for row in bad if names[row] == names[bad[0]]]
        rows = zip(pool.record[bad[:5]].tolist(), pool.ids(bad[:5]), strict=True)
        named = ", ".join(f"row {record + 1} ({id_!r})" for record, id_ in rows)
        raise UserError(
            f"{names[bad[0]]}: {len(bad):,} of {(names == names[bad[0]]).sum():,} vectors have numbers that are "
            f"not finite: {named}{', ...' if bad[5:] else ''}; compute them again, or remove their rows"
        )


def not_finite(pool: Pool) -> list[int]:
    """Returns the rows of a pool of vectors with numbers that are not finite; reads all of them, in parts."""
    bad = list[int]()
    for rows, vectors in packed.parts(pool, np.arange(len(pool))):
        bad += rows[~np.isfinite(vectors).all(1)].tolist()
    return bad


def _of_file(path: pathlib.Path) -> Vectors:
    file = array_file.open_array(path)
    return Vectors(file.rows, file.array, file.fetcher())


def _of_column(name: str, file: Any) -> Vectors:
    """The vectors of a file of pyarrow, in memory."""
    import pyarrow
    from pyarrow import compute, types

    schema = file.schema_arrow
    if COLUMN not in schema.names:
        raise UserError(f"{name}: no column {COLUMN!r} with the vectors; it has {abridged(schema.names)}")
    found = schema.field(COLUMN).type
    is_list = types.is_list(found) or types.is_large_list(found) or types.is_fixed_size_list(found)
    if not is_list or not types.is_floating(found.value_type):
        raise UserError(f"{name}: the column {COLUMN!r} has the type {found}; it must have lists of floating-point numbers")
    dtype = np.float16 if found.value_type == pyarrow.float16() else np.float32
    vectors, done = np.empty((0, 0), dtype), 0
    for batch in file.iter_batches(_READ_AT_ONCE, columns=[COLUMN]):
        column = batch.column(0)
        lengths = compute.fill_null(compute.list_value_length(column), 0).to_numpy(zero_copy_only=False)
        if not done:
            vectors = np.empty((file.metadata.num_rows, lengths[0]), dtype)
        if (other := np.flatnonzero(lengths != vectors.shape[1])).size:
            row, length = done + other[0] + 1, lengths[other[0]]
            raise UserError(f"{name}: the vector in row {row:,} has {length:,} numbers, but row 1 has {vectors.shape[1]:,}")
        numbers = column.flatten().to_numpy(zero_copy_only=False)
        vectors[done : done + len(lengths)] = numbers.reshape(len(lengths), -1)
        done += len(lengths)
    return Vectors(len(vectors), ArrayType(vectors.shape[1:], vectors.dtype), lambda records: vectors[records])


def _read_index(name: str, folder: pathlib.Path) -> tuple[str, dict[str, list[str]]]:
    """(name of the file, {column: its texts}) of the index in a folder."""
    there = [index for index in INDEXES if (folder / index).is_file()]
    if not there:
        return "", {}
    if there[0].endswith(".parquet"):
        with _parquet(folder / there[0]) as table:
            return there[0], _texts(table)
    with open(folder / there[0], encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        rows = csv.reader(file)
        head = next(rows, [])
        columns: list[list[str]] = [[] for _ in head]
        number = 0
        try:
            for number, row in enumerate(rows, 1):
                if len(row) != len(head):
                    raise UserError(
                        f"{name}: {there[0]}, row {number}: {len(row)} cells, but the first line has {len(head)}"
                    )
                for column, cell in zip(columns, row, strict=True):
                    column.append(cell)
        except csv.Error as error:
            raise UserError(f"{name}: {there[0]}, row {number + 1}: {error}; is a quotation mark missing?") from error
    return there[0], dict(zip(head, columns, strict=True))


@contextlib.contextmanager
def _parquet(path: pathlib.Path) -> Iterator[Any]:
    """Opens a file with pyarrow. Its errors, in the block too, are ValueError."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ModuleNotFoundError as error:
        raise UserError(f"{path}: Parquet files need pyarrow: python -m pip install pyarrow") from error
    try:
        with parquet.ParquetFile(path, memory_map=True) as file:  # otherwise it holds all that was read
            yield file
    except pyarrow.ArrowException as error:
        raise ValueError(f"{path.name}: {error}") from error


def _texts(file: Any) -> dict[str, list[str]]:
    """The columns of a file of pyarrow except the vectors, as texts; a missing value is ""."""
    names = [name for name in file.schema_arrow.names if name in ("id", "class", "role", "split", "image")]
    table = file.read(columns=names)
    return {name: ["" if cell is None else str(cell) for cell in table.column(name).to_pylist()] for name in names}


def _split_codes(
    name: str, where: str, columns: Mapping[str, Sequence[str]], splits: Mapping[int, str]
) -> tuple[np.ndarray, np.ndarray]:
    """(codes of `pools`, uint8 [n]; whether each row is used, bool [n])."""
    given, count = columns.get("split"), len(columns["id"])
    if given is None:
        return np.full(count, UNASSIGNED, np.uint8), np.ones(count, bool)
    if "role" in columns:
        _check_values(where, "split", given, list(_SPLITS))
        code_of = dict(_SPLITS)
    else:
        code_of = {split: code for code, split in splits.items()}
        for split in code_of:
            if split not in given:
                raise UserError(missing_split(name, split, sorted(set(given))))
    codes = np.array([code_of.get(split, UNASSIGNED) for split in given], np.uint8)
    return codes, np.array([split in code_of for split in given], bool)


def _check_values(where: str, column: str, values: Sequence[str], allowed: Iterable[str]) -> None:
    bad = next((i for i, value in enumerate(values) if value not in allowed), None)
    if bad is not None:
        raise UserError(f"{where}, row {bad + 1}: {column!r} is {values[bad]!r}, not one of {', '.join(allowed)}")


def _decoded(texts: np.ndarray, records: np.ndarray) -> list[str]:
    return [os.fsdecode(text.encode("latin-1")) for text in texts[records].tolist()]
