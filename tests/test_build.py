"""From a config to what it describes: what fields may be, and what is made of them."""

import numpy as np
import pytest
from absl import flags
from ml_collections import config_flags
from small_run import ROOT, small_config

from openset_jax import build
from openset_jax.errors import UserError
from openset_jax.prepare import prepare
from openset_jax.training import two_phase

TWO = {"sampling.policy": "two_phase", "trainable": "head", "steps": 40}


@pytest.fixture(scope="module")
def pool():
    return build.open_pool(small_config())


@pytest.mark.parametrize(("negatives", "count"), [(7, 7), ("0.5x", 0.5), ("1x", 1.0), (None, None)])
def test_negatives_are_a_number_or_in_units_of_a_known_class(pool, negatives, count):
    *known, chosen = build.training_members(small_config(**{"sampling.negatives": negatives}), pool)
    every = pool.training_members()[-1]
    if isinstance(count, float):
        count = round(count * np.mean([len(m) for m in known]))
    assert len(chosen) == (count or len(every))
    assert set(chosen) <= set(every)


@pytest.mark.parametrize(
    "negatives",
    [0, -3, True, 2.5, "x", "0x", "-1x", "nan x", "nanx", "infx", "1e999x", "many", "3y", "", "700", (3,), "0.0001x", "99x"],
)
def test_what_is_no_number_of_negatives_is_refused_by_field(pool, negatives):
    with pytest.raises(UserError, match=r"^sampling\.negatives: "):
        build.training_members(small_config(**{"sampling.negatives": negatives}), pool)


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")  # ml_collections reads config files so
@pytest.mark.parametrize(("given", "value"), [("700", 700), ("3x", "3x"), ("0.5x", "0.5x"), ("None", None), ("-1", -1)])
def test_negatives_arrive_from_the_command_line_as_what_they_are(monkeypatch, given, value):
    values = flags.FlagValues()
    config_flags.DEFINE_config_file("config", None, "", flag_values=values)
    arguments = ["it", f"--config={ROOT}/configs/digits.py", f"--config.sampling.negatives={given}"]
    monkeypatch.setattr("sys.argv", arguments)
    values(arguments)
    found = values["config"].value.sampling.negatives
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(("share", "per_call", "steps"), [(0.5, 1, 20), (0.26, 4, 12), (0.001, 4, 4), (0.999, 4, 36)])
def test_two_phases_have_the_steps_of_one_run_and_differ_as_documented(share, per_call, steps):
    config = small_config(**TWO, **{"sampling.first_share": share, "steps_per_call": per_call, "init_from": "elsewhere"})
    before = config.to_dict()
    first, second = two_phase.two_phases(config, "there")
    assert config.to_dict() == before
    assert (first.steps, second.steps) == (steps, 40 - steps)
    assert (first.trainable, first.sampling.policy, first.init_from) == ("all", "oversample", "elsewhere")
    assert (second.trainable, second.sampling.policy, second.init_from) == ("head", "natural", "there")
    assert second.optimizer.learning_rate == pytest.approx(config.optimizer.learning_rate / 10)
    assert first.optimizer.learning_rate == config.optimizer.learning_rate


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"trainable": "all"}, "trainable: .* head or fc"),
        ({"trainable": "heads"}, "trainable: 'heads' is not one of"),
        ({"steps_per_call": 40}, "steps: 40 are one call"),
        ({"sampling.first_policy": "smote"}, "sampling.first_policy: 'smote' is not one of natural"),
        ({"sampling.first_policy": "two_phase"}, "sampling.first_policy: 'two_phase' is not one of natural"),
    ],
)
def test_two_phases_that_cannot_be_are_refused_by_field(changes, says):
    with pytest.raises(UserError, match=f"^{says}"):
        two_phase.two_phases(small_config(**TWO | changes), "there")


def test_packed_images_are_of_all_groups_of_negatives_so_that_every_seed_has_its_own(tmp_path):
    groups = lambda config: build.open_pool(config).kinds({"": "negatives"})[""]
    one = {"data.negatives.classes": ("5", "6", "7"), "data.held_out_negatives": None, "data.negative_groups": 1}
    prepare(small_config(**one), tmp_path)
    for seed in range(5):
        config = small_config(**one, seed=seed)
        unpacked = build.open_pool(config)
        config.data.packed = str(tmp_path)
        assert build.open_pool(config).fingerprint() == unpacked.fingerprint()
        assert groups(config) == unpacked.kinds({"": "negatives"})[""]
        assert len(groups(config)) == 1
