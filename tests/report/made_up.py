"""The arguments of `page.render` from made-up logits, in a second and without a run."""

import dataclasses

import numpy as np

from openset_jax.openset.decision import classifier, prior_and_costs, thresholds
from openset_jax.openset.losses import objectives
from openset_jax.openset.metrics import evaluation
from openset_jax.openset.scores import logit_scores
from openset_jax.report import mistakes

KINDS = {"seen_negatives": ["n1", "n2"], "unseen_unknowns": ["u"]}


def logits(label, num_classes, seed):
    rng = np.random.default_rng(seed)
    values = rng.normal(0, 1, (len(label), num_classes + 1))
    row = np.arange(len(label))
    values[row, np.where(label < 0, num_classes, label)] += np.where(label == -2, 1.2, 3.0)
    return values


def classes_of(num_classes):
    return tuple(f"class {k}" for k in range(num_classes))


def arguments(
    *,
    num_classes=4,
    knowns=80,
    negatives=60,
    unknowns=50,
    silent=False,
    rule=None,
    classes=None,
    kinds=KINDS,
    **changes,
):
    """Returns the arguments for a split with images of each class and of each group.

    Args:
      silent: a softmax over the K classes, fitted without negatives.
      changes: fields of the `Classifier`.
    """
    classes, names = classes or classes_of(num_classes), [name for groups in kinds.values() for name in groups]
    count = dict.fromkeys(kinds["seen_negatives"], negatives) | dict.fromkeys(kinds["unseen_unknowns"], unknowns)
    known = np.repeat(np.arange(num_classes), knowns)
    validation, outputs = np.append(known, np.full(0 if silent else 200, -1)), slice(None, -1 if silent else None)
    fitted = classifier.fit(
        objectives.get("softmax" if silent else "background"),
        classes,
        logits(validation, num_classes, 0)[:, outputs],
        np.where(validation < 0, num_classes, validation),
        training_prior=np.full(num_classes + 1, 1 / (num_classes + 1)),
        prior=np.append(np.full(num_classes, 0.6 / num_classes), 0.4),
        costs=prior_and_costs.cost_matrix(None, classes),
        rule=rule or thresholds.Rule("keep_knowns", 0.95),
    )
    fitted = dataclasses.replace(fitted, **changes)
    kind_label = dict.fromkeys(kinds["seen_negatives"], -1) | dict.fromkeys(kinds["unseen_unknowns"], -2)
    label = np.concatenate([known, *(np.full(count[name], kind_label[name]) for name in names)])
    group = np.array([classes[k] for k in known] + [name for name in names for _ in range(count[name])], object)
    values = logits(label, num_classes, 1)[:, outputs]
    scored, posterior = fitted.classify(values, label, group)
    result = {"step": 7, "objective": fitted.objective.name, "counts": {"skipped": 0}}
    promised = fitted.threshold.kept is not None
    result |= evaluation.operating_point(scored, classes=classes, kinds=kinds, classifier=fitted, promised=promised)
    posteriors = {"before": (None, fitted.prior), "after": (posterior, fitted.prior)}
    result["calibration"] = evaluation.calibration(scored, posteriors, kinds=kinds)
    result["open_set"] = evaluation.evaluate_split(scored, classes=classes, kinds=kinds)["open_set"]
    further = {"energy": logit_scores.energy(values)}
    result["scores"] = evaluation.compare_scores(scored, further, kinds=kinds, own=result["open_set"])
    result["scores_left_out"] = {"mahalanobis": "needs features"}
    worst = {
        heading: [mistake(scored, posterior, row, (*classes, "none")) for row in rows]
        for heading, rows in mistakes.worst(scored, posterior, kinds).items()
    }
    return {
        "result": result, "scored": scored, "kinds": kinds, "classifier": fitted,
        "fitted_posterior": fitted.fitted_posterior(values), "mistakes": worst,
    }  # fmt: skip


def mistake(scored, posterior, row, names):
    image = np.random.default_rng(row).integers(0, 256, (8, 8, 3), np.uint8)
    p = None if posterior is None else posterior[row, scored.decision[row]]
    answer = names[scored.decision[row]]
    return mistakes.Mistake(image, f"dir/{row}.png", scored.group[row], answer, scored.score[row], p)
