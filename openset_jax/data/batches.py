"""Batches without pixels: the rows of each batch, their labels, positions in the global batch, and masks. NumPy only.

Streamed input (`pipeline.py`) and resident input (`resident.py`) take their rows from this module, so they deliver the same
images in the same order.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator

import numpy as np

from openset_jax.data.pools import Pool
from openset_jax.data.sampler import Sampler
from openset_jax.data.unreadable import Unreadable
from openset_jax.errors import UserError

BLANK = -1  # the row of an example without an image
_DRAWN_AT_ONCE = 16_384  # examples: drawing many batches at once takes less time for each


@dataclasses.dataclass(frozen=True)
class Batches:
    """Batches `start` to `stop`, or one host's slice of each. There is no state: batches can be computed in any order.

    Attributes:
      start, stop: number of the first batch, and of the batch after the last.
      size: examples in the slice.
      rows: n -> rows of the pool, int64 [size].
      columns: (n, rows) -> "label" int32 [size], "position" int32 [size], "mask" bool [size].
      blanks: whether rows may be `BLANK`; such examples are masked.
    """

    start: int
    stop: int
    size: int
    rows: Callable[[int], np.ndarray]
    columns: Callable[[int, np.ndarray], dict[str, np.ndarray]]
    blanks: bool


ReadBatches = Callable[[Batches], Iterator[dict[str, np.ndarray]]]  # yields "example" or "row", and the columns


def training(
    pool: Pool, rows_by_class: list[np.ndarray], sampler: Sampler, *, start: int, stop: int, unreadable: Unreadable,
    part: tuple[int, int] = (0, 1),
) -> Batches:  # fmt: skip
    """Returns batches `start` to `stop` of the sampler's stream.

    An unreadable image is replaced by the next readable one of those that the sampler draws from its class
    (`Sampler.subset`). The replacement does not depend on when the image was found to be unreadable, so the stream is a
    function of the files alone. Labels are the indices of the network's outputs: "none" is K. `position` is the position in
    the global batch.

    Args:
      rows_by_class: as from `Pool.training_rows`.
      part: (host, number of hosts); each host has batch_size / hosts examples of each global batch.
    """
    size = sampler.batch_size // part[1]
    position = np.arange(part[0] * size, (part[0] + 1) * size, dtype=np.int32)
    first = np.cumsum([0, *map(len, rows_by_class[:-1])])
    all_rows, subset_of = np.concatenate(rows_by_class), functools.cache(sampler.subset)

    together = max(_DRAWN_AT_ONCE // size, 1)

    @functools.lru_cache(maxsize=2)
    def drawn(first_step):
        return sampler.batches(first_step, first_step + together, position[0], position[-1] + 1)

    def rows_of(n):
        label, index = (values[n % together] for values in drawn(n - n % together))
        rows = all_rows[first[label] + index]
        for i in np.flatnonzero(unreadable.mask(rows)) if unreadable.rows else ():
            subset = subset_of(int(label[i]))
            following = np.roll(subset, -int(np.flatnonzero(subset == index[i])[0]))
            candidates = rows_by_class[label[i]][following]
            readable = candidates[~unreadable.mask(candidates)]
            if not len(readable):
                name = pool.groups[pool.group[rows[i]]]
                raise UserError(
                    f"none of the {len(subset)} images of {name!r} that training draws is readable; replace them"
                )
            rows[i] = readable[0]
        return rows

    output_of, all_there = np.where(pool.label < 0, pool.num_classes, pool.label).astype(np.int32), np.ones(size, bool)
    columns = lambda n, rows: {"label": output_of[rows], "position": position, "mask": all_there}
    return Batches(start, stop, size, rows_of, columns, blanks=False)


def evaluation(
    pool: Pool, rows: np.ndarray, *, batch_size: int, unreadable: Unreadable, part: tuple[int, int] = (0, 1)
) -> Batches:
    """Returns batches that contain each row once, in order. Padding (of the last batch) and unreadable images are masked.

    Labels are those of `Pool.label`; `position` is the index into `rows`; `part` is as in `training`.
    """
    count = -(-len(rows) // batch_size)
    size = batch_size // part[1]
    padded = np.full(count * batch_size, BLANK, np.int64)
    padded[: len(rows)] = rows
    position = np.arange(part[0] * size, (part[0] + 1) * size, dtype=np.int32)  # in the batch

    def rows_of(n):
        mine = padded[n * batch_size + position]
        return np.where(unreadable.mask(mine), BLANK, mine)

    def columns(n, mine):
        label = np.where(mine == BLANK, BLANK, pool.label[mine]).astype(np.int32)
        return {"label": label, "position": n * batch_size + position, "mask": mine != BLANK}

    return Batches(0, count, size, rows_of, columns, blanks=True)
