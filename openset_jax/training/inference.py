"""Rows of a pool -> logits: the forward pass over any number of images."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from openset_jax.data import batches
from openset_jax.data.pools import Pool
from openset_jax.data.skipped import Skipped
from openset_jax.training import devices
from openset_jax.training.feed import Feed


class Inference:
    """Runs an evaluation step over rows of a pool, each once.

    Args:
      step: (variables, batch) -> {"logits", "mask"} of the global batch, from `devices.pmap_eval`.
      feed: how the images of the pool get to the devices.
      batch_size: global; a multiple of the number of devices.
      skipped: images that cannot be read.
    """

    def __init__(self, step: Callable[..., Any], pool: Pool, feed: Feed, *, batch_size: int, skipped: Skipped):
        self._step, self._pool, self._feed, self._batch_size = step, pool, feed, batch_size
        self._skipped = skipped

    def logits(self, variables: Any, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Runs the network.

        Args:
          variables: replicated parameters and batch statistics.

        Returns:
          (rows that could be read, in order, int64 [m]; their logits, float32 [m, outputs]).
        """
        plan = batches.evaluation(
            self._pool, rows, batch_size=self._batch_size, skipped=self._skipped, part=devices.host_part()
        )
        positions, logits = [], []
        for batch in devices.prefetch(self._feed.read(plan)):
            out = jax.device_get(self._step(variables, batch))
            positions.append(out["position"][out["mask"]])
            logits.append(out["logits"][out["mask"]])
        order = np.concatenate(positions)
        return np.asarray(rows)[order], np.concatenate(logits)
