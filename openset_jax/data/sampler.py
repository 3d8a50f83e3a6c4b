"""The sampler: the images of batch n as a pure function of (seed, n), with an exact quota of each class.

Nothing is stored or consumed: batch 10,000,000 costs as much as batch 0, resuming needs no position, and neither time nor
memory depends on the size of a class. Two ideas make this possible:

* **Quotas.** A binary tree over the classes splits the running count of examples: at each node, the left side receives
  floor(share x count). The counts of both sides never decrease, so every quota is a non-negative integer, the quotas of a
  batch sum to the batch size, and the running count of a class differs from its ideal by at most the depth of the tree.
* **Order.** The r-th example of a class is `permute(r mod size)` under a key of (seed, class, r // size): every image comes
  once before any comes twice, in another order in every pass, without a stored permutation.

Quotas are integer arithmetic on the host (`Sampler.plan`). Drawing is uint32 arithmetic with equal results in NumPy and in
jax.numpy (`Sampler.draw`), so indices can also be drawn on a device.
"""

import dataclasses
import fractions
import functools
import itertools
import math
import types
from typing import NamedTuple

import numpy as np

from openset_jax.data.permutation import Uint32, domain, make_key, permute
from openset_jax.errors import UserError

MAX_CLASS_SIZE = 2**31
_ORDER, _SUBSET, _EPOCH = 1, 2, 3  # the purpose of a key


class Plan(NamedTuple):
    """The arguments of `Sampler.draw` for n steps, all uint32; C classes.

    Attributes:
      key: [n, 1]; key of the permutation that orders the examples of the batch.
      start: [n, C]; the first slot of each class in the batch, before its examples are ordered.
      epoch: [n, C]; completed passes over each class before this batch.
      offset: [n, C]; examples of the current pass before this batch.
    """

    key: Uint32
    start: Uint32
    epoch: Uint32
    offset: Uint32


@dataclasses.dataclass(frozen=True)
class Sampler:
    """Draws batches of (class, index of an image within the class).

    Attributes:
      sizes: images of each of the C classes; "none" is the last class.
      weights: integers proportional to the share of each class among all drawn examples.
      drawn: number of images of each class that can be drawn; if below the class size, they are a fixed random subset.
      batch_size: examples in the global batch.
      seed: an integer in [0, 2^64).
    """

    sizes: tuple[int, ...]
    weights: tuple[int, ...]
    drawn: tuple[int, ...]
    batch_size: int
    seed: int

    def __post_init__(self):
        if max(self.sizes) > MAX_CLASS_SIZE:
            raise ValueError(f"a class of {max(self.sizes):,} images: at most {MAX_CLASS_SIZE:,} are supported")
        if not 0 <= self.seed < 2**64:
            raise ValueError(f"seed {self.seed} is outside [0, 2^64)")
        if any(w and not d for w, d in zip(self.weights, self.drawn, strict=True)) or not sum(self.weights):
            raise ValueError(f"a class without images cannot be drawn: sizes {self.sizes}, weights {self.weights}")

    @functools.cached_property
    def prior(self) -> np.ndarray:
        """The effective prior: float64 [C], the share of each class among all drawn examples."""
        return np.array(self.weights, np.float64) / sum(self.weights)

    def counts(self, step: int) -> list[int]:
        """Returns the number of examples of each class before batch `step`."""
        return self._counts(step, step + 1)[0].tolist()

    def quotas(self, step: int) -> list[int]:
        """Returns the number of examples of each class in batch `step`; they sum to `batch_size`."""
        return np.diff(self._counts(step, step + 2), axis=0)[0].tolist()

    def plan(self, first: int, last: int) -> Plan:
        """Returns the plan of batches `first` to `last`: all values whose computation needs more than 32 bits."""
        counts, size = self._counts(first, last + 1), np.maximum(self.drawn, 1)
        quotas, before = np.diff(counts, axis=0), counts[:-1]
        start = np.cumsum(quotas, axis=1) - quotas
        low, high = zip(*map(_words, range(first, last)), strict=True)
        return Plan(
            key=make_key(*_words(self.seed), np.uint32(_ORDER), np.array(low), np.array(high))[:, None],
            start=start.astype(np.uint32),
            epoch=(before // size & 0xFFFFFFFF).astype(np.uint32),
            offset=(before % size).astype(np.uint32),
        )

    def _counts(self, first: int, last: int) -> np.ndarray:
        """The number of examples of each class before each of the batches `first` to `last`: [last - first, C]."""
        large = last * self.batch_size * self._cumulative[-1] >= 2**63
        count = np.array([step * self.batch_size for step in range(first, last)], object if large else np.int64)
        return np.stack(self._split(count, 0, len(self.weights)), axis=1)

    def draw(self, plan: Plan, position: Uint32, xp: types.ModuleType = np) -> tuple[Uint32, Uint32]:
        """Returns the class of each example at `position`, and its index within the class, all uint32 [n, b].

        Positions, [b], are in [0, batch_size). The example at a position does not depend on the other positions, so hosts
        can draw slices of one global batch. `xp` is numpy or jax.numpy.
        """
        steps, classes = plan.start.shape
        step = np.arange(steps, dtype=np.uint32)[:, None]
        slot = permute(position, xp.asarray(self._tables["batch"]), plan.key, xp)
        later = step * np.uint32(self.batch_size)  # the slots of all steps, one after the other
        at = xp.searchsorted((plan.start + later).ravel(), slot + later, side="right") - 1  # in the ravelled plan
        label = (at - step * np.uint32(classes)).astype(np.uint32)
        drawn, full = xp.asarray(self._tables["drawn"]), xp.asarray(self._tables["full"])
        count = plan.offset.ravel()[at] + (slot - plan.start.ravel()[at])
        size = drawn[label, 0]
        epoch = plan.epoch.ravel()[at] + count // size
        key = make_key(*_words(self.seed), np.uint32(_EPOCH), label, epoch)
        index = permute(count % size, drawn[label], key, xp)
        if self.drawn != self.sizes:
            index = xp.where(size < full[label, 0], permute(index, full[label], self._subset_key(label), xp), index)
        return label, index

    def subset(self, label: int) -> Uint32:
        """Returns the indices of the images of a class that can be drawn, each once: uint32 [drawn[label]]."""
        index = np.arange(self.drawn[label], dtype=np.uint32)
        if self.drawn[label] == self.sizes[label]:
            return index
        return permute(index, self._tables["full"][label], self._subset_key(np.uint32(label)))

    def _subset_key(self, label: Uint32 | np.uint32) -> Uint32:
        return make_key(*_words(self.seed), np.uint32(_SUBSET), label)

    def batch(self, step: int, start: int = 0, stop: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Returns the examples `start` to `stop` of batch `step`: (class, index within the class), both uint32."""
        label, index = self.batches(step, step + 1, start, stop)
        return label[0], index[0]

    def batches(self, first: int, last: int, start: int = 0, stop: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """As `batch`, for batches `first` to `last`: uint32 [last - first, stop - start]. Many at once take less time."""
        position = np.arange(start, self.batch_size if stop is None else stop, dtype=np.uint32)
        label, index = self.draw(self.plan(first, last), position)
        return np.asarray(label), np.asarray(index)

    def _split(self, count: np.ndarray, lo: int, hi: int) -> list[np.ndarray]:
        if hi - lo == 1:
            return [count]
        mid = (lo + hi) // 2
        total = self._cumulative[hi] - self._cumulative[lo]
        left = count * (self._cumulative[mid] - self._cumulative[lo]) // total if total else np.zeros_like(count)
        return self._split(left, lo, mid) + self._split(count - left, mid, hi)

    @functools.cached_property
    def _cumulative(self) -> list[int]:
        return [0, *itertools.accumulate(self.weights)]

    @functools.cached_property
    def _tables(self) -> dict[str, np.ndarray]:
        return {"batch": domain(self.batch_size), "drawn": domain(self.drawn), "full": domain(self.sizes)}


def _words(value: int) -> tuple[np.uint32, np.uint32]:
    return np.uint32(value & 0xFFFFFFFF), np.uint32(value >> 32 & 0xFFFFFFFF)


# --- Policies: (sizes, negative_fraction) -> (weights, number of images of each class that can be drawn) ------------------


def _balanced(sizes, _):
    return [int(n > 0) for n in sizes], sizes


def _undersample(sizes, _):
    smallest = min(n for n in sizes if n)
    return [int(n > 0) for n in sizes], [min(n, smallest) for n in sizes]


def _negative_fraction(sizes, fraction):
    if not 0 < fraction < 1:
        raise UserError(f"sampling.negative_fraction: {fraction} must be between 0 and 1, both excluded")
    share, known = fractions.Fraction(str(fraction)), sizes[:-1]
    weights = [n * (share.denominator - share.numerator) for n in known]
    return [*weights, sum(known) * share.numerator], sizes


POLICIES = {
    "natural": lambda sizes, _: (sizes, sizes),  # the proportions of the pool
    "undersample": _undersample,  # equal shares; every class reduced to a fixed subset of the smallest class's size
    "undersample_fresh": _balanced,  # the same stream as "balanced": see `make_sampler`
    "oversample": _balanced,  # the same stream as "balanced": see `make_sampler`
    "balanced": _balanced,  # equal shares of all K + 1 classes in every batch
    "negative_fraction": _negative_fraction,  # a given share of negatives; known classes in the proportions of the pool
}


def make_sampler(
    policy: str, sizes: tuple[int, ...], *, batch_size: int, seed: int, negative_fraction: float = 0.5
) -> Sampler:
    """Returns the sampler of a policy.

    Because runs are counted in steps, `oversample`, `undersample_fresh` and `balanced` are the
    same stream: equal shares of all classes, every image of a class once before any comes twice. All are known names.
    `sizes` are those of the known classes and, if the objective uses negatives, of all negatives together.

    Raises:
      UserError: the policy is unknown, there are no negatives, or the negative fraction is not in (0, 1).
    """
    if policy not in POLICIES:
        raise UserError(f"sampling.policy: {policy!r} is not one of {', '.join(POLICIES)}")
    if not sizes[-1]:
        raise UserError("data.negatives: no training images; add negatives, or use objective.name=softmax, which needs none")
    weights, drawn = POLICIES[policy](list(sizes), negative_fraction)
    divisor = math.gcd(*weights)
    return Sampler(tuple(sizes), tuple(w // divisor for w in weights), tuple(drawn), batch_size, seed)
