"""Turns the saved outputs of an arm into its `Outcome`: the decisions that need no further training."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from openset_jax.config import FIRST_PHASE
from openset_jax.openset import checks
from openset_jax.openset.decision import classifier, posterior
from openset_jax.openset.decision.thresholds import Rule
from openset_jax.openset.losses import objectives
from openset_jax.openset.scores import logit_scores
from openset_jax.spec import DecisionSpec
from openset_jax.study.runs.grid import Arm
from openset_jax.study.stats.arm_outcome import DECISIONS, Outcome, Training


def checked(arrays: Mapping[str, np.ndarray], about: dict[str, Any]) -> dict[str, Any]:
    """Returns `about` if both are as `arm_folder.save_outcome` saves them.

    Raises:
      ValueError, TypeError, KeyError or UserError: names the field.
    """
    objective, k = objectives.get(about["objective"]), len(about["classes"])
    for split, last in (("", -2), ("validation_", 0)):
        logits, label = checks.finite(arrays[f"{split}logits"], f"{split}logits", 2), arrays[f"{split}label"]
        if logits.shape[1] != objective.num_outputs(k):
            raise ValueError(
                f"{split}logits has {logits.shape[1]} outputs; {about['objective']} has {objective.num_outputs(k)}"
            )
        _whole(label, f"{split}label", len(logits), last, k - 1 if last else k)
    n = len(arrays["logits"])
    _whole(arrays["group"], "group", n, 0, len(about["groups"]) - 1)
    _whole(arrays["key"], "key", n, 0, 2**64 - 1)
    checks.prior(about["training_prior"], k + 1, "training_prior")
    for name in ("negatives", "negative_groups"):
        checks.count(about[name], name)
    if len([checks.count(size, "class_sizes") for size in about["class_sizes"]]) != k:
        raise ValueError(f"class_sizes has {len(about['class_sizes'])} numbers for {k} classes")
    training = Training(**about["training"])
    for name in ("layers", "all_layers"):
        checks.count(getattr(training, name), f"training.{name}")
    for name in ("flops", "memory", "images_per_second"):
        if (value := getattr(training, name)) is not None and not 0 <= value < float("inf"):
            raise ValueError(f"training.{name}: {value!r} is not 0 or more")
    if strange := {group for groups in about["kinds"].values() for group in groups} - set(about["groups"]):
        raise ValueError(f"kinds: {min(strange)!r} is not one of the groups")
    return about


def _whole(values: np.ndarray, name: str, count: int, least: int, most: int) -> None:
    if values.shape != (count,) or values.dtype.kind not in "iu":
        raise ValueError(f"{name} must be {count} whole numbers, not {values.dtype} of the shape {values.shape}")
    if count and not (least <= int(values.min()) and int(values.max()) <= most):
        raise ValueError(f"{name} must be from {least} to {most}; it is from {values.min()} to {values.max()}")


def outcome(arm: Arm, arrays: Mapping[str, np.ndarray], about: Mapping[str, Any], decision: DecisionSpec) -> Outcome:
    """Returns the outcome of an arm.

    Args:
      arrays, about: as `arm_folder.save_outcome` saves them.
      decision: of the deployment. Without a prior, all classes and "none" are equally frequent.
    """
    objective, classes = objectives.get(about["objective"]), tuple(about["classes"])
    k, logits, label = len(classes), arrays["logits"], arrays["label"]
    group = np.array(about["groups"], object)[arrays["group"]]
    trained, uniform = np.array(about["training_prior"]), np.full(k + 1, 1 / (k + 1))
    asked = decision.resolve(classes, uniform)
    validation = arrays["validation_logits"], arrays["validation_label"]

    def decide(rule: Rule) -> np.ndarray:
        given = {**asked._asdict(), "rule": rule, "training_prior": trained, "resamples": 0}
        scored, _ = classifier.fit(objective, classes, *validation, **given).classify(logits, label, group)
        assert scored.decision is not None
        return scored.decision

    scored = classifier.interpret(objective, logits, label, group)
    own = scored.known_class if scored.answer is None else scored.answer
    decisions = {"argmax": own, "rule": decide(asked.rule)}
    if (validation[1] == k).any():
        decisions["least_cost"] = decide(Rule("least_cost", None))
    known = logits[:, :k].astype(np.float64)
    if objective.softmax:
        known = logit_scores.softmax(known)
        own_posterior = logit_scores.softmax(logits.astype(np.float64)) if objective.none_output else known
    else:
        own_posterior = posterior.from_sigmoids(logits)
        known = own_posterior[:, :k]
    width = own_posterior.shape[1]
    before, after = (prior[:width] / prior[:width].sum() for prior in (trained, asked.prior))
    if not ((before == 0) & (after > 0)).any():
        decisions["prior"] = posterior.correct_prior(own_posterior, before, after).argmax(1)
    training = Training(**about["training"])
    if training.start not in ("", FIRST_PHASE):  # the folder of another arm is known by the arm's label
        training = training._replace(start=arm.treatment.get("init_from", training.start))
    return Outcome(
        treatment=arm.treatment, seed=arm.seed, name=arm.name, objective=about["objective"], classes=classes,
        training=training,
        class_sizes=tuple(about["class_sizes"]), kinds=about["kinds"], negatives=about["negatives"],
        negative_groups=about["negative_groups"], deployment=asked.prior, costs=asked.costs, key=arrays["key"],
        scored=scored, probabilities=known.astype(np.float32),
        decisions={name: decisions[name] for name in DECISIONS if name in decisions},
    )  # fmt: skip
