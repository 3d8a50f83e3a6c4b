"""From a config to the things it describes. Besides the commands, the one module that reads a config."""

import functools
import json
import math
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import ml_collections

from openset_jax.errors import UserError

_FRACTION = "between 0 and 1", lambda v: 0 < v < 1
_AT_LEAST_0 = "0 or more", lambda v: v >= 0
_AT_LEAST_1 = "1 or more", lambda v: v >= 1
_POSITIVE = "more than 0", lambda v: v > 0
_METRICS = ("auroc", "accuracy", "balanced_accuracy")

# what each numeric field must be; choices among names are checked where the name is looked up
_RANGES = {
    "seed": ("between 0 and 2^31 - 1", lambda v: 0 <= v < 2**31),
    "steps": _AT_LEAST_1,
    "batch_size": _AT_LEAST_1,
    "log_every": _AT_LEAST_1,
    "input": ("stream or resident", lambda v: v in ("stream", "resident")),
    "steps_per_call": _AT_LEAST_1,
    "data.stored_size": ("between 8 and 4,096", lambda v: 8 <= v <= 4096),
    "data.image_size": ("between 8 and 4,096", lambda v: 8 <= v <= 4096),
    "data.mean": ("three numbers", lambda v: len(v) == 3),
    "data.std": ("three numbers above 0", lambda v: len(v) == 3 and min(v) > 0),
    "data.validation_fraction": _FRACTION,
    "data.test_fraction": _FRACTION,
    "data.max_bad_fraction": ("between 0 and 1", lambda v: 0 <= v <= 1),
    "augment.pad": _AT_LEAST_0,
    "sampling.negative_fraction": _FRACTION,
    "model.width": _POSITIVE,
    "model.dropout": ("0 or more and below 1", lambda v: 0 <= v < 1),
    "optimizer.learning_rate": _POSITIVE,
    "optimizer.warmup_steps": _AT_LEAST_0,
    "optimizer.b1": ("0 or more and below 1", lambda v: 0 <= v < 1),
    "optimizer.b2": ("0 or more and below 1", lambda v: 0 <= v < 1),
    "optimizer.eps": _POSITIVE,
    "optimizer.weight_decay": _AT_LEAST_0,
    "optimizer.grad_clip": _AT_LEAST_0,
    "optimizer.all_reduce_dtype": ("float32 or bfloat16", lambda v: v in ("float32", "bfloat16")),
    "eval.every": _AT_LEAST_1,
    "eval.batch_size": _AT_LEAST_1,
    "checkpoint.every": _AT_LEAST_1,
    "early_stopping.metric": (f"one of {', '.join(_METRICS)}", lambda v: v in _METRICS),
    "early_stopping.patience": _AT_LEAST_0,
}

# what may differ when a run goes on: nothing that the parameters already learned depend on
_MAY_CHANGE = (
    "steps", "log_every", "input", "steps_per_call", "shard_resident", "eval.", "checkpoint.", "early_stopping.", "data."
)  # fmt: skip
_NOT_FREE = ("early_stopping.metric", "data.stored_size", "data.image_size", "data.grey", "data.mean", "data.std")


def check(config: ml_collections.ConfigDict) -> None:
    """Raises UserError for the first field that is missing or out of range."""
    values = dict(fields(config.to_dict()))
    for name, (text, holds) in _RANGES.items():
        if name not in values:
            raise UserError(f"config: the field {name} is missing; start from get_config() of configs/default.py")
        value = values[name]
        if (isinstance(value, float) and not math.isfinite(value)) or not holds(value):
            raise UserError(f"{name}: {value!r} is not {text}")
    for name in ("steps", "log_every", "eval.every", "checkpoint.every"):
        if values[name] % config.steps_per_call:
            raise UserError(f"steps_per_call: {config.steps_per_call} does not divide {name}, {values[name]}")
    if config.data.image_size > config.data.stored_size:
        raise UserError(
            f"data.image_size: {config.data.image_size} is larger than data.stored_size, {config.data.stored_size}"
        )

    from openset_jax.model import alexnet

    if config.model.stem in alexnet.STEMS and config.data.image_size < (smallest := alexnet.STEMS[config.model.stem][-1]):
        raise UserError(
            f"data.image_size: {config.data.image_size} is below {smallest}, the smallest that model.stem="
            f"{config.model.stem} can take" + ("; use model.stem=small" if config.model.stem == "imagenet" else "")
        )


def open_pool(config: ml_collections.ConfigDict) -> Any:
    """The `Pool` of `config.data`.

    Raises:
      UserError: names the role and what is wrong with it.
    """
    from openset_jax.data import pools, sources

    opened = {}

    def build(selections):
        pool = pools.build_pool(
            selections, validation_fraction=config.data.validation_fraction, test_fraction=config.data.test_fraction
        )
        pools.check_stored_size(pool, config.data.stored_size)
        return pool

    def select(role, spec):
        try:
            options = spec.to_dict()
            classes, limit, group = tuple(options.pop("classes")), options.pop("limit"), options.pop("group")
            source, train, validation, test = (options.pop(k) for k in ("source", "train", "validation", "test"))
        except (AttributeError, TypeError, KeyError) as error:
            raise UserError(f"data.{role}: not an images(...) of configs/default.py ({error})") from error
        key = (source, train, validation, test)
        try:
            if key not in opened:
                opened[key] = sources.open_source(
                    source, data_dir=config.data.tfds_data_dir, train=train, validation=validation, test=test
                )
        except (UserError, OSError) as error:
            raise UserError(f"data.{role}: {error}") from error
        if limit < 0:
            raise UserError(f"data.{role}.limit: {limit} is not 0 or more")
        return pools.Selection(opened[key], tuple(map(str, classes)), limit, group)

    if config.data.packed:
        packed = sources.open_source(f"packed:{config.data.packed}")
        return build({role: [pools.Selection(packed)] for role in pools.ROLES})
    selections = {}
    for role in pools.ROLES:
        specs = config.data[role]
        specs = specs if isinstance(specs, tuple | list) else () if specs is None else (specs,)
        selections[role] = [select(role, spec) for spec in specs]
    for role in ("known", "negatives"):
        if not selections[role]:
            raise UserError(f"data.{role}: empty; set it to an images(...) of configs/default.py")
    return build(selections)


def make_sampler(config: ml_collections.ConfigDict, members: list[Any]) -> Any:
    """The `Sampler` that draws from these members of each class, "none" last."""
    from openset_jax.data import sampler

    return sampler.make_sampler(
        config.sampling.policy,
        tuple(map(len, members)),
        batch_size=config.batch_size,
        seed=config.seed,
        negative_fraction=config.sampling.negative_fraction,
    )


def make_model(config: ml_collections.ConfigDict, num_classes: int) -> Any:
    """The network with an output for each of K classes and one for "none"."""
    from openset_jax.model import alexnet
    from openset_jax.training import steps

    return alexnet.make_alexnet(num_classes + 1, **config.model, axis_name=steps.AXIS)


def make_optimizer(config: ml_collections.ConfigDict) -> tuple[Any, Any]:
    """(learning rate schedule, optimizer)."""
    from openset_jax.training import optimizer

    values = config.optimizer.to_dict()
    values.pop("all_reduce_dtype", None)  # the step's
    schedule = optimizer.make_schedule(
        steps=config.steps, **{k: values.pop(k) for k in ("learning_rate", "warmup_steps", "schedule")}
    )
    return schedule, optimizer.make_optimizer(schedule, **values)


def make_feed(config: ml_collections.ConfigDict, pool: Any, skipped: Any) -> Any:
    """The `Feed` that brings this pool's images to the devices; for a resident pool, copies it there."""
    from openset_jax.training import feed

    return feed.make_feed(
        config.get("input", "stream"),  # which runs of before this field existed do
        pool,
        stored_size=config.data.stored_size,
        skipped=skipped,
        sharded=config.get("shard_resident", False),
    )


def make_train_step(config: ml_collections.ConfigDict, model: Any, optimizer: Any, feed: Any) -> Any:
    """(state, batches of some steps) -> (state, metrics of each), on all devices."""
    from openset_jax.data import augment
    from openset_jax.openset import objectives
    from openset_jax.training import devices, steps

    step = functools.partial(
        steps.train_step,
        model=model,
        optimizer=optimizer,
        objective=objectives.get(config.objective.name),
        augment=functools.partial(
            augment.augment, image_size=config.data.image_size, pad=config.augment.pad, flip=config.augment.flip
        ),
        normalise=_normalise(config),
        seed=config.seed,
        all_reduce_dtype=config.optimizer.get("all_reduce_dtype", "float32"),
    )
    return devices.pmap_train(step, feed)


def make_eval_step(config: ml_collections.ConfigDict, model: Any, feed: Any) -> Any:
    """(variables, batch) -> logits of the global batch, on all devices."""
    from openset_jax.data import augment
    from openset_jax.training import devices, steps

    normalise, size = _normalise(config), config.data.image_size
    preprocess = lambda images: normalise(augment.centre_crop(images, image_size=size))
    return devices.pmap_eval(functools.partial(steps.eval_step, model=model, preprocess=preprocess), feed)


def make_inference(config: ml_collections.ConfigDict, model: Any, pool: Any, feed: Any, skipped: Any) -> Any:
    """The `Inference` of this network over rows of this pool."""
    from openset_jax.training import inference

    step = make_eval_step(config, model, feed)
    return inference.Inference(step, pool, feed, batch_size=config.eval.batch_size, skipped=skipped)


def _normalise(config):
    from openset_jax.data import augment

    data = config.data
    return functools.partial(augment.normalise, mean=tuple(data.mean), std=tuple(data.std), grey=data.grey)


def to_json(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """Plain JSON values: tuples are lists."""
    return json.loads(json.dumps(config.to_dict(), default=lambda value: value.to_dict()))  # those in tuples


def from_json(values: dict[str, Any]) -> ml_collections.ConfigDict:
    """The config that `to_json` was given."""

    def plain(value):
        if isinstance(value, dict):
            return ml_collections.ConfigDict({k: plain(v) for k, v in value.items()})
        return tuple(map(plain, value)) if isinstance(value, list) else value

    return plain(values)


def fields(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """("a.b", value) for every leaf of nested dicts."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from fields(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def check_same_run(saved: dict[str, Any], now: dict[str, Any], workdir: pathlib.Path) -> None:
    """Raises UserError, naming the field, unless a run may go on from a checkpoint.

    Args:
      saved, now: "config", "classes" and "fingerprint" of the checkpoint, and of this start.
    """
    before, after = {"optimizer.all_reduce_dtype": "float32"}, dict(fields(now["config"]))  # before there was a choice
    before |= fields(saved["config"])
    fixed = lambda name: name in _NOT_FREE or not name.startswith(_MAY_CHANGE)
    for name in sorted(before):
        if fixed(name) and before[name] != after.get(name):
            raise UserError(
                f"{name}: the run in {workdir} has {before[name]!r}, this start {after.get(name)!r}; use another "
                "--workdir for another run"
            )
    check_same_data(saved, now["classes"], now["fingerprint"], workdir)


def check_same_data(saved: dict[str, Any], classes: Sequence[str], fingerprint: str, workdir: pathlib.Path) -> None:
    """Raises UserError unless the classes and the pool's fingerprint are those of a checkpoint's "meta"."""
    if list(saved["classes"]) != list(classes):
        raise UserError(
            f"data.known: the run in {workdir} has the classes {', '.join(saved['classes'])}; this start has "
            f"{', '.join(classes)}; use another --workdir for another run"
        )
    if saved["fingerprint"] != fingerprint:
        raise UserError(
            f"data: the images, or their roles or splits, are not those that the run in {workdir} began with; put them "
            "back, or use another --workdir for another run"
        )
