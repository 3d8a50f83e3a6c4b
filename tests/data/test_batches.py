"""The rows of training batches: an unreadable image is replaced by another one of the images that its class draws."""

import numpy as np
import pytest

from openset_jax.data import batches, training_set
from openset_jax.data.imbalance import Imbalance
from openset_jax.data.pool_builder import Selection, build_pool
from openset_jax.data.sampler import POLICIES, make_sampler
from openset_jax.data.training_set import SamplingSpec
from openset_jax.data.unreadable import Unreadable
from openset_jax.errors import UserError


def make_pool(make_source, **sizes):
    source = make_source(sizes)
    chosen = {"known": [Selection(source, tuple(sizes)[:-1])], "negatives": [Selection(source, tuple(sizes)[-1:])]}
    return build_pool(chosen, validation_fraction=0.2, test_fraction=0.2)


def rows_of(pool, rows_by_class, policy, bad=()):
    """The rows of 60 batches, in order, while the images at the rows `bad` are unreadable."""
    unreadable = Unreadable(pool, 1.0, report=lambda line: None)
    for row in bad:
        unreadable.add(int(row), "it is a teapot")
    sampler = make_sampler(policy, tuple(map(len, rows_by_class)), batch_size=8, seed=3)
    plan = batches.training(pool, rows_by_class, sampler, start=0, stop=60, unreadable=unreadable)
    return np.concatenate([plan.rows(n) for n in range(plan.start, plan.stop)])


@pytest.mark.parametrize(
    ("policy", "imbalance", "negatives"),
    [*((policy, None, None) for policy in POLICIES), ("natural", Imbalance("step", 4, 0.5), 20)],
)
def test_an_unreadable_image_is_replaced_by_another_image_that_the_policy_draws(make_source, policy, imbalance, negatives):
    pool = make_pool(make_source, a=90, b=24, c=60, n=120)
    sampling = SamplingSpec(policy, negatives, imbalance, 0.5)
    members = training_set.training_rows(pool, sampling, seed=0, uses_negatives=True)
    expected = rows_of(pool, members, policy)
    bad = np.concatenate([np.intersect1d(rows, expected)[::5] for rows in members])
    found = rows_of(pool, members, policy, bad)
    assert set(found) == set(expected) - set(bad)
    readable = ~np.isin(expected, bad)
    np.testing.assert_array_equal(found[readable], expected[readable])
    np.testing.assert_array_equal(pool.label[found], pool.label[expected])


def test_a_subset_without_a_readable_image_is_an_error(make_source):
    pool = make_pool(make_source, a=90, b=12, n=120)
    members = pool.training_rows()
    of_a = np.intersect1d(members[0], rows_of(pool, members, "undersample"))
    assert len(of_a) == len(members[1]) < len(members[0])
    with pytest.raises(UserError, match=f"none of the {len(of_a)} images of 'a' that training draws is readable"):
        rows_of(pool, members, "undersample", of_a)
