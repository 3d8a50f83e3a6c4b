"""The fields of a config: each is checked against its rule when it is read."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import ml_collections

from openset_jax import config_json
from openset_jax.data import sampler
from openset_jax.errors import UserError
from openset_jax.model import networks
from openset_jax.openset.decision import thresholds
from openset_jax.openset.decision.classifier import CALIBRATIONS
from openset_jax.openset.losses import objectives, weights

AUTO = "auto"
TWO_PHASE = "two_phase"
INTERVALS = ("log_every", "eval.every", "checkpoint.every", "optimizer.warmup_steps")  # steps, or a share "10%" of all


class _Rule(NamedTuple):
    text: str  # the allowed values, for error messages
    holds: Callable[[Any], bool]


def _one_of(*names: str) -> _Rule:
    return _Rule(f"one of {', '.join(names)}", lambda v: v in names)


def _interval(least: int) -> _Rule:
    is_share = lambda v: v.endswith("%") and 0 < float(v[:-1]) <= 100
    holds = lambda v: is_share(v) if isinstance(v, str) else type(v) is int and v >= least
    return _Rule(f'a whole number of {least} or more, or a share of the steps such as "10%"', holds)


_FRACTION = _Rule("above 0 and below 1", lambda v: 0 < v < 1)
_AT_LEAST_0 = _Rule("0 or more", lambda v: v >= 0)
_AT_LEAST_1 = _Rule("1 or more", lambda v: v >= 1)
_POSITIVE = _Rule("more than 0", lambda v: v > 0)
_BELOW_1 = _Rule("0 or more and below 1", lambda v: 0 <= v < 1)
_SIDE = _Rule("from 8 to 4,096", lambda v: 8 <= v <= 4096)
_SHARE = _Rule("above 0 and at most 1", lambda v: 0 < v <= 1)
_finite = lambda v, count: len(v) == count and all(map(math.isfinite, map(float, v)))

_RULES = {
    "seed": _Rule("from 0 to 2^31 - 1", lambda v: 0 <= v < 2**31),
    "epochs": _Rule("None, or above 0 and at most 1,000,000", lambda v: v is None or 0 < v <= 1_000_000),
    "steps": _Rule("from 1 to 2^31 - 1", lambda v: 1 <= v < 2**31),
    "batch_size": _AT_LEAST_1,
    "log_every": _interval(1),
    "input": _one_of(AUTO, "stream", "resident"),
    "steps_per_call": _AT_LEAST_1,
    "data.stored_size": _SIDE,
    "data.image_size": _SIDE,
    "data.mean": _Rule("None, or three finite numbers", lambda v: v is None or _finite(v, 3)),
    "data.std": _Rule("None, or three finite numbers above 0", lambda v: v is None or (_finite(v, 3) and min(v) > 0)),
    "data.vector_size": _AT_LEAST_0,
    "data.validation_fraction": _FRACTION,
    "data.test_fraction": _FRACTION,
    "data.max_bad_fraction": _Rule("from 0 to 1", lambda v: 0 <= v <= 1),
    "data.max_pixels": _AT_LEAST_1,
    "data.negative_groups": _Rule("None, or 1 or more", lambda v: v is None or v >= 1),
    "augment.pad": _AT_LEAST_0,
    "sampling.policy": _one_of(*sampler.POLICIES, TWO_PHASE),
    "sampling.first_policy": _one_of(*sampler.POLICIES),
    "sampling.first_share": _FRACTION,
    "sampling.negative_fraction": _FRACTION,
    "objective.name": _one_of(*objectives.OBJECTIVES),
    "objective.negative_weight": _Rule("None, or a number above 0", lambda v: v is None or v > 0),
    "objective.margins": _Rule(
        "None, or two finite numbers (margin of knowns, margin of negatives), the first smaller",
        lambda v: v is None or (_finite(v, 2) and v[0] < v[1]),
    ),
    "objective.class_weights": _one_of(*weights.CLASS_WEIGHTS),
    "objective.logit_adjustment": _Rule("from 0 to 1", lambda v: 0 <= v <= 1),
    "objective.effective_number_beta": _FRACTION,
    "objective.magnitude": _POSITIVE,
    "objective.ring_weight": _AT_LEAST_0,
    "model.width": _Rule("above 0 and at most 64", lambda v: 0 < v <= 64),
    "model.dtype": _one_of(AUTO, *networks.DTYPES),
    "model.dropout": _Rule("None, or 0 or more and below 1", lambda v: v is None or 0 <= v < 1),
    "optimizer.learning_rate": _POSITIVE,
    "optimizer.schedule": _one_of("cosine", "constant"),
    "optimizer.warmup_steps": _interval(0),
    "optimizer.b1": _BELOW_1,
    "optimizer.b2": _BELOW_1,
    "optimizer.eps": _POSITIVE,
    "optimizer.weight_decay": _AT_LEAST_0,
    "optimizer.grad_clip": _AT_LEAST_0,
    "optimizer.all_reduce_dtype": _one_of("float32", "bfloat16"),
    "eval.every": _interval(1),
    "eval.batch_size": _AT_LEAST_1,
    "eval.resamples": _Rule("10 or more", lambda v: v >= 10),
    "checkpoint.every": _interval(1),
    "decision.rule": _one_of(*thresholds.RULES),
    "decision.keep_knowns": _SHARE,
    "decision.accept_negatives": _SHARE,
    "decision.calibration": _Rule(f"one of {', '.join(map(repr, CALIBRATIONS))}", lambda v: v in CALIBRATIONS),
    "early_stopping.metric": _one_of("auroc", "accuracy", "balanced_accuracy"),
    "early_stopping.patience": _AT_LEAST_0,
}


class Fields:
    """The fields of a config by their dotted names; each is checked when it is read, and `INTERVALS` are in steps."""

    def __init__(self, config: ml_collections.ConfigDict):
        self._values = dict(config_json.flatten(config.to_dict()))

    def __getitem__(self, name: str) -> Any:
        if name not in self._values:
            raise missing(name)
        value = self._values[name]
        if name in _RULES and not _admissible(value, _RULES[name]):
            raise UserError(f"{name}: {value!r} is not {_RULES[name].text}")
        return self._of_steps(value) if name in INTERVALS and isinstance(value, str) else value

    def _of_steps(self, share: str) -> int:
        """Returns a share of the steps, "10%", as the nearest number of whole calls, at least one."""
        steps, per_call = self["steps"], self["steps_per_call"]
        return max(round(float(share[:-1]) / 100 * steps / per_call), 1) * per_call

    def section(self, prefix: str, *names: str) -> dict[str, Any]:
        """Several fields of one section, by their own names."""
        return {name: self[f"{prefix}.{name}"] for name in names}

    def make(self, spec: type, prefix: str, **given: Any) -> Any:
        """Returns the dataclass `spec`; attributes that are not given are the fields of the same names in one section."""
        names = (attribute.name for attribute in dataclasses.fields(spec) if attribute.name not in given)
        return spec(**given, **self.section(prefix, *names))

    def check_all(self) -> None:
        """Raises UserError for the first field with a rule that is missing or has a value that is not allowed."""
        for name in _RULES:
            self[name]


def missing(name: str) -> UserError:
    """Returns the error for a config that lacks a field."""
    return UserError(f"config: the field {name} is missing; make the config with get_config() of configs/default.py")


def _admissible(value: Any, rule: _Rule) -> bool:
    try:
        return rule.holds(value) and not (isinstance(value, float) and not math.isfinite(value))
    except (TypeError, ValueError):
        return False
