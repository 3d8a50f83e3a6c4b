"""What runs on the devices under a config: the training step and the forward passes, compiled when they are first called."""

import functools
from typing import Any

import ml_collections

from openset_jax import build


def make_train_step(
    config: ml_collections.ConfigDict, model: Any, optimizer: Any, feed: Any, weights: Any, margins: Any = None
) -> Any:
    """(state, batches of some steps) -> (state, metrics of each), on all devices."""
    program = make_train_program(config, model, optimizer, feed, weights, margins)
    return functools.partial(program, make_given(config, model, weights))


def make_given(config: ml_collections.ConfigDict, model: Any, weights: Any) -> Any:
    """The `steps.Given` of this run, on the devices."""
    import numpy as np

    from openset_jax.training import devices, steps

    by_class = weights.by_class.astype(np.float32)
    return devices.replicate(steps.Given(np.uint32(config.seed), by_class, weights.adjustment(model.num_outputs)))


def make_train_program(
    config: ml_collections.ConfigDict, model: Any, optimizer: Any, feed: Any, weights: Any, margins: Any = None
) -> Any:
    """(given, state, batches of some steps) -> (state, metrics of each), on all devices.

    It depends neither on the seed nor on what is in `Given`.
    """
    from openset_jax.training import devices

    return devices.pmap_train(make_step_of_device(config, model, optimizer, weights, margins), feed)


def make_step_of_device(
    config: ml_collections.ConfigDict, model: Any, optimizer: Any, weights: Any, margins: Any = None
) -> functools.partial:
    """`steps.train_step` with all that a config decides: (given, state, one device's batch) -> (state, metrics)."""
    from openset_jax.data import augment
    from openset_jax.openset.losses import objectives
    from openset_jax.training import steps

    objective = objectives.get(config.objective.name)
    return functools.partial(
        steps.train_step,
        model=model,
        optimizer=optimizer,
        loss=lambda adjustment: build.make_loss(config, adjustment, margins),
        answer=functools.partial(objectives.answer, objective, num_classes=len(weights.prior) - 1),
        weights=weights,
        says_none=objective.none_output or not objective.softmax,
        augment=functools.partial(
            augment.augment, image_size=config.data.image_size, pad=config.augment.pad, flip=config.augment.flip
        ),
        normalise=_normalise(config),
        all_reduce_dtype=config.optimizer.get("all_reduce_dtype", "float32"),
    )


def make_eval_steps(config: ml_collections.ConfigDict, model: Any, feed: Any) -> dict[str, Any]:
    """What to look at -> (variables, batch) -> that of the global batch, on all devices; compiled when it is first used.

    "logits": float32 [B, outputs]. "features": those, and float32 [B, F]. "odin": the logits of `openset.odin`. "images":
    uint8 [B, S, S, 3], as they are stored.
    """
    from openset_jax.data import augment
    from openset_jax.openset.losses import objectives
    from openset_jax.openset.scores import odin
    from openset_jax.training import devices, steps

    normalise, size = _normalise(config), config.data.image_size
    prepared = lambda images: normalise(augment.centre_crop(images, image_size=size))
    known = slice(-1) if objectives.get(config.objective.name).none_output else slice(None)

    def with_features(variables, images):
        logits, features = model.apply(variables, prepared(images))
        return {"logits": logits, "features": features}

    def perturbed(variables, images):
        apply = lambda x: model.apply(variables, x)[0]
        return {"logits": odin.perturbed_logits(apply, prepared(images), known=known, std=tuple(config.data.std))}

    looks = {
        "logits": lambda variables, images: {"logits": model.apply(variables, prepared(images))[0]},
        "features": with_features,
        "odin": perturbed,
        "images": lambda variables, images: {"images": images},
    }
    return {what: devices.pmap_eval(functools.partial(steps.eval_step, look=look), feed) for what, look in looks.items()}


def make_inference(config: ml_collections.ConfigDict, model: Any, pool: Any, feed: Any, skipped: Any) -> Any:
    """The `Inference` of this network over rows of this pool."""
    from openset_jax.training import inference

    steps = make_eval_steps(config, model, feed)
    return inference.Inference(steps, pool, feed, batch_size=config.eval.batch_size, skipped=skipped)


def _normalise(config):
    from openset_jax.data import augment

    data = config.data
    return functools.partial(augment.normalise, mean=tuple(data.mean), std=tuple(data.std), grey=data.grey)
