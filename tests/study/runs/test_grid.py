"""From a config to arms: products and unions, names that are hashes, the arm that an arm starts from, equal parts."""

import itertools

import ml_collections
import pytest
from ml_collections import config_dict
from small_run import small_config

from openset_jax.errors import UserError
from openset_jax.study.runs import grid
from openset_jax.study.stats.treatments import Treatment

AMOUNTS = {"sampling": {"negatives": (0, "0.1x", None)}}


def experiment(seeds=(0, 1), run=None, **blocks):
    config = ml_collections.ConfigDict()
    config.run, config.seeds = run or small_config(), seeds
    config.grid = config_dict.create(**{name: config_dict.create(**axes) for name, axes in blocks.items()})
    return config.lock()


def labels(arms):
    return [arm.label for arm in arms]


def test_a_block_is_a_product_and_blocks_are_a_union_in_which_no_arm_comes_twice():
    arms = grid.arms_of(
        experiment(a=AMOUNTS, b={"sampling": {"negatives": ("0.1x", None), "policy": ("balanced", "natural")}})
    )
    assert sorted({arm.treatment.label for arm in arms}) == [
        "config.run unchanged", "sampling.negatives=0", "sampling.negatives=0.1x",
        "sampling.negatives=0.1x, sampling.policy=balanced", "sampling.policy=balanced",
    ]  # fmt: skip
    assert len(arms) == 10
    assert [arm.seed for arm in arms] == [0] * 5 + [1] * 5, "one seed after another: the first answer comes early"
    assert len({arm.name for arm in arms}) == 10


def test_where_run_has_a_method_against_imbalance_an_arm_that_keeps_it_is_not_natural():
    run = small_config()
    run.sampling.policy, run.objective.class_weights = "balanced", "inverse_frequency"
    arms = grid.arms_of(experiment((0,), run, a={"sampling": {"policy": ("balanced", "natural")}}, b={"steps": (24, 48)}))
    assert {arm.treatment.label: arm.treatment.is_natural for arm in arms} == {
        "sampling.policy=balanced": False, "sampling.policy=natural": True, "sampling.policy=balanced, steps=24": False,
        "sampling.policy=balanced, steps=48": False,
    }  # fmt: skip
    starting = experiment(
        (0,), run, a=AMOUNTS, b={"init_from": ("arm:sampling.negatives=0",), "sampling": {"policy": ("natural",)}}
    )
    (start,) = (arm.starts_from(grid.arms_of(starting)) for arm in grid.arms_of(starting) if arm.treatment.get("init_from"))
    assert start.treatment.label == "sampling.negatives=0, sampling.policy=balanced"
    unvaried = grid.arms_of(experiment((0,), run, b={"steps": (24, 48)}))
    assert [arm.treatment.label for arm in unvaried] == ["steps=24", "steps=48"]


def test_a_name_depends_on_what_an_arm_overrides_alone():
    one, other = (
        grid.arms_of(experiment(a=AMOUNTS)),
        grid.arms_of(experiment(seeds=(1, 0), z=AMOUNTS, y={"steps": (24, 12)})),
    )
    names = lambda arms: {arm.label: arm.name for arm in arms}
    assert names(one).items() <= names(other).items()
    assert grid.Arm(Treatment((("data.mean", (0.5, 0.5, 0.5)),)), 0, "a").name.isalnum()


def test_the_arm_without_negatives_is_softmax_and_others_are_as_overridden():
    config = experiment(a=AMOUNTS)
    made = {arm.label: grid.config_of(arm, config.run, {}) for arm in grid.arms_of(config)}
    without, few, every = (
        made[f"{name}, seed 1"] for name in ("sampling.negatives=0", "sampling.negatives=0.1x", "config.run unchanged")
    )
    assert (without.objective.name, without.sampling.negatives, without.seed) == ("softmax", None, 1)
    assert (few.objective.name, few.sampling.negatives) == ("background", "0.1x")
    assert (every.objective.name, every.sampling.negatives) == ("background", None)
    assert config.run.seed == 0


def test_an_arm_begins_with_that_of_its_own_seed_and_comes_after_it():
    config = experiment(a={"init_from": ("arm:sampling.negatives=0",), "trainable": ("head", "all")}, b=AMOUNTS)
    arms = grid.arms_of(config)
    heads = [arm for arm in arms if arm.treatment.get("trainable") == "head"]
    for arm in heads:
        base = arm.starts_from(arms)
        assert (base.treatment.label, base.seed) == ("sampling.negatives=0", arm.seed)
        assert arms.index(base) < arms.index(arm)
        assert grid.config_of(arm, config.run, {"sampling.negatives=0": "/there"}).init_from == "/there"
    assert grid.config_of(arms[0], config.run, {}).init_from == ""


@pytest.mark.parametrize(("blocks", "says"), [
    ({}, "grid: it has no block"),
    ({"a": {}}, "grid.a: it has no axis"),
    ({"a": {"sampling": {"polcy": (1,)}}}, "grid.a: run has no field 'sampling.polcy'; did you mean 'sampling.policy'?"),
    ({"a": {"sampling": {"policy": "balanced"}}}, "grid.a.sampling.policy: 'balanced' is not a tuple of values"),
    ({"a": {"sampling": {"policy": ()}}}, r"grid.a.sampling.policy: \(\) is not a tuple of values"),
    ({"a": {"steps": (24, 24)}}, "grid.a.steps: 24 is given twice"),
    (
        {"a": {"sampling": {"policy": ("natural",)}}},
        "policy: 'natural' is already the value in run: this axis changes nothing",
    ),
    ({"a": {"seed": (1, 2)}}, "grid.a.seed: every arm is run with each seed in `seeds`"),
    ({"a": {"init_from": ("arm:sampling.negatives=0",)}}, "grid.a.init_from: there is no other arm 'sampling.negatives=0'"),
])  # fmt: skip
def test_a_grid_that_cannot_be_is_refused_with_its_field(blocks, says):
    with pytest.raises(UserError, match=says):
        grid.arms_of(experiment(**blocks))


def test_a_value_that_its_field_cannot_take_is_refused():
    config = experiment(a={"steps": ("many",)})
    with pytest.raises(UserError, match="grid.a.steps: 'many' is not a valid value"):
        grid.config_of(grid.arms_of(config)[0], config.run, {})


@pytest.mark.parametrize("seeds", [(), (0, 0), (-1,), (0.5,), 3, "01"])
def test_seeds_are_different_numbers(seeds):
    with pytest.raises(UserError, match=r"^seeds: "):
        grid.arms_of(experiment(seeds=seeds, a=AMOUNTS))


def test_parts_hold_all_arms_once_about_equal_work_and_no_arm_apart_from_its_base():
    config = experiment(
        seeds=tuple(range(5)), a={"init_from": ("arm:sampling.negatives=0",), "trainable": ("head", "fc")}, b=AMOUNTS
    )
    arms = grid.arms_of(config)
    work = {arm.name: 0.3 if arm.treatment.get("trainable") else 1.0 for arm in arms}
    for n in (1, 2, 3, 7, 40):
        parts = [grid.share(arms, work, (i, n)) for i in range(n)]
        assert sorted(labels(itertools.chain(*parts))) == sorted(labels(arms))
        for part in parts:
            assert all(arm.starts_from(arms) in (None, *part) for arm in part)
        if n <= 3:
            load = [sum(work[arm.name] for arm in part) for part in parts]
            assert max(load) - min(load) <= 1.6


def test_blocks_say_which_of_the_grid_to_run():
    config = experiment(a=AMOUNTS, b={"sampling": {"policy": ("balanced",)}})
    with config.unlocked():
        config.blocks = ("b",)
    assert {arm.treatment.label for arm in grid.arms_of(config)} == {"sampling.policy=balanced"}
    config.blocks = ("b", "c")
    with pytest.raises(UserError, match="blocks: 'c' is not one of a, b"):
        grid.arms_of(config)
