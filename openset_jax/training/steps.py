"""One optimizer step and one forward pass: pure functions of a state and one device's share of a batch.

They run under `jax.pmap` (`training/devices.py`) over the axis `AXIS`. Everything random is keyed by (seed, step, place
in the global batch), and every mean is over the global batch, so that one device and eight do the same.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax import lax

from openset_jax.training.state import TrainState

AXIS = "data"
Batch = dict[str, jax.Array]


def train_step(
    state: TrainState,
    batch: Batch,
    *,
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    objective: Callable[[jax.Array, jax.Array], jax.Array],
    augment: Callable[[jax.Array, jax.Array, jax.Array], jax.Array],
    normalise: Callable[[jax.Array], jax.Array],
    seed: int,
    all_reduce_dtype: Any = jnp.float32,
) -> tuple[TrainState, dict[str, jax.Array]]:
    """Augments, runs the network forwards and backwards, averages over devices, updates.

    Args:
      batch: "image" uint8 [b, S, S, 3], "label" int32 [b], "position" int32 [b].
      objective: (logits, label) -> loss of each example.
      augment: (uint8 images, key, position) -> uint8 images.
      normalise: uint8 images -> float32 images.
      all_reduce_dtype: in which gradients travel between devices; bfloat16 halves the bytes and rounds each device's to 8
        bits.

    Returns:
      The next state, and means over the global batch: "loss", "correct", "predicted" (float32 [outputs], the share of the
      batch predicted as each class) and "grad_norm" (before clipping).
    """
    key = jax.random.fold_in(jax.random.key(seed), state.step)
    augment_key, dropout_key = jax.random.split(key)
    images = normalise(augment(batch["image"], augment_key, batch["position"]))

    def loss_of(params):
        (logits, _), updated = model.apply(
            {"params": params, "batch_stats": state.batch_stats},
            images,
            train=True,
            position=batch["position"],
            rngs={"dropout": dropout_key},
            mutable=["batch_stats"],
        )
        return objective(logits, batch["label"]).mean(), (logits, updated.get("batch_stats", {}))

    (loss, (logits, batch_stats)), grads = jax.value_and_grad(loss_of, has_aux=True)(state.params)
    predicted = jnp.argmax(logits, axis=-1)
    metrics = {
        "loss": loss,
        "correct": (predicted == batch["label"]).mean(),
        "predicted": jax.nn.one_hot(predicted, logits.shape[-1]).mean(0),
    }
    if lax.axis_size(AXIS) > 1:  # alone, a device would copy all gradients
        grads = jax.tree.map(lambda g: g.astype(all_reduce_dtype), grads)
        grads, metrics = lax.pmean((grads, metrics), AXIS)
        grads = jax.tree.map(lambda g, p: g.astype(p.dtype), grads, state.params)
    metrics["grad_norm"] = optax.tree.norm(grads)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    return TrainState(state.step + 1, params, batch_stats, opt_state), metrics


def eval_step(
    variables: Any, batch: Batch, *, model: nn.Module, preprocess: Callable[[jax.Array], jax.Array]
) -> dict[str, jax.Array]:
    """Logits of the global batch, float32 [B, outputs], and its "mask" and "position", on every device."""
    logits, _ = model.apply(variables, preprocess(batch["image"]))
    result = {"logits": logits, "mask": batch["mask"], "position": batch["position"]}
    return lax.all_gather(result, AXIS, tiled=True)
