"""A pool: the images of a run, each with an id, a group, a label and a split. It holds no pixels.

Every example belongs to one group: a known class, a negative group (trained on as "none", or held out for validation), or
an unknown group (only tested on). The group determines the label. The split comes from the source or from a stable hash of
the id, so that it depends neither on the order of the files nor on their location.
"""

import dataclasses
import functools
import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from openset_jax.errors import UserError

TRAIN, VALIDATION, TEST, UNASSIGNED = 0, 1, 2, 255
SPLITS = ("train", "validation", "test")
NEGATIVE, UNKNOWN = -1, -2
ROLES = ("known", "negatives", "held_out_negatives", "unknown")
_COMPARED = 64  # vectors in the fingerprint of a pool
_LABELS = {"negatives": NEGATIVE, "held_out_negatives": NEGATIVE, "unknown": UNKNOWN}


class ArrayType(NamedTuple):
    """Shape and dtype of one example as a step gets it: an image is uint8 [S, S, 3], a vector float16 or float32 [F]."""

    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def is_vector(self) -> bool:
        """True for vectors, False for images."""
        return len(self.shape) == 1

    @property
    def noun(self) -> str:
        """Returns "vectors" or "images", for messages."""
        return "vectors" if self.is_vector else "images"

    @property
    def nbytes(self) -> int:
        """Returns the size in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize

    def zeros(self, count: int) -> np.ndarray:
        """Returns `count` examples of zeros: [count, *shape]."""
        return np.zeros((count, *self.shape), self.dtype)


def image_type(side: int) -> ArrayType:
    """Returns the type of images of `side` x `side` pixels."""
    return ArrayType((side, side, 3), np.dtype(np.uint8))


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
    """Images of some classes, with random access by record number.

    Attributes:
      name: kind and place, for example "tfds:mnist/3.0.1" or "folder:/data/photos"; ids are unique within a source.
      classes: names of the classes. The same name may occur once for each role.
      roles: the role of each class if the source assigns roles (folders by role, packed arrays), else None.
      label: int [n], the class of each record; -1 if no role may use it.
      split: uint8 [n], TRAIN, VALIDATION, TEST, or UNASSIGNED if the source has no splits.
      format: what `fetch` returns: "path", "encoded", "example:KEY" (a serialised tf.Example whose feature KEY is an
        encoded image) or "array" (ready to use).
      array: for the format "array", the type of the examples; else None.
      ids: records (int [n]) -> their names, which do not change when records are reordered or files are moved.
      fetch: records (int [n]) -> their contents in `format`: a sequence of bytes, or an array [n, *array.shape].
      pictures: of vectors: records (int [n]) -> paths of the images that they were computed from; None if they are unknown.
      prepared_as: for packed arrays, the images that the config of `prepare` selected (`DataSpec.chosen_images`), else None.
      notes: lines to print: files that were left out, images in the wrong place, what the audit of packed arrays found.
    """

    name: str
    classes: tuple[str, ...]
    roles: tuple[str, ...] | None
    label: np.ndarray
    split: np.ndarray
    format: str
    ids: Callable[[np.ndarray], list[str]]
    fetch: Callable[[np.ndarray], Sequence[bytes] | np.ndarray]
    array: ArrayType | None = None
    pictures: Callable[[np.ndarray], list[str]] | None = None
    prepared_as: Mapping[str, Any] | None = None
    notes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, eq=False)
class Pool:
    """Examples of all roles, one row each.

    Attributes:
      groups, roles: name and role of each group; the first `num_classes` groups are the known classes, in label order.
      num_classes: K, the number of known classes.
      array: the type of the examples, after decoding.
      source, record: int [n]; the image of a row is `sources[source].fetch([record])`.
      group: int32 [n], an index into `groups`.
      split: uint8 [n], TRAIN, VALIDATION or TEST.
      key: uint64 [n], a hash of the id.
    """

    sources: tuple[Source, ...]
    groups: tuple[str, ...]
    roles: tuple[str, ...]
    num_classes: int
    array: ArrayType
    source: np.ndarray
    record: np.ndarray
    group: np.ndarray
    split: np.ndarray
    key: np.ndarray

    def __len__(self) -> int:
        return len(self.record)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the known classes, in label order."""
        return self.groups[: self.num_classes]

    @property
    def is_packed(self) -> bool:
        """True if all images are arrays (packed images, or digits), which need no decoder."""
        return all(source.array is not None for source in self.sources)

    @functools.cached_property
    def label(self) -> np.ndarray:
        """int32 [n]: the known class, NEGATIVE or UNKNOWN."""
        of_group = [_LABELS.get(role, i) for i, role in enumerate(self.roles)]
        return np.array(of_group, np.int32)[self.group]

    def rows(self, split: int, role: str | None = None) -> np.ndarray:
        """Returns the rows of a split, or of one role in a split, ascending."""
        chosen = self.split == split
        if role is not None:
            chosen &= np.isin(self.group, [i for i, r in enumerate(self.roles) if r == role])
        return np.flatnonzero(chosen)

    def ids(self, rows: np.ndarray | Sequence[int]) -> list[str]:
        """Returns the ids of the examples at `rows`."""
        rows = np.asarray(rows)
        names = np.empty(len(rows), object)
        for i, source in enumerate(self.sources):
            here = self.source[rows] == i
            names[here] = source.ids(self.record[rows[here]])
        return names.tolist()

    def pictures(self, rows: np.ndarray) -> list[str]:
        """Returns, for a pool of vectors, the paths of their images; "" where none is known."""
        paths = np.full(len(rows), "", object)
        for i, source in enumerate(self.sources):
            if source.pictures is not None:
                here = self.source[rows] == i
                paths[here] = source.pictures(self.record[rows[here]])
        return paths.tolist()

    def group_names(self, rows: np.ndarray) -> np.ndarray:
        """Returns object [len(rows)], the name of each example's group."""
        return np.array(self.groups, object)[self.group[rows]]

    def kinds(self, roles: dict[str, str]) -> dict[str, list[str]]:
        """Returns {kind: names of its groups} for a {kind: role}, such as {"seen_negatives": "negatives"}."""
        return {kind: [g for g, r in zip(self.groups, self.roles, strict=True) if r == of] for kind, of in roles.items()}

    def training_rows(self, max_negatives: int | None = None) -> list[np.ndarray]:
        """Returns the rows of the training images: one array per known class, then one for the negatives ("none").

        Not more than `max_negatives` negatives are used; smaller numbers select subsets of larger ones.

        Raises:
          UserError: `max_negatives` is not between 1 and the number of negatives.
        """
        rows = self.rows(TRAIN)
        known = [rows[self.group[rows] == k] for k in range(self.num_classes)]
        negatives = self.rows(TRAIN, "negatives")
        if max_negatives is not None:
            if not 0 < max_negatives <= len(negatives):
                raise UserError(
                    f"sampling.negatives: {max_negatives:,} is not between 1 and {len(negatives):,}, the number of training "
                    "images of data.negatives; set it (in an experiment, the values in `grid`) to a smaller number, or to "
                    "None for all, or add images to data.negatives"
                )
            negatives = np.sort(negatives[np.argsort(self.key[negatives], kind="stable")[:max_negatives]])
        return [*known, negatives]

    def counts(self) -> dict[str, dict[str, dict[str, int]]]:
        """Returns the number of images by role, group and split."""
        table = np.zeros((len(self.groups), len(SPLITS)), int)
        np.add.at(table, (self.group, self.split), 1)
        result: dict[str, dict[str, dict[str, int]]] = {role: {} for role in ROLES}
        for name, role, row in zip(self.groups, self.roles, table, strict=True):
            result[role][name] = dict(zip(SPLITS, row.tolist(), strict=True))
        return result

    def fingerprint(self) -> str:
        """Returns a hash of the images, their groups, roles and splits; it does not depend on their order or location.

        Of images it contains the names, not the pixels. Of vectors it also contains the numbers of a few.
        """
        return self._fingerprint

    @functools.cached_property
    def _fingerprint(self) -> str:
        names = np.array([stable_hash(f"{r}/{g}") for g, r in zip(self.groups, self.roles, strict=True)], np.uint64)
        table = np.stack([self.key, names[self.group], self.split.astype(np.uint64)], axis=1)
        table = table[np.lexsort(table.T[::-1])]
        found = hashlib.blake2b(table.astype("<u8").tobytes(), digest_size=16)
        if self.array.is_vector:  # vectors of another network usually have the same names
            for row in np.argsort(self.key, kind="stable")[:_COMPARED]:
                vector = np.asarray(self.sources[self.source[row]].fetch(self.record[[row]]))
                found.update(vector.astype("<f4").tobytes())
        return found.hexdigest()


def with_negative_groups(pool: Pool, count: int, *, seed: int) -> Pool:
    """Returns the pool with `count` of its negative groups; for one seed, smaller counts select subsets of larger ones.

    The first group is number seed mod (number of groups), so that a few seeds do not all select the same one. The others are
    ordered by a hash of the seed and of their names.

    Raises:
      UserError: the count is not between 1 and the number of negative groups.
    """
    there = [i for i, role in enumerate(pool.roles) if role == "negatives"]
    if not 1 <= count <= len(there):
        raise UserError(
            f"data.negative_groups: {count} is not between 1 and {len(there)}, the number of groups of data.negatives; set "
            "it (in an experiment, the values in `grid`) to a smaller number, or to None for all"
        )
    drawn = sorted(there, key=lambda i: stable_hash(f"{seed}/{pool.groups[i]}"))
    order = sorted(drawn, key=lambda i: i != there[seed % len(there)])
    kept = [i for i in range(len(pool.groups)) if i not in order[count:]]
    rows = np.flatnonzero(np.isin(pool.group, kept))
    return dataclasses.replace(
        pool,
        groups=tuple(pool.groups[i] for i in kept),
        roles=tuple(pool.roles[i] for i in kept),
        group=np.searchsorted(kept, pool.group[rows]).astype(pool.group.dtype),
        **{column: getattr(pool, column)[rows] for column in ("source", "record", "split", "key")},
    )


def stable_hash(text: str) -> int:
    """Returns 64 bits that depend on the text alone."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=8).digest(), "little")


def missing_split(source: str, split: str, existing: Sequence[str]) -> str:
    """Returns the message for a split that a source does not have."""
    return (
        f"{source}: no split {split!r}; it has {', '.join(existing[:20]) or 'none'}. Set train, validation and test to "
        "existing splits; if there is only one, set validation and test to '', and its images are split by hash"
    )


def in_brackets(notes: Sequence[str], most: int = 4) -> str:
    """Returns the first notes of a source as the end of a message; "" if there are none."""
    return f" ({'; '.join(notes[:most])}{'; ...' * (len(notes) > most)})" if notes else ""
