"""The forward pass over any rows of a pool."""

from collections.abc import Iterator, Mapping

import jax
import numpy as np

from openset_jax.data import batches
from openset_jax.data.pools import Pool
from openset_jax.data.unreadable import Unreadable
from openset_jax.training import devices, hosts
from openset_jax.training.eval_program import EvalStep
from openset_jax.training.image_input import ImageInput
from openset_jax.training.state import Variables


class Inference:
    """Runs evaluation steps over rows of a pool, each row once.

    Args:
      steps: name of an output -> step, from `eval_program.make_eval_steps`.
      pool, image_input: the images, and how they reach the devices.
      batch_size: global batch size, a multiple of the number of devices.
      unreadable: images that cannot be read.
    """

    def __init__(
        self,
        steps: Mapping[str, EvalStep],
        pool: Pool,
        image_input: ImageInput,
        *,
        batch_size: int,
        unreadable: Unreadable,
    ):
        self._steps, self._pool, self._image_input, self._batch_size = steps, pool, image_input, batch_size
        self.unreadable = unreadable

    def run(self, output: str, variables: Variables, rows: np.ndarray) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]:
        """Evaluates rows batch by batch and yields each batch; only a few batches are in memory at a time.

        Args:
          output: a name of `steps`.
          variables: replicated parameters and batch statistics.

        Yields:
          (the readable rows of a batch, int64 [b]; arrays [b, ...] on the host).
        """
        rows = np.asarray(rows)
        plan = batches.evaluation(
            self._pool, rows, batch_size=self._batch_size, unreadable=self.unreadable, part=hosts.host_part()
        )
        for batch in devices.prefetch(self._image_input.read(plan)):
            out = jax.device_get(self._steps[output](variables, batch))
            mask, position = out.pop("mask"), out.pop("position")
            yield rows[position[mask]], {name: values[mask] for name, values in out.items()}

    def run_all(self, output: str, variables: Variables, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Evaluates all rows and returns one concatenated array, for an output that is a single array.

        Returns:
          (the readable rows, in order, int64 [m]; array [m, ...]).

        Raises:
          ValueError: `rows` is empty.
        """
        found = list(self.run(output, variables, rows))
        if not found:
            raise ValueError("the forward pass needs at least one row")
        arrays = [array for _, out in found for array in out.values()]
        return np.concatenate([readable for readable, _ in found]), np.concatenate(arrays)

    def logits(self, variables: Variables, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(the readable rows, in order, int64 [m]; their logits, float32 [m, outputs])."""
        return self.run_all("logits", variables, rows)
