"""Which images are in batch n: a pure function of (seed, n), with exact class quotas.

Nothing is stored and nothing is consumed. Batch 10,000,000 costs what batch 0 costs, resuming needs no position, and
neither time nor memory depends on the size of a class. Two ideas make it work:

* **Quotas.** A binary tree over the classes splits the running count of examples: at each node the left side has
  received floor(share x count). Both sides' counts never decrease, so every quota is a non-negative integer, the quotas of
  a batch sum to the batch, and a class's running count is off its ideal by at most the depth of the tree.
* **Order.** The r-th example of a class is `permute(r mod size)` under a key of (seed, class, r // size): each image once
  before any comes twice, in a fresh order every time, without a stored permutation.

Quotas are integer arithmetic on the host (`Sampler.plan`); drawing is uint32 arithmetic that runs alike under NumPy and
jax.numpy (`Sampler.draw`), so that indices may also be drawn on a device.
"""

import dataclasses
import fractions
import functools
import itertools
import math
import types
from typing import Any, NamedTuple

import numpy as np

from openset_jax.errors import UserError

MAX_CLASS_SIZE = 2**31
_ROUNDS = 8
_ORDER, _SUBSET, _EPOCH = 1, 2, 3  # what a key is for


def _hash(x: Any) -> Any:
    """Mixes uint32 values (the finaliser "lowbias32" of C. Wellons' hash-prospector)."""
    x = (x ^ (x >> 16)) * np.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * np.uint32(0x846CA68B)
    return x ^ (x >> 16)


def _key(*words: Any) -> Any:
    """A uint32 key made of uint32 scalars and arrays, which broadcast."""
    key = np.zeros(1, np.uint32)
    for word in words:
        key = _hash((key ^ word) + np.uint32(0x9E3779B9))
    return key


def domain(size: Any) -> np.ndarray:
    """The grid on which `permute` works: uint32 [..., 3] of (size, rows, columns), rows x columns >= size >= 1."""
    size = np.maximum(np.asarray(size, np.int64), 1)
    rows = np.ceil(np.sqrt(size)).astype(np.int64)
    return np.stack([size, rows, -(-size // rows)], axis=-1).astype(np.uint32)


def permute(index: Any, grid: Any, key: Any, xp: types.ModuleType = np) -> Any:
    """A keyed permutation of [0, size), element by element, in constant memory.

    A Feistel network on rows x columns >= size (Black and Rogaway 2002, "Ciphers with arbitrary finite domains": the
    generalised Feistel cipher) with cycle walking: what falls outside [0, size) is permuted again. The grid is less than
    one row larger than `size`, so that is rare.

    Args:
      index: uint32 [n], each below its size.
      grid: uint32 [n, 3] or [3], from `domain`.
      key: uint32 [n] or [1].
      xp: numpy or jax.numpy.

    Returns:
      uint32 [n]: for equal grids and keys a bijection of [0, size).
    """
    size, rows, columns = grid[..., 0], grid[..., 1], grid[..., 2]

    def walk(x):
        left, right = x // columns, x % columns
        for i in range(_ROUNDS):
            salt = key + np.uint32(i * 0x632BE5AB & 0xFFFFFFFF)
            if i % 2:
                right = (right + _hash(left ^ salt) % columns) % columns
            else:
                left = (left + _hash(right ^ salt) % rows) % rows
        return left * columns + right

    x = walk(index)
    if xp is np:
        while (outside := x >= size).any():
            x = np.where(outside, walk(x), x)
        return x
    from jax import lax  # NumPy alone is enough on the host

    return lax.while_loop(lambda x: (x >= size).any(), lambda x: xp.where(x >= size, walk(x), x), x)


class Plan(NamedTuple):
    """What `Sampler.draw` needs to know about one step, all uint32."""

    key: Any  # [1]: orders the batch
    start: Any  # [C]: the first slot of each class among the batch's slots
    epoch: Any  # [C]: how many times each class is through
    offset: Any  # [C]: its place in the current pass


@dataclasses.dataclass(frozen=True)
class Sampler:
    """Draws batches of (class, image of that class).

    Attributes:
      sizes: images of each of the C classes; "none" is the last class.
      weights: integers proportional to each class's share of the stream.
      drawn: how many images of each class are ever drawn (a fixed random subset where it is below the size).
      batch_size: examples in the global batch.
      seed: any int in [0, 2^64).
    """

    sizes: tuple[int, ...]
    weights: tuple[int, ...]
    drawn: tuple[int, ...]
    batch_size: int
    seed: int

    def __post_init__(self):
        if max(self.sizes) > MAX_CLASS_SIZE:
            raise ValueError(f"a class of {max(self.sizes):,} images: at most {MAX_CLASS_SIZE:,} are possible")
        if not 0 <= self.seed < 2**64:
            raise ValueError(f"seed {self.seed} is outside [0, 2^64)")
        if any(w and not d for w, d in zip(self.weights, self.drawn, strict=True)) or not sum(self.weights):
            raise ValueError(f"a class without images cannot be drawn: sizes {self.sizes}, weights {self.weights}")

    @functools.cached_property
    def prior(self) -> np.ndarray:
        """The effective prior: float64 [C], each class's share of the examples that training sees."""
        return np.array(self.weights, np.float64) / sum(self.weights)

    def counts(self, step: int) -> list[int]:
        """How many examples of each class come before batch `step`."""
        return self._split(step * self.batch_size, 0, len(self.weights))

    def quotas(self, step: int) -> list[int]:
        """How many examples of each class batch `step` holds: they sum to `batch_size`."""
        return [b - a for a, b in zip(self.counts(step), self.counts(step + 1), strict=True)]

    def plan(self, step: int) -> Plan:
        """Everything about batch `step` that needs integers beyond 32 bits."""
        counts = self.counts(step)
        quotas = [b - a for a, b in zip(counts, self.counts(step + 1), strict=True)]
        passes = [divmod(count, max(size, 1)) for count, size in zip(counts, self.drawn, strict=True)]
        return Plan(
            key=_key(*self._seed_words, np.uint32(_ORDER), *_words(step)),
            start=np.cumsum([0, *quotas[:-1]]).astype(np.uint32),
            epoch=np.array([p[0] & 0xFFFFFFFF for p in passes], np.uint32),
            offset=np.array([p[1] for p in passes], np.uint32),
        )

    def draw(self, plan: Plan, position: Any, xp: types.ModuleType = np) -> tuple[Any, Any]:
        """The examples at `position` (uint32 [n], each below `batch_size`) of the batch with this plan.

        Returns:
          (class, index within the class), both uint32 [n]. A position's example does not depend on the other positions
          asked for, so that hosts may draw slices of one global batch.
        """
        slot = permute(position, xp.asarray(self._tables["batch"]), plan.key, xp)
        label = (xp.searchsorted(plan.start, slot, side="right") - 1).astype(np.uint32)
        drawn, full = xp.asarray(self._tables["drawn"]), xp.asarray(self._tables["full"])
        count = plan.offset[label] + (slot - plan.start[label])
        size = drawn[label, 0]
        epoch = plan.epoch[label] + count // size
        key = _key(*self._seed_words, np.uint32(_EPOCH), label, epoch)
        index = permute(count % size, drawn[label], key, xp)
        if self.drawn != self.sizes:
            subset = permute(index, full[label], _key(*self._seed_words, np.uint32(_SUBSET), label), xp)
            index = xp.where(size < full[label, 0], subset, index)
        return label, index

    def batch(self, step: int, start: int = 0, stop: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Positions `start` to `stop` of batch `step`: (class, index within the class), both uint32."""
        position = np.arange(start, self.batch_size if stop is None else stop, dtype=np.uint32)
        return self.draw(self.plan(step), position)

    def _split(self, count: int, lo: int, hi: int) -> list[int]:
        if hi - lo == 1:
            return [count]
        mid = (lo + hi) // 2
        total = self._cumulative[hi] - self._cumulative[lo]
        left = count * (self._cumulative[mid] - self._cumulative[lo]) // total if total else 0
        return self._split(left, lo, mid) + self._split(count - left, mid, hi)

    @functools.cached_property
    def _cumulative(self) -> list[int]:
        return [0, *itertools.accumulate(self.weights)]

    @functools.cached_property
    def _seed_words(self) -> tuple[np.uint32, np.uint32]:
        return _words(self.seed)

    @functools.cached_property
    def _tables(self) -> dict[str, np.ndarray]:
        return {"batch": domain(self.batch_size), "drawn": domain(self.drawn), "full": domain(self.sizes)}


def _words(value: int) -> tuple[np.uint32, np.uint32]:
    return np.uint32(value & 0xFFFFFFFF), np.uint32(value >> 32 & 0xFFFFFFFF)


# --- Policies: each is one set of weights, and how many images of each class are ever drawn. ---------------------------


def _natural(sizes, _):
    return sizes, sizes


def _balanced(sizes, _):
    return [int(n > 0) for n in sizes], sizes


def _undersample(sizes, _):
    smallest = min(n for n in sizes if n)
    return [int(n > 0) for n in sizes], [min(n, smallest) for n in sizes]


def _negative_fraction(sizes, fraction):
    if not 0 < fraction < 1:
        raise UserError(f"sampling.negative_fraction: {fraction} is not between 0 and 1 (both excluded)")
    share = fractions.Fraction(str(fraction))
    known = sum(sizes[:-1])
    weights = [n * (share.denominator - share.numerator) for n in sizes[:-1]]
    return [*weights, known * share.numerator], sizes


POLICIES = {
    "natural": _natural,  # as the pools are
    "undersample": _undersample,  # every class cut to the smallest one's size, once: the rest is never seen
    "undersample_fresh": _balanced,  # the same with a fresh subset each epoch: every class alike, all images in turn
    "oversample": _balanced,  # every class repeated to the largest one's size: every class alike, all images in turn
    "balanced": _balanced,  # all K+1 classes alike in every batch
    "negative_fraction": _negative_fraction,  # a given share of negatives, the known classes as the pool has them
}


def make_sampler(
    policy: str, sizes: tuple[int, ...], *, batch_size: int, seed: int, negative_fraction: float = 0.5
) -> Sampler:
    """The sampler of a policy (a key of `POLICIES`) for K known classes and the negatives, in that order.

    In a run counted in steps, oversampling, undersampling to a fresh subset each epoch, and balanced batches are one and
    the same stream (all classes alike, every image of a class before any comes twice): they have three names because
    people look for them under three names.

    Raises:
      UserError: unknown policy, no negatives, or a negative fraction outside (0, 1).
    """
    if policy not in POLICIES:
        raise UserError(f"sampling.policy: {policy!r} is not one of {', '.join(POLICIES)}")
    if not sizes[-1]:
        raise UserError('data.negatives: no images to train on, and an output for "none" needs some')
    weights, drawn = POLICIES[policy](list(sizes), negative_fraction)
    divisor = math.gcd(*weights)
    return Sampler(tuple(sizes), tuple(w // divisor for w in weights), tuple(drawn), batch_size, seed)
