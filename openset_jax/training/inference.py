"""The forward pass over any rows of a pool."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping

import jax
import numpy as np

from openset_jax.data import batches
from openset_jax.data.pools import Pool
from openset_jax.data.unreadable import Unreadable
from openset_jax.errors import Stopped
from openset_jax.model.network import Network
from openset_jax.training import devices, divergence, hosts
from openset_jax.training.eval_program import EvalStep
from openset_jax.training.image_input import ImageInput, LoadedImages
from openset_jax.training.state import Variables


@dataclasses.dataclass(frozen=True, eq=False)
class Inference:
    """Runs evaluation steps over rows of a pool, each row once."""

    network: Network
    steps: Mapping[str, EvalStep]  # name of an output -> step, from `eval_program.make_eval_steps`
    pool: Pool
    image_input: ImageInput
    batch_size: int  # global, a multiple of the number of devices
    unreadable: Unreadable
    stop_requested: Callable[[], str] | None = None  # returns the reason to stop before the next batch, "" to continue

    @property
    def examples(self) -> LoadedImages:
        """The images, or the features, that it reads."""
        return LoadedImages(self.image_input, self.unreadable)

    def run(self, output: str, variables: Variables, rows: np.ndarray) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]:
        """Yields (the readable rows, int64 [b]; arrays [b, ...] on the host) of each batch; few are in memory at a time.

        Args:
          output: a name of `steps`.
          variables: replicated parameters and batch statistics.

        Raises:
          NotFinite: logits are not finite.
          Stopped: `stop_requested` returned a reason, in this process or another one.
        """
        rows, part = np.asarray(rows), hosts.host_part()
        plan = batches.evaluation(self.pool, rows, batch_size=self.batch_size, unreadable=self.unreadable, part=part)
        for batch in devices.prefetch(self.image_input.read(plan)):
            if self.stop_requested and hosts.any_process(bool(self.stop_requested()), communicate=True):
                reason = self.stop_requested() or hosts.ELSEWHERE
                raise Stopped(f"Stopped by {reason}. Training is done and saved; run the same command again to evaluate.")
            out = jax.device_get(self.steps[output](variables, batch))
            mask, position = out.pop("mask"), out.pop("position")
            readable = {name: values[mask] for name, values in out.items()}
            if "logits" in readable:
                divergence.check_logits(readable["logits"], variables, self.network.layers)
            yield rows[position[mask]], readable

    def run_all(self, output: str, variables: Variables, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(the readable rows, in order, int64 [m]; array [m, ...]) of a one-array output; raises ValueError without rows."""
        found = list(self.run(output, variables, rows))
        if not found:
            raise ValueError("the forward pass needs at least one row")
        arrays = [array for _, out in found for array in out.values()]
        return np.concatenate([readable for readable, _ in found]), np.concatenate(arrays)

    def logits(self, variables: Variables, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(the readable rows, in order, int64 [m]; their logits, float32 [m, outputs])."""
        return self.run_all("logits", variables, rows)


@dataclasses.dataclass(frozen=True, eq=False)
class FeatureInference(Inference):
    """The forward pass of a whole network whose features are known: only the head runs, where this is enough.

    Attributes:
      of_features: the forward pass of the head over the features.
      of_images: returns the forward pass of the whole network over the images, for the other outputs.
    """

    of_features: Inference = dataclasses.field(kw_only=True)
    of_images: Callable[[], Inference] = dataclasses.field(kw_only=True)

    @property
    def examples(self) -> LoadedImages:
        """The features."""
        return LoadedImages(self.image_input, self.unreadable, self.of_features.pool)

    def run(self, output: str, variables: Variables, rows: np.ndarray) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]:
        """As `Inference.run`, with the variables of the whole network."""
        if output in self.of_features.steps:
            head, inference = self.network.head, self.of_features
            variables = {"params": {head: variables["params"][head]}, "batch_stats": {}}
        else:
            inference = self.of_images()
        yield from dataclasses.replace(inference, stop_requested=self.stop_requested).run(output, variables, rows)
