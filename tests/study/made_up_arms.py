"""Synthetic outcomes whose scores and answers improve with the number of negatives, for charts, figures and pages."""

import numpy as np
from study.made_up import training

from openset_jax.openset.scored import Scored
from openset_jax.study.stats.analysis import Analysis
from openset_jax.study.stats.arm_outcome import Outcome
from openset_jax.study.stats.treatments import Treatment

KINDS = {"seen_negatives": ["n1", "n2"], "unseen_unknowns": ["u"]}
CLASSES, PER_CLASS, ALL = ("cat", "dog", "owl"), 700, 42_000
EACH = 50  # test images of a known class, and of a group


def treatment(**fields):
    """Returns a treatment; `sampling__policy="balanced"` sets sampling.policy."""
    return Treatment(tuple(sorted((name.replace("__", "."), value) for name, value in fields.items())))


def negatives_of(treated):
    """Returns the number of negatives of a treatment with 0, 700 or "3x"; all negatives if the field is absent."""
    asked = treated.get("sampling.negatives", ALL)
    return round(float(asked[:-1]) * PER_CLASS) if isinstance(asked, str) else asked


def outcome(treated, seed, *, kinds=KINDS, classes=CLASSES, gain=0.0, silent=None):
    """Returns the outcome of one arm.

    Args:
      kinds: kind -> groups; closed-set if there are no groups.
      gain: the advantage over other arms with the same number of negatives.
      silent: True for a network without an output for "none"; by default only arms without negatives are.
    """
    negatives, k = negatives_of(treated), len(classes)
    silent = (negatives == 0) if silent is None else silent
    rng = np.random.default_rng([seed, negatives])
    groups = [group for names in kinds.values() for group in names]
    label = np.repeat(np.append(np.arange(k), np.full(len(groups), -1)), EACH)
    label[np.isin(np.repeat([*classes, *groups], EACH), kinds.get("unseen_unknowns", []))] = -2
    group = np.repeat(np.array([*classes, *groups], object), EACH)
    skill = 1.0 + gain + 0.4 * np.log1p(negatives / PER_CLASS)
    logits = rng.normal(0, 1, (len(label), k + 1))
    logits[np.arange(len(label)), np.where(label < 0, k, label)] += np.where(label == -2, 0.7, 1.0) * skill + 0.6
    known_class = logits[:, :k].argmax(1)
    score = logits[:, k] - logits[:, :k].max(1)
    none = lambda threshold: np.where(score > threshold, k, known_class)
    e = np.exp(logits[:, :k] - logits[:, :k].max(1, keepdims=True))
    decisions = {"argmax": known_class if silent else none(0.0), "rule": none(np.quantile(score[label >= 0], 0.95))}
    decisions |= {} if silent else {"prior": none(0.8)}
    return Outcome(
        treatment=treated,
        seed=seed,
        name=f"arm of seed {seed}",
        objective="softmax" if silent else "background",
        classes=tuple(classes),
        kinds=kinds,
        training=training(dict(treated.fields)),
        negatives=negatives,
        class_sizes=(PER_CLASS,) * len(CLASSES),
        negative_groups=treated.get("data.negative_groups", 9),
        deployment=np.append(np.full(k, 0.5 / k), 0.5),
        costs=1.0 - np.eye(k + 1),
        key=np.random.default_rng(7).integers(0, 2**63, len(label), dtype=np.uint64),
        scored=Scored(label, group, score, known_class, None if silent else none(0.0)),
        probabilities=(e / e.sum(1, keepdims=True)).astype(np.float32),
        decisions=decisions,
    )


def sweep(amounts=(0, "0.1x", "1x", "3x", "10x"), policies=({}, {"sampling__policy": "undersample"}), every=True):
    """Returns treatments: each amount with each policy, and each policy with all negatives; 0 only with the first policy."""
    asked = [{"sampling__negatives": amount} for amount in amounts] + ([{}] if every else [])
    return [
        treatment(**policy, **amount)
        for place, policy in enumerate(policies)
        for amount in asked
        if place == 0 or amount.get("sampling__negatives") != 0
    ]


def analysis(treatments, seeds=3, **options):
    """Returns the analysis of all arms; policies differ in skill, so that their lines do not coincide."""
    gains = {
        rest: 0.15 * place for place, rest in enumerate(dict.fromkeys(t.without("sampling.negatives") for t in treatments))
    }
    return Analysis(
        [
            outcome(t, seed, gain=gains[t.without("sampling.negatives")], **options)
            for t in treatments
            for seed in range(seeds)
        ]
    )


POLICIES = (
    {},
    {"sampling__policy": "undersample"},
    {"sampling__policy": "balanced"},
    {"sampling__policy": "two_phase"},
    {"sampling__policy": "negative_fraction"},
    {"objective__class_weights": "balanced"},
    {"objective__class_weights": "effective_number"},
    {"objective__logit_adjustment": 1.0},
    {"objective__logit_adjustment": 0.5},
    {"objective__name": "entropic"},
    {"objective__class_weights": "balanced", "objective__name": "one_vs_rest", "sampling__policy": "undersample"},
    {"objective__negative_weight": 0.1},
)
APART = (
    treatment(trainable="head", init_from="a/b"),
    treatment(trainable="fc", init_from="a/b"),
    treatment(trainable="all", init_from="a/b"),
    treatment(data__negative_groups=3),
)
CASES = {
    "usual": lambda: analysis(sweep()),
    "one seed": lambda: analysis(sweep(), seeds=1),
    "unlike seeds": lambda: Analysis([outcome(t, s) for i, t in enumerate(sweep()) for s in range(3 - 2 * (i % 3 == 1))]),
    "one point": lambda: analysis([treatment()]),
    "one arm": lambda: analysis([treatment()], seeds=1),
    "12 policies": lambda: analysis(sweep(policies=POLICIES)),
    "12 points": lambda: analysis([treatment(**policy) for policy in POLICIES]),
    "apart": lambda: analysis([*sweep(), *APART]),
    "only apart": lambda: analysis([treatment(), *APART]),
    "closed set": lambda: analysis(
        [treatment(**p) for p in POLICIES[:7]], kinds={"seen_negatives": [], "unseen_unknowns": []}
    ),
    "one kind": lambda: analysis(sweep(), kinds={"seen_negatives": ["n1"], "unseen_unknowns": []}),
}
