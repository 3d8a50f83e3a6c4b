"""Pools: labels, groups and splits that depend on the images alone, and errors that name what is wrong."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openset_jax.data import pools
from openset_jax.data.pool_builder import Selection, build_pool, check_negatives
from openset_jax.data.pools import (
    NEGATIVE,
    TEST,
    TRAIN,
    UNASSIGNED,
    UNKNOWN,
    VALIDATION,
    with_negative_groups,
)
from openset_jax.errors import UserError

CLASSES = {"cat": 60, "dog": 50, "car": 70, "tree": 40, "fish": 30, "bird": 20}


def own_splits(cls, i):
    """Splits of a source with all three: of ten images, one is for validation and two are for testing."""
    return {0: VALIDATION, 1: TEST, 2: TEST}.get(i % 10, TRAIN)


def train_and_test(cls, i):
    """Splits of a source without a validation split."""
    return TEST if i % 5 == 0 else TRAIN


GOLDEN_FINGERPRINT = "384e6c7f0943c23ed8be8eae28409628"


def selections(source, **limits):
    return {
        "known": [Selection(source, ("cat", "dog"))],
        "negatives": [Selection(source, ("car", "tree"), limit=limits.get("negatives", 0))],
        "held_out_negatives": [Selection(source, ("fish",))],
        "unknown": [Selection(source, ("bird",))],
    }


def uses(pool):
    """Returns {id: (label, group, split)} of all examples."""
    rows = np.arange(len(pool))
    groups = [pool.groups[g] for g in pool.group]
    return dict(zip(pool.ids(rows), zip(pool.label.tolist(), groups, pool.split.tolist(), strict=True), strict=True))


def ids_of(pool, rows):
    return set(pool.ids(rows))


def error(chosen, **options):
    """Returns the message of the UserError that building this pool raises."""
    with pytest.raises(UserError) as caught:
        build_pool(chosen, **options)
    return str(caught.value)


# --- labels and groups ------------------------------------------------------------------------------------------------


def test_labels_follow_the_role_and_known_labels_the_order_of_the_classes(make_source):
    pool = build_pool(selections(make_source(CLASSES)) | {"known": [Selection(make_source(CLASSES), ("dog", "cat"))]})
    assert pool.classes == ("dog", "cat")
    assert pool.num_classes == 2
    labels = {group: label for label, group, _ in uses(pool).values()}
    assert labels == {"dog": 0, "cat": 1, "car": NEGATIVE, "tree": NEGATIVE, "fish": NEGATIVE, "bird": UNKNOWN}
    assert pool.label.dtype == np.int32
    assert dict(zip(pool.groups, pool.roles, strict=True)) == {
        "dog": "known", "cat": "known", "car": "negatives", "tree": "negatives", "fish": "held_out_negatives",
        "bird": "unknown",
    }  # fmt: skip


def test_every_image_of_the_chosen_classes_is_there_once(make_source):
    pool = build_pool(selections(make_source(CLASSES)))
    assert len(pool) == len(uses(pool)) == sum(CLASSES.values())
    assert all(id_.startswith(group + "/") for id_, (_, group, _) in uses(pool).items())


def test_no_classes_named_means_all_of_them(make_source):
    known, other = make_source({"a": 40, "b": 40}), make_source({"c": 40, "d": 40})
    pool = build_pool({"known": [Selection(known)], "negatives": [Selection(other)]})
    assert pool.groups == ("a", "b", "c", "d")


def test_a_source_that_files_classes_under_roles_gives_each_role_its_own(make_source):
    roles = ("known", "known", "negatives", "held_out_negatives", "unknown", "unknown")
    source = make_source(CLASSES, roles=roles)
    pool = build_pool({role: [Selection(source)] for role in pools.ROLES})
    assert pool.groups == tuple(CLASSES)
    assert pool.roles == roles


def test_a_group_name_counts_classes_together(make_source):
    chosen = selections(make_source(CLASSES))
    chosen["negatives"] = [dataclasses.replace(chosen["negatives"][0], group="things")]
    pool = build_pool(chosen)
    assert pool.groups == ("cat", "dog", "things", "fish", "bird")
    assert sum(pool.counts()["negatives"]["things"].values()) == CLASSES["car"] + CLASSES["tree"]


def test_a_group_name_makes_one_class_name_of_two_sources_two_groups(make_source):
    """For example MNIST's class 5 and another set's class 5, as the error message advises."""
    first, second = make_source({"5": 60, "6": 60}, ids="one/{cls}/{i}"), make_source({"5": 60}, ids="two/{cls}/{i}")
    pool = build_pool({"known": [Selection(first)], "negatives": [Selection(second, group="other 5")]})
    assert pool.groups == ("5", "6", "other 5")


def test_folders_with_equal_relative_paths_are_different_images(make_source):
    """Two folders in TFDS's layout both have a train/0/1.png: the same id, not the same image."""
    first = make_source({"0": 60, "1": 60}, name="folder:one", ids="train/{cls}/{i}.png")
    second = make_source({"0": 60}, name="folder:two", ids="train/{cls}/{i}.png")
    pool = build_pool({"known": [Selection(first)], "negatives": [Selection(second, group="other")]})
    assert len(pool) == 180


def test_counts_are_by_role_group_and_split(make_source):
    counts = build_pool(selections(make_source(CLASSES, splits=own_splits))).counts()
    assert counts == {
        "known": {
            "cat": {"train": 42, "validation": 6, "test": 12},
            "dog": {"train": 35, "validation": 5, "test": 10},
        },
        "negatives": {
            "car": {"train": 49, "validation": 7, "test": 14},
            "tree": {"train": 28, "validation": 4, "test": 8},
        },
        "held_out_negatives": {"fish": {"train": 0, "validation": 24, "test": 0}},
        "unknown": {"bird": {"train": 0, "validation": 0, "test": 4}},
    }


# --- splits -----------------------------------------------------------------------------------------------------------


def test_the_splits_of_the_source_are_kept(make_source):
    source = make_source(CLASSES, splits=own_splits)
    given = dict(zip(source.ids(np.arange(len(source.label))), source.split.tolist(), strict=True))
    for id_, (_, group, split) in uses(build_pool(selections(source))).items():
        if group in ("cat", "dog", "car", "tree"):
            assert split == given[id_]


def test_without_a_validation_split_some_training_images_become_one(make_source):
    source = make_source({"a": 3000, "b": 3000}, splits=train_and_test)
    pool = build_pool({"known": [Selection(source)]}, validation_fraction=0.1)
    for name, row in pool.counts()["known"].items():
        assert row["test"] == 600, name
        assert 180 < row["validation"] < 300, name  # 240 +- four standard deviations


def test_without_splits_the_hash_makes_them_in_the_asked_proportions(make_source):
    pool = build_pool(
        {"known": [Selection(make_source({"a": 3000, "b": 3000}))]}, validation_fraction=0.3, test_fraction=0.1
    )
    share = np.bincount(pool.split, minlength=3) / len(pool)
    np.testing.assert_allclose(share, [0.6, 0.3, 0.1], atol=0.025)


@given(st.randoms(use_true_random=False), st.sampled_from([None, own_splits, train_and_test]))
def test_splits_and_fingerprint_do_not_depend_on_order_or_location(make_source, random, splits):
    order = list(range(sum(CLASSES.values())))
    random.shuffle(order)
    here = build_pool(selections(make_source(CLASSES, name="folder:/here", splits=splits)))
    there = build_pool(selections(make_source(CLASSES, name="folder:/there", splits=splits, order=order)))
    assert uses(here) == uses(there)
    assert here.fingerprint() == there.fingerprint()


def test_a_split_does_not_change_when_images_are_added(make_source):
    few, many = (uses(build_pool({"known": [Selection(make_source({"a": n, "b": n}))]})) for n in (200, 400))
    assert few.items() <= many.items()


@pytest.mark.parametrize("splits", [None, own_splits, train_and_test])
def test_held_out_negatives_are_validation_images_only_and_not_the_sources_own_test_images(make_source, splits):
    source = make_source(CLASSES, splits=splits)
    pool = build_pool(selections(source))
    fish = {id_: split for id_, (_, group, split) in uses(pool).items() if group == "fish"}
    own_test = {f"fish/{i}" for i in range(CLASSES["fish"]) if splits and splits("fish", i) == TEST}
    assert set(fish.values()) == {VALIDATION}
    assert fish.keys() == {f"fish/{i}" for i in range(CLASSES["fish"])} - own_test


@pytest.mark.parametrize("splits", [None, own_splits, train_and_test])
def test_unknowns_are_test_images_only_the_sources_own_where_it_has_some(make_source, splits):
    source = make_source(CLASSES, splits=splits)
    pool = build_pool(selections(source))
    bird = {id_: split for id_, (_, group, split) in uses(pool).items() if group == "bird"}
    expected = {f"bird/{i}" for i in range(CLASSES["bird"]) if splits is None or splits("bird", i) == TEST}
    assert set(bird.values()) == {TEST}
    assert bird.keys() == expected


def test_a_pool_leaves_nothing_unassigned(make_source):
    for splits in (None, own_splits, train_and_test):
        assert UNASSIGNED not in build_pool(selections(make_source(CLASSES, splits=splits))).split


def test_rows_are_those_of_a_split_and_a_role_in_the_pools_order(make_source):
    pool = build_pool(selections(make_source(CLASSES)))
    for split in (TRAIN, VALIDATION, TEST):
        by_role = [pool.rows(split, role) for role in pools.ROLES]
        assert sorted(np.concatenate(by_role)) == pool.rows(split).tolist()
        for role, rows in zip(pools.ROLES, by_role, strict=True):
            assert (np.diff(rows) > 0).all()
            assert {pool.roles[g] for g in pool.group[rows]} <= {role}
            assert (pool.split[rows] == split).all()


def test_ids_are_in_the_order_of_the_rows_whatever_their_sources(make_source):
    first, second = make_source({"a": 40, "b": 40}), make_source({"c": 40})
    pool = build_pool({"known": [Selection(first)], "negatives": [Selection(second)]})
    rows = np.array([100, 0, 81, 50])
    assert pool.ids(rows) == [pool.ids([row])[0] for row in rows]
    assert [id_[0] for id_ in pool.ids(rows)] == ["c", "a", "c", "b"]


# --- limits -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["negatives", "held_out_negatives", "unknown"])
@given(
    st.lists(st.integers(1, 70), min_size=2, max_size=2, unique=True),
    st.sampled_from([None, own_splits, train_and_test]),
)
def test_a_smaller_limit_chooses_a_subset_of_a_larger_one_in_the_same_splits(make_source, role, limits, splits):
    chosen = selections(make_source(CLASSES, splits=splits))

    def limited(limit):
        return uses(build_pool(chosen | {role: [dataclasses.replace(chosen[role][0], limit=limit)]}))

    few, many = map(limited, sorted(limits))
    assert few.items() <= many.items() <= limited(0).items()
    for name in chosen[role][0].classes:
        assert sum(group == name for _, group, _ in few.values()) <= min(limits)


def test_a_limit_of_known_classes_is_nested_too(make_source):
    source = make_source(CLASSES, splits=own_splits)
    few, many = (uses(build_pool({"known": [Selection(source, ("cat", "dog"), limit=limit)]})) for limit in (25, 45))
    assert few.items() <= many.items()
    assert (len(few), len(many)) == (50, 90)


@pytest.mark.parametrize("limit", [1, 20, 70])
def test_a_limit_takes_as_many_as_it_says_where_there_are(make_source, limit):
    counts = build_pool(selections(make_source(CLASSES), negatives=limit)).counts()["negatives"]
    assert sum(counts["car"].values()) == limit
    assert sum(counts["tree"].values()) == min(limit, CLASSES["tree"])


def test_a_limit_takes_neither_the_first_images_nor_those_of_one_split(make_source):
    chosen = uses(build_pool(selections(make_source(CLASSES, splits=own_splits), negatives=30)))
    car = {id_: split for id_, (_, group, split) in chosen.items() if group == "car"}
    assert car.keys() != {f"car/{i}" for i in range(30)}
    assert set(car.values()) == {TRAIN, VALIDATION, TEST}


def test_a_limit_keeps_the_proportions_of_the_splits(make_source):
    """The order in which a limit chooses must not be the order in which the hash splits."""
    for splits in (None, train_and_test):
        source = make_source({"a": 6000, "b": 6000}, splits=splits)
        pool = build_pool({"known": [Selection(source, limit=1000)]}, validation_fraction=0.2, test_fraction=0.2)
        share = np.bincount(pool.split, minlength=3) / 2000
        np.testing.assert_allclose(share, [0.6, 0.2, 0.2] if splits is None else [0.64, 0.16, 0.2], atol=0.05)


def test_no_limit_takes_all(make_source):
    assert build_pool(selections(make_source(CLASSES), negatives=0)).counts()["negatives"].keys() == {"car", "tree"}
    assert len(build_pool(selections(make_source(CLASSES), negatives=0))) == sum(CLASSES.values())


# --- training rows ----------------------------------------------------------------------------------------------------


def test_training_rows_are_the_training_images_of_each_class_and_all_negatives_together(make_source):
    pool = build_pool(selections(make_source(CLASSES)))
    rows_by_class = pool.training_rows()
    assert len(rows_by_class) == pool.num_classes + 1
    assert (pool.split[np.concatenate(rows_by_class)] == TRAIN).all()
    for k, rows in enumerate(rows_by_class[:-1]):
        assert (pool.label[rows] == k).all()
    assert rows_by_class[-1].tolist() == pool.rows(TRAIN, "negatives").tolist()
    assert {pool.groups[g] for g in pool.group[rows_by_class[-1]]} == {"car", "tree"}
    assert sorted(np.concatenate(rows_by_class)) == pool.rows(TRAIN).tolist()


@given(st.data())
def test_fewer_negatives_are_a_subset_of_more(make_source, data):
    pool = build_pool(selections(make_source(CLASSES)))
    everything = set(pool.training_rows()[-1].tolist())
    a, b = sorted(data.draw(st.tuples(*[st.integers(1, len(everything))] * 2)))
    few, many = (pool.training_rows(n) for n in (a, b))
    assert len(few[-1]) == a
    assert set(few[-1].tolist()) <= set(many[-1].tolist()) <= everything
    for ours, theirs in zip(few[:-1], pool.training_rows()[:-1], strict=True):
        assert ours.tolist() == theirs.tolist()


def test_which_negatives_are_chosen_does_not_depend_on_their_order(make_source):
    backwards = range(sum(CLASSES.values()))[::-1]
    pools_ = [build_pool(selections(make_source(CLASSES, order=order))) for order in (None, backwards)]
    one, other = (ids_of(pool, pool.training_rows(20)[-1]) for pool in pools_)
    assert one == other


MANY = {"a": 30, "b": 40, "n1": 30, "n2": 20, "n3": 25, "n4": 35, "h": 10, "u": 10}


def many(make_source):
    source = make_source(MANY)
    chosen = {"known": "ab", "negatives": ["n1", "n2", "n3", "n4"], "held_out_negatives": "h", "unknown": "u"}
    return build_pool({role: [Selection(source, tuple(names))] for role, names in chosen.items()})


def test_of_the_groups_of_negatives_a_smaller_number_is_among_a_larger_and_other_seeds_choose_others(make_source):
    pool = many(make_source)
    chosen = {
        seed: [{g for g in with_negative_groups(pool, n, seed=seed).groups if g[0] == "n"} for n in (1, 2, 3, 4)]
        for seed in range(8)
    }
    for sets in chosen.values():
        assert [len(s) for s in sets] == [1, 2, 3, 4]
        assert sets[0] < sets[1] < sets[2] < sets[3]
    assert len({frozenset(sets[1]) for sets in chosen.values()}) > 2
    assert set.union(*(chosen[seed][0] for seed in range(3, 7))) == {"n1", "n2", "n3", "n4"}, "the first goes round"


@pytest.mark.parametrize("seed", range(4))
def test_a_pool_of_fewer_groups_is_the_pool_without_the_images_of_the_others(make_source, seed):
    pool = many(make_source)
    fewer = with_negative_groups(pool, 2, seed=seed)
    gone = set(pool.groups) - set(fewer.groups)
    assert len(gone) == 2
    left = np.flatnonzero(~np.isin(pool.group_names(np.arange(len(pool))), list(gone)))
    every = np.arange(len(fewer))
    assert fewer.ids(every) == pool.ids(left)
    np.testing.assert_array_equal(fewer.group_names(every), pool.group_names(left))
    for name in ("label", "split", "key"):
        np.testing.assert_array_equal(getattr(fewer, name), getattr(pool, name)[left])
    assert fewer.classes == pool.classes
    asked = tuple(g for g in pool.groups if g[0] == "n" and g not in gone)
    parts = {"known": ("a", "b"), "negatives": asked, "held_out_negatives": ("h",), "unknown": ("u",)}
    source = make_source(MANY)
    same = build_pool({role: [Selection(source, names)] for role, names in parts.items()})
    assert fewer.fingerprint() == same.fingerprint() != pool.fingerprint()
    assert fewer.counts() == same.counts()


@pytest.mark.parametrize("count", [0, 5])
def test_more_groups_of_negatives_than_there_are_or_none_is_an_error(make_source, count):
    with pytest.raises(UserError, match=rf"data\.negative_groups: {count} is not between 1 and 4, .*; set it .*`grid`"):
        with_negative_groups(many(make_source), count, seed=0)


@pytest.mark.parametrize("number", [0, -1, 10**6])
def test_more_negatives_than_there_are_or_none_is_an_error(make_source, number):
    pool = build_pool(selections(make_source(CLASSES)))
    with pytest.raises(UserError, match=r"sampling\.negatives: .* between 1 and \d+, .* images of data\.negatives"):
        pool.training_rows(number)


# --- fingerprint ------------------------------------------------------------------------------------------------------


def test_the_fingerprint_changes_with_an_id_a_role_a_group_a_split_and_a_limit(make_source):
    source = make_source(CLASSES)
    base = selections(source)
    swapped_role = base | {"held_out_negatives": base["unknown"], "unknown": base["held_out_negatives"]}
    variants = {
        "as it is": build_pool(base),
        "one image more": build_pool(selections(make_source(CLASSES | {"cat": 61}))),
        "another id": build_pool(selections(make_source(CLASSES, ids="{cls}/{i}.png"))),
        "another role": build_pool(swapped_role),
        "another group": build_pool(base | {"negatives": [dataclasses.replace(base["negatives"][0], group="things")]}),
        "another split": build_pool(base, validation_fraction=0.15),
        "fewer": build_pool(selections(source, negatives=30)),
        "a role less": build_pool({role: base[role] for role in ("known", "negatives", "unknown")}),
    }
    prints = {what: pool.fingerprint() for what, pool in variants.items()}
    assert len(set(prints.values())) == len(prints), prints
    assert build_pool(base).fingerprint() == prints["as it is"]


def test_the_fingerprint_is_that_of_earlier_versions(make_source):
    """Checkpoints store the fingerprint: if it changed, earlier runs could not be resumed or evaluated."""
    assert build_pool(selections(make_source(CLASSES))).fingerprint() == GOLDEN_FINGERPRINT


def test_the_hash_takes_any_file_name():
    names = ["", "a", "b", "é", "e\u0301", "日本", "\udcff", "a" * 1000]
    assert len({pools.stable_hash(name) for name in names}) == len(names)
    assert all(0 <= pools.stable_hash(name) < 2**64 for name in names)


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", pools.ROLES)
def test_a_class_that_does_not_exist_is_named_beside_those_that_do(make_source, role):
    source = make_source(CLASSES, name="tfds:pets")
    message = error(selections(source) | {role: [Selection(source, ("cta",))]})
    assert f"data.{role}" in message
    assert "'cta'" in message
    assert "tfds:pets" in message
    assert all(name in message for name in CLASSES)


def test_a_long_list_of_classes_is_cut_short(make_source):
    source = make_source({f"class{i}": 1 for i in range(100)})
    message = error({"known": [Selection(source, ("nothing",))]})
    assert "and 60 more" in message
    assert "class99" not in message


def test_a_class_of_another_role_does_not_exist_for_this_one(make_source):
    source = make_source(CLASSES, roles=("known", "known", "negatives", "negatives", "negatives", "unknown"))
    message = error({"known": [Selection(source, ("car",))], "negatives": [Selection(source)]})
    assert "no class 'car'" in message
    assert "negatives/car" in message


def test_a_folder_without_known_classes_says_what_it_has(make_source):
    source = make_source({"cat": 50, "dog": 50}, roles=("unknown", "held_out_negatives"), name="folder:/x")
    message = error({"known": [Selection(source)]})
    assert "data.known: folder:/x has no known/ classes" in message
    assert "unknown/cat, held_out_negatives/dog" in message


def test_a_folder_without_negatives_says_what_it_has(make_source):
    source = make_source({"cat": 50, "dog": 50, "car": 50}, roles=("known", "known", "held_out_negatives"), name="folder:/x")
    pool = build_pool({role: [Selection(source)] for role in pools.ROLES})
    with pytest.raises(UserError, match="data.negatives: folder:/x has no negatives; it has ") as caught:
        check_negatives(pool)
    assert "known/cat, known/dog, held_out_negatives/car" in str(caught.value)


def test_a_folder_without_unknowns_or_held_out_negatives_is_fine(make_source):
    source = make_source({"cat": 50, "dog": 50, "car": 50}, roles=("known", "known", "negatives"))
    pool = build_pool({role: [Selection(source)] for role in pools.ROLES})
    assert pool.counts()["unknown"] == pool.counts()["held_out_negatives"] == {}


@pytest.mark.parametrize("second", ["negatives", "held_out_negatives", "unknown"])
def test_one_class_in_two_roles_is_an_error_that_names_both(make_source, second):
    source = make_source(CLASSES)
    message = error({"known": [Selection(source, ("cat", "dog"))], second: [Selection(source, ("dog",))]})
    assert "'dog'" in message
    assert f"data.{second}" in message
    assert "data.known" in message


def test_a_class_listed_twice_is_an_error(make_source):
    assert "'cat' is listed twice" in error({"known": [Selection(make_source(CLASSES), ("cat", "dog", "cat"))]})


def test_a_group_name_for_known_classes_is_an_error(make_source):
    assert "data.known.group" in error({"known": [Selection(make_source(CLASSES), ("cat", "dog"), group="pets")]})


def test_one_image_in_two_roles_is_an_error_that_names_it_and_both(make_source):
    """For example, overlapping slices of a source."""
    source, again = make_source(CLASSES), make_source(CLASSES)
    message = error({"known": [Selection(source, ("cat", "dog"))], "negatives": [Selection(again, ("dog",), group="hard")]})
    assert "'dog/" in message
    assert "'dog' in data.known" in message
    assert "'hard' in data.negatives" in message
    assert f"({CLASSES['dog']} such images)" in message


def test_one_image_twice_in_one_source_is_an_error(make_source):
    source = make_source([("cat", 50), ("dog", 50)], ids="{i}")
    says = "fake: rows 4 and 54 have the same id, '3' (repeated ids: 50); make each id unique"
    assert says in error({"known": [Selection(source)]})


@pytest.mark.parametrize("absent", ["train", "validation", "test"])
def test_a_known_class_without_images_in_a_split_is_an_error(make_source, absent):
    code = pools.SPLITS.index(absent)
    others = [split for split in (TRAIN, VALIDATION, TEST) if split != code]
    source = make_source(CLASSES, splits=lambda cls, i: others[i % 2] if cls == "dog" else i % 3)
    fractions = {"validation_fraction": 1e-9} if absent == "validation" else {}
    message = error(selections(source), **fractions)
    assert f"data.known: class 'dog' has no {absent} images" in message
    assert "'train'" in message, "how many it has"


def test_an_empty_class_is_an_error_if_known(make_source):
    assert "data.known: 'dog' has no images that this role uses" in error(
        {"known": [Selection(make_source({"cat": 50, "dog": 0}))]}
    )


def test_there_may_be_one_known_class_but_not_none(make_source):
    source = make_source(CLASSES)
    pool = build_pool({"known": [Selection(source, ("cat",))], "negatives": [Selection(source, ("car",))]})
    assert (pool.num_classes, pool.classes) == (1, ("cat",))
    assert "no known classes" in error({"known": [], "negatives": [Selection(source, ("car",))]})


def test_nothing_at_all_is_an_error():
    assert "data.known" in error({})
