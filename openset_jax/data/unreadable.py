"""Images that could not be read: what a run goes on without, and says so."""

from collections.abc import Callable

import numpy as np

from openset_jax.data.pools import Pool
from openset_jax.errors import UserError


class Skipped:
    """Images that could not be read, as they are found: named, counted, and never asked for again.

    Args:
      pool: whose images.
      max_fraction: the share of the pool above which the data, not an image, is what is wrong.
      report: called with one line for each bad image.
    """

    def __init__(self, pool: Pool, max_fraction: float = 0.01, report: Callable[[str], None] = print):
        self._pool, self._max_fraction, self._report = pool, max_fraction, report
        self.rows: dict[int, str] = {}  # and why

    def add(self, row: int, reason: str) -> None:
        """Remembers a bad image.

        Raises:
          UserError: more than the accepted share of the pool is bad.
        """
        self.rows[row] = reason
        source = self._pool.sources[self._pool.source[row]].name
        what = f"{self._pool.ids([row])[0]!r} of {source} ({self._pool.groups[self._pool.group[row]]})"
        self._report(f"skipped: {what} is not a readable image: {reason}")
        if len(self.rows) > self._max_fraction * len(self._pool):
            raise UserError(
                f"{len(self.rows)} of {len(self._pool):,} images could not be read, more than data.max_bad_fraction="
                f"{self._max_fraction}; the last was {what}"
            )

    def mask(self, rows: np.ndarray) -> np.ndarray:
        """True where a row is a known bad image."""
        return np.isin(rows, list(self.rows)) if self.rows else np.zeros(len(rows), bool)
