"""Permutations: bijections of every size, without bias, and equal in NumPy and in JAX."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from openset_jax.data.permutation import domain, permute


def test_permute_is_a_bijection_of_every_size_up_to_300():
    for size in range(1, 301):
        for key in (0, 1, 0xFFFFFFFF):
            image = permute(np.arange(size, dtype=np.uint32), domain(size), np.array([key], np.uint32))
            assert image.dtype == np.uint32
            assert sorted(image.tolist()) == list(range(size)), (size, key)


@given(st.integers(1, 2**31), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_permute_stays_in_range_and_is_injective_for_sizes_up_to_2_31(size, key, seed):
    some = np.random.default_rng(seed).integers(0, size, 500)
    index = np.unique(np.concatenate([some, [0, size - 1, size // 2]])).astype(np.uint32)
    image = permute(index, domain(size), np.array([key], np.uint32))
    assert image.max() < size
    assert len(np.unique(image)) == len(index)


def test_permute_works_on_elements_of_different_sizes_and_keys():
    sizes, keys = np.array([1, 5, 300, 2**31]), np.array([3, 4, 5, 6], np.uint32)
    index = np.array([0, 4, 299, 2**31 - 1], np.uint32)
    together = permute(index, domain(sizes), keys)
    alone = [permute(index[[i]], domain(sizes[i]), keys[[i]])[0] for i in range(4)]
    assert together.tolist() == alone


def test_permute_sends_an_index_everywhere_equally_often():
    keys = np.arange(10_000, dtype=np.uint32)
    for size, index in ((10, 0), (10, 7), (13, 12)):
        image = permute(np.full(len(keys), index, np.uint32), domain(size), keys)
        expected = len(keys) / size
        assert np.abs(np.bincount(image, minlength=size) - expected).max() < 5 * math.sqrt(expected)


def test_permute_sends_pairs_everywhere_equally_often():
    keys, size = np.arange(20_000, dtype=np.uint32), 6
    a, b = (permute(np.full(len(keys), i, np.uint32), domain(size), keys) for i in (2, 3))
    table = np.bincount(a * size + b, minlength=size * size).reshape(size, size)
    assert (np.diag(table) == 0).all()
    expected = len(keys) / (size * (size - 1))
    assert np.abs(table[~np.eye(size, dtype=bool)] - expected).max() < 5 * math.sqrt(expected)


def test_numpy_and_jitted_jax_permute_the_same():
    sizes = np.array([1, 2, 3, 300, 65537, 2**31 - 1, 2**31])
    index, keys = (sizes - 1).astype(np.uint32), np.arange(7, dtype=np.uint32) * np.uint32(0x9E3779B9)
    on_device = jax.jit(lambda i, g, k: permute(i, g, k, jnp))(index, domain(sizes), keys)
    np.testing.assert_array_equal(on_device, permute(index, domain(sizes), keys))
