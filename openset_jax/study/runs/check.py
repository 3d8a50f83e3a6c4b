"""Whether a grid can be run, and means what it says: before its first arm, with the block and the field named."""

import contextlib
import hashlib
import io
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from openset_jax.errors import UserError
from openset_jax.study.runs.grid import Arm


class Size(NamedTuple):
    """How large an arm is.

    Attributes:
      known, negatives: training images that it ever sees.
      groups: of negatives that those come from.
      none: the share of "none" in what it sees.
      examples: that it sees, each as often as it is drawn.
    """

    known: int
    negatives: int
    groups: int
    none: float
    examples: int


def check_arm(arm: Arm, config: Any, workshop: Any) -> tuple[Size, str]:
    """(its size, a fingerprint of all that its result depends on but the seed).

    Args:
      config: of the arm, from `grid.config_of`.
      workshop: a `Workshop`, where the pools are opened.

    Raises:
      UserError: the arm cannot be run.
    """
    try:
        return _checked(config, workshop)
    except UserError as error:
        raise UserError(f"grid.{arm.block}, the arm {arm.label!r}: {error}") from error


def _checked(config, workshop):
    from openset_jax import build
    from openset_jax.training import two_phase, validation
    from openset_jax import config as configs
    from openset_jax.training import devices

    configs.check(config)
    for field, size in (("batch_size", config.batch_size), ("eval.batch_size", config.eval.batch_size)):
        devices.check_batch_size(field, size)
    if config.early_stopping.patience:
        raise UserError("early_stopping.patience: all arms see as many examples; set it to 0")
    pool = workshop.pool(config)
    phases = two_phase.two_phases(config, "") if config.sampling.policy == "two_phase" else (config,)
    parts, sizes = [pool.fingerprint()], []
    for phase in phases:
        members = build.training_members(phase, pool)
        sampler = build.make_sampler(phase, members)
        weights = build.make_weights(phase, pool.num_classes, sampler)
        model, _, _ = workshop.network(phase, pool.num_classes)
        with contextlib.redirect_stdout(io.StringIO()):  # each arm says it again when it is run
            validation.check(pool, phase, weights.effective_prior)
        every, k = np.concatenate(members), pool.num_classes
        negatives = members[k:]
        sizes.append(
            Size(
                known=sum(sampler.drawn[:k]),
                negatives=sum(sampler.drawn[k:]),
                groups=len(np.unique(np.concatenate([pool.group[m] for m in negatives]))) if negatives else 0,
                none=float(weights.prior[-1]),
                examples=phase.steps * phase.batch_size,
            )
        )
        parts += [
            hashlib.blake2b(every.tobytes()).hexdigest(), sampler.sizes, sampler.weights, sampler.drawn, phase.steps,
            phase.batch_size, weights.by_class.tobytes(), weights.negative_weight, weights.adjustment(k + 1).tobytes(),
            str(model), str(_loss(phase, weights)), phase.init_from, phase.optimizer.to_json(), phase.augment.to_json(),
            phase.eval.every, phase.early_stopping.metric, phase.decision.to_json(),
            *(str(phase.data[name]) for name in ("image_size", "grey", "mean", "std")),
        ]  # fmt: skip
    last = sizes[-1]
    return last._replace(examples=sum(size.examples for size in sizes)), hashlib.blake2b(repr(parts).encode()).hexdigest()


def _loss(config, weights):
    """The loss and its options, those alone that it has."""
    from openset_jax import build

    loss = build.make_loss(config, None)
    return loss.func.__qualname__, sorted((k, repr(v)) for k, v in loss.keywords.items())


def check_grid(arms: Sequence[Arm], configs: Sequence[Any], workshop: Any) -> dict[str, Size]:
    """The size of every arm, by its name.

    Raises:
      UserError: an arm cannot be run, sees another number of examples than the others, or is the same as another.
    """
    sizes, same = {}, {}
    for arm, config in zip(arms, configs, strict=True):
        sizes[arm.name], effect = check_arm(arm, config, workshop)
        twin = same.setdefault((effect, arm.seed), arm)
        if twin is not arm:
            differ = sorted({n for n, _ in set(arm.treatment.fields) ^ set(twin.treatment.fields)})
            raise UserError(
                f"grid.{arm.block}: {', '.join(differ)}: the arms {twin.label!r} and {arm.label!r} would be one and the "
                "same run; leave one of them out, or leave the block out of `blocks`"
            )
        first = sizes[arms[0].name].examples
        if sizes[arm.name].examples != first:
            raise UserError(
                f"grid.{arm.block}: the arm {arm.label!r} would see {sizes[arm.name].examples:,} examples, and "
                f"{arms[0].label!r} sees {first:,}; all must see as many (steps times batch_size)"
            )
    return sizes
