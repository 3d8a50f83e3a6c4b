"""Rows of a pool -> what the network makes of them: the forward pass over any number of images."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from openset_jax.data import batches
from openset_jax.data.pools import Pool
from openset_jax.data.unreadable import Skipped
from openset_jax.training import devices
from openset_jax.training.feed import Feed


class Inference:
    """Runs evaluation steps over rows of a pool, each once.

    Args:
      steps: what to look at -> (variables, batch) -> dict of arrays of the global batch, from `programs.make_eval_steps`.
      feed: how the images of the pool get to the devices.
      batch_size: global; a multiple of the number of devices.
      skipped: images that cannot be read.
    """

    def __init__(
        self, steps: Mapping[str, Callable[..., Any]], pool: Pool, feed: Feed, *, batch_size: int, skipped: Skipped
    ):
        self._steps, self._pool, self._feed, self._batch_size = steps, pool, feed, batch_size
        self._skipped = skipped

    def run(self, what: str, variables: Any, rows: np.ndarray) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]:
        """Looks at rows batch by batch, so that no more than a few batches are in memory.

        Args:
          what: a name of `steps`.
          variables: replicated parameters and batch statistics.

        Yields:
          (those rows of a batch that could be read, int64 [b]; arrays [b, ...] on the host).
        """
        rows = np.asarray(rows)
        plan = batches.evaluation(
            self._pool, rows, batch_size=self._batch_size, skipped=self._skipped, part=devices.host_part()
        )
        for batch in devices.prefetch(self._feed.read(plan)):
            out = jax.device_get(self._steps[what](variables, batch))
            mask, position = out.pop("mask"), out.pop("position")
            yield rows[position[mask]], {name: values[mask] for name, values in out.items()}

    def whole(self, what: str, variables: Any, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The same at once, where a step gives one array.

        Returns:
          (rows that could be read, in order, int64 [m]; array [m, ...]).

        Raises:
          ValueError: there are no rows.
        """
        found = list(self.run(what, variables, rows))
        if not found:
            raise ValueError("there are no rows to look at")
        arrays = [array for _, out in found for array in out.values()]
        return np.concatenate([there for there, _ in found]), np.concatenate(arrays)

    def logits(self, variables: Any, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(rows that could be read, in order, int64 [m]; their logits, float32 [m, outputs])."""
        return self.whole("logits", variables, rows)
