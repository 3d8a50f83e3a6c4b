"""Keyed pseudorandom permutations of [0, size), computed element by element in constant memory, in uint32 arithmetic.

The arithmetic gives equal results in NumPy, on the host, and in jax.numpy, inside a compiled function.
"""

import types

import jax
import numpy as np
from jax import lax

Uint32 = np.ndarray | jax.Array  # dtype uint32
_ROUNDS = 8


def mix(x: Uint32) -> Uint32:
    """Hashes uint32 values: the finaliser "lowbias32" of C. Wellons' hash-prospector."""
    x = (x ^ (x >> 16)) * np.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * np.uint32(0x846CA68B)
    return x ^ (x >> 16)


def make_key(*words: Uint32 | np.uint32) -> Uint32:
    """Hashes uint32 scalars and arrays, broadcast together, into a uint32 key of their shape; scalars give shape [1]."""
    key: Uint32 = np.zeros(1, np.uint32)
    for word in words:
        key = mix((key ^ word) + np.uint32(0x9E3779B9))
    return key


def domain(size: int | tuple[int, ...] | np.ndarray) -> np.ndarray:
    """Returns the grid for `permute`: uint32 [..., 3] of (size, rows, columns), where rows x columns >= size >= 1."""
    size = np.maximum(np.asarray(size, np.int64), 1)
    rows = np.ceil(np.sqrt(size)).astype(np.int64)
    return np.stack([size, rows, -(-size // rows)], axis=-1).astype(np.uint32)


def permute(index: Uint32, grid: Uint32, key: Uint32, xp: types.ModuleType = np) -> Uint32:
    """Applies a keyed permutation of [0, size) to each index: for each grid and key a bijection, uint32 [...].

    A Feistel network on a grid of rows x columns >= size (Black and Rogaway 2002, "Ciphers with arbitrary finite domains":
    the generalised Feistel cipher) with cycle walking: a result outside [0, size) is permuted again. That is rare, since the
    grid exceeds `size` by less than one row.

    Args:
      index: uint32 [...], each below its size.
      grid: uint32 [..., 3], from `domain`.
      key: uint32 [...]. The three are broadcast together.
      xp: numpy or jax.numpy.
    """
    size, rows, columns = grid[..., 0], grid[..., 1], grid[..., 2]

    def add(a, b, size):  # (a + b) % size of numbers below `size`, without a division: a negative uint32 is large
        total = a + b
        return xp.minimum(total, total - size)

    def walk(x):
        left, right = x // columns, x % columns
        for i in range(_ROUNDS):
            salt = key + np.uint32(i * 0x632BE5AB & 0xFFFFFFFF)
            if i % 2:
                right = add(right, mix(left ^ salt) % columns, columns)
            else:
                left = add(left, mix(right ^ salt) % rows, rows)
        return left * columns + right

    x = walk(index)
    if xp is np:
        while (outside := x >= size).any():
            x = np.where(outside, walk(x), x)
        return x
    return lax.while_loop(lambda x: (x >= size).any(), lambda x: xp.where(x >= size, walk(x), x), x)
