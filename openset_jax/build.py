"""From a config to the things it describes: pool, sampler, network, loss, step, inference."""

import functools
from collections.abc import Sequence
from typing import Any

import ml_collections

from openset_jax.config import BEFORE
from openset_jax.errors import UserError

# what runs of before there were decisions get
DECISION = {
    "rule": "keep_knowns", "keep_knowns": 0.95, "accept_negatives": 0.01, "prior": "", "costs": "", "calibration": ""
}  # fmt: skip


def open_pool(config: ml_collections.ConfigDict) -> Any:
    """The `Pool` of `config.data`.

    Raises:
      UserError: names the role and what is wrong with it.
    """
    from openset_jax.data import pools, sources
    from openset_jax.openset import objectives

    opened = {}

    def build(selections):
        pool = pools.build_pool(
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
        return pools.Selection(opened[key], tuple(map(str, classes)), limit, group)

    needed = ("known", "negatives") if objectives.get(config.objective.name).uses_negatives else ("known",)
    if config.data.packed:
        packed = sources.open_source(f"packed:{config.data.packed}")
        there = [role for role in pools.ROLES if role in packed.roles or role in needed]
        return build({role: [pools.Selection(packed)] for role in there})
    selections = {}
    for role in pools.ROLES:
        specs = config.data[role]
        specs = specs if isinstance(specs, tuple | list) else () if specs is None else (specs,)
        selections[role] = [select(role, spec) for spec in specs]
    for role in needed:
        if not selections[role]:
            raise UserError(f"data.{role}: empty; set it to an images(...) of configs/default.py")
    return build(selections)


def two_phases(config: ml_collections.ConfigDict, first_workdir: Any) -> tuple[Any, Any]:
    """The configs of the runs that sampling.policy=two_phase is: all layers on resampled data, then the last on natural.

    Buda, Maki and Mazurowski 2018 (arXiv 1710.05381, section 2.2.2) pre-train so, and fine-tune with a tenth of the learning
    rate. Both phases together have as many steps as any other run.

    Args:
      first_workdir: where the second begins.

    Raises:
      UserError: either phase could not be trained: said before the first is.
    """
    from openset_jax.data import sampler

    if (policy := config.sampling.first_policy) not in sampler.POLICIES:
        raise UserError(f"sampling.first_policy: {policy!r} is not one of {', '.join(sampler.POLICIES)}")
    make_model(config, 2)  # the first phase has another `trainable`, and would not see that this one cannot be
    if config.trainable == "all":
        raise UserError("trainable: with sampling.policy=two_phase the second phase trains the last layers: head or fc")
    calls = config.steps // config.steps_per_call
    if calls < 2:
        raise UserError(f"steps: {config.steps} are one call of steps_per_call, and sampling.policy=two_phase needs two")
    steps = min(max(round(config.sampling.first_share * calls), 1), calls - 1) * config.steps_per_call
    first, second = config.copy_and_resolve_references(), config.copy_and_resolve_references()
    first.trainable, first.sampling.policy, first.steps = "all", config.sampling.first_policy, steps
    second.sampling.policy, second.steps, second.init_from = "natural", config.steps - steps, str(first_workdir)
    second.optimizer.learning_rate = config.optimizer.learning_rate / 10
    return first, second


def make_sampler(config: ml_collections.ConfigDict, members: list[Any]) -> Any:
    """The `Sampler` that draws from these members of each class, "none" last."""
    from openset_jax.data import sampler
    from openset_jax.openset import objectives

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
    from openset_jax.openset import objectives
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
    from openset_jax.openset import objectives

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
    from openset_jax.openset import objectives, weights

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
    from openset_jax.openset import objectives

    objective, options = objectives.get(config.objective.name), _options(config)
    options["margins"] = margins if options["margins"] is None else options["margins"]
    chosen = {name: options[name] for name in objective.options}
    if objective.softmax:
        chosen["adjustment"] = adjustment
    return functools.partial(objective.loss, **chosen)


def measures_margins(config: ml_collections.ConfigDict) -> bool:
    """Whether the objective has margins, and the config leaves them to be measured."""
    from openset_jax.openset import objectives

    return "margins" in objectives.get(config.objective.name).options and config.objective.margins is None


def plateau_loss(config: ml_collections.ConfigDict, weights: Any, margins: Any = None) -> float:
    """The loss of a network that has learned how often each class comes, and no more."""
    from openset_jax.openset import objectives
    from openset_jax.openset import weights as of_weights

    outputs = len(weights.prior) - 1 + objectives.get(config.objective.name).none_output
    return of_weights.plateau_loss(make_loss(config, weights.adjustment(outputs), margins), weights, outputs)


def make_decision(config: ml_collections.ConfigDict, classes: Sequence[str], training_prior: Any) -> dict[str, Any]:
    """The prior, costs, rule and calibration that `classifier.fit` takes.

    Args:
      training_prior: [K + 1], the effective prior of training.

    Raises:
      UserError: names the field of `config.decision` that cannot be.
    """
    from openset_jax.openset import classifier, decision

    asked = DECISION | dict(config.get("decision", {}))
    rule = decision.Rule(asked["rule"], asked.get(asked["rule"]))
    if rule.name not in decision.RULES:
        raise UserError(f"decision.rule: {rule.name!r} is not one of {', '.join(decision.RULES)}")
    if asked["calibration"] not in classifier.CALIBRATIONS:
        names = ", ".join(map(repr, classifier.CALIBRATIONS))
        raise UserError(f"decision.calibration: {asked['calibration']!r} is not one of {names}")
    return {
        "prior": decision.deployment_prior(decision.parse(asked["prior"], "decision.prior"), classes, training_prior),
        "costs": decision.cost_matrix(decision.parse(asked["costs"], "decision.costs"), classes),
        "rule": rule,
        "calibrate": asked["calibration"],
    }


def _options(config):
    """`config.objective`, with what runs of before these fields existed had, and the objective's own weight of negatives."""
    from openset_jax.openset import objectives

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
    from openset_jax.training import feed

    return feed.make_feed(
        config.get("input", "stream"),  # which runs of before this field existed do
        pool,
        stored_size=config.data.stored_size,
        skipped=skipped,
        sharded=config.get("shard_resident", False),
    )


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
    from openset_jax.data import augment
    from openset_jax.openset import objectives
    from openset_jax.training import devices, steps

    objective = objectives.get(config.objective.name)
    step = functools.partial(
        steps.train_step,
        model=model,
        optimizer=optimizer,
        loss=lambda adjustment: make_loss(config, adjustment, margins),
        answer=functools.partial(objectives.answer, objective, num_classes=len(weights.prior) - 1),
        weights=weights,
        says_none=objective.none_output or not objective.softmax,
        augment=functools.partial(
            augment.augment, image_size=config.data.image_size, pad=config.augment.pad, flip=config.augment.flip
        ),
        normalise=_normalise(config),
        all_reduce_dtype=config.optimizer.get("all_reduce_dtype", "float32"),
    )
    return devices.pmap_train(step, feed)


def make_eval_steps(config: ml_collections.ConfigDict, model: Any, feed: Any) -> dict[str, Any]:
    """What to look at -> (variables, batch) -> that of the global batch, on all devices; compiled when it is first used.

    "logits": float32 [B, outputs]. "features": those, and float32 [B, F]. "odin": the logits of `openset.odin`. "images":
    uint8 [B, S, S, 3], as they are stored.
    """
    from openset_jax.data import augment
    from openset_jax.openset import objectives, odin
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
