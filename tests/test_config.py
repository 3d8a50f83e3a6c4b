"""What a config may say, and what must not change when a run goes on."""

import importlib
import pathlib

import pytest
from small_run import small_config

from openset_jax import auto, build
from openset_jax import config as configs
from openset_jax.errors import UserError
from openset_jax.study.runs import grid

NAMES = sorted(p.stem for p in (pathlib.Path(__file__).parents[1] / "configs").glob("*.py") if p.stem != "__init__")


@pytest.mark.parametrize("name", NAMES)
def test_every_config_is_well_formed_and_survives_json(name):
    config = importlib.import_module(f"configs.{name}").get_config()
    config = config.get("run", config)  # of an experiment
    configs.check(config)
    again = configs.from_json(configs.to_json(config))
    assert again.to_dict() == config.to_dict()
    build.make_model(auto.with_dtype(config), 10)
    build.make_optimizer(config)


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith(("imbalance", "buda"))])
def test_an_experiment_that_is_saved_has_the_same_arms(name):
    config = importlib.import_module(f"configs.{name}").get_config()
    assert grid.arms_of(configs.from_json(configs.to_json(config))) == grid.arms_of(config)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("steps", 0), ("batch_size", 0), ("log_every", 0), ("seed", -1), ("data.validation_fraction", 0.0),
        ("data.validation_fraction", 1.0), ("data.test_fraction", float("nan")), ("data.image_size", 4),
        ("data.mean", (0.5,)), ("data.std", (1.0, 1.0, 0.0)), ("augment.pad", -1), ("model.dropout", 1.0),
        ("model.width", 0.0), ("optimizer.learning_rate", 0.0), ("optimizer.learning_rate", float("inf")),
        ("optimizer.b2", 1.0), ("optimizer.grad_clip", -1.0), ("eval.every", 0), ("checkpoint.every", 0),
        ("data.image_size", 14), ("early_stopping.metric", "loss"), ("early_stopping.patience", -1), ("data.image_size", 32),
        ("model.dtype", "float16"), ("input", "packed"),
    ],
)  # fmt: skip
def test_a_value_out_of_range_is_refused_by_field(field, value):
    with pytest.raises(UserError, match=f"^{field}: "):
        configs.check(small_config(**{field: value}))


def test_images_too_small_for_the_stem_are_refused_with_the_stem_to_use():
    with pytest.raises(UserError, match="data.image_size: 16 is below 63.*use model.stem=small"):
        configs.check(small_config(**{"model.stem": "imagenet"}))


def test_a_config_that_lacks_a_field_is_told_where_to_start():
    config = small_config()
    with config.unlocked():
        del config.optimizer.b2
    with pytest.raises(UserError, match="optimizer.b2 is missing; start from"):
        configs.check(config)


def meta(config, classes=("a", "b"), fingerprint="f"):
    return {"config": configs.to_json(config), "classes": list(classes), "fingerprint": fingerprint}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model.width", 0.5), ("model.stem", "other"), ("seed", 1), ("batch_size", 32), ("objective.name", "other"),
        ("optimizer.b1", 0.5), ("sampling.policy", "balanced"), ("augment.pad", 3), ("data.mean", (0.0, 0.0, 0.0)),
        ("data.image_size", 15), ("early_stopping.metric", "accuracy"), ("trainable", "head"), ("sampling.negatives", "3x"),
        ("model.dtype", "bfloat16"),
    ],
)  # fmt: skip
def test_another_network_or_stream_is_refused_by_field(field, value):
    with pytest.raises(UserError, match=f"^{field}: the run in "):
        configs.check_same_run(meta(small_config()), meta(small_config(**{field: value})), pathlib.Path("w"))


@pytest.mark.parametrize(("field", "value"), [("steps", 99), ("log_every", 7), ("eval.every", 9), ("checkpoint.every", 2)])
def test_how_long_and_how_often_may_change(field, value):
    configs.check_same_run(meta(small_config()), meta(small_config(**{field: value})), pathlib.Path("w"))


def test_a_run_from_before_layers_could_be_frozen_goes_on_with_all_of_them():
    before, now = meta(small_config()), small_config()
    for section, name in (("", "trainable"), ("", "init_from"), ("data", "negative_groups"), ("sampling", "first_policy")):
        del (before["config"][section] if section else before["config"])[name]
    configs.check_same_run(before, meta(now), pathlib.Path("w"))
    now.trainable = "fc"
    with pytest.raises(UserError, match="^trainable: the run in w has 'all', this start 'fc'"):
        configs.check_same_run(before, meta(now), pathlib.Path("w"))


def test_other_classes_and_other_images_are_refused():
    config = small_config()
    with pytest.raises(UserError, match="has the classes a, b; this start has a, c"):
        configs.check_same_run(meta(config), meta(config, classes=("a", "c")), pathlib.Path("w"))
    with pytest.raises(UserError, match="images, or their roles or splits"):
        configs.check_same_run(meta(config), meta(config, fingerprint="g"), pathlib.Path("w"))


def test_a_role_may_have_several_sources():
    from configs import default

    config = small_config(input="stream")
    config.data.negatives = (default.images("digits", ("5",)), default.images("digits", ("6",), group="six"))
    config = configs.from_json(configs.to_json(config))
    pool = build.open_pool(config)
    assert dict(zip(pool.groups, pool.roles, strict=True)) == {
        "0": "known", "1": "known", "2": "known", "3": "known", "4": "known", "5": "negatives", "six": "negatives",
        "7": "held_out_negatives", "8": "unknown", "9": "unknown",
    }  # fmt: skip
