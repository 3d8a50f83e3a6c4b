"""Configs: every field is checked when a config becomes a `RunSpec`; what must stay the same when a run continues."""

import dataclasses
import importlib
import pathlib

import pytest
from absl import flags
from ml_collections import config_dict, config_flags
from small_run import ROOT, small_config, small_spec, train

from openset_jax import config as configs
from openset_jax import config_json
from openset_jax.data import sources
from openset_jax.data.data_spec import check_prepared
from openset_jax.data.pool_builder import Selection, build_pool
from openset_jax.errors import UserError
from openset_jax.study.runs import grid
from openset_jax.training import run_record, state

NAMES = sorted(p.stem for p in (pathlib.Path(__file__).parents[1] / "configs").glob("*.py") if p.stem != "__init__")
W = pathlib.Path("/w")
TWO = {"sampling.policy": "two_phase", "trainable": "head", "steps": 40}


@pytest.mark.parametrize("name", NAMES)
def test_every_config_is_well_formed_and_survives_json(name):
    from configs import default

    config = importlib.import_module(f"configs.{name}").get_config()
    config = config.get("run", config)  # of an experiment
    if name == "default":  # has no images
        config.data.known = config.data.negatives = default.images("digits")
    spec = configs.resolve(config, W)[-1]
    again = config_json.from_json(config_json.to_json(config))
    assert again.to_dict() == config.to_dict()
    assert configs.resolve(again, W)[-1] == spec
    assert spec.program.forward.network.make(10).num_outputs == 10
    state.make_optimizer(spec.program.optimizer, state.make_schedule(spec.program.optimizer, spec.program.steps))


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith(("imbalance", "buda"))])
def test_an_experiment_that_is_saved_has_the_same_arms(name):
    config = importlib.import_module(f"configs.{name}").get_config()
    assert grid.arms_of(config_json.from_json(config_json.to_json(config))) == grid.arms_of(config)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("steps", 0), ("batch_size", 0), ("log_every", 0), ("seed", -1), ("data.validation_fraction", 0.0),
        ("data.validation_fraction", 1.0), ("data.test_fraction", float("nan")), ("data.image_size", 4),
        ("data.mean", (0.5,)), ("data.mean", (0.5, 0.5, float("nan"))), ("data.mean", ("a", "b", "c")),
        ("data.std", (1.0, 1.0, 0.0)), ("data.std", (1.0, float("nan"), 1.0)), ("data.std", (1.0, 1.0, float("inf"))),
        ("augment.pad", -1),
        ("model.dropout", 1.0), ("model.width", 0.0), ("model.width", 1e-3), ("optimizer.learning_rate", 0.0),
        ("optimizer.learning_rate", float("inf")), ("optimizer.b2", 1.0), ("optimizer.grad_clip", -1.0), ("eval.every", 0),
        ("eval.resamples", 9), ("checkpoint.every", 0), ("data.image_size", 14), ("early_stopping.metric", "loss"),
        ("early_stopping.patience", -1), ("data.image_size", 32), ("model.dtype", "float16"), ("input", "packed"),
        ("data.max_pixels", 0), ("data.negative_groups", 0), ("data.unknown.limit", -1), ("epochs", 0.0), ("epochs", -1.0),
        ("epochs", float("nan")), ("epochs", 1e7), ("log_every", 1.5), ("log_every", True), ("log_every", "10"),
        ("eval.every", "0%"), ("eval.every", "101%"), ("checkpoint.every", "ten%"), ("optimizer.warmup_steps", "nan%"),
        ("optimizer.warmup_steps", -1),
    ],
)  # fmt: skip
def test_a_value_out_of_range_is_refused_by_field(field, value):
    with pytest.raises(UserError, match=f"^{field}: "):
        configs.resolve(small_config(**{field: value}), W)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model.name", "resnet50"), ("model.stem", "large"), ("model.norm", "layer"), ("optimizer.schedule", "step"),
        ("optimizer.all_reduce_dtype", "float16"), ("objective.name", "hinge"), ("objective.class_weights", "focal"),
        ("sampling.policy", "smote"), ("sampling.first_policy", "smote"), ("sampling.first_policy", "two_phase"),
        ("decision.rule", "best"), ("decision.calibration", "platt"), ("decision.prior", "none"), ("decision.prior", "[0.5"),
        ("decision.prior", "none=half"), ("decision.prior", "none=0.1,none=0.2"), ("decision.costs", "cheap"),
        ("decision.costs", "accept_none=dear"), ("trainable", "tail"), ("early_stopping.metric", "loss"),
        ("input", "packed"), ("model.dtype", "float16"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("policy", ["natural", "two_phase"])
def test_a_choice_that_does_not_exist_is_refused_by_field_before_any_image_is_opened(
    tmp_path, monkeypatch, field, value, policy
):
    monkeypatch.setattr(sources, "open_source", lambda *_, **__: pytest.fail("images were opened"))
    changes = {"sampling.policy": policy, "trainable": "head"} | {field: value}
    with pytest.raises(UserError, match=f"^{field}: "):
        train(small_config(**changes), tmp_path)
    assert not list(tmp_path.iterdir())


WITHOUT_NEGATIVES = {"data.negatives": None, "data.held_out_negatives": None}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (WITHOUT_NEGATIVES | {"early_stopping.metric": "auroc"}, "auroc needs negatives in the validation split"),
        ({"early_stopping.metric": "balanced_accuracy"}, "with objective.name=softmax the network never says 'none'"),
    ],
)
def test_a_selecting_metric_that_these_images_or_this_objective_cannot_give_is_refused(changes, says):
    with pytest.raises(UserError, match=f"^early_stopping.metric: {says}"):
        small_spec(**{"objective.name": "softmax"} | changes)


def test_every_metric_that_can_be_measured_is_accepted():
    accuracy = {"early_stopping.metric": "accuracy"}
    for name in ("background", "one_vs_rest"):
        assert small_spec(**{"objective.name": name, "early_stopping.metric": "balanced_accuracy"})
    assert small_spec(**{"objective.name": "softmax", "early_stopping.metric": "auroc"})
    assert small_spec(**{"objective.name": "softmax"} | WITHOUT_NEGATIVES | accuracy).stopping.metric == "accuracy"


def test_equal_configs_give_equal_specs_that_can_be_keys():
    for changes in ({}, {"objective.name": "energy_margin", "objective.margins": [-23.0, -5.0]}, {"data.mean": [0.5] * 3}):
        one, other = small_spec(**changes), small_spec(**changes, log_every=3)
        assert one != other
        assert {one.program: "compiled"}[other.program] == "compiled"


def test_images_too_small_for_the_stem_are_refused_with_the_stem_to_use():
    with pytest.raises(UserError, match="data.image_size: 16 is below 63.*use model.stem=small"):
        configs.resolve(small_config(**{"model.stem": "imagenet"}), W)


def test_a_config_that_lacks_a_field_is_told_where_to_start():
    config = small_config()
    with config.unlocked():
        del config.optimizer.b2
    with pytest.raises(UserError, match="optimizer.b2 is missing; make the config with"):
        configs.resolve(config, W)


def every_field():
    """The dotted names of all fields; each role of `data` is one."""
    names = (name.split(".") for name, _ in config_json.flatten(small_config().to_dict()))
    return list(dict.fromkeys(".".join(parts[:2]) for parts in names))


@pytest.mark.parametrize("name", every_field())
def test_every_field_that_is_missing_is_named(name):
    config = small_config()
    section, _, field = name.rpartition(".")
    with config.unlocked():
        del (config[section] if section else config)[field]
    with pytest.raises(UserError, match=f"^config: the field {name} is missing"):
        configs.resolve(config, W)


@pytest.mark.parametrize(("field", "value"), [("source", 3), ("group", None), ("test", 1), ("limit", None), ("limit", 0.5)])
def test_a_field_of_images_with_another_type_is_refused_by_role(field, value):
    from configs import default

    config = small_config(input="stream")
    config.data.unknown = default.images(**{"source": "digits"} | {field: value})
    with pytest.raises(UserError, match=rf"^data\.unknown\.{field}: "):
        configs.resolve(config, W)


@pytest.mark.parametrize("images", [3, "digits", config_dict.create(source="digits"), ("digits",)])
def test_images_of_another_form_are_refused_by_role(images):
    config = small_config(input="stream")
    config.data.unknown = images
    with pytest.raises(UserError, match=r"^data\.unknown: must be made with images\(\.\.\.\)"):
        configs.resolve(config, W)


def record(config, classes=("a", "b"), fingerprint="f"):
    return {"config": config_json.to_json(config), "classes": list(classes), "fingerprint": fingerprint, "counts": {}}


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
        run_record.check_same_run(record(small_config()), record(small_config(**{field: value})), pathlib.Path("w"))


@pytest.mark.parametrize(
    ("field", "value"), [("steps", 99), ("epochs", 3.0), ("log_every", 7), ("eval.every", "9%"), ("checkpoint.every", 2)]
)
def test_how_long_and_how_often_may_change(field, value):
    run_record.check_same_run(record(small_config()), record(small_config(**{field: value})), pathlib.Path("w"))


@pytest.mark.parametrize("name", ["trainable", "sampling.negatives", "objective.margins"])
def test_a_saved_config_that_lacks_a_field_is_refused_by_that_field(name):
    saved, now = record(small_config()), record(small_config())
    section, _, field = name.rpartition(".")
    del (saved["config"][section] if section else saved["config"])[field]
    for before, after in ((saved, now), (now, saved)):
        with pytest.raises(UserError, match=f"^{name}: the run in w has "):
            run_record.check_same_run(before, after, pathlib.Path("w"))
    with pytest.raises(UserError, match=f"^config: the field {name} is missing"):
        configs.resolve(config_json.from_json(saved["config"]), W)


def test_other_classes_and_other_images_are_refused():
    config = small_config()
    with pytest.raises(UserError, match="has the classes a, b; this config has a, c"):
        run_record.check_same_run(record(config), record(config, classes=("a", "c")), pathlib.Path("w"))
    with pytest.raises(UserError, match="the images, their roles or their splits differ"):
        run_record.check_same_run(record(config), record(config, fingerprint="g"), pathlib.Path("w"))


def test_classes_that_look_the_same_are_shown_in_ascii(make_source):
    """Copying folders from a Mac changes the normalisation of their names."""
    config, mac, other = small_config(), "be\u0301ret", "b\xe9ret"
    note = r"\('be\\u0301ret' and 'b\\xe9ret' look the same, but differ in Unicode normalisation\)"
    reverse = r"\('b\\xe9ret' and 'be\\u0301ret' look the same, but differ in Unicode normalisation\)"
    with pytest.raises(UserError, match=f"the classes hat, {mac}; this config has hat, {other} {note}; restore"):
        run_record.check_same_run(record(config, ("hat", mac)), record(config, ("hat", other)), pathlib.Path("w"))
    with pytest.raises(UserError, match=f"no class '{other}' in fake; it has hat, {mac} {reverse}"):
        build_pool({"known": [Selection(make_source({"hat": 30, mac: 30}), ("hat", other))]})
    spec = configs.resolve(config, W)[-1].data
    with_classes = lambda *classes: dataclasses.replace(spec, known=(dataclasses.replace(spec.known[0], classes=classes),))
    with pytest.raises(UserError, match=f"{note}. Restore the field, or run openset_jax.prepare"):
        check_prepared(with_classes("hat", other), with_classes("hat", mac).chosen_images())


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")  # ml_collections reads config files so
@pytest.mark.parametrize(
    ("field", "given", "value"),
    [("sampling.negatives", g, v) for g, v in (("700", 700), ("3x", "3x"), ("0.5x", "0.5x"), ("None", None), ("-1", -1))]
    + [("eval.every", "700", 700), ("eval.every", "10%", "10%")],
)
def test_fields_of_several_types_arrive_from_the_command_line_with_their_type(monkeypatch, field, given, value):
    values = flags.FlagValues()
    config_flags.DEFINE_config_file("config", None, "", flag_values=values)
    arguments = ["it", f"--config={ROOT}/configs/digits.py", f"--config.{field}={given}"]
    monkeypatch.setattr("sys.argv", arguments)
    values(arguments)
    section, name = field.split(".")
    found = values["config"].value[section][name]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(("share", "per_call", "steps"), [(0.5, 1, 20), (0.26, 4, 12), (0.001, 4, 4), (0.999, 4, 36)])
def test_two_phases_have_the_steps_of_one_run_and_differ_as_documented(share, per_call, steps):
    every = {"log_every": 4, "eval.every": 4, "checkpoint.every": 4, "steps_per_call": per_call}
    config = small_config(**TWO | every, **{"sampling.first_share": share, "init_from": "elsewhere"})
    before = config.to_dict()
    first, second = configs.resolve(config, W)
    assert config.to_dict() == before
    assert (first.program.steps, second.program.steps) == (steps, 40 - steps)
    assert (first.program.trainable, first.sampling.policy, first.init_from) == ("all", "oversample", "elsewhere")
    assert (second.program.trainable, second.sampling.policy, second.init_from) == ("head", "natural", "/w/first_phase")
    assert (first.workdir, second.workdir) == (W / "first_phase", W)
    rate = config.optimizer.learning_rate
    assert second.learning_rate == pytest.approx(rate / 10)
    assert first.learning_rate == rate


def test_shares_of_the_steps_are_the_nearest_number_of_whole_calls_of_each_phase():
    shares = {"log_every": "1%", "eval.every": "50%", "checkpoint.every": "100%", "optimizer.warmup_steps": "12.5%"}
    counts = lambda spec: (
        spec.log_every, spec.evaluation.every, spec.checkpoint_every, spec.program.optimizer.warmup_steps
    )  # fmt: skip
    assert counts(small_spec(steps=1_000, **shares)) == (10, 500, 1_000, 125)
    assert counts(small_spec(steps=1_000, steps_per_call=100, **shares)) == (100, 500, 1_000, 100)
    first, second = configs.resolve(small_config(**TWO | {"sampling.first_share": 0.2} | shares), W)
    assert (counts(first), counts(second)) == ((1, 4, 8, 1), (1, 16, 32, 4))


def test_a_saved_config_keeps_epochs_and_shares_as_given_and_its_steps_count():
    spec = small_spec(steps=20, epochs=3.0, **{"eval.every": "25%"})
    assert (spec.program.steps, spec.evaluation.every) == (20, 5)
    assert (spec.record["steps"], spec.record["epochs"], spec.record["eval"]["every"]) == (20, 3.0, "25%")
    assert configs.resolve(config_json.from_json(spec.record), W)[-1].program == spec.program


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"trainable": "all"}, "trainable: use head or another group"),
        ({"trainable": "heads"}, "trainable: 'heads' is not one of"),
        ({"steps_per_call": 40}, "steps: 40 is less than two calls"),
        ({"sampling.first_policy": "smote"}, "sampling.first_policy: 'smote' is not one of natural"),
        ({"sampling.first_policy": "two_phase"}, "sampling.first_policy: 'two_phase' is not one of natural"),
    ],
)
def test_two_phases_that_cannot_be_are_refused_by_field(changes, says):
    with pytest.raises(UserError, match=f"^{says}"):
        configs.resolve(small_config(**TWO | changes), W)


def test_an_experiment_is_not_the_config_of_one_run(tmp_path):
    experiment = importlib.import_module("configs.imbalance").get_config("digits")
    with pytest.raises(UserError, match="this is an experiment; use python -m openset_jax.experiment"):
        configs.resolve(experiment, tmp_path)


def test_numbers_of_a_tuple_may_be_given_as_text(tmp_path):
    (spec,) = configs.resolve(small_config(**{"data.mean": ("0.50", 0.5, "5e-1")}), tmp_path)
    assert spec.images.mean == (0.5, 0.5, 0.5)
    with pytest.raises(UserError, match="data.mean: .* is not None, or three finite numbers"):
        configs.resolve(small_config(**{"data.mean": ("0.50", 0.5, "red")}), tmp_path)


@pytest.mark.parametrize(("field", "value"), [("model.width", 1e9), ("steps", 10**20), ("augment.pad", 28)])
def test_values_that_no_run_can_have_are_refused(tmp_path, field, value):
    with pytest.raises(UserError, match=f"^{field}: "):
        configs.resolve(small_config(**{field: value}), tmp_path)


def test_changed_images_are_named_by_role_class_and_split():
    before, after = ({"train": n, "validation": 2, "test": 3} for n in (30, 29))
    saved, now = ({"classes": ["a"], "fingerprint": str(n), "counts": {"known": {"a": n}}} for n in (before, after))
    with pytest.raises(UserError, match=r"\(known: 'a' had 30 train images, and has 29\); restore them"):
        run_record.check_same_data(saved, now, ROOT)
    with pytest.raises(UserError, match=r"\(their numbers are equal: other files\)"):
        run_record.check_same_data(saved, saved | {"fingerprint": ""}, ROOT)
