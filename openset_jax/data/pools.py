"""Pool: which images there are, what each is called, and what it may be used for. No pixels.

Every example belongs to one group: a known class, a negative group (trained on as "none"), or an unknown group (never
trained on). Its label follows from the group; its split comes from the source or from a stable hash of its id, so that
neither the order of files nor their place on disk matters.
"""

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from openset_jax.errors import UserError

TRAIN, VALIDATION, TEST, UNASSIGNED = 0, 1, 2, 255
SPLITS = ("train", "validation", "test")
NEGATIVE, UNKNOWN = -1, -2
ROLES = ("known", "negatives", "held_out_negatives", "unknown")
_LABELS = {"negatives": NEGATIVE, "held_out_negatives": NEGATIVE, "unknown": UNKNOWN}


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
    """Images of some classes, read by number.

    Attributes:
      name: of the place, as "tfds:mnist/3.0.1" or "folder:/data/photos"; ids are unique within it.
      classes: the names of its classes.
      roles: for a source that files its classes under roles (folders and packed arrays do), the role of each class, else
        None. A class may then stand under several roles.
      label: int [n], the class of each record.
      split: uint8 [n], TRAIN, VALIDATION, TEST, or UNASSIGNED where the source does not say.
      form: what `fetch` returns: "path", "encoded", "example:KEY" (a serialised tf.Example whose feature KEY is an
        encoded image) or "pixels:S" (uint8 [S, S, 3], final).
      ids: records (int [n]) -> their names, which survive reordering, and moving the data.
      fetch: records (int [n]) -> their content in the form that `form` names: bytes each, or uint8 [n, S, S, 3].
      prepared_as: for packed arrays, what the config that they were prepared from chose (`config.chosen_images`), else None.
    """

    name: str
    classes: tuple[str, ...]
    roles: tuple[str, ...] | None
    label: np.ndarray
    split: np.ndarray
    form: str
    ids: Callable[[np.ndarray], list[str]]
    fetch: Callable[[np.ndarray], Sequence[bytes] | np.ndarray]
    prepared_as: Mapping[str, Any] | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Pool:
    """Examples of all roles, one row each.

    Attributes:
      sources: what the rows refer to.
      groups: names of all groups; the first `num_classes` are the known classes, in label order.
      roles: the role of each group.
      num_classes: K.
      source, record: int [n], where the image is: `sources[source].fetch([record])`.
      group: int32 [n].
      split: uint8 [n].
      key: uint64 [n], a hash of the id.
    """

    sources: tuple[Source, ...]
    groups: tuple[str, ...]
    roles: tuple[str, ...]
    num_classes: int
    source: np.ndarray
    record: np.ndarray
    group: np.ndarray
    split: np.ndarray
    key: np.ndarray

    def __len__(self) -> int:
        return len(self.record)

    @property
    def classes(self) -> tuple[str, ...]:
        """The known classes."""
        return self.groups[: self.num_classes]

    @functools.cached_property
    def label(self) -> np.ndarray:
        """int32 [n]: the known class, or NEGATIVE, or UNKNOWN."""
        of_group = [_LABELS.get(role, i) for i, role in enumerate(self.roles)]
        return np.array(of_group, np.int32)[self.group]

    def rows(self, split: int, role: str | None = None) -> np.ndarray:
        """Indices of the examples of a split (and of one role), in the pool's order."""
        chosen = self.split == split
        if role is not None:
            chosen &= np.isin(self.group, [i for i, r in enumerate(self.roles) if r == role])
        return np.flatnonzero(chosen)

    def ids(self, rows: np.ndarray) -> list[str]:
        """Stable names of the examples at `rows`."""
        rows = np.asarray(rows)
        names = np.empty(len(rows), object)
        for i, source in enumerate(self.sources):
            here = self.source[rows] == i
            names[here] = source.ids(self.record[rows[here]])
        return names.tolist()

    def group_names(self, rows: np.ndarray) -> np.ndarray:
        """object [len(rows)], the name of the group of each."""
        return np.array(self.groups, object)[self.group[rows]]

    def kinds(self, roles: dict[str, str]) -> dict[str, list[str]]:
        """`roles` maps names of kinds of "none of these" to roles; the same with the groups of each."""
        return {kind: [g for g, r in zip(self.groups, self.roles, strict=True) if r == of] for kind, of in roles.items()}

    def training_members(self, max_negatives: int | float | None = None) -> list[np.ndarray]:
        """Rows to train on: K arrays for the known classes and one for all negatives together ("none", the last).

        Args:
          max_negatives: a cap on the negatives; smaller caps choose subsets of larger ones. A float is in units of the mean
            number of training images of a known class. None means all.

        Raises:
          UserError: more negatives are asked for than there are.
        """
        rows = self.rows(TRAIN)
        members = [rows[self.group[rows] == k] for k in range(self.num_classes)]
        negatives = self.rows(TRAIN, "negatives")
        if isinstance(max_negatives, float):
            max_negatives = round(max_negatives * sum(map(len, members)) / len(members))
        if max_negatives is not None:
            if not 0 < max_negatives <= len(negatives):
                raise UserError(
                    f"sampling.negatives: {max_negatives:,} asked for, but data.negatives has {len(negatives):,} training "
                    "images"
                )
            negatives = np.sort(negatives[np.argsort(self.key[negatives], kind="stable")[:max_negatives]])
        return [*members, negatives]

    def counts(self) -> dict[str, dict[str, dict[str, int]]]:
        """Images by role, group and split."""
        table = np.zeros((len(self.groups), len(SPLITS)), int)
        np.add.at(table, (self.group, self.split), 1)
        result = {role: {} for role in ROLES}
        for name, role, row in zip(self.groups, self.roles, table, strict=True):
            result[role][name] = dict(zip(SPLITS, row.tolist(), strict=True))
        return result

    def fingerprint(self) -> str:
        """A hash of which images there are and what they are used for; not of their order or place."""
        names = np.array([stable_hash(f"{r}/{g}") for g, r in zip(self.groups, self.roles, strict=True)], np.uint64)
        table = np.stack([self.key, names[self.group], self.split.astype(np.uint64)], axis=1)
        table = table[np.lexsort(table.T[::-1])]
        return hashlib.blake2b(table.astype("<u8").tobytes(), digest_size=16).hexdigest()


def with_negative_groups(pool: Pool, count: int, *, seed: int) -> Pool:
    """The pool as if only so many of its groups of negatives had been collected; smaller counts choose among larger ones'.

    The first goes round with the seed, so that a few seeds do not all choose the same; the others are drawn.

    Raises:
      UserError: there are fewer.
    """
    there = [i for i, role in enumerate(pool.roles) if role == "negatives"]
    if not 1 <= count <= len(there):
        raise UserError(f"data.negative_groups: {count} asked for, and data.negatives has {len(there)}")
    drawn = sorted(there, key=lambda i: stable_hash(f"{seed}/{pool.groups[i]}"))
    order = sorted(drawn, key=lambda i: i != there[seed % len(there)])
    kept = [i for i in range(len(pool.groups)) if i not in order[count:]]
    rows = np.flatnonzero(np.isin(pool.group, kept))
    columns = {name: getattr(pool, name)[rows] for name in ("source", "record", "split", "key")}
    group = np.searchsorted(kept, pool.group[rows]).astype(pool.group.dtype)
    names = {name: tuple(getattr(pool, name)[i] for i in kept) for name in ("groups", "roles")}
    return dataclasses.replace(pool, **names, **columns, group=group)


def stable_hash(text: str) -> int:
    """64 bits that depend on the text alone."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=8).digest(), "little")


def check_stored_size(pool: Pool, stored_size: int) -> None:
    """Raises UserError for packed arrays of images of another size."""
    for source in pool.sources:
        kind, _, size = source.form.partition(":")
        if kind == "pixels" and int(size) != stored_size:
            raise UserError(
                f"{source.name}: packed at {size}x{size}, but data.stored_size is {stored_size}; set one to the other, or "
                "run prepare again"
            )
