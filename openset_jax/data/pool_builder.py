"""Builds the `Pool`: opens the sources, assigns their classes to roles, and every image to a split."""

import collections
import dataclasses
import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from openset_jax.data import pools, sources
from openset_jax.data.data_spec import DataSpec, ImagesSpec, check_prepared
from openset_jax.data.pools import ROLES, SPLITS, TEST, TRAIN, UNASSIGNED, VALIDATION, ArrayType, Pool, Source, stable_hash
from openset_jax.errors import UserError, normalisation_note


def open_pool(data: DataSpec, *, stored_size: int | None, seed: int) -> Pool:
    """Opens the sources of a config's `data`; `seed` selects the groups of negatives if `data.negative_groups` limits them.

    Raises:
      UserError: images of a role are missing or invalid, or a field differs from the config of the packed arrays.
    """
    selections = _packed_selections(data) if data.packed else _selections(data, stored_size)
    fractions = {"validation_fraction": data.validation_fraction, "test_fraction": data.test_fraction}
    pool = build_pool(selections, stored_size=stored_size, **fractions)
    if data.negative_groups is None or "negatives" not in pool.roles:
        return pool
    return pools.with_negative_groups(pool, data.negative_groups, seed=seed)


def check_negatives(pool: Pool) -> None:
    """Raises UserError if the pool has no negatives, for objectives that need some."""
    if "negatives" not in pool.roles:
        there = "; ".join(f"{source.name} has no negatives; it has {_listing(source)}" for source in pool.sources)
        remedy = "Add negatives, or use objective.name=softmax, which needs none"
        raise UserError(f"data.negatives: {there}. {remedy}{_notes(pool.sources)}")


def _packed_selections(data: DataSpec) -> dict[str, list["Selection"]]:
    packed = sources.open_source(f"packed:{data.packed}")
    if packed.prepared_as is not None:
        check_prepared(data, packed.prepared_as)
    return {role: [Selection(packed)] for role in ROLES if role == "known" or role in (packed.roles or ())}


def _selections(data: DataSpec, stored_size: int | None) -> dict[str, list["Selection"]]:
    open_source = functools.partial(sources.open_source, stored_size=stored_size or 8, data_dir=data.tfds_data_dir)
    open_once = functools.cache(open_source)

    def select(role: str, images: ImagesSpec) -> Selection:
        try:
            source = open_once(images.source, train=images.train, validation=images.validation, test=images.test)
        except (UserError, OSError) as error:
            raise UserError(f"data.{role}: {error}") from error
        return Selection(source, images.classes, images.limit, images.group)

    return {role: [select(role, images) for images in getattr(data, role)] for role in ROLES}


@dataclasses.dataclass(frozen=True)
class Selection:
    """Classes of one source in one role.

    Attributes:
      classes: names of the classes to take, in label order for known ones; empty means all (of this role).
      limit: maximum number of images of each class, over all splits that the role uses; 0 for all. Smaller limits select
        subsets of larger ones.
      group: name of one group for all these classes; empty makes each class a group of its own.
    """

    source: Source
    classes: tuple[str, ...] = ()
    limit: int = 0
    group: str = ""


def build_pool(
    selections: Mapping[str, Sequence[Selection]],
    *,
    stored_size: int | None = 256,
    validation_fraction: float = 0.1,
    test_fraction: float = 0.2,
) -> Pool:
    """Joins the selections of all roles.

    Known classes and negatives have the splits of the source. UNASSIGNED images are split by the hash of their id
    (`test_fraction` to test, `validation_fraction` to validation); if a class then has no validation image,
    `validation_fraction` of its training images become validation images. Held-out negatives are validation images; test
    images of the source are not used. Unknowns are the source's test images, or all its images if it has no test images.

    Args:
      stored_size: side of the stored images in pixels; None if the examples are vectors.

    Raises:
      UserError: names a role, source, class or image that is missing, empty, or used twice, or a source whose examples are
        of another type.
    """
    parts: list[tuple[np.ndarray, ...]] = []  # (source, record, group, split, key) of the rows of each class
    groups: dict[str, str] = {}
    used: list[Source] = []
    for role in ROLES:
        for selection in selections.get(role, ()):
            if selection.source not in used:
                used.append(selection.source)
            for part in _select(selection, role, groups, validation_fraction, test_fraction):
                parts.append((np.full(len(part[0]), used.index(selection.source), np.int32), *part))
    num_classes = list(groups.values()).count("known")
    if not num_classes:
        raise UserError("data.known: there are no known classes; at least 1 is needed")
    columns = map(np.concatenate, zip(*parts, strict=True))
    pool = Pool(tuple(used), tuple(groups), tuple(groups.values()), num_classes, _array_type(used, stored_size), *columns)
    _check(pool)
    return pool


def _select(
    selection: Selection, role: str, groups: dict[str, str], validation_fraction: float, test_fraction: float
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """Yields (record, group, split, key) for each class of a selection; adds new groups to `groups`, {group: role}."""
    source, field = selection.source, f"data.{role}"
    roles = source.roles or (role,) * len(source.classes)
    available = {name: i for i, name in enumerate(source.classes) if roles[i] == role}
    if not available and role == "known":
        raise UserError(f"{field}: {source.name} has no {role}/ classes; it has {_listing(source)}{_notes([source])}")
    for name in selection.classes:
        if name not in available:
            note = normalisation_note([name], available)
            raise UserError(f"{field}: no class {name!r} in {source.name}; it has {_listing(source)}{note}")
    if repeated := [n for n, count in collections.Counter(selection.classes).items() if count > 1]:
        raise UserError(f"{field}: class {repeated[0]!r} is listed twice")
    if selection.group and role == "known":
        raise UserError(f"{field}.group: known classes keep their own names; leave it empty")
    for name in selection.classes or available:
        group = selection.group or name
        if groups.setdefault(group, role) != role:
            raise UserError(
                f"{field}: {group!r} (from {source.name}) is already in data.{groups[group]}, and a group has one "
                "role. Name the classes of each role (data.known.classes, ...). If the two are different, rename the "
                "folder, or set `group` of this images(...) to another name"
            )
        records = np.flatnonzero(source.label == available[name])
        key = np.array([stable_hash(id_) for id_ in source.ids(records)], np.uint64)
        split = _splits(source.split[records], key, role, validation_fraction, test_fraction)
        used = np.flatnonzero(split != UNASSIGNED)  # before the limit, which moves no image to another split
        if selection.limit:
            used = np.sort(used[np.argsort(key[used], kind="stable")[: selection.limit]])
        index = np.full(len(used), list(groups).index(group), np.int32)
        yield records[used], index, split[used].astype(np.uint8), key[used]


def _splits(given, key, role, validation_fraction, test_fraction):
    """The split of each image of one class; UNASSIGNED for those that this role does not use."""
    if role == "unknown":
        has_test = (given == TEST).any()
        return np.where((given == TEST) | (not has_test), TEST, UNASSIGNED)
    if role == "held_out_negatives":
        return np.where(given == TEST, UNASSIGNED, VALIDATION)
    place = (key * np.uint64(0x9E3779B97F4A7C15)).astype(np.float64) / 2.0**64  # independent of the order for limits
    hashed = np.where(place < test_fraction, TEST, np.where(place < test_fraction + validation_fraction, VALIDATION, TRAIN))
    split = np.where(given == UNASSIGNED, hashed, given)
    if not (split == VALIDATION).any():
        split[(given == TRAIN) & (place < validation_fraction)] = VALIDATION
    return split


def _array_type(used: Sequence[Source], stored_size: int | None) -> ArrayType:
    """The type of the examples of these sources. Raises UserError if they are not all of one type."""
    for source in used:
        given = source.array
        if (given is not None and given.is_vector) != (stored_size is None):
            kinds = ("images", "vectors") if stored_size is None else ("vectors", "images")
            remedy = "configs/folder.py is for images, configs/features.py for vectors"
            raise UserError(f"{source.name} has {kinds[0]}, but model.name is a network for {kinds[1]}; {remedy}")
        if stored_size is not None and given not in (None, pools.image_type(stored_size)):
            side = given.shape[0]
            raise UserError(
                f"{source.name}: packed at {side}x{side}, but data.stored_size is {stored_size}; set data.stored_size to "
                "the packed size, or run prepare again"
            )
    if stored_size is not None:
        return pools.image_type(stored_size)
    sizes = {source.array.shape: source for source in used if source.array}
    if len(sizes) > 1:
        text = ", ".join(f"{source.name} has {shape[0]:,}" for shape, source in sizes.items())
        raise UserError(f"data: all vectors must have the same number of features, but {text}")
    return ArrayType(next(iter(sizes)), np.result_type(*(source.array.dtype for source in used if source.array)))


def _listing(source, most=40):
    names = [f"{r}/{n}" for n, r in zip(source.classes, source.roles, strict=True)] if source.roles else list(source.classes)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return (", ".join(names[:most]) or "no classes") + more


def _notes(sources: Iterable[Source]) -> str:
    """Returns the notes of the sources in brackets, for an error about missing images; "" without notes."""
    return pools.in_brackets([note for source in sources for note in source.notes])


def _check(pool: Pool) -> None:
    if taken := set(pool.classes) & {"none", "seen_negatives", "unseen_unknowns"}:
        raise UserError(f"data.known: the class name {min(taken)!r} is reserved for results; rename the class")
    names = [source.name for source in pool.sources]  # a source that is opened twice counts once
    place = np.array([names.index(name) for name in names])[pool.source]
    order = np.lexsort((pool.key, place))
    twice = (np.diff(pool.key[order]) == 0) & (np.diff(place[order]) == 0)
    if twice.any():
        first = int(np.argmax(twice))
        rows, noun = order[first : first + 2], pool.array.noun
        source, records = pool.sources[pool.source[rows[0]]], pool.record[rows]
        if len({*pool.source[rows]}) == 1 and records[0] != records[1]:
            raise UserError(
                f"{source.name}: rows {records[0] + 1:,} and {records[1] + 1:,} have the same id, {pool.ids(rows[:1])[0]!r} "
                f"(repeated ids: {twice.sum():,}); make each id unique"
            )
        uses = [f"{pool.groups[g]!r} in data.{pool.roles[g]}" for g in pool.group[rows]]
        raise UserError(
            f"{noun[:-1]} {pool.ids(rows[:1])[0]!r} is used twice, as {uses[0]} and as {uses[1]} "
            f"({twice.sum():,} such {noun}); give each one role"
        )
    for role, groups in pool.counts().items():
        for name, counts in groups.items():
            if not sum(counts.values()):
                raise UserError(
                    f"data.{role}: {name!r} has no images that this role uses; add images, or leave it out (in a folder: "
                    f"remove it){_notes(pool.sources)}"
                )
            if role == "known" and (missing := [split for split in SPLITS if not counts[split]]):
                raise UserError(
                    f"data.known: class {name!r} has no {missing[0]} images (it has {counts}); add images, or change "
                    f"data.validation_fraction or data.test_fraction{_notes(pool.sources)}"
                )
