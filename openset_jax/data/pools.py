"""Pool: which images there are, what each is called, and what it may be used for. No pixels.

Every example belongs to one group: a known class, a negative group (trained on as "none"), or an unknown group (never
trained on). Its label follows from the group; its split comes from the source or from a stable hash of its id, so that
neither the order of files nor their place on disk matters.
"""

import collections
import dataclasses
import functools
import hashlib
from collections.abc import Callable, Sequence

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
    """

    name: str
    classes: tuple[str, ...]
    roles: tuple[str, ...] | None
    label: np.ndarray
    split: np.ndarray
    form: str
    ids: Callable[[np.ndarray], list[str]]
    fetch: Callable[[np.ndarray], Sequence[bytes] | np.ndarray]


@dataclasses.dataclass(frozen=True)
class Selection:
    """Classes of one source in one role.

    Attributes:
      source: where the images are.
      classes: names of the classes to take, in label order for known ones; empty means all (of this role).
      limit: at most this many images of each class over all splits that the role uses, 0 for all. Smaller limits choose
        subsets of larger ones.
      group: one name under which all these classes are counted together; empty means that each keeps its own.
    """

    source: Source
    classes: tuple[str, ...] = ()
    limit: int = 0
    group: str = ""


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

    Raises:
      UserError: there are fewer.
    """
    there = [i for i, role in enumerate(pool.roles) if role == "negatives"]
    if not 1 <= count <= len(there):
        raise UserError(f"data.negative_groups: {count} asked for, and data.negatives has {len(there)}")
    order = sorted(there, key=lambda i: stable_hash(f"{seed}/{pool.groups[i]}"))
    kept = [i for i in range(len(pool.groups)) if i not in order[count:]]
    rows = np.flatnonzero(np.isin(pool.group, kept))
    columns = {name: getattr(pool, name)[rows] for name in ("source", "record", "split", "key")}
    group = np.searchsorted(kept, pool.group[rows]).astype(pool.group.dtype)
    names = {name: tuple(getattr(pool, name)[i] for i in kept) for name in ("groups", "roles")}
    return dataclasses.replace(pool, **names, **columns, group=group)


def stable_hash(text: str) -> int:
    """64 bits that depend on the text alone."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=8).digest(), "little")


def build_pool(
    selections: dict[str, Sequence[Selection]], *, validation_fraction: float = 0.1, test_fraction: float = 0.2
) -> Pool:
    """Puts selections of all roles together.

    Known classes and negatives are split three ways: as the source says; what it leaves UNASSIGNED by the hash of the id
    (`test_fraction` to test, `validation_fraction` to validation); and where it has no validation images of its own,
    `validation_fraction` of its training images become those. Held-out negatives are validation images, all but the
    source's own test images. Unknowns are test images: the source's test images, or all where it does not say.

    Raises:
      UserError: names a role, source, class or image that is missing, empty, or used twice.
    """
    parts, groups, sources = [], {}, []
    for role in ROLES:
        for selection in selections.get(role, ()):
            if selection.source not in sources:
                sources.append(selection.source)
            for part in _select(selection, role, groups, validation_fraction, test_fraction):
                parts.append((np.full(len(part[0]), sources.index(selection.source)), *part))
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)] if parts else [np.zeros(0, int)] * 5
    pool = Pool(
        sources=tuple(sources),
        groups=tuple(groups),
        roles=tuple(groups.values()),
        num_classes=sum(role == "known" for role in groups.values()),
        source=columns[0].astype(np.int32),
        record=columns[1].astype(np.int64),
        group=columns[2].astype(np.int32),
        split=columns[3].astype(np.uint8),
        key=columns[4].astype(np.uint64),
    )
    _check(pool)
    return pool


def _select(selection, role, groups, validation_fraction, test_fraction):
    """Yields (record, group, split, key) for each class of a selection; enters new groups into `groups`."""
    source, field = selection.source, f"data.{role}"
    filed = source.roles or (role,) * len(source.classes)
    available = [name for name, its_role in zip(source.classes, filed, strict=True) if its_role == role]
    if not available and role in ("known", "negatives"):
        raise UserError(f"{field}: {source.name} has no {role}/ classes; it has {_listing(source)}")
    for name in selection.classes:
        if name not in available:
            raise UserError(f"{field}: no class {name!r} in {source.name}; it has {_listing(source)}")
    if repeated := [n for n, count in collections.Counter(selection.classes).items() if count > 1]:
        raise UserError(f"{field}: class {repeated[0]!r} is listed twice")
    if selection.group and role == "known":
        raise UserError(f"{field}.group: known classes keep their own names; leave it empty")
    for name in selection.classes or available:
        group = selection.group or name
        if groups.setdefault(group, role) != role:
            raise UserError(
                f"{field}: {group!r} (from {source.name}) is already in data.{groups[group]}; a class has one role. "
                "If these are different things, give this one another name with its `group` field"
            )
        index = next(i for i, (n, r) in enumerate(zip(source.classes, filed, strict=True)) if (n, r) == (name, role))
        records = np.flatnonzero(source.label == index)
        key = np.array([stable_hash(id_) for id_ in source.ids(records)], np.uint64)
        split = _splits(source.split[records], key, role, validation_fraction, test_fraction)
        used = np.flatnonzero(split != UNASSIGNED)  # the limit comes last: it must move no image to another split
        if selection.limit:
            used = np.sort(used[np.argsort(key[used], kind="stable")[: selection.limit]])
        yield records[used], np.full(len(used), list(groups).index(group)), split[used], key[used]


def _splits(given, key, role, validation_fraction, test_fraction):
    """The split of each image of one class; UNASSIGNED for those that this role does not use."""
    own_test = (given == TEST).any()
    if role == "unknown":
        return np.where((given == TEST) | (not own_test), TEST, UNASSIGNED)
    if role == "held_out_negatives":
        return np.where(given == TEST, UNASSIGNED, VALIDATION)
    place = (key * np.uint64(0x9E3779B97F4A7C15)).astype(np.float64) / 2.0**64  # unrelated to the order that limits use
    hashed = np.where(place < test_fraction, TEST, np.where(place < test_fraction + validation_fraction, VALIDATION, TRAIN))
    split = np.where(given == UNASSIGNED, hashed, given)
    if not (split == VALIDATION).any():
        split[(given == TRAIN) & (place < validation_fraction)] = VALIDATION
    return split


def _listing(source, most=40):
    names = [f"{r}/{n}" for n, r in zip(source.classes, source.roles, strict=True)] if source.roles else list(source.classes)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return (", ".join(names[:most]) or "no classes") + more


def check_stored_size(pool: Pool, stored_size: int) -> None:
    """Raises UserError for packed arrays of images of another size."""
    for source in pool.sources:
        kind, _, size = source.form.partition(":")
        if kind == "pixels" and int(size) != stored_size:
            raise UserError(
                f"{source.name}: packed at {size}x{size}, but data.stored_size is {stored_size}; set one to the other, or "
                "run prepare again"
            )


def _check(pool: Pool) -> None:
    if pool.num_classes < 2:
        raise UserError(f"data.known: {pool.num_classes} known classes; at least 2 are needed")
    if taken := set(pool.classes) & {"none", "seen_negatives", "unseen_unknowns"}:
        raise UserError(f"data.known: a class cannot be called {min(taken)!r}, which is what answers and results are called")
    names = [source.name for source in pool.sources]  # one place opened twice is one source; ids are unique within it
    place = np.array([names.index(name) for name in names])[pool.source]
    order = np.lexsort((pool.key, place))
    twice = (np.diff(pool.key[order]) == 0) & (np.diff(place[order]) == 0)
    if twice.any():
        first = int(np.argmax(twice))
        rows = order[first : first + 2]
        uses = [f"{pool.groups[g]!r} in data.{pool.roles[g]}" for g in pool.group[rows]]
        raise UserError(
            f"image {pool.ids(rows[:1])[0]!r} is used twice, as {uses[0]} and as {uses[1]} "
            f"({twice.sum():,} images are): an image has one role"
        )
    for role, groups in pool.counts().items():
        for name, counts in groups.items():
            if role == "known" and (missing := [split for split in SPLITS if not counts[split]]):
                raise UserError(
                    f"data.known: class {name!r} has no {missing[0]} images (it has {counts}); add images, or change "
                    "data.validation_fraction or data.test_fraction"
                )
            if not sum(counts.values()):
                raise UserError(f"data.{role}: {name!r} has no images that this role uses; add images, or leave it out")
