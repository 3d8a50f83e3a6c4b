"""One optimizer step and one forward pass: pure functions of a state and one device's share of a batch.

They run under `jax.pmap` (`training/devices.py`) over the axis `AXIS`. Everything random is keyed by (seed, step, place
in the global batch), and every mean is over the global batch, so that one device and eight do the same.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax import lax

from openset_jax.openset.losses.weights import Weights
from openset_jax.training.state import TrainState

AXIS = "data"
Batch = dict[str, jax.Array]


class Given(NamedTuple):
    """What differs between runs that do the same: arguments of the program, so that they share it.

    Attributes:
      seed: uint32 scalar.
      by_class: float32 [K + 1], `Weights.by_class`.
      adjustment: float32 [outputs], `Weights.adjustment`.
    """

    seed: Any
    by_class: Any
    adjustment: Any


def train_step(
    given: Given,
    state: TrainState,
    batch: Batch,
    *,
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    loss: Callable[[jax.Array], Callable[[jax.Array, jax.Array, jax.Array], jax.Array]],
    answer: Callable[[jax.Array], jax.Array],
    weights: Weights,
    says_none: bool,
    augment: Callable[[jax.Array, jax.Array, jax.Array], jax.Array],
    normalise: Callable[[jax.Array], jax.Array],
    all_reduce_dtype: Any = jnp.float32,
) -> tuple[TrainState, dict[str, jax.Array]]:
    """Augments, runs the network forwards and backwards, averages over devices, updates.

    Only the layers that the network trains have gradients, and state in the optimizer; the others stay as they are, bit by
    bit.

    Args:
      given: the run's own.
      batch: "image" uint8 [b, S, S, 3], "label" int32 [b], "position" int32 [b].
      loss: `given.adjustment` -> (logits, features, label) -> loss of each example.
      answer: logits -> the class of each example, int32 [b] in [0, K], K for "none".
      weights: what each example counts, but for `given.by_class`.
      says_none: whether the network can answer "none" by itself; else only knowns can be "correct".
      augment: (uint8 images, key, position) -> uint8 images.
      normalise: uint8 images -> float32 images.
      all_reduce_dtype: in which gradients travel between devices; bfloat16 halves the bytes and rounds each device's to 8
        bits.

    Returns:
      The next state, and means over the global batch: "loss", "correct" (of the knowns alone, unless `says_none`),
      "predicted" (float32 [K + 1], the share of the batch answered with each class) and "grad_norm" (before clipping).
    """
    weights = weights._replace(by_class=given.by_class)
    key = jax.random.fold_in(jax.random.key(given.seed), state.step)
    augment_key, dropout_key = jax.random.split(key)
    images = normalise(augment(batch["image"], augment_key, batch["position"]))
    trained, frozen = model.split(state.params)

    def loss_of(trained):
        (logits, features), updated = model.apply(
            {"params": frozen | trained, "batch_stats": state.batch_stats},
            images,
            train=True,
            position=batch["position"],
            rngs={"dropout": dropout_key},
            mutable=["batch_stats"],
        )
        losses = loss(given.adjustment)(logits, features, batch["label"])
        return (losses * weights.of_examples(batch["label"], AXIS)).sum(), (logits, updated.get("batch_stats", {}))

    (value, (logits, batch_stats)), grads = jax.value_and_grad(loss_of, has_aux=True)(trained)
    predicted = answer(logits)
    metrics = {
        "loss": value,
        "correct": ((predicted == batch["label"]) * _counted(batch["label"], len(weights.prior) - 1, says_none)).sum(),
        "predicted": jax.nn.one_hot(predicted, len(weights.prior)).mean(0),
    }
    if lax.axis_size(AXIS) > 1:  # alone, a device would copy all gradients
        grads = jax.tree.map(lambda g: g.astype(all_reduce_dtype), grads)
        grads, metrics = lax.pmean((grads, metrics), AXIS)
        grads = jax.tree.map(lambda g, p: g.astype(p.dtype), grads, trained)
    metrics["grad_norm"] = optax.tree.norm(grads)
    updates, opt_state = optimizer.update(grads, state.opt_state, trained)
    params = frozen | optax.apply_updates(trained, updates)
    return TrainState(state.step + 1, params, batch_stats, opt_state), metrics


def _counted(label, num_classes, says_none):
    """What each example adds to a mean over the global batch, or over the knowns in it, where devices are averaged."""
    if says_none:
        return jnp.full(label.shape, 1 / len(label))
    counted = (label < num_classes).astype(jnp.float32)
    return lax.axis_size(AXIS) * counted / jnp.maximum(lax.psum(counted.sum(), AXIS), 1)


def eval_step(
    variables: Any, batch: Batch, *, look: Callable[[Any, jax.Array], dict[str, jax.Array]]
) -> dict[str, jax.Array]:
    """What one looks at of the global batch, and its "mask" and "position", on every device.

    Args:
      look: (variables, uint8 images [b, S, S, 3]) -> arrays [b, ...].
    """
    result = look(variables, batch["image"]) | {"mask": batch["mask"], "position": batch["position"]}
    return lax.all_gather(result, AXIS, tiled=True)
