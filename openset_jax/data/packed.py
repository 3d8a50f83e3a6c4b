"""Images decoded once and kept as one array: what `python -m openset_jax.prepare` writes, and `packed:PATH` reads."""

import json
import os
import pathlib
from collections.abc import Sequence

import numpy as np

from openset_jax.data.pools import Source
from openset_jax.errors import UserError


def write_index(
    root: pathlib.Path,
    *,
    stored_size: int,
    groups: Sequence[tuple[str, str]],
    ids: list[str],
    group: np.ndarray,
    split: np.ndarray,
) -> None:
    """Writes what `packed:ROOT` needs beside ROOT/images.npy, uint8 [n, stored_size, stored_size, 3].

    Args:
      groups: (role, name) of each group, known classes in label order.
      ids, group, split: of each image: its stable name, an index into `groups`, an index into `pools.SPLITS`.
    """
    index = {
        "version": 1,
        "stored_size": stored_size,
        "groups": groups,
        "id": ids,
        "group": np.asarray(group).tolist(),
        "split": np.asarray(split).tolist(),
    }
    temporary = root / "index.json.tmp"
    temporary.write_text(json.dumps(index))
    temporary.replace(root / "index.json")


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
    file, size = os.open(root / "images.npy", os.O_RDONLY), shape[1] * shape[2] * 3
    ids = byte_strings(index["id"])
    return Source(
        name=name,
        classes=tuple(class_ for _, class_ in index["groups"]),
        roles=tuple(role for role, _ in index["groups"]),
        label=np.array(index["group"], np.int32),
        split=np.array(index["split"], np.uint8),
        form=f"pixels:{shape[1]}",
        ids=lambda records: [os.fsdecode(id_.encode("latin-1")) for id_ in ids[records].tolist()],
        fetch=lambda records: [os.pread(file, size, offset + int(r) * size) for r in records],
    )


def byte_strings(paths: Sequence[str]) -> np.ndarray:
    """Compact strings whose characters are the bytes of file names, which need not be UTF-8."""
    return np.array([os.fsencode(path).decode("latin-1") for path in paths], np.dtypes.StringDType())
