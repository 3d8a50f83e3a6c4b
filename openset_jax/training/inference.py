"""Rows of a pool -> logits: the forward pass over any number of images."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from openset_jax.data import pipeline
from openset_jax.data.pools import Pool
from openset_jax.training import devices


class Inference:
    """Runs an evaluation step over rows of a pool, each once.

    Args:
      step: (variables, batch) -> {"logits", "mask"} of the global batch, from `steps.eval_step`.
      batch_size: global; a multiple of the number of devices.
      stored_size: side of the stored images.
      skipped: takes note of images that cannot be read.
    """

    def __init__(
        self, step: Callable[..., Any], pool: Pool, *, batch_size: int, stored_size: int, skipped: pipeline.Skipped
    ):
        self._step = devices.pmap_eval(step)
        self._pool, self._batch_size, self._stored_size, self._skipped = pool, batch_size, stored_size, skipped

    def logits(self, variables: Any, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Runs the network.

        Args:
          variables: replicated parameters and batch statistics.

        Returns:
          (rows that could be read, in order, int64 [m]; their logits, float32 [m, outputs]).
        """
        batches = pipeline.evaluation_batches(
            self._pool,
            rows,
            batch_size=self._batch_size,
            stored_size=self._stored_size,
            skipped=self._skipped,
            part=devices.host_part(),
        )
        positions, logits = [], []
        for batch in devices.prefetch(batches):
            out = jax.device_get(self._step(variables, batch))
            positions.append(out["position"][out["mask"]])
            logits.append(out["logits"][out["mask"]])
        order = np.concatenate(positions)
        return np.asarray(rows)[order], np.concatenate(logits)
