"""Packed arrays: images decoded once by `python -m openset_jax.prepare`, and read as `packed:PATH`."""

import hashlib
import json
import os
import pathlib
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from openset_jax.data import array_file
from openset_jax.data.appender import Appender
from openset_jax.data.batches import BLANK
from openset_jax.data.pools import ROLES, SPLITS, Pool, Source, image_type
from openset_jax.errors import UserError
from openset_jax.files import write_whole

_VERSION = 1  # of index.json
_AT_ONCE = 1 << 22  # bytes: a part that stays in the caches
_AUDIT = (
    "Warning: openset_jax.prepare found {} in these packed arrays: equal images of two roles, splits or classes. Remove the "
    "images that it named, and run it again."
)


def write_index(
    root: pathlib.Path, *, stored_size: int, groups: Sequence[tuple[str, str]], ids: list[str], group: np.ndarray,
    split: np.ndarray, prepared_as: Mapping[str, Any] | None = None, leaks: int = 0, contradictions: int = 0,
) -> None:  # fmt: skip
    """Writes ROOT/index.json, which describes the images of ROOT/images.npy, uint8 [n, stored_size, stored_size, 3].

    Args:
      groups: (role, name) of each group, known classes in label order.
      group, split: int [n], an index into `groups` and one into `pools.SPLITS` for each image.
      prepared_as: as `Source.prepared_as`.
      leaks, contradictions: the numbers that the audit of `openset_jax.prepare` found; runs repeat them.
    """
    index = {
        "version": _VERSION,
        "stored_size": stored_size,
        "groups": groups,
        "id": ids,
        "group": np.asarray(group).tolist(),
        "split": np.asarray(split).tolist(),
        "prepared_as": prepared_as,
        "leaks": leaks,
        "contradictions": contradictions,
    }
    with write_whole(root / "index.json") as file:
        file.write(json.dumps(index))


class Writer:
    """Fills ROOT/images.npy with the images of a pool, chunk by chunk. If it is killed, at most one chunk is lost.

    The journal ROOT/progress.jsonl lists the complete chunks: a line is written to the disk only after its images are there.
    A new writer for the same pool continues after the last whole line.

    Attributes:
      done: the number of rows processed so far, in the order of the pool: appended, or left out as unreadable.
      kept: the processed rows whose images were appended, in the order of the array.
      checksums: CRC-32 of about 32 rows of pixels of each appended image; images with different checksums differ.

    Raises:
      UserError: ROOT has an unfinished array of other images.
    """

    def __init__(self, root: pathlib.Path, pool: Pool, stored_size: int):
        self.done = 0
        self.kept: list[int] = []
        self.checksums: list[int] = []
        self._size, self._path, self._journal = stored_size, root / "images.npy", root / "progress.jsonl"
        order = hashlib.blake2b(repr((pool.groups, pool.roles)).encode("utf-8", "surrogateescape"), digest_size=16)
        for column in (pool.key, pool.group, pool.split):
            order.update(np.ascontiguousarray(column).data)
        head = {"version": 1, "stored_size": stored_size, "rows": len(pool), "order": order.hexdigest()}
        lines = self._complete_lines() if self._path.exists() else []
        if lines and lines[0] != head:
            raise UserError(
                f"--out: {str(root)!r} has an unfinished array of other images, in another order, or of another "
                "data.stored_size; remove the folder, or choose another --out"
            )
        there = self._path.stat().st_size if lines else 0
        self._path.open("ab").close()
        self._start = self._write_header(len(pool))
        complete = [head]  # and the lines whose images are all in the file
        for line in lines[1:]:
            if self._start + (len(self.kept) + len(line["checksums"])) * stored_size**2 * 3 > there:
                break
            complete.append(line)
            self._count(line)
        self._images = Appender(self._path, self._end)
        with write_whole(self._journal) as file:
            file.writelines(json.dumps(line) + "\n" for line in complete)
        self._lines = self._journal.open("a")

    def append(self, images: np.ndarray, readable: np.ndarray) -> None:
        """Appends the readable (bool [n]) of the next n images, uint8 [n, S, S, 3]; they are on the disk when it returns."""
        images = images if readable.all() else images[readable]
        self._images.write(images)
        self._images.sync()
        sparse = max(self._size // 32, 1)  # checksums of all pixels would take a tenth of the time of decoding
        checksums = [zlib.crc32(image[::sparse].tobytes()) for image in images]
        line = {"good": readable.astype(int).tolist(), "checksums": checksums}
        self._lines.write(json.dumps(line) + "\n")
        self._lines.flush()
        os.fsync(self._lines.fileno())
        self._count(line)

    def finish(self) -> np.ndarray:
        """Completes images.npy, and returns it, memory-mapped: uint8 [n, S, S, 3]."""
        self.close()
        os.truncate(self._path, self._end)
        self._write_header(len(self.kept))  # the length of the header does not depend on the number of images
        shape = (len(self.kept), self._size, self._size, 3)
        return np.memmap(self._path, np.uint8, "r", self._start, shape) if self.kept else np.zeros(shape, np.uint8)

    def close(self) -> None:
        """Closes the files; complete chunks are kept."""
        self._images.close()
        self._lines.close()

    def forget(self) -> None:
        """Removes the journal: after the index is written, or to begin again at the next call."""
        self._journal.unlink(missing_ok=True)

    def _count(self, line):
        self.kept.extend((self.done + np.flatnonzero(line["good"])).tolist())
        self.checksums.extend(line["checksums"])
        self.done += len(line["good"])

    def _complete_lines(self):
        try:
            text = self._journal.read_text()
            return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
        except (OSError, ValueError):
            return []

    @property
    def _end(self):
        return self._start + len(self.kept) * self._size**2 * 3

    def _write_header(self, count):
        """Writes the header of images.npy, and returns the offset of the first image."""
        header = {"descr": "|u1", "fortran_order": False, "shape": (count, self._size, self._size, 3)}
        with self._path.open("r+b") as images:
            np.lib.format.write_array_header_1_0(images, header)
            images.flush()
            os.fsync(images.fileno())
            return images.tell()


def _checked(index: dict[str, Any]) -> dict[str, Any]:
    """Returns index.json; raises ValueError or TypeError if a field has values that `write_index` does not write."""
    if index["version"] != _VERSION:
        raise ValueError(f"version: {index['version']!r} is not {_VERSION}")
    if not isinstance(index["prepared_as"], dict | None):
        raise ValueError("prepared_as: neither an object nor null")
    for name in ("leaks", "contradictions"):
        if not isinstance(index[name], int) or index[name] < 0:
            raise ValueError(f"{name}: {index[name]!r} is not a whole number of 0 or more")
    for role, name in index["groups"]:
        if role not in ROLES or not isinstance(name, str):
            raise ValueError(f"groups: {[role, name]!r} is not a role and a name")
    if not all(isinstance(id_, str) for id_ in index["id"]):
        raise ValueError("id: not all of them are strings")
    for column, end in (("group", len(index["groups"])), ("split", len(SPLITS))):
        values = np.array(index[column])
        if len(values) and (values.dtype.kind != "i" or values.min() < 0 or values.max() >= end):
            raise ValueError(f"{column}: not all values are whole numbers from 0 to {end - 1}")
    return index


def open_packed(name: str, root: pathlib.Path) -> Source:
    """Opens the output of `openset_jax.prepare`. Raises UserError if it is incomplete, or its files do not fit together."""
    try:
        index = _checked(json.loads((root / "index.json").read_text()))
        images = array_file.open_array(root / "images.npy")
        count = {len(index[column]) for column in ("id", "group", "split")}
        array = image_type(index["stored_size"])
        found = {"leaks": index["leaks"], "contradictions": index["contradictions"]}
        ids = byte_strings(index["id"])
    except (OSError, EOFError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{name}: not a complete output of openset_jax.prepare ({error}); run prepare again") from error
    if {images.rows} != count or images.array != array:
        there = f"{images.rows:,} arrays {images.array.dtype} {list(images.array.shape)}"
        raise UserError(f"{name}: images.npy ({there}) does not belong to index.json; run openset_jax.prepare again")
    counts = ", ".join(f"{count:,} {kind}" for kind, count in found.items() if count)
    return Source(
        name=name,
        classes=tuple(class_ for _, class_ in index["groups"]),
        roles=tuple(role for role, _ in index["groups"]),
        label=np.array(index["group"], np.int32),
        split=np.array(index["split"], np.uint8),
        format="array",
        ids=lambda records: [os.fsdecode(id_.encode("latin-1")) for id_ in ids[records].tolist()],
        fetch=images.fetcher(),
        array=array,
        prepared_as=index.get("prepared_as"),
        notes=(_AUDIT.format(counts),) if counts else (),
    )


def read(pool: Pool, rows: np.ndarray) -> np.ndarray:
    """Returns the examples of a pool of arrays at `rows`: [n, *shape], zeros for `BLANK`. Raises OSError."""
    if len(pool.sources) == 1 and (rows != BLANK).all():
        return np.asarray(pool.sources[0].fetch(pool.record[rows]))
    examples = pool.array.zeros(len(rows))
    for i, source in enumerate(pool.sources):
        here = np.flatnonzero((rows != BLANK) & (pool.source[rows] == i))
        examples[here] = source.fetch(pool.record[rows[here]])
    return examples


def parts(pool: Pool, rows: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields (rows, their examples [m, *shape]) of a pool of arrays in the order of the files, in small parts."""
    rows = rows[np.lexsort((pool.record[rows], pool.source[rows]))]
    at_once = max(1, _AT_ONCE // pool.array.nbytes)
    for start in range(0, len(rows), at_once):
        part = rows[start : start + at_once]
        yield part, read(pool, part)


def byte_strings(paths: Sequence[str]) -> np.ndarray:
    """Returns the paths as compact Latin-1 strings, one character for each byte; paths need not be valid UTF-8."""
    return np.array([os.fsencode(path).decode("latin-1") for path in paths], np.dtypes.StringDType())
