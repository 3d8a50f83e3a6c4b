"""The training images of each class: a number of negatives, or a multiple of a known class's mean size."""

import numpy as np
import pytest
from small_run import open_small_pool, small_spec

from openset_jax.data import training_set
from openset_jax.errors import UserError


@pytest.fixture(scope="module")
def pool():
    return open_small_pool()


def training_rows(pool, **changes):
    spec = small_spec(**changes)
    return training_set.training_rows(pool, spec.sampling, seed=spec.seed, uses_negatives=spec.objective.uses_negatives)


@pytest.mark.parametrize(("negatives", "count"), [(7, 7), ("0.5x", 0.5), ("1x", 1.0), (None, None)])
def test_negatives_are_a_number_or_in_units_of_a_known_class(pool, negatives, count):
    *known, chosen = training_rows(pool, **{"sampling.negatives": negatives})
    every = pool.training_rows()[-1]
    if isinstance(count, float):
        count = round(count * np.mean([len(rows) for rows in known]))
    assert len(chosen) == (count or len(every))
    assert set(chosen) <= set(every)


@pytest.mark.parametrize("units", [0.25, 1.0])
def test_a_multiple_of_a_known_class_is_the_same_as_its_number_of_images(pool, units):
    *known, chosen = training_rows(pool, **{"sampling.negatives": f"{units}x"})
    expected = round(units * np.mean([len(rows) for rows in known]))
    assert len(chosen) == expected > 0
    np.testing.assert_array_equal(chosen, pool.training_rows(expected)[-1])
    with pytest.raises(UserError, match=r"sampling\.negatives: [\d,]+ is not between 1 and .*smaller number.*None for all"):
        training_rows(pool, **{"sampling.negatives": "1000x"})


@pytest.mark.parametrize(
    "negatives",
    [0, -3, True, 2.5, "x", "0x", "-1x", "nan x", "nanx", "infx", "1e999x", "many", "3y", "", "700", (3,), "0.0001x", "99x"],
)
def test_another_value_is_refused_by_field(pool, negatives):
    with pytest.raises(UserError, match=r"^sampling\.negatives: "):
        training_rows(pool, **{"sampling.negatives": negatives})


def test_an_objective_without_negatives_has_the_rows_of_the_known_classes_alone(pool):
    known = training_rows(pool, **{"objective.name": "softmax"})
    assert len(known) == pool.num_classes
    for rows, label in zip(known, range(pool.num_classes), strict=True):
        assert (pool.label[rows] == label).all()
    for one, other in zip(known, training_rows(pool)[:-1], strict=True):
        np.testing.assert_array_equal(one, other)
