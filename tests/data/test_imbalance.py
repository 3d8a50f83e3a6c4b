"""Artificial class imbalance: exact sizes, nested subsets, classes selected by the seed, training images alone."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_run import small_config

from openset_jax import config as configs
from openset_jax.data import imbalance, pools, training_set
from openset_jax.data.imbalance import Imbalance
from openset_jax.data.pool_builder import Selection, build_pool
from openset_jax.data.training_set import SamplingSpec
from openset_jax.errors import UserError
from openset_jax.training import run_record

NAMES = tuple("abcdefghij")


@pytest.fixture(scope="module")
def pool(make_source):
    """Ten known classes of different sizes and a negative one, all three splits."""
    every = {name: 300 + 10 * i for i, name in enumerate(NAMES)} | {"n": 900}
    source = make_source(every, splits=lambda _, i: (pools.TRAIN, pools.TRAIN, pools.VALIDATION, pools.TEST)[i % 4])
    selection = lambda *names: [Selection(source, names)]
    return build_pool({"known": selection(*NAMES), "negatives": selection("n")})


def training_rows(pool, text, *, seed=0, negatives=None, uses_negatives=True):
    sampling = SamplingSpec("natural", training_set.parse_negatives(negatives), imbalance.parse(text), 0.5)
    return training_set.training_rows(pool, sampling, seed=seed, uses_negatives=uses_negatives)


def lengths(found):
    return [len(rows) for rows in found]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("step:mu=0.2,rho=10", [15] * 2 + [150] * 8),
        ("step:mu=0.5,rho=150", [1] * 5 + [150] * 5),
        ("step:mu=0.8,rho=2", [75] * 8 + [150] * 2),
        ("step:mu=0.5,rho=1", [150] * 10),
        ("linear:rho=10", [15, 30, 45, 60, 75, 90, 105, 120, 135, 150]),
        ("linear:rho=1", [150] * 10),
        ("step: rho=10, mu=.2", [15] * 2 + [150] * 8),
    ],
)
def test_sizes_are_exactly_those_asked_for(pool, text, expected):
    assert sorted(lengths(training_rows(pool, text, uses_negatives=False))) == expected


@given(st.integers(2, 40), st.integers(1, 10_000), st.floats(1, 100), st.floats(0.01, 0.99))
def test_sizes_rise_from_largest_over_rho_to_largest(k, largest, rho, mu):
    for asked in (Imbalance("step", rho, mu), Imbalance("linear", rho)):
        try:
            found = imbalance.sizes(asked, largest, k)
        except UserError as error:
            assert round(largest / rho) < 1 or round(mu * k) in (0, k), error
            continue
        assert found == sorted(found) and len(found) == k
        assert (found[0], found[-1]) == (round(largest / rho), largest)
        if asked.form == "step":
            assert found.count(largest) >= k - round(mu * k) and set(found) <= {found[0], largest}
        else:
            assert np.diff(found).max() - np.diff(found).min() <= 1


@given(st.integers(0, 2**31 - 1), st.sampled_from((0.2, 0.5, 0.8)), st.floats(1, 100), st.floats(1, 100))
def test_smaller_sets_are_subsets_of_larger_ones(pool, seed, mu, rho, other):
    low, high = sorted((rho, other))
    for text in ("step:mu={mu},rho={rho}", "linear:rho={rho}"):
        few, many = (training_rows(pool, text.format(mu=mu, rho=r), seed=seed, uses_negatives=False) for r in (high, low))
        for one, all_ in zip(few, many, strict=True):
            assert set(one) <= set(all_)
            assert (np.diff(one) > 0).all(), "in the pool's order"


def test_a_larger_share_of_minority_classes_adds_to_them(pool):
    small = [{i for i, n in enumerate(lengths(training_rows(pool, f"step:mu={mu},rho=10", uses_negatives=False))) if n == 15}
             for mu in (0.2, 0.5, 0.8)]  # fmt: skip
    assert small[0] < small[1] < small[2]


def test_the_seed_chooses_the_classes_and_not_the_images_of_a_class(pool):
    of = [training_rows(pool, "step:mu=0.5,rho=10", seed=seed, uses_negatives=False) for seed in range(40)]
    small = np.array([[len(rows) == 15 for rows in found] for found in of])
    assert len({tuple(row) for row in small}) > 20
    assert (small.sum(1) == 5).all() and (np.abs(small.mean(0) - 0.5) < 0.35).all(), "each class in turn"
    for k in range(10):
        assert len({tuple(found[k]) for found in of}) <= 2, "one small and one large set of each class"
    again = training_rows(pool, "step:mu=0.5,rho=10", seed=7, uses_negatives=False)
    assert all(np.array_equal(one, other) for one, other in zip(of[7], again, strict=True))


def test_only_training_images_of_known_classes_are_cut(pool):
    whole, cut = (training_rows(pool, text) for text in ("", "step:mu=0.5,rho=10"))
    assert np.array_equal(whole[-1], cut[-1]), "negatives are sampling.negatives' affair"
    assert all(set(c) <= set(w) for c, w in zip(cut, whole, strict=True))
    assert (pool.split[np.concatenate(cut)] == pools.TRAIN).all()
    assert pool.counts()["known"]["a"] == {"train": 150, "validation": 75, "test": 75}, "the pool is left alone"


def test_negatives_are_counted_in_units_of_a_known_class_as_it_is_left(pool):
    assert lengths(training_rows(pool, "step:mu=0.5,rho=10", negatives="2x"))[-1] == round(2 * 82.5)
    assert lengths(training_rows(pool, "", negatives="2x"))[-1] == 2 * np.mean(lengths(training_rows(pool, ""))[:-1])


def test_a_run_does_not_go_on_with_another_imbalance(tmp_path):
    (run,), (other,) = (
        configs.resolve(small_config(**{"sampling.imbalance": text}), tmp_path) for text in ("", "linear:rho=2")
    )
    saved, now = ({"config": spec.record, "classes": [], "fingerprint": "", "counts": {}} for spec in (run, other))
    run_record.check_same_run(saved, saved, tmp_path)
    with pytest.raises(UserError, match=r"^sampling\.imbalance: the run in"):
        run_record.check_same_run(saved, now, tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "step", "step:", "step:mu=0.5", "step:rho=10", "step:mu=0.5,rho=x", "step:mu=0.5,rho=10,rho=20",
        "step:mu=0.5;rho=10", "steps:mu=0.5,rho=10", "linear:mu=0.5,rho=2", "linear:10", "step:mu=0,rho=10",
        "step:mu=1,rho=10", "step:mu=nan,rho=2", "linear:rho=0.5", "linear:rho=inf", "linear:rho=nan", "linear:rho=-3", None,
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_by_field_before_there_are_images(text, tmp_path):
    config = small_config()
    with config.unlocked():
        config.sampling.imbalance = text
    with pytest.raises(UserError, match=r"^sampling\.imbalance: "):
        configs.resolve(config, tmp_path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("step:mu=0.01,rho=10", "no minority class"),
        ("step:mu=0.99,rho=10", "no majority class"),
        ("step:mu=0.5,rho=1000", "without images"),
        ("linear:rho=1000", "without images"),
    ],
)
def test_what_these_classes_cannot_give_is_refused_by_field(pool, text, said, tmp_path):
    configs.resolve(small_config(**{"sampling.imbalance": text}), tmp_path)
    with pytest.raises(UserError, match=rf"^sampling\.imbalance: .*{said}"):
        training_rows(pool, text)


@pytest.mark.parametrize("text", ["step:mu=0.5,rho=10", "linear:rho=10"])
def test_one_known_class_cannot_be_made_unequal(text):
    with pytest.raises(UserError, match=r"^sampling\.imbalance: there is only one known class"):
        imbalance.sizes(imbalance.parse(text), 100, 1)
