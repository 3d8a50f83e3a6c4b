"""What training changes: one value, saved as it is."""

import functools
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn


@flax.struct.dataclass
class TrainState:
    """Parameters and all that their next update depends on, apart from the batch and the seed.

    Attributes:
      step: int32 scalar, optimizer steps done.
      params: float32 parameters.
      batch_stats: running statistics of batch normalisation, {} without it.
      opt_state: of the optimizer, for the layers that are trained.
    """

    step: Any
    params: Any
    batch_stats: Any
    opt_state: optax.OptState

    @property
    def variables(self) -> dict[str, Any]:
        """What `model.apply` takes."""
        return {"params": self.params, "batch_stats": self.batch_stats}


def initial_variables(model: nn.Module, *, seed: Any, image_size: int) -> dict[str, Any]:
    """Parameters and batch statistics before the first step: a function of the seed, uint32, alone."""
    variables = model.init(jax.random.key(seed), jnp.zeros((1, image_size, image_size, 3)))
    return {"params": variables["params"], "batch_stats": variables.get("batch_stats", {})}


def create_state(model: nn.Module, optimizer: optax.GradientTransformation, *, seed: int, image_size: int) -> TrainState:
    """The state before the first step, on the host: NumPy leaves share no buffer that a donation could delete."""
    return jax.tree.map(np.array, jax.device_get(_creating(model, optimizer, image_size)(np.uint32(seed))))


@functools.lru_cache(maxsize=8)
def _creating(model, optimizer, image_size):
    """A compiled function of the seed: runs that differ in it alone share it."""

    def create(seed):
        variables = initial_variables(model, seed=seed, image_size=image_size)
        trained, _ = model.split(variables["params"])
        return TrainState(jnp.zeros((), jnp.int32), **variables, opt_state=optimizer.init(trained))

    return jax.jit(create)
