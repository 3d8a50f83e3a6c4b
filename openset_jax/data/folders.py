"""Folders of image files as a `Source`: files are listed once, and read when they are fetched."""

import difflib
import os
import pathlib
from collections.abc import Container, Iterator

import numpy as np

from openset_jax.data import packed
from openset_jax.data.image_files import Identity, Walk, count_images, counted, shorten, subfolders
from openset_jax.data.pools import ROLES, UNASSIGNED, Source, in_brackets, missing_split
from openset_jax.errors import UserError


def open_folder(name: str, root: pathlib.Path, splits: dict[int, str]) -> Source:
    """Opens ROOT/{known,negatives,held_out_negatives,unknown}/CLASS/**, or TFDS's ImageFolder layout ROOT/SPLIT/CLASS/**.

    `splits` is {TRAIN, VALIDATION, TEST or UNASSIGNED: folder of the split}; it is ignored if there is a folder ROOT/known.

    Raises:
      UserError: no split is named, a split is missing, there are no image files, or a link leads into another class.
    """
    by_role = (root / "known").is_dir()
    codes = dict.fromkeys(ROLES, UNASSIGNED) if by_role else {split: code for code, split in splits.items()}
    if not codes:
        raise UserError(f"{name}: no folder known/, and no split is named; set train, validation or test of images(...)")
    tops = [top for top in codes if (root / top).is_dir()]
    listed = {top: subfolders(os.path.join(root, top)) for top in ["", *tops]}
    if not by_role and (missing := [split for split in codes if split not in tops]):
        existing = listed[""][0]
        strange = [other for other in existing if other not in ROLES and _nearest_role(other) == "known"]
        meant = "".join(f"; is {other}/ meant as known/?" for other in strange[:1])
        if root.name in ROLES:
            meant = f"; give the folder above, {root.parent}"
        elif (root / "index.json").exists():
            meant = f"; for packed arrays, use --config.data.packed={root}"
        raise UserError(
            f"{missing_split(name, missing[0], existing)}. Folders by role must include {root}/known/CLASS/{meant}"
        )
    folders = {f"{top}/{folder}": (top, folder) for top in tops for folder in listed[top][0]}
    walk = Walk(str(root), list(folders), list(listed))
    notes = shorten([*_not_used(root, listed, by_role, walk.visited), *walk.notes()])
    if not any(walk.images.values()):
        places = ", ".join(f"{root}/{top}/CLASS/" for top in tops)
        raise UserError(f"{name}: no image files in {places}{in_brackets(notes)}")
    classes: dict[tuple[str | None, str], int] = {}
    paths, labels, splits_of = [], [], []
    for path, (top, folder) in folders.items():
        found = walk.images[path]
        label = classes.setdefault((top if by_role else None, folder), len(classes))
        paths.extend(found)
        labels.extend([label] * len(found))
        splits_of.extend([codes[top]] * len(found))
    table = packed.byte_strings(paths)
    names = lambda records: [path.encode("latin-1") for path in table[records].tolist()]
    prefix = os.fsencode(root)
    return Source(
        name=name,
        classes=tuple(folder for _, folder in classes),
        roles=tuple(role for role, _ in classes if role) if by_role else None,
        label=np.array(labels, np.int32),
        split=np.array(splits_of, np.uint8),
        format="path",
        ids=lambda records: [os.fsdecode(path) for path in names(records)],
        fetch=lambda records: [prefix + b"/" + path for path in names(records)],
        notes=notes,
    )


def _not_used(
    root: pathlib.Path, listed: dict[str, tuple[list[str], int]], by_role: bool, visited: Container[Identity]
) -> Iterator[str]:
    """Yields a line for each place below the root with images that belong to no class."""
    warning = lambda count, place, text: f"Warning: not used: {counted(count, 'image')} in {str(root / place)!r}; {text}"
    for top, (_, count) in listed.items():
        if count and (top or by_role):
            yield warning(count, top, f"move images to {top or 'ROLE'}/CLASS/")
    for other in listed[""][0] if by_role else []:
        if other not in ROLES and (count := count_images(os.path.join(root, other), visited)):
            role = _nearest_role(other)
            meant = f"; is it meant as {role}/?" if role else ""
            yield warning(count, other, f"this folder is none of {', '.join(ROLES)}{meant}")


def _nearest_role(folder: str) -> str | None:
    return next(iter(difflib.get_close_matches(folder.lower(), ROLES, 1)), None)
