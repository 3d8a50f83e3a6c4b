"""Converts a config into `RunSpec`s and checks every field. Training and evaluation read the specs, not the config."""

import dataclasses
import pathlib
from collections.abc import Iterable
from typing import Any

import jax
from ml_collections import ConfigDict

from openset_jax import config_json, spec
from openset_jax.config_fields import AUTO, TWO_PHASE, Fields, missing
from openset_jax.data import imbalance, training_set
from openset_jax.data.data_spec import DataSpec, ImagesSpec
from openset_jax.data.pools import ROLES
from openset_jax.errors import UserError
from openset_jax.model import networks
from openset_jax.model.network import Network
from openset_jax.openset.decision import prior_and_costs
from openset_jax.openset.losses import objectives

_NO_AUGMENT = {"crop": False, "pad": 0, "flip": False}  # `augment` of vectors

EXPERIMENT = "experiment.json"  # in the folder of an experiment: its config and the fingerprint of its images
PRETRAINED = "pretrained"  # the value of `init_from` for the published weights of the network
FIRST_PHASE = "first_phase"  # name of the first phase's folder inside the run's workdir


def resolve(config: ConfigDict, workdir: pathlib.Path, *, dtype: str | None = None) -> tuple[spec.RunSpec, ...]:
    """Returns the specs of the runs that a config describes: one, or with sampling.policy=two_phase both phases in order.

    Args:
      config: with the fields of configs/default.py.
      workdir: absolute path of the run's folder. The first of two phases has its subfolder `FIRST_PHASE`.
      dtype: replaces model.dtype=auto; None for `device_dtype()`.

    Raises:
      UserError: names the first field that is missing, out of range, or contradicts another.
    """
    if "run" in config:
        raise UserError("--config: this is an experiment; use python -m openset_jax.experiment, or the config of one run")
    fields = Fields(config)
    dtype_is_auto, policy = fields["model.dtype"] == AUTO, fields["sampling.policy"]
    config = with_dtype(config, dtype)
    if policy != TWO_PHASE:
        return (_resolve_run(config, workdir, dtype_is_auto),)
    first, second = _two_phases(config, workdir / FIRST_PHASE)
    return _resolve_run(first, workdir / FIRST_PHASE, dtype_is_auto), _resolve_run(second, workdir, dtype_is_auto)


def with_dtype(config: ConfigDict, dtype: str | None = None) -> ConfigDict:
    """Returns a copy of the config in which `dtype`, or `device_dtype()` if it is None, replaces model.dtype=auto."""
    config = config.copy_and_resolve_references()
    if config.model.dtype == AUTO:
        config.model.dtype = dtype or device_dtype()
    return config


def device_dtype() -> str:
    """Returns the default dtype of the computation: "bfloat16" on GPUs and TPUs, "float32" on CPUs."""
    return "bfloat16" if jax.default_backend() in ("gpu", "tpu") else "float32"


def _resolve_run(config: ConfigDict, workdir: pathlib.Path, dtype_is_auto: bool) -> spec.RunSpec:
    fields = Fields(config)
    fields.check_all()
    run = spec.RunSpec(
        workdir=workdir,
        program=_program(fields),
        seed=fields["seed"],
        learning_rate=fields["optimizer.learning_rate"],
        data=_data(config, fields),
        input=spec.InputSpec(fields["input"], fields["shard_resident"]),
        sampling=fields.make(
            training_set.SamplingSpec,
            "sampling",
            negatives=training_set.parse_negatives(fields["sampling.negatives"]),
            imbalance=imbalance.parse(fields["sampling.imbalance"]),
        ),
        weights=spec.WeightSpec(
            _negative_weight(fields),
            fields["objective.class_weights"],
            fields["objective.effective_number_beta"],
            fields["objective.logit_adjustment"],
        ),
        decision=fields.make(spec.DecisionSpec, "decision"),
        evaluation=fields.make(spec.EvaluationSpec, "eval"),
        stopping=fields.make(spec.StoppingSpec, "early_stopping"),
        checkpoint_every=fields["checkpoint.every"],
        log_every=fields["log_every"],
        init_from=fields["init_from"],
        dtype_is_auto=dtype_is_auto,
        record=config_json.to_json(config),
    )
    _check_together(run, fields)
    return run


def _program(fields: Fields) -> spec.ProgramSpec:
    objective = objectives.get(fields["objective.name"])
    network = fields.make(spec.NetworkSpec, "model")
    made = network.make(2, trainable=fields["trainable"])  # raises UserError for the first invalid field
    network = dataclasses.replace(network, stem=made.stem, norm=made.norm, dropout=made.dropout)
    negative_weight = _negative_weight(fields)
    options = fields.section("objective", *objective.options)
    if "negative_weight" in options:
        options["negative_weight"] = negative_weight
    if options.get("margins") is not None:
        options["margins"] = _floats(options["margins"])
    return spec.ProgramSpec(
        forward=spec.ForwardSpec(network, _inputs(fields, made), objective.none_output),
        loss=spec.LossSpec(objective, negative_weight is not None, tuple(options.items())),
        optimizer=fields.make(spec.OptimizerSpec, "optimizer"),
        trainable=fields["trainable"],
        **(_NO_AUGMENT if made.takes_vectors else fields.section("augment", *_NO_AUGMENT)),
        all_reduce_dtype=fields["optimizer.all_reduce_dtype"],
        steps=fields["steps"],
        batch_size=fields["batch_size"],
        steps_per_call=fields["steps_per_call"],
    )


def _negative_weight(fields: Fields) -> float | None:
    objective, weight = objectives.get(fields["objective.name"]), fields["objective.negative_weight"]
    if not objective.uses_negatives:
        return None
    return objective.negative_weight if weight is None else weight


def _inputs(fields: Fields, network: Network) -> spec.ImageSpec | spec.VectorSpec:
    if network.takes_vectors:
        return fields.make(spec.VectorSpec, "data")
    mean, std = fields["data.mean"] or network.preprocessing.mean, fields["data.std"] or network.preprocessing.std
    return fields.make(spec.ImageSpec, "data", mean=_floats(mean), std=_floats(std))


def _floats(values: Iterable[Any]) -> tuple[float, ...]:
    """Numbers of a tuple; on the command line "0.50" is a text, because it may be the name of a class."""
    return tuple(map(float, values))


def _data(config: ConfigDict, fields: Fields) -> DataSpec:
    if absent := [role for role in ROLES if role not in config.data]:
        raise missing(f"data.{absent[0]}")
    of_role = {role: tuple(_images(role, one) for one in _as_list(config.data[role])) for role in ROLES}
    return fields.make(DataSpec, "data", **of_role)


def _images(role: str, images: Any) -> ImagesSpec:
    try:
        values = images.to_dict()
        values["classes"] = tuple(map(str, values["classes"]))
        found = ImagesSpec(**values)
    except (AttributeError, TypeError, KeyError) as error:
        raise UserError(f"data.{role}: must be made with images(...) of configs/default.py ({error})") from error
    if not isinstance(found.limit, int) or found.limit < 0:
        raise UserError(f"data.{role}.limit: {found.limit!r} is not 0 or more")
    for name in ("source", "group", "train", "validation", "test"):
        if not isinstance(values[name], str):
            raise UserError(f"data.{role}.{name}: {values[name]!r} is not a string")
    return found


def _as_list(images: Any) -> list[Any]:
    return list(images) if isinstance(images, tuple | list) else [] if images is None else [images]


def _check_together(run: spec.RunSpec, fields: Fields) -> None:
    """Raises UserError if fields contradict each other."""
    program, objective, data = run.program, run.objective, run.data
    for name in ("steps", "log_every", "eval.every", "checkpoint.every"):
        if fields[name] % program.steps_per_call:
            raise UserError(f"steps_per_call: {program.steps_per_call} does not divide {name}, {fields[name]}")
    if isinstance(run.inputs, spec.ImageSpec):
        _check_images(run.inputs, program)
    if run.weights.tau and not objective.softmax:
        raise UserError(f"objective.logit_adjustment: {objective.name} has no softmax to adjust; leave it at 0")
    if run.sampling.policy == "negative_fraction" and not objective.uses_negatives:
        raise UserError(f"sampling.policy: negative_fraction draws negatives, and objective.name={objective.name} uses none")
    for role in ("known", "negatives") if objective.uses_negatives else ("known",):
        if not data.packed and not getattr(data, role):
            raise UserError(f"data.{role}: empty; set it with images(...) of configs/default.py")
    metric = run.stopping.metric
    if metric == "balanced_accuracy" and not objective.says_none:
        raise UserError(
            f"early_stopping.metric: with objective.name={objective.name} the network never says 'none' by itself, so that "
            "balanced_accuracy of K + 1 classes is not defined; use auroc"
        )
    if metric != "accuracy" and not (data.packed or data.negatives or data.held_out_negatives):
        raise UserError(
            f"early_stopping.metric: {metric} needs negatives in the validation split; set data.held_out_negatives or "
            "data.negatives, or use early_stopping.metric=accuracy"
        )
    for name in ("decision.prior", "decision.costs"):
        prior_and_costs.parse(fields[name], name)


def _check_images(images: spec.ImageSpec, program: spec.ProgramSpec) -> None:
    """Raises UserError if the sizes of images contradict each other, or do not suit the network."""
    if images.image_size > images.stored_size:
        raise UserError(f"data.image_size: {images.image_size} is larger than data.stored_size, {images.stored_size}")
    network = program.forward.network
    stems = networks.get(network.name).stems
    if images.image_size < (smallest := stems[network.stem]):
        others = [stem for stem, side in stems.items() if images.image_size >= side]
        raise UserError(
            f"data.image_size: {images.image_size} is below {smallest}, the smallest size that {network.name} takes with "
            f"model.stem={network.stem}" + (f"; use model.stem={others[0]}" if others else "; use larger images")
        )
    if program.pad >= images.image_size:
        raise UserError(
            f"augment.pad: {program.pad} is not below data.image_size={images.image_size}, so that crops could have no "
            "pixel of the image; lower it"
        )


def _two_phases(config: ConfigDict, first_workdir: pathlib.Path) -> tuple[ConfigDict, ConfigDict]:
    """The configs of two-phase training: all layers on resampled data, then the last layers on natural data.

    After Buda, Maki and Mazurowski 2018 (arXiv 1710.05381, section 2.2.2), whose second phase has a tenth of the learning
    rate. The steps of the two phases sum to `config.steps`.
    """
    fields = Fields(config)
    if fields["trainable"] == "all":
        raise UserError(
            "trainable: use head or another group; the second phase of sampling.policy=two_phase trains only last layers"
        )
    per_call = fields["steps_per_call"]
    calls = fields["steps"] // per_call
    if calls < 2:
        raise UserError(f"steps: {config.steps} is less than two calls of steps_per_call={per_call}, needed for two_phase")
    steps = min(max(round(fields["sampling.first_share"] * calls), 1), calls - 1) * per_call
    first, second = config.copy_and_resolve_references(), config.copy_and_resolve_references()
    first.trainable, first.sampling.policy, first.steps = "all", fields["sampling.first_policy"], steps
    second.sampling.policy, second.steps, second.init_from = "natural", config.steps - steps, str(first_workdir)
    second.optimizer.learning_rate = fields["optimizer.learning_rate"] / 10
    return first, second
