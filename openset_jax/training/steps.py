"""One optimizer step and one evaluation step: pure functions of a state and one device's share of a batch.

They run under `jax.pmap` (`training/devices.py`) over the axis `AXIS`. Every random number is keyed by (seed, step, position
in the global batch), and every mean is over the global batch, so that the number of devices changes only rounding.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.typing import ArrayLike, DTypeLike

from openset_jax.model.network import Network
from openset_jax.openset.losses.objectives import Loss, Objective
from openset_jax.openset.losses.weights import example_weights
from openset_jax.training.state import TrainState, Variables

AXIS = "data"
Batch = dict[str, jax.Array]
Metrics = dict[str, jax.Array]


class RunConstants(NamedTuple):
    """Per-run values, passed as arguments so that runs share one compilation."""

    seed: ArrayLike  # uint32 scalar
    learning_rate: ArrayLike  # float32 scalar, multiplies the updates of the optimizer
    by_class: ArrayLike  # float32 [K + 1], `Weights.by_class`
    adjustment: ArrayLike  # float32 [outputs], `Weights.adjustment`
    negative_weight: ArrayLike  # float32 scalar, `Weights.negative_weight`; 0 for None, and then not used


def train_step(
    constants: RunConstants,
    state: TrainState,
    batch: Batch,
    *,
    model: Network,
    optimizer: optax.GradientTransformation,
    loss: Loss,
    objective: Objective,
    weighs_negatives: bool,
    augment: Callable[[jax.Array, jax.Array, jax.Array], jax.Array],
    normalise: Callable[[jax.Array], jax.Array],
    all_reduce_dtype: DTypeLike = jnp.float32,
) -> tuple[TrainState, Metrics]:
    """One optimizer step: augmentation, forward and backward pass, mean over devices, update.

    Only trained layers have gradients and optimizer state; the parameters of frozen layers do not change.

    Args:
      batch: "example" uint8 [b, S, S, 3], "label" int32 [b], "position" int32 [b].
      loss: of the objective, with its own options bound.
      objective: predicts the classes for the metrics.
      optimizer: its updates are for a learning rate of 1.
      weighs_negatives: whether `constants.negative_weight` is used; see `Weights`.
      augment: (uint8 images, key, position) -> uint8 images.
      normalise: uint8 images -> float32 images.
      all_reduce_dtype: of gradients between devices; bfloat16 halves the bytes, and rounds the gradients to 8 bits.

    Returns:
      The next state, and means over the global batch: "loss", "correct" (the accuracy, over the knowns alone if the network
      never answers "none" by itself), "predicted" (float32 [K + 1], the share predicted as each class) and "grad_norm"
      (before clipping).
    """
    num_classes = jnp.shape(constants.by_class)[0] - 1
    negative_weight = constants.negative_weight if weighs_negatives else None
    key = jax.random.fold_in(jax.random.key(constants.seed), state.step)
    augment_key, dropout_key = jax.random.split(key)
    images = normalise(augment(batch["example"], augment_key, batch["position"]))
    trained, frozen = model.split(state.params)

    def loss_of(trained):
        variables, rngs = {"params": frozen | trained, "batch_stats": state.batch_stats}, {"dropout": dropout_key}
        (logits, features), updated = model.apply(
            variables, images, train=True, position=batch["position"], rngs=rngs, mutable=["batch_stats"]
        )
        losses = loss(logits, features, batch["label"], constants.adjustment)
        weights = example_weights(batch["label"], constants.by_class, negative_weight, AXIS)
        return (losses * weights).sum(), (logits, updated.get("batch_stats", {}))

    (value, (logits, batch_stats)), grads = jax.value_and_grad(loss_of, has_aux=True)(trained)
    predicted = objective.predict_class(logits, num_classes)
    metrics = {
        "loss": value,
        "correct": ((predicted == batch["label"]) * _counted(batch["label"], num_classes, objective.says_none)).sum(),
        "predicted": jax.nn.one_hot(predicted, num_classes + 1).mean(0),
    }
    if lax.axis_size(AXIS) > 1:  # with one device, pmean would only copy all gradients
        grads = jax.tree.map(lambda g: g.astype(all_reduce_dtype), grads)
        grads, metrics = lax.pmean((grads, metrics), AXIS)
        grads = jax.tree.map(lambda g, p: g.astype(p.dtype), grads, trained)
    metrics["grad_norm"] = optax.tree.norm(grads)
    updates, opt_state = optimizer.update(grads, state.opt_state, trained)
    updates = jax.tree.map(lambda u: constants.learning_rate * u, updates)
    params = frozen | optax.apply_updates(trained, updates)
    return TrainState(state.step + 1, params, batch_stats, opt_state), metrics


def _counted(label: jax.Array, num_classes: int, says_none: bool) -> jax.Array:
    """Weights whose sums, averaged over devices, give a mean over the global batch (its knowns unless `says_none`)."""
    if says_none:
        return jnp.full(label.shape, 1 / len(label))
    counted = (label < num_classes).astype(jnp.float32)
    return lax.axis_size(AXIS) * counted / jnp.maximum(lax.psum(counted.sum(), AXIS), 1)


def eval_step(
    variables: Variables, batch: Batch, *, compute: Callable[[Variables, jax.Array], dict[str, jax.Array]]
) -> dict[str, jax.Array]:
    """Outputs for the global batch, with its "mask" and "position", on every device.

    `compute` maps (variables, uint8 images [b, S, S, 3]) to arrays [b, ...].
    """
    result = compute(variables, batch["example"]) | {"mask": batch["mask"], "position": batch["position"]}
    return lax.all_gather(result, AXIS, tiled=True)
