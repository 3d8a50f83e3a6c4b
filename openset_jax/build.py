"""From a config to the things it describes: pool, sampler, network, loss, decision, optimizer, feed."""

import functools
from collections.abc import Sequence
from typing import Any

import ml_collections

from openset_jax import config as configs
from openset_jax.config import BEFORE
from openset_jax.errors import UserError

# what runs of before there were decisions get
DECISION = {
    "rule": "keep_knowns", "keep_knowns": 0.95, "accept_negatives": 0.01, "prior": "", "costs": "", "calibration": ""
}  # fmt: skip


def open_pool(config: ml_collections.ConfigDict) -> Any:
    """The `Pool` of `config.data`.

    Raises:
      UserError: names the role and what is wrong with it; or what `data.packed` was not prepared with.
    """
    from openset_jax.data import pools, sources
    from openset_jax.data.pool_builder import Selection, build_pool
    from openset_jax.openset.losses import objectives

    opened = {}

    def build(selections):
        pool = build_pool(
            selections, validation_fraction=config.data.validation_fraction, test_fraction=config.data.test_fraction
        )
        pools.check_stored_size(pool, config.data.stored_size)
        if count := config.data.get("negative_groups"):
            pool = pools.with_negative_groups(pool, count, seed=config.seed)
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
        return Selection(opened[key], tuple(map(str, classes)), limit, group)

    needed = ("known", "negatives") if objectives.get(config.objective.name).uses_negatives else ("known",)
    if config.data.packed:
        packed = sources.open_source(f"packed:{config.data.packed}")
        if packed.prepared_as:  # those of before this was noted do not say
            configs.check_prepared(config, packed.prepared_as)
        there = [role for role in pools.ROLES if role in packed.roles or role in needed]
        return build({role: [Selection(packed)] for role in there})
    selections = {}
    for role in pools.ROLES:
        selections[role] = [select(role, spec) for spec in configs.as_list(config.data[role])]
    for role in needed:
        if not selections[role]:
            raise UserError(f"data.{role}: empty; set it to an images(...) of configs/default.py")
    return build(selections)


def make_sampler(config: ml_collections.ConfigDict, members: list[Any]) -> Any:
    """The `Sampler` that draws from these members of each class, "none" last."""
    from openset_jax.data import sampler
    from openset_jax.openset.losses import objectives

    if config.sampling.policy == "negative_fraction" and not objectives.get(config.objective.name).uses_negatives:
        raise UserError(
            f"sampling.policy: negative_fraction draws negatives, and objective.name={config.objective.name} uses none"
        )
    return sampler.make_sampler(
        config.sampling.policy,
        tuple(map(len, members)),
        batch_size=config.batch_size,
        seed=config.seed,
        negative_fraction=config.sampling.negative_fraction,
    )


def make_model(config: ml_collections.ConfigDict, num_classes: int) -> Any:
    """The network with an output for each of K classes, and one for "none" where the objective has one."""
    from openset_jax.model import alexnet
    from openset_jax.openset.losses import objectives
    from openset_jax.training import steps

    outputs = num_classes + objectives.get(config.objective.name).none_output
    trainable = config.get("trainable", BEFORE["trainable"])
    return alexnet.make_alexnet(outputs, **config.model, axis_name=steps.AXIS, trainable=trainable)


def training_members(config: ml_collections.ConfigDict, pool: Any) -> list[Any]:
    """Rows to train on of each class, "none" last, where the objective trains on negatives.

    Raises:
      UserError: `sampling.negatives` or `sampling.imbalance` asks for what cannot be.
    """
    from openset_jax.data import imbalance
    from openset_jax.openset.losses import objectives

    known = pool.training_members()[:-1]
    if asked := imbalance.parse(config.sampling.get("imbalance", BEFORE["sampling.imbalance"])):
        known = imbalance.cut(pool, known, asked, seed=config.seed)
    if not objectives.get(config.objective.name).uses_negatives:
        return known
    cap = _cap(config.sampling.negatives)
    if isinstance(cap, float):  # in units of a known class as training has it
        cap = round(cap * sum(map(len, known)) / len(known))
    return [*known, pool.training_members(cap)[-1]]


def _cap(negatives):
    """`sampling.negatives`: None, an int, or a float for "3x".

    Raises:
      UserError: it is something else.
    """
    if negatives is None or (isinstance(negatives, int) and not isinstance(negatives, bool) and negatives > 0):
        return negatives
    try:
        if isinstance(negatives, str) and negatives.endswith("x") and 0 < float(negatives[:-1]) < float("inf"):
            return float(negatives[:-1])
    except ValueError:
        pass
    raise UserError(
        f'sampling.negatives: {negatives!r} is not a number of images above 0, nor one like "3x", for three times as many '
        "as a known class has"
    )


def make_weights(config: ml_collections.ConfigDict, num_classes: int, sampler: Any = None) -> Any:
    """The `Weights` of the examples that this sampler draws; without one, all classes come alike."""
    from openset_jax.openset.losses import objectives, weights

    objective, options = objectives.get(config.objective.name), _options(config)
    if options["logit_adjustment"] and not objective.softmax:
        raise UserError(f"objective.logit_adjustment: {config.objective.name} has no softmax to adjust; leave it at 0")
    prior, counts = [1 / (num_classes + 1)] * (num_classes + 1), [1] * (num_classes + 1)
    if sampler is not None:
        nothing = [0] * (num_classes + 1 - len(sampler.prior))
        prior, counts = [*sampler.prior, *nothing], [*sampler.drawn, *nothing]
    return weights.make_weights(
        prior,
        counts,
        negative_weight=options["negative_weight"] if objective.uses_negatives else None,
        class_weights=options["class_weights"],
        beta=options["effective_number_beta"],
        tau=options["logit_adjustment"],
    )


def make_loss(config: ml_collections.ConfigDict, adjustment: Any, margins: Any = None) -> Any:
    """(logits, features, label) -> loss of each example.

    Args:
      adjustment: float32 [outputs], `Weights.adjustment`.
      margins: of `energy_margin`, where the config leaves them to be measured.
    """
    from openset_jax.openset.losses import objectives

    objective, options = objectives.get(config.objective.name), _options(config)
    options["margins"] = margins if options["margins"] is None else options["margins"]
    chosen = {name: options[name] for name in objective.options}
    if objective.softmax:
        chosen["adjustment"] = adjustment
    return functools.partial(objective.loss, **chosen)


def measures_margins(config: ml_collections.ConfigDict) -> bool:
    """Whether the objective has margins, and the config leaves them to be measured."""
    from openset_jax.openset.losses import objectives

    return "margins" in objectives.get(config.objective.name).options and config.objective.margins is None


def plateau_loss(config: ml_collections.ConfigDict, weights: Any, margins: Any = None) -> float:
    """The loss of a network that has learned how often each class comes, and no more."""
    from openset_jax.openset.losses import objectives
    from openset_jax.openset.losses import weights as of_weights

    outputs = len(weights.prior) - 1 + objectives.get(config.objective.name).none_output
    return of_weights.plateau_loss(make_loss(config, weights.adjustment(outputs), margins), weights, outputs)


def make_decision(config: ml_collections.ConfigDict, classes: Sequence[str], training_prior: Any) -> dict[str, Any]:
    """The prior, costs, rule and calibration that `classifier.fit` takes.

    Args:
      training_prior: [K + 1], the effective prior of training.

    Raises:
      UserError: names the field of `config.decision` that cannot be.
    """
    from openset_jax.openset.decision import classifier, thresholds

    asked = DECISION | dict(config.get("decision", {}))
    rule = thresholds.Rule(asked["rule"], asked.get(asked["rule"]))
    if rule.name not in thresholds.RULES:
        raise UserError(f"decision.rule: {rule.name!r} is not one of {', '.join(thresholds.RULES)}")
    if asked["calibration"] not in classifier.CALIBRATIONS:
        names = ", ".join(map(repr, classifier.CALIBRATIONS))
        raise UserError(f"decision.calibration: {asked['calibration']!r} is not one of {names}")
    return {
        "prior": thresholds.deployment_prior(thresholds.parse(asked["prior"], "decision.prior"), classes, training_prior),
        "costs": thresholds.cost_matrix(thresholds.parse(asked["costs"], "decision.costs"), classes),
        "rule": rule,
        "calibrate": asked["calibration"],
    }


def _options(config):
    """`config.objective`, with what runs of before these fields existed had, and the objective's own weight of negatives."""
    from openset_jax.openset.losses import objectives

    before = {name.removeprefix("objective."): v for name, v in BEFORE.items() if name.startswith("objective.")}
    options = before | config.objective.to_dict()
    if options["negative_weight"] is None:
        options["negative_weight"] = objectives.get(config.objective.name).negative_weight
    return options


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
    from openset_jax import auto
    from openset_jax.training import feed

    return feed.make_feed(
        auto.choose_input(config, pool).name,
        pool,
        stored_size=config.data.stored_size,
        skipped=skipped,
        sharded=config.shard_resident,
    )
