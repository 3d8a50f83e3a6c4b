"""Before the first arm: arms that cannot be run, equal another arm, or are not comparable are refused by field."""

import pathlib

import pytest
from small_run import open_small_pool, small_config
from study.runs.test_grid import experiment

from openset_jax.data.pools import TEST, VALIDATION
from openset_jax.errors import UserError
from openset_jax.study.runs import check, grid
from openset_jax.training.run_cache import RunCache


@pytest.fixture(scope="module")
def cache():
    return RunCache()


def checked(config, cache):
    arms, run = grid.arms_of(config), check.with_shared_steps(config.run, cache)
    phases = {arm: check.resolve_arm(arm, grid.config_of(arm, run, {}), pathlib.Path("/w"), cache) for arm in arms}
    return arms, check.check_grid(arms, phases, cache)


def test_sizes_are_of_what_an_arm_draws_from(cache):
    arms, sizes = checked(experiment(seeds=(0,), a={"sampling": {"negatives": (0, 31, "1x", None)}}), cache)
    size = {arm.treatment.label: sizes[arm.name] for arm in arms}
    assert size["sampling.negatives=0"][:5] == (622, 0, 0, 0.0, 192)
    pool = open_small_pool()
    images = 4 * len(pool.rows(VALIDATION)) + len(pool.rows(TEST))
    assert size["sampling.negatives=0"].classified == images, "three evaluations, and the end"
    assert size["sampling.negatives=31"][:3] == (622, 31, 2)
    assert size["sampling.negatives=1x"].negatives == round(622 / 5)
    assert size["config.run unchanged"].none == pytest.approx(248 / (622 + 248))


@pytest.mark.parametrize(("axes", "says"), [
    ({"sampling": {"negatives": ("3x",)}}, "=3x, seed 0': sampling.negatives: 373 is not between 1 and 248"),
    ({"sampling": {"negatives": ("3y",)}}, "sampling.negatives: '3y' is neither a number of images"),
    ({"sampling": {"policy": ("ballanced",)}}, "sampling.policy: 'ballanced' is not one of"),
    ({"data": {"negative_groups": (3,)}}, "data.negative_groups: 3 is not between 1 and 2, the number of groups"),
    ({"model": {"width": (-1.0,)}}, "model.width: -1.0 is not above 0 and at most 64"),
    ({"trainable": ("tail",)}, "trainable: 'tail' is not one of head, fc, conv5"),
    ({"objective": {"name": ("sofmax",)}}, "objective.name: 'sofmax' is not one of"),
    ({"sampling": {"policy": ("two_phase",)}}, "trainable: .*sampling.policy=two_phase"),
    ({"early_stopping": {"patience": (3,)}}, "early_stopping.patience: all arms must see the same number of examples"),
    ({"decision": {"rule": ("most_cost",)}}, "decision.rule: 'most_cost' is not one of"),
])  # fmt: skip
def test_an_arm_that_cannot_be_is_refused_with_its_block_and_field(axes, says, cache):
    with pytest.raises(UserError, match=f"^grid.a, the arm .*{says}"):
        checked(experiment(a=axes), cache)


@pytest.mark.parametrize(("run", "blocks"), [
    ({}, {"sampling": {"policy": ("balanced", "oversample")}}),  # one stream with two names
    ({}, {"sampling": {"negative_fraction": (0.2, 0.3)}}),  # of no concern to the policy
    ({}, {"objective": {"magnitude": (10.0, 50.0)}}),  # objectosphere's
    ({}, {"log_every": (2, 3)}),
    ({}, {"trainable": ("conv1", "all")}),  # the lowest group and everything above it
    ({"objective.name": "softmax"}, {"sampling": {"negatives": (10, 20)}}),  # which uses none
])  # fmt: skip
def test_an_axis_that_changes_nothing_is_refused(run, blocks, cache):
    with pytest.raises(UserError, match="grid.a: .*would be one and the same run"):
        checked(experiment(a=blocks, run=small_config(**run)), cache)


def test_equal_arms_of_two_blocks_are_refused_with_both_blocks(cache):
    blocks = {"a": {"log_every": (3,)}, "b": {"log_every": (4,)}}
    with pytest.raises(UserError, match="^grid.a and grid.b: .*leave its block out of `blocks`"):
        checked(experiment(**blocks), cache)


def test_arms_that_see_other_numbers_of_examples_are_refused(cache):
    says = r"grid.a: the arm 'steps=24, seed 0' would see 384 examples, and .*all arms must see the same number"
    with pytest.raises(UserError, match=says):
        checked(experiment(a={"steps": (12, 24)}), cache)
    checked(experiment(a={"steps": (6,), "batch_size": (32,)}, b={"sampling": {"policy": ("balanced",)}}), cache)


def test_all_arms_have_the_steps_of_the_epochs_of_all_images_unless_they_set_epochs(cache):
    run = small_config(steps=999, epochs=0.22)  # 11.96 steps of 870 images
    run.sampling.policy = "undersample"
    blocks = {"a": {"sampling": {"policy": ("balanced", "natural"), "negatives": (0, None)}}, "b": {"batch_size": (8,)}}
    with pytest.raises(UserError, match="the arm 'batch_size=8, .* would see 96 examples, and .* sees 192;"):
        checked(experiment(seeds=(0,), run=run, **blocks), cache)
    _, sizes = checked(experiment(seeds=(0,), run=run, a=blocks["a"]), cache)
    assert {size.examples for size in sizes.values()} == {192}
    own = {"epochs": (0.1,), "sampling": {"negatives": (62,)}, "batch_size": (12, 24)}  # 68.4 images: 72 in 6 and 3 steps
    arms, sizes = checked(experiment(seeds=(0,), run=small_config(epochs=0.22), c=own), cache)
    assert [sizes[arm.name].examples for arm in arms] == [72, 72]
    arms, sizes = checked(experiment(seeds=(0,), run=small_config(epochs=0.22), d={"steps": (8,)}), cache)
    assert sizes[arms[0].name].examples == 128


def test_two_phases_see_as_many_examples_as_one(cache):
    blocks = {
        "a": {"sampling": {"policy": ("two_phase",)}, "trainable": ("head", "fc")},
        "b": {"sampling": {"policy": ("balanced",)}},
    }
    arms, sizes = checked(experiment(seeds=(0,), **blocks), cache)
    assert {size.examples for size in sizes.values()} == {192}
    assert all(sizes[a.name].none == pytest.approx(248 / 870) for a in arms if a.block == "a"), "of the second phase"


def test_an_arm_of_one_known_class_without_negatives_is_refused_with_what_to_leave_out(cache):
    run = small_config(**{"data.known.classes": ("1",)})
    amounts, layers = (
        {"sampling": {"negatives": (0, 31)}},
        {"init_from": ("arm:sampling.negatives=0",), "trainable": ("head",)},
    )
    says = "grid.a.sampling.negatives: 0 trains objective.name=softmax, .* class, '1'; leave 0 out of these values"
    with pytest.raises(UserError, match=f"^{says}$"):
        checked(experiment(run=run, a=amounts), cache)
    config = experiment(run=run, a=amounts, layers=layers)
    arms = grid.arms_of(config)
    folders = {arm.treatment.label: "/w" for arm in arms}
    phases = {
        arm: check.resolve_arm(arm, grid.config_of(arm, config.run, folders), pathlib.Path("/w"), cache) for arm in arms
    }
    with pytest.raises(UserError, match=f"^{says}, and leave grid.layers, whose arms start from it, out of `blocks`$"):
        check.check_grid(arms, phases, cache)
    with pytest.raises(UserError, match="^grid.b, the arm 'objective.name=entropic, seed 0': objective.name: entropic is"):
        checked(experiment(run=run, b={"objective": {"name": ("entropic",)}}), cache)
    assert checked(experiment(run=run, b={"objective": {"name": ("one_vs_rest",)}}), cache)[1]


def test_weights_that_do_not_fit_are_refused_with_their_arm_unless_it_has_started(tmp_path, monkeypatch, cache):
    config = experiment(seeds=(0, 1), a={"init_from": ("pretrained",), "trainable": ("head", "all")})
    arms = grid.arms_of(config)
    phases = {
        arm: check.resolve_arm(arm, grid.config_of(arm, config.run, {}), tmp_path / arm.name, RunCache()) for arm in arms
    }
    with pytest.raises(
        UserError, match="^grid.a, the arm 'init_from=pretrained.*, seed 0': init_from: alexnet has no published"
    ):
        check.check_starts(arms, phases, cache)
    read = []
    monkeypatch.setattr("openset_jax.training.start_weights.load", lambda spec, like: read.append(spec.init_from))
    check.check_starts(arms, phases, cache)
    assert read == ["pretrained"], "once for all arms with the same network"
    for arm in arms:
        (tmp_path / arm.name / "checkpoints/3").mkdir(parents=True)
        (tmp_path / arm.name / "checkpoints/3/_CHECKPOINT_METADATA").touch()
    check.check_starts(arms, phases, cache)
    assert len(read) == 1
