"""Folders of image files as a `Source`: files are listed once, and read when they are fetched."""

import os
import pathlib
from collections.abc import Iterator

import numpy as np

from openset_jax.data import packed
from openset_jax.data.pools import ROLES, UNASSIGNED, Source, missing_split
from openset_jax.errors import UserError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")


def open_folder(name: str, root: pathlib.Path, splits: dict[int, str]) -> Source:
    """Opens ROOT/{known,negatives,held_out_negatives,unknown}/CLASS/**, or TFDS's ImageFolder layout ROOT/SPLIT/CLASS/**.

    `splits` is {TRAIN, VALIDATION, TEST or UNASSIGNED: folder of the split}; it is ignored if there is a folder ROOT/known.

    Raises:
      UserError: no split is named, a split is missing, or there are no image files.
    """
    by_role = (root / "known").is_dir()
    tops = dict.fromkeys(ROLES, UNASSIGNED) if by_role else {split: code for code, split in splits.items()}
    if not tops:
        raise UserError(f"{name}: no folder known/, and no split is named; set train, validation or test of images(...)")
    classes: dict[tuple[str | None, str], int] = {}
    paths, labels, codes = [], [], []
    for top, code in tops.items():
        if not (root / top).is_dir():
            if by_role:
                continue
            existing = sorted(entry.name for entry in os.scandir(root) if entry.is_dir())
            raise UserError(f"{missing_split(name, top, existing)}. Folders by role must include {root}/known/CLASS/")
        for folder in sorted(e.name for e in os.scandir(root / top) if e.is_dir() and not e.name.startswith(".")):
            found = sorted(_image_files(root, f"{top}/{folder}"))
            label = classes.setdefault((top if by_role else None, folder), len(classes))
            paths.extend(found)
            labels.extend([label] * len(found))
            codes.extend([code] * len(found))
    if not paths:
        places = ", ".join(f"{root}/{top}/CLASS/" for top in tops)
        raise UserError(f"{name}: no {', '.join(IMAGE_SUFFIXES)} files in {places}")
    table = packed.byte_strings(paths)
    names = lambda records: [path.encode("latin-1") for path in table[records].tolist()]
    prefix = os.fsencode(root)
    return Source(
        name=name,
        classes=tuple(folder for _, folder in classes),
        roles=tuple(role for role, _ in classes if role) if by_role else None,
        label=np.array(labels, np.int32),
        split=np.array(codes, np.uint8),
        format="path",
        ids=lambda records: [os.fsdecode(path) for path in names(records)],
        fetch=lambda records: [prefix + b"/" + path for path in names(records)],
    )


def _image_files(root: pathlib.Path, below: str) -> Iterator[str]:
    """Yields the paths, relative to root, of the image files in a folder and its subfolders, without hidden ones."""
    for entry in os.scandir(root / below):
        path = f"{below}/{entry.name}"
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            yield from _image_files(root, path)
        elif entry.name.lower().endswith(IMAGE_SUFFIXES):
            yield path
