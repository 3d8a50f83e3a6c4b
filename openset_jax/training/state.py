"""The training state: parameters, batch statistics, optimizer state; and the optimizer."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jax.typing import ArrayLike

from openset_jax.model.network import Network
from openset_jax.spec import OptimizerSpec

Shape = tuple[int, ...]  # of one example as the network takes it: (H, W, 3) or (F,)
Params = dict[str, Any]  # nested: layer -> name -> array
Variables = dict[str, Params]  # "params", "batch_stats"


class TrainState(struct.PyTreeNode):
    """The training state: step, parameters, batch statistics and optimizer state."""

    step: ArrayLike  # int32 scalar, the number of optimizer steps done
    params: Params  # float32
    batch_stats: Params  # running statistics of batch normalisation, {} without it
    opt_state: optax.OptState  # for the trained layers

    @property
    def variables(self) -> Variables:
        """The variables that `model.apply` takes."""
        return {"params": self.params, "batch_stats": self.batch_stats}


def make_schedule(optimizer: OptimizerSpec, steps: int) -> optax.Schedule:
    """Relative learning rate: linear from 0 to 1 over `warmup_steps`, then a half cosine to 0 at `steps`, or constant."""
    warmup = optimizer.warmup_steps
    if optimizer.schedule == "cosine":
        return optax.warmup_cosine_decay_schedule(0.0, 1.0, warmup, max(steps, warmup + 1))
    return optax.linear_schedule(0.0, 1.0, warmup) if warmup else optax.constant_schedule(1.0)


def make_optimizer(optimizer: OptimizerSpec, schedule: optax.Schedule) -> optax.GradientTransformation:
    """AdamW (Loshchilov and Hutter 2019, arXiv 1711.05101) after clipping by global norm (0: no clipping).

    Weight decay applies to kernels only, not to biases, nor to scales and offsets of normalisation. A step multiplies the
    updates by the learning rate of the run.
    """
    kernels = lambda params: jax.tree.map(lambda p: p.ndim > 1, params)
    clip = optax.clip_by_global_norm(optimizer.grad_clip) if optimizer.grad_clip else optax.identity()
    decay = {"weight_decay": optimizer.weight_decay, "mask": kernels}
    return optax.chain(clip, optax.adamw(schedule, b1=optimizer.b1, b2=optimizer.b2, eps=optimizer.eps, **decay))


def initial_variables(model: Network, seed: ArrayLike, *, shape: Shape) -> Variables:
    """Parameters and batch statistics before the first step, a function of the seed (uint32) alone."""
    variables = model.init(jax.random.key(seed), jnp.zeros((1, *shape)))
    return {"params": variables["params"], "batch_stats": variables.get("batch_stats", {})}


@functools.lru_cache(maxsize=8)
def variables_shape(model: Network, shape: Shape) -> Variables:
    """Shapes and dtypes of the variables."""
    return jax.eval_shape(_compiled_init(model.clone(trained=()), shape), np.uint32(0))


def state_shape(model: Network, optimizer: optax.GradientTransformation, shape: Shape) -> TrainState:
    """Shapes and dtypes of the training state, with the step 0."""
    variables = variables_shape(model, shape)
    trained, _ = model.split(variables["params"])
    return TrainState(np.zeros((), np.int32), **variables, opt_state=jax.eval_shape(optimizer.init, trained))


def create_state(model: Network, optimizer: optax.GradientTransformation, *, seed: int, shape: Shape) -> TrainState:
    """Returns the initial state as NumPy arrays on the host, which a donation cannot delete."""
    variables = jax.device_get(_compiled_init(model.clone(trained=()), shape)(np.uint32(seed)))
    trained, _ = model.split(variables["params"])
    state = TrainState(np.zeros((), np.int32), **variables, opt_state=optimizer.init(trained))
    return jax.tree.map(np.array, jax.device_get(state))


@functools.lru_cache(maxsize=8)
def _compiled_init(model, shape):
    """A compiled function of the seed, traced once for all runs with this network, whatever they train and how."""
    return jax.jit(functools.partial(initial_variables, model, shape=shape))
