"""The images that could not be read: a run reports them and goes on without them."""

from collections.abc import Callable

import numpy as np

from openset_jax.data.pools import Pool
from openset_jax.errors import UserError
from openset_jax.text import show

MAX_PIXELS = 100_000_000  # the default of data.max_pixels


class Unreadable:
    """The unreadable images of a pool: each is reported once, when it is found, and not read again.

    Args:
      max_fraction: the maximum share of unreadable images in the pool.
      max_pixels: images of more pixels count as unreadable. Decoding takes up to 10 bytes per pixel.
      report: called with one line for each unreadable image.

    Attributes:
      max_pixels: as above.
      rows: row of the pool -> the reason why its image could not be read.
    """

    def __init__(
        self, pool: Pool, max_fraction: float = 0.01, max_pixels: int = MAX_PIXELS, report: Callable[[str], None] = show
    ):
        self.max_pixels = max_pixels
        self._pool, self._max_fraction, self._report = pool, max_fraction, report
        self.rows: dict[int, str] = {}

    def add(self, row: int, reason: str) -> None:
        """Adds an image and reports it. Raises UserError if more than `max_fraction` of the pool is unreadable."""
        self.rows[row] = reason
        source = self._pool.sources[self._pool.source[row]].name
        image = f"{self._pool.ids([row])[0]!r} of {source} ({self._pool.groups[self._pool.group[row]]})"
        self._report(f"skipped: unreadable image {image}: {reason}")
        self.check(self._max_fraction)

    def check(self, max_fraction: float) -> None:
        """Raises UserError if more than this share of the pool is unreadable."""
        if len(self.rows) > max_fraction * len(self._pool):
            last = self._pool.ids([next(reversed(self.rows))])[0]
            raise UserError(
                f"{len(self.rows)} of {len(self._pool):,} images could not be read, more than data.max_bad_fraction="
                f"{max_fraction} allows; the last is {last!r}. Repair or remove them, or raise data.max_bad_fraction"
            )

    def mask(self, rows: np.ndarray) -> np.ndarray:
        """Returns bool [n]: whether the image at each of `rows` (int [n]) is unreadable."""
        return np.isin(rows, list(self.rows)) if self.rows else np.zeros(len(rows), bool)
