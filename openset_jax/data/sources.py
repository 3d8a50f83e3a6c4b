"""Opens a source by name: TFDS sets, image folders, packed arrays, the digits of scikit-learn, and vectors.

All of them are a `Source` with random access by record number. Only labels and places of the images are held in memory, and
the small digits.
"""

import os
import pathlib

from openset_jax.data import digits, folders, packed, vector_files
from openset_jax.data.pools import TEST, TRAIN, UNASSIGNED, VALIDATION, Source
from openset_jax.errors import UserError, needing_tensorflow

KINDS = ("tfds:NAME", "folder:PATH", "packed:PATH", "features:PATH", "digits")


def open_source(
    name: str, *, stored_size: int = 8, data_dir: str = "", train: str = "train", validation: str = "", test: str = "test"
) -> Source:
    """Opens `tfds:NAME`, `folder:PATH`, `packed:PATH`, `features:PATH` or `digits`.

    Args:
      stored_size: side of the digits' images in pixels; other sources have their own sizes.
      data_dir: the folder in which TFDS data sets are prepared; "" for TFDS's default.
      train, validation, test: the names of the splits in the source, "" for none; TFDS slices work ("train[:80%]"). If only
        `train` is named, its images are split by hash. Ignored by sources without splits (digits, folders by role) and by
        packed arrays, whose splits are stored with them.

    Raises:
      UserError: the source is unknown, missing, empty or not prepared.
    """
    kind, _, place = name.partition(":")
    splits = {code: split for code, split in zip((TRAIN, VALIDATION, TEST), (train, validation, test), strict=True) if split}
    if list(splits) == [TRAIN]:
        splits = {UNASSIGNED: train}
    if len(set(splits.values())) < len(splits):
        raise UserError(f"{name}: train, validation and test must be different splits, not {', '.join(splits.values())}")
    if name == "digits":
        return digits.open_digits(stored_size)
    root = pathlib.Path(place).expanduser()
    if kind == "features" and place:
        if not root.exists():
            remedy = (
                "with configs/features.py, name it by --config.data.root=PATH; evaluate also needs --config=FILE for this"
            )
            raise UserError(f"{name}: {str(root)!r} does not exist; {remedy}")
        return vector_files.open_features(f"{kind}:{os.path.normpath(root)}", root, splits)
    if kind in ("folder", "packed") and place:
        if not root.is_dir():
            remedy = "with configs/folder.py, name it by --config.data.root=PATH; evaluate also needs --config=FILE for this"
            raise UserError(f"{name}: there is no folder {str(root)!r}; {remedy}")
        name = f"{kind}:{os.path.normpath(root)}"
        return packed.open_packed(name, root) if kind == "packed" else folders.open_folder(name, root, splits)
    if kind == "tfds" and place:
        with needing_tensorflow(name):
            from openset_jax.data import tfds
        return tfds.open_tfds(name, place, data_dir, splits)
    hint = "; name the folder (with configs/folder.py, by --config.data.root=PATH)" if name.endswith(":") else ""
    raise UserError(f"source {name!r}: not one of {', '.join(KINDS)}{hint}")
