"""Images decoded once and kept as one array: what `python -m openset_jax.prepare` writes, and `packed:PATH` reads."""

import functools
import hashlib
import json
import math
import os
import pathlib
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from openset_jax.data.appending import Appender
from openset_jax.data.batches import BLANK
from openset_jax.data.pools import Pool, Source
from openset_jax.errors import UserError
from openset_jax.files import write_whole


def write_index(
    root: pathlib.Path,
    *,
    stored_size: int,
    groups: Sequence[tuple[str, str]],
    ids: list[str],
    group: np.ndarray,
    split: np.ndarray,
    prepared_as: Mapping[str, Any] | None = None,
) -> None:
    """Writes what `packed:ROOT` needs beside ROOT/images.npy, uint8 [n, stored_size, stored_size, 3].

    Args:
      groups: (role, name) of each group, known classes in label order.
      ids, group, split: of each image: its stable name, an index into `groups`, an index into `pools.SPLITS`.
      prepared_as: which images these are, as plain values; see `Source.prepared_as`.
    """
    index = {
        "version": 1,
        "stored_size": stored_size,
        "groups": groups,
        "id": ids,
        "group": np.asarray(group).tolist(),
        "split": np.asarray(split).tolist(),
        "prepared_as": prepared_as,
    }
    with write_whole(root / "index.json") as file:
        file.write(json.dumps(index))


class Writer:
    """Fills ROOT/images.npy chunk by chunk, so that being killed at any moment costs no more than a chunk.

    A journal, ROOT/progress.jsonl, says what is complete: a line is added, and is on the disk, only after the images that it
    speaks of are. What is behind the last whole line is written again.

    Attributes:
      done: rows of the pool that are dealt with, from the first.
      kept: the rows among them whose images are in the array, in its order.
      checksums: CRC-32 of about 32 rows of pixels of each of these images: where they differ, the images do.

    Raises:
      UserError: ROOT has the beginning of something else.
    """

    def __init__(self, root: pathlib.Path, pool: Pool, stored_size: int):
        self.done, self.kept, self.checksums = 0, [], []
        self._size = stored_size
        self._journal, images = root / "progress.jsonl", root / "images.npy"
        order = hashlib.blake2b(repr((pool.groups, pool.roles)).encode("utf-8", "surrogateescape"), digest_size=16)
        for column in (pool.key, pool.group, pool.split):
            order.update(np.ascontiguousarray(column))
        head = {"version": 1, "stored_size": stored_size, "rows": len(pool), "order": order.hexdigest()}
        lines = self._complete_lines() if images.exists() else []
        if lines and lines[0] != head:
            raise UserError(
                f"--out: {str(root)!r} has the beginning of other packed arrays (other images, order or data.stored_size); "
                "remove it, or choose another folder"
            )
        self._path, there = images, images.stat().st_size if lines else 0
        images.open("ab").close()
        self._start = self._write_header(len(pool))
        complete = [head]
        for line in lines[1:]:
            if self._start + (len(self.kept) + len(line["checksums"])) * stored_size**2 * 3 > there:
                break
            complete.append(line)
            self._count(line)
        self._images = Appender(images, self._end)
        with write_whole(self._journal) as file:
            file.writelines(json.dumps(line) + "\n" for line in complete)
        self._lines = self._journal.open("a")

    def append(self, images: np.ndarray, good: np.ndarray) -> None:
        """Adds the next chunk, and returns when it is on the disk.

        Args:
          images: uint8 [n, S, S, 3] of the next n rows of the pool.
          good: bool [n], False for those that could not be read, and are left out.
        """
        images = images if good.all() else images[good]
        self._images.write(images)
        self._images.sync()
        sparse = max(self._size // 32, 1)  # of all pixels it would cost a tenth of decoding
        line = {"good": good.astype(int).tolist(), "checksums": [zlib.crc32(image[::sparse].tobytes()) for image in images]}
        self._lines.write(json.dumps(line) + "\n")
        self._lines.flush()
        os.fsync(self._lines.fileno())
        self._count(line)

    def finish(self) -> np.ndarray:
        """Completes images.npy; returns it, memory-mapped."""
        self.close()
        os.truncate(self._path, self._end)
        self._write_header(len(self.kept))  # which leaves room for any number
        shape = (len(self.kept), self._size, self._size, 3)
        return np.memmap(self._path, np.uint8, "r", self._start, shape) if self.kept else np.zeros(shape, np.uint8)

    def close(self) -> None:
        """Closes the files; what is complete stays so."""
        self._images.close()
        self._lines.close()

    def forget(self) -> None:
        """Removes the journal, once the index is written."""
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
        """Returns where the images start."""
        header = {"descr": "|u1", "fortran_order": False, "shape": (count, self._size, self._size, 3)}
        with self._path.open("r+b") as images:
            np.lib.format.write_array_header_1_0(images, header)
            images.flush()
            os.fsync(images.fileno())
            return images.tell()


def open_packed(name: str, root: pathlib.Path) -> Source:
    """Arrays written by `python -m openset_jax.prepare`."""
    try:
        index = json.loads((root / "index.json").read_text())
        with open(root / "images.npy", "rb") as images:  # not mapped: that counts against addressable memory
            np.lib.format.read_magic(images)
            shape, _, dtype = np.lib.format.read_array_header_1_0(images)
            offset, bytes_there = images.tell(), images.seek(0, os.SEEK_END)
        count = {len(index[column]) for column in ("id", "group", "split")}
        expected = (*count, index["stored_size"], index["stored_size"], 3)
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{name}: not a folder that `python -m openset_jax.prepare` has finished ({error})") from error
    if shape != expected or dtype != np.uint8 or bytes_there < offset + np.prod(shape, dtype=np.int64):
        raise UserError(f"{name}: images.npy ({shape} {dtype}) does not belong to index.json; prepare it again")
    file, ids = os.open(root / "images.npy", os.O_RDONLY), byte_strings(index["id"])
    return Source(
        name=name,
        classes=tuple(class_ for _, class_ in index["groups"]),
        roles=tuple(role for role, _ in index["groups"]),
        label=np.array(index["group"], np.int32),
        split=np.array(index["split"], np.uint8),
        form=f"pixels:{shape[1]}",
        ids=lambda records: [os.fsdecode(id_.encode("latin-1")) for id_ in ids[records].tolist()],
        fetch=functools.partial(_fetch, file, offset, shape[1:]),
        prepared_as=index.get("prepared_as"),
    )


def _fetch(file, offset, shape, records):
    """Images at `records` of an open file: uint8 [n, *shape]; neighbours are read at once."""
    images, size = np.empty((len(records), *shape), np.uint8), math.prod(shape)
    starts = [0, *(np.flatnonzero(np.diff(records) != 1) + 1).tolist()] if len(records) else []
    for start, stop in zip(starts, [*starts[1:], len(records)], strict=False):
        room, at, there = images[start:stop].reshape(-1), offset + int(records[start]) * size, 0
        while there < len(room):  # one call reads no more than 2 GiB
            count = os.preadv(file, [room[there:]], at + there)
            if not count:
                image = records[start] + there // size
                raise OSError(f"images.npy ends at image {image}, which was not so when it was opened")
            there += count
    return images


def read(pool: Pool, rows: np.ndarray, stored_size: int) -> np.ndarray:
    """Images of a pool all of whose sources are packed: uint8 [n, S, S, 3], zeros for rows that are `BLANK`.

    Raises:
      OSError: they cannot be read.
    """
    if len(pool.sources) == 1 and (rows != BLANK).all():
        return pool.sources[0].fetch(pool.record[rows])
    images = np.zeros((len(rows), stored_size, stored_size, 3), np.uint8)
    for i, source in enumerate(pool.sources):
        here = np.flatnonzero((rows != BLANK) & (pool.source[rows] == i))
        images[here] = source.fetch(pool.record[rows[here]])
    return images


def byte_strings(paths: Sequence[str]) -> np.ndarray:
    """Compact strings whose characters are the bytes of file names, which need not be UTF-8."""
    return np.array([os.fsencode(path).decode("latin-1") for path in paths], np.dtypes.StringDType())
