"""The sampler: exact quotas, every image once before any comes twice, and a stream that is a function of (seed, n)."""

import collections
import fractions
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openset_jax.data import sampler as sampling
from openset_jax.data.sampler import Sampler, make_sampler
from openset_jax.errors import UserError

SIZES = (40, 7, 23, 90)  # "none" last
FRACTION = 0.3
GOLDEN_FIRST = [(2, 2), (2, 0), (0, 2), (2, 1), (2, 3), (2, 5), (1, 0), (0, 0)]
GOLDEN_LATE = [(2, 4), (2, 1), (2, 6), (0, 3), (0, 2), (1, 2), (2, 7), (2, 5)]

weights_of_classes = st.lists(st.integers(0, 10**6), min_size=1, max_size=20).filter(any)


def make(weights, *, batch_size=32, seed=0, sizes=None):
    sizes = tuple(sizes or [10] * len(weights))
    return Sampler(sizes, tuple(weights), sizes, batch_size, seed)


def policy_sampler(policy, sizes=SIZES, *, batch_size=16, seed=0):
    return make_sampler(policy, sizes, batch_size=batch_size, seed=seed, negative_fraction=FRACTION)


def pairs(batch):
    """Returns the (class, index) pairs of a batch, by position."""
    return list(zip(*(column.tolist() for column in batch), strict=True))


# --- quotas -----------------------------------------------------------------------------------------------------------


@given(weights_of_classes, st.integers(1, 600), st.integers(0, 10**12))
def test_quotas_are_non_negative_and_sum_to_the_batch(weights, batch_size, step):
    quotas = make(weights, batch_size=batch_size).quotas(step)
    assert min(quotas) >= 0
    assert sum(quotas) == batch_size
    assert all(quota == 0 for quota, weight in zip(quotas, weights, strict=True) if weight == 0)


@given(weights_of_classes, st.integers(1, 600), st.one_of(st.integers(0, 1000), st.integers(0, 10**12)))
def test_running_counts_are_within_the_trees_depth_of_the_ideal(weights, batch_size, step):
    counts = make(weights, batch_size=batch_size).counts(step)
    total, depth = sum(weights), math.ceil(math.log2(len(weights)))
    assert sum(counts) == step * batch_size
    for count, weight in zip(counts, weights, strict=True):
        assert abs(count - fractions.Fraction(step * batch_size * weight, total)) <= depth


@given(weights_of_classes, st.integers(1, 100), st.integers(0, 10**9), st.integers(0, 2**64 - 1))
def test_a_batch_holds_exactly_its_quotas(weights, batch_size, step, seed):
    sampler = make(weights, batch_size=batch_size, seed=seed)
    label, _ = sampler.batch(step)
    assert np.bincount(label, minlength=len(weights)).tolist() == sampler.quotas(step)


def test_a_batch_is_not_sorted_by_class_and_its_order_changes_from_step_to_step():
    sampler = make([1, 1], batch_size=64)
    labels = [sampler.batch(step)[0].tolist() for step in range(5)]
    assert all(label != sorted(label) for label in labels)
    assert len({tuple(label) for label in labels}) == 5


# --- order ------------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 40), min_size=1, max_size=5), st.integers(1, 30), st.integers(0, 2**64 - 1))
def test_no_image_repeats_before_its_class_is_through(sizes, batch_size, seed):
    sampler = make([1] * len(sizes), sizes=sizes, batch_size=batch_size, seed=seed)
    seen = np.zeros((len(sizes), max(sizes)), int)
    for step in range(2 * sum(sizes) // batch_size + 2):
        np.add.at(seen, sampler.batch(step), 1)
        for row, size in zip(seen, sizes, strict=True):
            passes, rest = divmod(row.sum(), size)
            assert row[size:].sum() == 0
            assert np.bincount(row[:size] - passes, minlength=2).tolist() == [size - rest, rest]


def test_no_image_repeats_before_its_class_is_through_far_into_the_stream():
    """A class of 1,000 in batches of 100: the ten batches of a pass, after a billion steps, are a permutation."""
    sampler = make([1], sizes=[1000], batch_size=100)
    first = 10**9
    index = np.concatenate([sampler.batch(first + i)[1] for i in range(10)])
    assert sorted(index.tolist()) == list(range(1000))


def test_every_pass_and_every_class_has_its_own_order():
    """Compares the sets of images in the first half of each pass, because batches are shuffled."""
    sampler = make([1, 1], sizes=[50, 50], batch_size=50)
    halves = set()
    for step in range(0, 40, 2):
        label, index = sampler.batch(step)
        halves |= {frozenset(index[label == k].tolist()) for k in (0, 1)}
    assert len(halves) == 40


# --- a pure function of (seed, n) -------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", sampling.POLICIES)
def test_a_batch_does_not_depend_on_what_came_before(policy):
    forward = policy_sampler(policy)
    steps = [0, 1, 2, 3, 17, 1000, 10**9]
    batches = {step: pairs(forward.batch(step)) for step in steps}
    for step in reversed(steps):
        assert pairs(policy_sampler(policy).batch(step)) == batches[step]
        assert pairs(forward.batch(step)) == batches[step]


@pytest.mark.parametrize("policy", sampling.POLICIES)
@pytest.mark.parametrize("hosts", [1, 2, 4])
def test_slices_of_hosts_partition_the_global_batch(policy, hosts):
    sampler = policy_sampler(policy)
    part = sampler.batch_size // hosts
    for step in (0, 5, 10**9):
        slices = [pairs(sampler.batch(step, h * part, (h + 1) * part)) for h in range(hosts)]
        assert list(itertools.chain(*slices)) == pairs(sampler.batch(step))


@pytest.mark.parametrize("policy", sampling.POLICIES)
@pytest.mark.parametrize("first", [0, 999, 10**18])
def test_batches_drawn_at_once_are_those_drawn_one_by_one(policy, first):
    sampler = policy_sampler(policy)
    label, index = sampler.batches(first, first + 5, 3, 11)
    for i in range(5):
        assert pairs((label[i], index[i])) == pairs(sampler.batch(first + i, 3, 11))


@given(st.integers(0, 10**10), st.lists(st.integers(0, 15), max_size=30))
def test_a_position_does_not_depend_on_the_other_positions_asked_for(step, positions):
    sampler = policy_sampler("natural")
    whole = pairs(sampler.batch(step))
    drawn = pairs([v[0] for v in sampler.draw(sampler.plan(step, step + 1), np.array(positions, np.uint32))])
    assert drawn == [whole[p] for p in positions]


@pytest.mark.parametrize("others", [(1, 2, 3), (2**32, 2**33), (2**63, 2**64 - 1)])
def test_seeds_give_different_streams(others):
    streams = {tuple(pairs(policy_sampler("natural", seed=seed).batch(0))) for seed in (0, *others)}
    assert len(streams) == 1 + len(others)


def test_the_stream_of_today_is_the_stream_of_tomorrow():
    """Another hash would silently change every resumed run."""
    sampler = make_sampler("natural", (5, 3, 8), batch_size=8, seed=7)
    assert pairs(sampler.batch(0)) == GOLDEN_FIRST
    assert pairs(sampler.batch(10**9)) == GOLDEN_LATE


# --- NumPy and jax.numpy ----------------------------------------------------------------------------------------------

HUGE = (2**31, 2**31 - 1, 1, 46341**2 // 2, 12345)


@pytest.mark.parametrize(
    ("policy", "sizes"),
    [("natural", SIZES), ("undersample", SIZES), ("balanced", HUGE), ("undersample", (2**31, 2**30 + 1, 2**31 - 1))],
)
def test_numpy_and_jitted_jax_draw_the_same(policy, sizes):
    sampler = policy_sampler(policy, sizes, batch_size=24)
    draw = jax.jit(lambda plan, position: sampler.draw(plan, position, jnp))
    for step in (0, 1, 10**9, 2**40 + 1):
        expected = sampler.batch(step)
        drawn = draw(sampler.plan(step, step + 3), jnp.arange(24, dtype=jnp.uint32))
        for ours, theirs in zip(expected, drawn, strict=True):
            assert theirs.dtype == jnp.uint32
            np.testing.assert_array_equal(ours, theirs[0])
        label, index = expected
        assert (index < np.array(sizes)[label]).all()


# --- policies ---------------------------------------------------------------------------------------------------------

POOL = np.array(SIZES) / sum(SIZES)
ALIKE = np.full(4, 0.25)
KNOWN = np.array([*SIZES[:-1], 0]) / sum(SIZES[:-1])
SHARES = {
    "natural": POOL,
    "undersample": ALIKE,
    "undersample_fresh": ALIKE,
    "oversample": ALIKE,
    "balanced": ALIKE,
    "negative_fraction": KNOWN * (1 - FRACTION) + np.array([0, 0, 0, FRACTION]),
}


def test_every_policy_has_its_share_tested():
    assert SHARES.keys() == sampling.POLICIES.keys()


@pytest.mark.parametrize("policy", SHARES)
def test_the_effective_prior_is_the_policys_and_the_streams_long_run_share(policy):
    sampler = policy_sampler(policy)
    np.testing.assert_allclose(sampler.prior, SHARES[policy], rtol=1e-12)
    steps = 500
    drawn = np.bincount(np.concatenate([sampler.batch(step)[0] for step in range(steps)]), minlength=len(SIZES))
    np.testing.assert_allclose(drawn / (steps * sampler.batch_size), sampler.prior, atol=2 / (steps * sampler.batch_size))


def images_drawn(policy, steps=range(200), seed=0):
    """Returns the images of each class in some batches of the stream."""
    sampler, seen = policy_sampler(policy, seed=seed), collections.defaultdict(set)
    for step in steps:
        for label, index in pairs(sampler.batch(step)):
            seen[label].add(index)
    return dict(seen)


@pytest.mark.parametrize("policy", sorted(SHARES.keys() - {"undersample"}))
def test_policies_but_undersample_draw_every_image(policy):
    assert {k: len(v) for k, v in images_drawn(policy).items()} == dict(enumerate(SIZES))


def test_undersample_draws_one_fixed_subset_as_large_as_the_smallest_class():
    seen = images_drawn("undersample")
    assert {k: len(v) for k, v in seen.items()} == dict.fromkeys(range(4), min(SIZES))
    assert images_drawn("undersample", range(10**6, 10**6 + 200)) == seen
    assert all(max(seen[k]) >= min(SIZES) for k in (0, 2, 3)), "a random subset, not the first images"
    subsets = [policy_sampler("undersample").subset(k).tolist() for k in range(4)]
    assert [sorted(subset) for subset in subsets] == [sorted(seen[k]) for k in range(4)]


def test_undersample_chooses_another_subset_for_another_seed():
    assert images_drawn("undersample", seed=1) != images_drawn("undersample", seed=2)


def test_undersample_fresh_draws_another_subset_in_each_epoch():
    """An epoch has as many images of each class as the smallest class."""
    sampler = policy_sampler("undersample_fresh", batch_size=4 * min(SIZES))
    epochs = [
        {(k, i) for k, i in pairs(sampler.batch(step)) if k == 3}  # the largest class
        for step in range(SIZES[3] // min(SIZES))
    ]
    assert all(len(epoch) == min(SIZES) for epoch in epochs)
    assert len(set().union(*epochs)) == min(SIZES) * len(epochs), "no image twice while there are others"


def test_oversample_repeats_the_smallest_class_evenly():
    sampler = policy_sampler("oversample", batch_size=4 * max(SIZES))
    label, index = sampler.batch(0)
    assert np.bincount(label).tolist() == [max(SIZES)] * 4
    repeats = np.bincount(index[label == 1], minlength=SIZES[1])
    assert repeats.max() - repeats.min() <= 1


@given(st.integers(1, 999), st.lists(st.integers(1, 10**6), min_size=2, max_size=10))
def test_negative_fraction_is_exact_and_keeps_the_proportions_of_the_known_classes(per_mille, sizes):
    sampler = make_sampler("negative_fraction", tuple(sizes), batch_size=8, seed=0, negative_fraction=per_mille / 1000)
    total = sum(sampler.weights)
    assert fractions.Fraction(sampler.weights[-1], total) == fractions.Fraction(per_mille, 1000)
    for weight, size in zip(sampler.weights[:-1], sizes[:-1], strict=True):
        assert fractions.Fraction(weight, total - sampler.weights[-1]) == fractions.Fraction(size, sum(sizes[:-1]))


@pytest.mark.parametrize("fraction", [1e-7, 1 - 1e-7])
def test_an_extreme_negative_fraction_still_draws_every_class(fraction):
    sampler = make_sampler("negative_fraction", SIZES, batch_size=8, seed=0, negative_fraction=fraction)
    assert min(sampler.weights) > 0


def test_a_known_class_without_images_is_never_drawn():
    for policy in SHARES:
        sampler = policy_sampler(policy, (10, 0, 5))
        assert sampler.prior[1] == 0
        assert 1 not in sampler.batch(0)[0]


# --- errors -----------------------------------------------------------------------------------------------------------


def test_an_unknown_policy_is_named_beside_the_known_ones():
    with pytest.raises(UserError, match=r"sampling\.policy.*'random'.*natural.*balanced"):
        policy_sampler("random")


@pytest.mark.parametrize("policy", SHARES)
def test_no_negatives_is_an_error(policy):
    with pytest.raises(UserError, match=r"data\.negatives: no training images"):
        policy_sampler(policy, (10, 20, 0))


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 1.5, math.nan, math.inf])
def test_a_negative_fraction_out_of_range_is_an_error(fraction):
    with pytest.raises(UserError, match=r"sampling\.negative_fraction"):
        make_sampler("negative_fraction", SIZES, batch_size=8, seed=0, negative_fraction=fraction)


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(ValueError, match="at most 2,147,483,648"):
        make([1], sizes=[2**31 + 1])
    with pytest.raises(ValueError, match="seed"):
        make([1], seed=2**64)
    with pytest.raises(ValueError, match="seed"):
        make([1], seed=-1)
    with pytest.raises(ValueError, match="without images"):
        Sampler((5, 0), (1, 1), (5, 0), 8, 0)
