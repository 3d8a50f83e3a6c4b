"""What a config may be, how it is kept, and whether a run may go on under it. `build.py` makes what it describes."""

import json
import math
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import ml_collections

from openset_jax.errors import UserError

_FRACTION = "between 0 and 1", lambda v: 0 < v < 1
_AT_LEAST_0 = "0 or more", lambda v: v >= 0
_AT_LEAST_1 = "1 or more", lambda v: v >= 1
_POSITIVE = "more than 0", lambda v: v > 0
_rises = lambda v: len(v) == 2 and all(map(math.isfinite, v)) and v[0] < v[1]
_METRICS = ("auroc", "accuracy", "balanced_accuracy")

# what each numeric field must be; choices among names are checked where the name is looked up
_RANGES = {
    "seed": ("between 0 and 2^31 - 1", lambda v: 0 <= v < 2**31),
    "steps": _AT_LEAST_1,
    "batch_size": _AT_LEAST_1,
    "log_every": _AT_LEAST_1,
    "input": ("auto, stream or resident", lambda v: v in ("auto", "stream", "resident")),
    "steps_per_call": _AT_LEAST_1,
    "data.stored_size": ("between 8 and 4,096", lambda v: 8 <= v <= 4096),
    "data.image_size": ("between 8 and 4,096", lambda v: 8 <= v <= 4096),
    "data.mean": ("three numbers", lambda v: len(v) == 3),
    "data.std": ("three numbers above 0", lambda v: len(v) == 3 and min(v) > 0),
    "data.validation_fraction": _FRACTION,
    "data.test_fraction": _FRACTION,
    "data.max_bad_fraction": ("between 0 and 1", lambda v: 0 <= v <= 1),
    "augment.pad": _AT_LEAST_0,
    "data.negative_groups": ("None, or 1 or more", lambda v: v is None or v >= 1),
    "sampling.negative_fraction": _FRACTION,
    "sampling.first_share": _FRACTION,
    "objective.negative_weight": ("None, or a number above 0", lambda v: v is None or v > 0),
    "objective.margins": (
        "None, or (of knowns, of negatives), the first below the second",
        lambda v: v is None or _rises(v),
    ),
    "objective.logit_adjustment": ("between 0 and 1", lambda v: 0 <= v <= 1),
    "objective.effective_number_beta": _FRACTION,
    "objective.magnitude": _POSITIVE,
    "objective.ring_weight": _AT_LEAST_0,
    "model.width": _POSITIVE,
    "model.dtype": ("auto, float32 or bfloat16", lambda v: v in ("auto", "float32", "bfloat16")),
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
    "decision.keep_knowns": ("above 0 and at most 1", lambda v: 0 < v <= 1),
    "decision.accept_negatives": ("above 0 and at most 1", lambda v: 0 < v <= 1),
    "early_stopping.metric": (f"one of {', '.join(_METRICS)}", lambda v: v in _METRICS),
    "early_stopping.patience": _AT_LEAST_0,
}

# what runs had before there was a choice
BEFORE = {
    "optimizer.all_reduce_dtype": "float32", "objective.negative_weight": None, "objective.class_weights": "none",
    "objective.effective_number_beta": 0.9999, "objective.logit_adjustment": 0.0, "objective.magnitude": 50.0,
    "objective.ring_weight": 1e-4, "objective.margins": None, "trainable": "all", "data.negative_groups": None,
    "sampling.imbalance": "",
}  # fmt: skip

# what may differ when a run goes on: nothing that the parameters already learned depend on
_MAY_CHANGE = (
    "steps", "log_every", "input", "steps_per_call", "shard_resident", "eval.", "checkpoint.", "early_stopping.", "data.",
    "decision.", "init_from",  # which is where the first step began: it may move, or go
)  # fmt: skip
_NOT_FREE = ("early_stopping.metric", "data.stored_size", "data.image_size", "data.grey", "data.mean", "data.std")


def check(config: ml_collections.ConfigDict) -> None:
    """Raises UserError for the first field that is missing or out of range."""
    from openset_jax.data import imbalance

    values = dict(fields(config.to_dict()))
    for name, (text, holds) in _RANGES.items():
        if name not in values:
            raise UserError(f"config: the field {name} is missing; start from get_config() of configs/default.py")
        value = values[name]
        try:
            good = holds(value) and not (isinstance(value, float) and not math.isfinite(value))
        except TypeError:
            good = False
        if not good:
            raise UserError(f"{name}: {value!r} is not {text}")
    if imbalance.FIELD not in values:
        raise UserError(f"config: the field {imbalance.FIELD} is missing; start from get_config() of configs/default.py")
    imbalance.parse(values[imbalance.FIELD])
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


def as_last_started(saved: dict[str, Any], workdir: pathlib.Path) -> ml_collections.ConfigDict:
    """The config of a checkpoint's "meta", with what a later start of the run may have changed of its evaluation.

    A start with other thresholds, of a run that is at its end, saves no checkpoint: config.json alone has them.
    """
    try:
        now = json.loads((workdir / "config.json").read_text())
        changed = {name: now[name] for name in ("input", "shard_resident", "data", "eval", "decision") if name in now}
    except (OSError, ValueError, TypeError):
        changed = {}
    return from_json(saved | changed)


def as_list(images: Any) -> list[Any]:
    """What a role of `data` is set to, None, one `images(...)` or several, as a list of them."""
    return list(images) if isinstance(images, tuple | list) else [] if images is None else [images]


def chosen_images(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """Which images of its sources a config takes, and how it splits them, as plain values.

    Where the sources are is left out: images may be packed in one place, and the config used in another.

    Returns:
      {role: its `images(...)` without `source`, "validation_fraction", "test_fraction"}.
    """
    from openset_jax.data import pools

    data, chosen = to_json(config)["data"], {}
    for role in pools.ROLES:
        chosen[role] = [
            {k: v for k, v in spec.items() if k != "source"} if isinstance(spec, dict) else spec
            for spec in as_list(data[role])
        ]
    return chosen | {name: data[name] for name in ("validation_fraction", "test_fraction")}


def check_prepared(config: ml_collections.ConfigDict, prepared_as: Mapping[str, Any]) -> None:
    """Raises UserError, naming the field, where a config asks for other images than `data.packed` has.

    A role that it leaves empty asks for nothing, and gets what was packed.

    Args:
      prepared_as: `chosen_images` of the config that they were packed by.
    """
    for name, now in chosen_images(config).items():
        before = prepared_as.get(name)
        if now == before or now == []:
            continue
        field = f"data.{name}"
        if isinstance(now, list) and len(now) == len(before or ()) == 1 and isinstance(now[0], dict):
            part = next((part for part, value in now[0].items() if value != before[0].get(part)), None)
            field, before, now = (f"{field}.{part}", before[0].get(part), now[0][part]) if part else (field, before, now)
        raise UserError(
            f"{field}: this config has {_short(now)}, and {config.data.packed}, which data.packed names, was prepared with "
            f"{_short(before)}: it has other images. Set it back, or prepare again with this config"
        )


def _short(value, most=80):
    text = "nothing" if value in ([], None) else repr(value)
    return text if len(text) <= most else text[:most] + "..."


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
    before, after = BEFORE | dict(fields(saved["config"])), dict(fields(now["config"]))
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
