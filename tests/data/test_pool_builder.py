"""From a config's `data` to the pool: several sources of a role, packed images, groups of negatives chosen by the seed."""

import pytest
from small_run import RESIDENT, open_small_pool, small_config

from openset_jax import config as configs
from openset_jax import config_json
from openset_jax.data import pool_builder, pools
from openset_jax.errors import UserError
from openset_jax.prepare import prepare


def open_pool(config, tmp_path):
    (spec,) = configs.resolve(config, tmp_path)
    return pool_builder.open_pool(spec.data, stored_size=spec.images.stored_size, seed=spec.seed)


def test_a_role_may_have_several_sources(tmp_path):
    from configs import default

    config = small_config(input="stream")
    config.data.negatives = (default.images("digits", ("5",)), default.images("digits", ("6",), group="six"))
    config = config_json.from_json(config_json.to_json(config))
    pool = open_pool(config, tmp_path)
    assert dict(zip(pool.groups, pool.roles, strict=True)) == {
        "0": "known", "1": "known", "2": "known", "3": "known", "4": "known", "5": "negatives", "six": "negatives",
        "7": "held_out_negatives", "8": "unknown", "9": "unknown",
    }  # fmt: skip


def test_packed_images_are_of_all_groups_of_negatives_so_that_every_seed_has_its_own(tmp_path):
    groups = lambda pool: pool.kinds({"": "negatives"})[""]
    one = {"data.negatives.classes": ("5", "6", "7"), "data.held_out_negatives": None, "data.negative_groups": 1}
    prepare(small_config(**one), tmp_path)
    for seed in range(5):
        unpacked = open_small_pool(**one, seed=seed)
        packed = open_small_pool(**one, **{"data.packed": str(tmp_path)}, seed=seed)
        assert packed.fingerprint() == unpacked.fingerprint()
        assert groups(packed) == groups(unpacked)
        assert len(groups(packed)) == 1


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("known.classes", ("0", "1", "2")),
        ("known.limit", 20),
        ("negatives.group", "fives and sixes"),
        ("unknown.classes", ("9",)),
        ("validation_fraction", 0.2),
        ("test_fraction", 0.1),
    ],
)
def test_a_config_that_asks_for_other_images_than_were_packed_is_refused(field, value):
    with pytest.raises(UserError, match=rf"data\.{field}: this config has .*, but the images in .* were prepared with "):
        open_small_pool(**RESIDENT | {f"data.{field}": value})


def test_a_config_without_images_gets_the_packed_ones():
    without = dict.fromkeys((f"data.{role}" for role in pools.ROLES), None)
    assert open_small_pool(**RESIDENT, **without).fingerprint() == open_small_pool(**RESIDENT).fingerprint()
