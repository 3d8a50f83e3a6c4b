"""Turns the saved outputs of an arm into its `Outcome`: the decisions that need no further training."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from openset_jax.openset.decision import classifier, posterior
from openset_jax.openset.decision.thresholds import Rule
from openset_jax.openset.losses import objectives
from openset_jax.openset.scores import logit_scores
from openset_jax.spec import DecisionSpec
from openset_jax.study.runs.grid import Arm
from openset_jax.study.stats.arm_outcome import DECISIONS, Outcome


def outcome(arm: Arm, arrays: Mapping[str, np.ndarray], about: Mapping[str, Any], decision: DecisionSpec) -> Outcome:
    """Returns the outcome of an arm.

    Args:
      arrays, about: as `arm_folder.save_outcome` saves them.
      decision: of the deployment. Without a prior, all classes and "none" are equally frequent.
    """
    objective, classes = objectives.get(about["objective"]), tuple(about["classes"])
    k, logits, label = len(classes), arrays["logits"], arrays["label"]
    group = np.array(about["groups"], object)[arrays["group"]]
    training, uniform = np.array(about["training_prior"]), np.full(k + 1, 1 / (k + 1))
    asked = decision.resolve(classes, uniform)
    validation = arrays["validation_logits"], arrays["validation_label"]

    def decide(rule: Rule) -> np.ndarray:
        given = {**asked._asdict(), "rule": rule, "training_prior": training, "resamples": 0}
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
    before, after = (prior[:width] / prior[:width].sum() for prior in (training, asked.prior))
    if not ((before == 0) & (after > 0)).any():
        decisions["prior"] = posterior.correct_prior(own_posterior, before, after).argmax(1)
    return Outcome(
        treatment=arm.treatment, seed=arm.seed, name=arm.name, objective=about["objective"], classes=classes,
        class_sizes=tuple(about["class_sizes"]), kinds=about["kinds"], negatives=about["negatives"],
        negative_groups=about["negative_groups"], deployment=asked.prior, costs=asked.costs, key=arrays["key"],
        scored=scored, probabilities=known.astype(np.float32),
        decisions={name: decisions[name] for name in DECISIONS if name in decisions},
    )  # fmt: skip
