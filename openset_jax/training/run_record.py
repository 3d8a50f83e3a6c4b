"""The record of a run in its checkpoints: config, classes, fingerprint of the images, and the effective prior.

A run may resume from a checkpoint only if every setting on which its parameters depend is unchanged.
"""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

from openset_jax import config_json
from openset_jax.data.pools import Pool
from openset_jax.errors import UserError, normalisation_note
from openset_jax.openset.losses.weights import Weights
from openset_jax.spec import RunSpec

# Prefixes of fields that may change when a run is resumed, and fields with such a prefix that may not.
_MAY_CHANGE = (
    "steps", "epochs", "log_every", "input", "steps_per_call", "shard_resident", "eval.", "checkpoint.", "early_stopping.",
    "data.", "decision.", "init_from",
)  # fmt: skip
_MUST_NOT_CHANGE = (
    "early_stopping.metric", "data.vector_size", "data.stored_size", "data.image_size", "data.grey", "data.mean", "data.std"
)  # fmt: skip


def make_record(spec: RunSpec, pool: Pool, weights: Weights) -> dict[str, Any]:
    """The record, as JSON values."""
    return {
        "config": spec.record,
        **data_record(pool),
        "prior": weights.effective_prior.tolist(),
    }


def config_as_last_started(saved: Mapping[str, Any], workdir: pathlib.Path) -> dict[str, Any]:
    """Returns the config of a checkpoint, with input, shard_resident, data, eval and decision of the last start.

    A finished run that is started again, for example with another decision.rule, saves only config.json, no checkpoint.
    Raises UserError if config.json is damaged. If it is missing, as in a copy of the checkpoints alone, nothing is replaced.
    """
    path = workdir / "config.json"
    try:
        now = json.loads(path.read_text())
        return {**saved, **{name: now[name] for name in ("input", "shard_resident", "data", "eval", "decision")}}
    except FileNotFoundError:
        return dict(saved)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(
            f"--workdir: {path} is damaged ({type(error).__name__}: {error}); start the run's training command again, which "
            "writes it, or delete it to use the settings at the time of the checkpoint"
        ) from error


def data_record(pool: Pool) -> dict[str, Any]:
    """The part of the record that identifies the images, as JSON values."""
    return {"classes": list(pool.classes), "fingerprint": pool.fingerprint(), "counts": pool.counts()}


def check_same_run(saved: Mapping[str, Any], now: Mapping[str, Any], workdir: pathlib.Path) -> None:
    """Raises UserError, naming the field, unless a run with the record `now` may resume from a checkpoint with `saved`."""
    before, after = dict(config_json.flatten(saved["config"])), dict(config_json.flatten(now["config"]))
    fixed = lambda name: name in _MUST_NOT_CHANGE or not name.startswith(_MAY_CHANGE)
    for name in sorted(filter(fixed, before.keys() | after.keys())):
        if name not in before or name not in after or before[name] != after[name]:
            there, here = (repr(values[name]) if name in values else "no such field" for values in (before, after))
            raise UserError(
                f"{name}: the run in {workdir} has {there}, but this config {here}; restore it, or use a new --workdir"
            )
    check_same_data(saved, now, workdir)


def check_same_data(saved: Mapping[str, Any], now: Mapping[str, Any], workdir: pathlib.Path) -> None:
    """Raises UserError if the classes or the images of two records (`data_record`) differ."""
    classes = now["classes"]
    if saved["classes"] != classes:
        raise UserError(
            f"data.known: the run in {workdir} has the classes {', '.join(saved['classes'])}; this config has "
            f"{', '.join(classes)}{normalisation_note(saved['classes'], classes)}; restore the field, or use a new --workdir"
        )
    if saved["fingerprint"] != now["fingerprint"]:
        raise UserError(
            f"data: the images, their roles or their splits differ from those of the run in {workdir} "
            f"({_first_difference(saved['counts'], now['counts'])}); restore them, or use a new --workdir"
        )


def _first_difference(saved: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Names the first number of images, by role, group and split as in `Pool.counts`, that differs."""
    before, after = (
        {(role, name, split): n for role, groups in counts.items() for name, by in groups.items() for split, n in by.items()}
        for counts in (saved, now)
    )
    for key in sorted(before.keys() | after.keys()):
        if before.get(key, 0) != after.get(key, 0):
            role, name, split = key
            return f"{role}: {name!r} had {before.get(key, 0):,} {split} images, and has {after.get(key, 0):,}"
    return "their numbers are equal: other files"
