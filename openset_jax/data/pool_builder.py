"""Selections of classes of sources, in their roles -> a `Pool`: who may be what, and which split each image is in."""

import collections
import dataclasses
from collections.abc import Sequence

import numpy as np

from openset_jax.data.pools import ROLES, SPLITS, TEST, TRAIN, UNASSIGNED, VALIDATION, Pool, Source, stable_hash
from openset_jax.errors import UserError


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
