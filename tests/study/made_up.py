"""Synthetic outcomes of a given quality, without training.

All arms see the same test images, and arms of one seed the same noise. So two treatments of the same quality give the same
numbers to the last bit, unless `jitter` differs between arms.
"""

import dataclasses
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from openset_jax.openset.decision.prior_and_costs import cost_matrix
from openset_jax.openset.scored import Scored
from openset_jax.study.stats.analysis import Analysis
from openset_jax.study.stats.arm_outcome import Outcome, Training
from openset_jax.study.stats.treatments import Treatment

CLASSES = ("a", "b", "c")
KINDS = {"seen_negatives": ["n1", "n2"], "unseen_unknowns": ["u1", "u2"]}
DEPLOYMENT = np.array([0.2, 0.2, 0.2, 0.4])
PER_CLASS = 70


def treatment(fields: Mapping[str, Any] | None = None) -> Treatment:
    """Returns a treatment with these config fields."""
    return Treatment(tuple(sorted((fields or {}).items())))


def training(fields: Mapping[str, Any]) -> Training:
    """Returns what `init_from` and `trainable` train in a network of 8 layers, and a cost that grows with their number."""
    trainable = fields.get("trainable", "all")
    layers = {"head": 1, "fc": 3, "conv3": 6, "all": 8}[trainable]
    return Training(
        start=fields.get("init_from", ""),
        trainable=trainable,
        layers=layers,
        all_layers=8,
        flops=1e9 * (4 + layers),
        memory=layers * 2**20,
        images_per_second=900.0 / layers,
    )


def outcome(
    fields: Mapping[str, Any] | None = None,
    seed: int = 0,
    *,
    seen: float = 2.0,
    unseen: float = 1.0,
    answered_none: float = 0.05,
    prior_none: float = 0.05,
    accuracy: float = 0.9,
    jitter: float = 0.0,
    negatives: int | None = None,
    negative_groups: int | None = None,
    objective: str = "",
    images: int = 60,
    closed: bool = False,
    decisions: Sequence[str] = ("argmax", "prior", "rule", "least_cost"),
) -> Outcome:
    """Returns the outcome of one arm.

    Args:
      fields: of the config; `sampling.negatives` and `data.negative_groups` set the numbers that they name.
      seed: of the arm.
      seen, unseen: the mean score of seen negatives and unseen unknowns minus that of known images, in standard deviations
        of either; 0 is chance.
      answered_none, prior_none: the share of known images answered "none" by the network, and after prior correction.
      accuracy: among the K classes.
      jitter: standard deviation of `seen` and `unseen` over arms; that of `accuracy` is a tenth of it.
      negatives, negative_groups, objective: defaults if the fields do not set them; ten times a known class, both groups,
        "background" or, without negatives, "softmax".
      images: of each known class and of each group.
      closed: no test images of "none".
      decisions: names in `DECISIONS`.
    """
    fields = dict(fields or {})
    asked = fields.get("sampling.negatives", 10 * PER_CLASS if negatives is None else negatives)
    negatives = round(float(asked[:-1]) * PER_CLASS) if isinstance(asked, str) else asked
    objective = objective or fields.get("objective.name") or ("background" if negatives else "softmax")
    k, kinds = len(CLASSES), {kind: [] if closed else groups for kind, groups in KINDS.items()}
    names = [*CLASSES, *kinds["seen_negatives"], *kinds["unseen_unknowns"]]
    group = np.repeat(np.array(names, object), images)
    label = np.repeat([0, 1, 2, -1, -1, -2, -2][: len(names)], images)

    label_of = ", ".join(f"{name}={value}" for name, value in sorted(fields.items()))
    shared, of_seed = np.random.default_rng(0), np.random.default_rng(1000 + seed)
    shift = jitter * np.random.default_rng([seed, zlib.crc32(label_of.encode())]).normal(size=3)
    n, spread = len(label), np.sqrt(1 - 0.3**2)
    key = shared.integers(0, 2**63, n).astype(np.uint64)
    score = spread * shared.normal(size=n) + 0.3 * of_seed.normal(size=n)
    score += np.select([label == -1, label == -2], [seen + shift[0], unseen + shift[1]], 0.0)
    right = shared.random(n) < accuracy + 0.1 * shift[2]
    wrong = shared.integers(1, k, n)
    known_class = np.where(label < 0, wrong, np.where(right, label, (label + wrong) % k))
    logits = 2.0 * np.eye(k)[known_class] + 0.5 * shared.normal(size=(n, k))
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)

    costs, known = cost_matrix(None, CLASSES), label >= 0
    above = lambda threshold: np.where(score > threshold, k, known_class)
    rejecting = lambda share: above(-np.inf if share >= 1 else np.quantile(score[known], 1 - share))
    by_itself = rejecting if objective in ("background", "one_vs_rest") else lambda share: known_class
    weight = np.where(known, DEPLOYMENT[0] / images, DEPLOYMENT[k] / max((~known).sum(), 1))
    total = lambda answer: (weight * costs[np.where(known, label, k), answer]).sum()
    cheapest = min((above(t) for t in np.quantile(score, np.linspace(0, 1, 41))), key=total)
    answers = {
        "argmax": by_itself(answered_none),
        "prior": by_itself(prior_none),
        "rule": rejecting(0.05),
        "least_cost": cheapest,
    }
    return Outcome(
        treatment=treatment(fields),
        seed=seed,
        name=f"{label_of or 'config.run unchanged'}, seed {seed}",
        objective=objective,
        classes=CLASSES,
        kinds=kinds,
        training=training(fields),
        negatives=negatives,
        class_sizes=(PER_CLASS,) * len(CLASSES),
        negative_groups=fields.get("data.negative_groups", negative_groups or (2 if negatives else 0)),
        deployment=DEPLOYMENT,
        costs=costs,
        key=key,
        scored=Scored(label, group, score, known_class, answers["argmax"] if by_itself is rejecting else None),
        probabilities=probabilities.astype(np.float32),
        decisions={name: answers[name] for name in decisions},
    )


def shown(arm: Outcome, *groups: str) -> Outcome:
    """Returns the outcome of an arm that was trained and tested on these groups of seen negatives only."""
    kept = ~np.isin(arm.scored.group, [g for g in arm.kinds["seen_negatives"] if g not in groups])
    return dataclasses.replace(
        arm,
        kinds={**arm.kinds, "seen_negatives": list(groups)},
        key=arm.key[kept],
        scored=arm.scored[kept],
        probabilities=arm.probabilities[kept],
        decisions={name: answer[kept] for name, answer in arm.decisions.items()},
    )


def arms(*treatments: tuple[Mapping[str, Any], Mapping[str, Any]], seeds: int = 3, **quality: Any) -> list[Outcome]:
    """Returns several seeds of each treatment, the treatments in this order.

    Args:
      treatments: (fields, arguments of `outcome`).
      seeds: of each treatment.
      quality: arguments for all treatments, which their own arguments override.
    """
    return [outcome(fields, seed, **{**quality, **own}) for fields, own in treatments for seed in range(seeds)]


def analysis(*treatments: tuple[Mapping[str, Any], Mapping[str, Any]], seeds: int = 3, **quality: Any) -> Analysis:
    """Returns the analysis of `arms`."""
    return Analysis(arms(*treatments, seeds=seeds, **quality))
