"""Which rows are in a batch, and what goes with them besides pixels: label, place in the global batch, mask. NumPy only.

Whoever brings the pixels, tf.data (`pipeline.py`) or the devices' own memory (`resident.py`), takes the rows from here: so
both give the same images in the same order.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

from openset_jax.data.pools import Pool
from openset_jax.data.sampler import Sampler
from openset_jax.data.unreadable import Skipped
from openset_jax.errors import UserError

BLANK = -1  # a row that stands for no image


@dataclasses.dataclass(frozen=True)
class Batches:
    """Batches `start` to `stop`, or the slice of each that one host reads. It holds no position: any n may be asked for.

    Attributes:
      start, stop: the first batch, and the one after the last.
      size: examples in the slice.
      rows: n -> rows of the pool, int64 [size].
      columns: (n, rows) -> "label" int32 [size], "position" int32 [size], "mask" bool [size].
      blanks: whether rows may be `BLANK`; those are masked.
    """

    start: int
    stop: int
    size: int
    rows: Callable[[int], np.ndarray]
    columns: Callable[[int, np.ndarray], dict[str, np.ndarray]]
    blanks: bool


def training(
    pool: Pool,
    members: list[np.ndarray],
    sampler: Sampler,
    *,
    start: int,
    stop: int,
    skipped: Skipped,
    part: tuple[int, int] = (0, 1),
) -> Batches:
    """Batches of the sampler's stream.

    A bad image is replaced by the next good one of its class, whenever it was found to be bad, so that the stream is a
    function of the files alone. Labels are those of the network's outputs: "none" is K. `position` is the place in the
    global batch.

    Args:
      members: rows of each class, from `Pool.training_members`.
      part: (host, hosts); a host has batch_size / hosts examples of each global batch.
    """
    size = sampler.batch_size // part[1]
    position = np.arange(part[0] * size, (part[0] + 1) * size, dtype=np.int32)
    first = np.cumsum([0, *map(len, members[:-1])])
    all_members = np.concatenate(members)

    def rows_of(n):
        label, index = sampler.batch(n, position[0], position[-1] + 1)
        rows = all_members[first[label] + index]
        for i in np.flatnonzero(skipped.mask(rows)):
            candidates = np.roll(members[label[i]], -int(index[i]))
            good = candidates[~skipped.mask(candidates)]
            if not len(good):
                raise UserError(f"{pool.groups[pool.group[rows[i]]]!r} has no readable image to train on")
            rows[i] = good[0]
        return rows

    def columns(n, rows):
        label = np.where(pool.label[rows] < 0, pool.num_classes, pool.label[rows]).astype(np.int32)
        return {"label": label, "position": position, "mask": np.ones(size, bool)}

    return Batches(start, stop, size, rows_of, columns, blanks=False)


def evaluation(
    pool: Pool, rows: np.ndarray, *, batch_size: int, skipped: Skipped, part: tuple[int, int] = (0, 1)
) -> Batches:
    """Every row once, in order; the last batch is padded, and padding and bad images are masked.

    Labels are as in `Pool.label`; `position` is the place in `rows`.
    """
    count = -(-len(rows) // batch_size)
    size = batch_size // part[1]
    padded = np.full(count * batch_size, BLANK, np.int64)
    padded[: len(rows)] = rows

    def rows_of(n):
        mine = padded[n * batch_size + part[0] * size :][:size]
        return np.where(skipped.mask(mine), BLANK, mine)

    def columns(n, mine):
        first = n * batch_size + part[0] * size
        return {
            "label": np.where(mine == BLANK, BLANK, pool.label[mine]).astype(np.int32),
            "position": np.arange(first, first + size, dtype=np.int32),
            "mask": mine != BLANK,
        }

    return Batches(0, count, size, rows_of, columns, blanks=True)
