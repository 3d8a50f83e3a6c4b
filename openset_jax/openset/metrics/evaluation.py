"""The metrics of `metrics.json`, with confidence intervals, from the predictions of a split."""

import functools
from typing import Any

import numpy as np

from openset_jax.openset.decision import thresholds
from openset_jax.openset.decision.calibration import mix_weights
from openset_jax.openset.decision.classifier import Classifier
from openset_jax.openset.metrics import calibration_error, intervals, ranking
from openset_jax.openset.metrics.intervals import Interval, Metric
from openset_jax.openset.scored import Scored

Kinds = dict[str, list[str]]  # "seen_negatives", "unseen_unknowns" -> their groups

FPRS = (1e-3, 1e-2, 1e-1)
RESAMPLES, RESAMPLES_OF_GROUP, RESAMPLES_OF_SCORE = 2_000, 500, 200  # upper limits
COMPARED = ("auroc", "oscr", "unknowns_accepted_at_95_known_recall")
BOOTSTRAPPED: dict[str, Metric] = {
    "average_precision_unknown_positive": ranking.average_precision,
    "average_precision_known_positive": lambda r: ranking.average_precision(r.swapped()),
    "average_precision_unknown_positive_at_equal_counts": ranking.average_precision_balanced,
    "aupr_trapezoid_unknown_positive": ranking.aupr_trapezoid,
    "aupr_trapezoid_known_positive": lambda r: ranking.aupr_trapezoid(r.swapped()),
    "unknowns_accepted_at_95_known_recall": ranking.unknowns_accepted,
    "knowns_rejected_at_95_unknown_recall": ranking.knowns_rejected,
    "oscr": ranking.oscr,
    "detection_error": ranking.detection_error,
    "aurc": ranking.aurc,
}


def evaluate_split(
    scored: Scored, *, classes: tuple[str, ...], kinds: Kinds, with_intervals: bool = True, resamples: int = RESAMPLES
) -> dict[str, Any]:
    """Returns the closed-set metrics of the knowns, and the open-set metrics of seen negatives and of unseen unknowns.

    A metric without images is None, and so are closed-set metrics of one known class, which would always be 1.

    Args:
      with_intervals: if False, every metric is a plain float, and only AUROC, balanced accuracies and shares are computed.
      resamples: maximum number of bootstrap resamples, 1 or more.

    Returns:
      `counts`, `known` and `open_set` of `metrics.json`; the schema is in the README of `openset`.
    """
    k, known = len(classes), scored[scored.label >= 0]
    of_kind = {kind: scored[_others(scored, groups)] for kind, groups in kinds.items()}
    of_group = {g: scored[_others(scored, [g])] for groups in kinds.values() for g in groups}
    of_kind["together"] = scored[scored.label < 0]
    number = _as_json if with_intervals else (lambda interval: None if interval is None else interval.value)
    closed = number if k > 1 else (lambda interval: None)  # among one class every answer is right
    answered = lambda images, answer: None if images.answer is None else number(_share(images.answer == answer))

    def against(others: Scored, most: int) -> dict[str, Any]:
        result = {"images": len(others.label), "rejected_at_argmax": answered(others, k)}
        result["balanced_accuracy"] = number(_balanced(known, others, k, with_intervals))
        if not len(known.label) or not len(others.label):
            missing = dict.fromkeys((*BOOTSTRAPPED, "ccr_at_fpr", "resamples", "over_groups")) if with_intervals else {}
            return {"auroc": None, **result, **missing}
        ranked = ranking.rank(known.score, others.score, known.known_class == known.label)
        result = {"auroc": number(intervals.auroc(ranked)), **result}
        return result | _bootstrapped(ranked, others, most) if with_intervals else result

    return {
        "counts": {
            "known": {name: int((known.label == i).sum()) for i, name in enumerate(classes)},
            **{kind: {g: len(of_group[g].label) for g in groups} for kind, groups in kinds.items()},
        },
        "known": {
            "accuracy": closed(_share(known.known_class == known.label)),
            "balanced_accuracy": closed(_mean_recall(known.label, known.known_class, with_intervals)),
            "accuracy_with_none": answered(known, known.label),
            "rejected_at_argmax": answered(known, k),
            "recall": {name: closed(_share(known.known_class[known.label == i] == i)) for i, name in enumerate(classes)},
        },
        "open_set": {
            **{kind: against(others, min(RESAMPLES, resamples)) for kind, others in of_kind.items()},
            "by_group": {g: against(others, min(RESAMPLES_OF_GROUP, resamples)) for g, others in of_group.items()},
        },
    }  # fmt: skip


def compare_scores(
    scored: Scored, other_scores: dict[str, np.ndarray], *, kinds: Kinds, own: dict[str, Any], resamples: int = RESAMPLES
) -> dict[str, dict[str, dict[str, Any] | None]]:
    """Returns the ranking metrics of several scores for seen negatives and for unseen unknowns.

    The OSCR of every score uses the classes `scored.known_class`.

    Args:
      other_scores: name of a score -> float64 [n], larger = more unknown.
      own: kind -> the metrics of `scored.score`, the score with the threshold, from `evaluate_split`.

    Returns:
      name of a score, "own" first -> kind -> the metrics `COMPARED`, with intervals; None for a kind without images.
    """
    most, known = min(RESAMPLES_OF_SCORE, resamples), scored.label >= 0
    right = (scored.known_class == scored.label)[known]
    bootstrapped = {name: BOOTSTRAPPED[name] for name in COMPARED if name in BOOTSTRAPPED}
    measured = {kind: own[kind]["auroc"] is not None for kind in kinds}

    def compared(values: np.ndarray, groups: list[str]) -> dict[str, Any]:
        ranked = ranking.rank(values[known], values[_others(scored, groups)], right)
        found = {"auroc": intervals.auroc(ranked)} | intervals.bootstrap(ranked, bootstrapped, resamples=most)
        return {name: found[name]._asdict() for name in COMPARED}

    result = {"own": {kind: {n: own[kind][n] for n in COMPARED} if measured[kind] else None for kind in kinds}}
    for name, values in other_scores.items():
        result[name] = {kind: compared(values, groups) if measured[kind] else None for kind, groups in kinds.items()}
    return result


def _others(scored: Scored, groups: list[str]) -> np.ndarray:
    return np.isin(scored.group, groups) & (scored.label < 0)


def _as_json(interval: Interval | None) -> dict[str, float] | None:
    return None if interval is None else interval._asdict()


def _share(hits: np.ndarray) -> Interval | None:
    return intervals.proportion(int(hits.sum()), len(hits)) if len(hits) else None


def _mean_recall(label: np.ndarray, answer: np.ndarray, with_intervals: bool) -> Interval | None:
    """Returns the share of correct answers, averaged over the classes that have images."""
    there, images = np.unique(label, return_counts=True)
    hits = [((label == k) & (answer == k)).sum() for k in there]
    return intervals.mean_of_proportions(hits, images.tolist(), resample=with_intervals)


def _balanced(known: Scored, others: Scored, num_classes: int, with_intervals: bool) -> Interval | None:
    """Returns the balanced accuracy over the K classes and "none" of the network's own answers."""
    if known.answer is None or others.answer is None or not len(others.label):
        return None
    truth = np.append(known.label, np.full(len(others.label), num_classes))
    return _mean_recall(truth, np.append(known.answer, others.answer), with_intervals)


def _bootstrapped(ranked: ranking.Ranking, others: Scored, most: int) -> dict[str, Any]:
    count = int(ranked.unknown.sum())
    at_fpr = {f"{fpr:g}": functools.partial(ranking.ccr_at_fpr, fpr=fpr) for fpr in FPRS if fpr * count >= 1}
    found = intervals.bootstrap(ranked, BOOTSTRAPPED | at_fpr, resamples=most)
    result: dict[str, Any] = {name: _as_json(found[name]) for name in BOOTSTRAPPED}
    result["ccr_at_fpr"] = {f"{fpr:g}": _as_json(found.get(f"{fpr:g}")) for fpr in FPRS}
    result["resamples"] = min(most, intervals.num_resamples(int(ranked.known.sum()) + count))
    names, result["over_groups"] = sorted(set(others.group)), None
    if len(names) > 1:
        place = np.searchsorted(ranked.score, others.score)
        table = np.stack([np.bincount(place[others.group == name], minlength=len(ranked.score)) for name in names])
        over = intervals.bootstrap(ranked, {"auroc": ranking.auroc, "oscr": ranking.oscr}, groups=table, resamples=most)
        result["over_groups"] = {"groups": len(names), **{name: _as_json(interval) for name, interval in over.items()}}
    return result


def operating_point(
    scored: Scored, *, classes: tuple[str, ...], kinds: Kinds, classifier: Classifier, promised: bool = True
) -> dict[str, Any]:
    """Returns the metrics of the decisions at the operating point, and the confusion matrix.

    Args:
      classifier: the classifier that made the decisions.
      promised: whether to predict the share of images that the rule accepts. False if the rule's negatives belong to other
        groups here than in validation.

    Returns:
      `operating_point` and `confusion` of `metrics.json`.

    Raises:
      ValueError: `scored` has no decisions.
    """
    k, rule, threshold = len(classes), classifier.rule, classifier.threshold
    if (decision := scored.decision) is None:
        raise ValueError("the operating point needs the decisions of a classifier")
    rows = {name: decision[scored.label == i] for i, name in enumerate(classes)}
    rows |= {kind: decision[_others(scored, groups)] for kind, groups in kinds.items()}
    table = np.array([np.bincount(decided, minlength=k + 1) for decided in rows.values()])
    known, of_kind = table[:k], dict(zip(kinds, table[k:], strict=True))
    share = lambda hits, count: intervals.proportion(int(hits), int(count))._asdict() if count else None
    right, accepted = np.trace(known), known[:, :k].sum()
    side = known.sum() if rule.name == "keep_knowns" else of_kind["seen_negatives"].sum()
    point = {
        "rule": rule.name,
        "target": rule.target,
        "threshold": {name: thresholds.json_number(getattr(threshold, name)) for name in ("value", "low", "high")},
        "validation": {"knowns": threshold.knowns, "negatives": threshold.negatives, "accepted": threshold.kept},
        "promised": _as_json(thresholds.promise(rule, threshold, int(side))) if promised else None,
        "prior": dict(zip([*classes, "none"], classifier.prior.tolist(), strict=True)),
        "known_recall": share(accepted, known.sum()),
        "known_accuracy": share(right, known.sum()),
        "accuracy_of_accepted_knowns": share(right, accepted) if k > 1 else None,
        "rejected": {kind: share(row[k], row.sum()) for kind, row in of_kind.items()},
        "expected_cost": {
            kind: _as_json(intervals.expected_cost(np.vstack([known, row]), classifier.costs, classifier.prior))
            for kind, row in of_kind.items()
        },
    }
    confusion = {"rows": list(rows), "columns": [*classes, "none"], "counts": table.tolist()}
    return {"operating_point": point, "confusion": confusion}


def calibration(
    scored: Scored, posteriors: dict[str, tuple[np.ndarray | None, np.ndarray]], *, kinds: Kinds, resamples: int = RESAMPLES
) -> dict[str, Any]:
    """Returns the calibration metrics of several posteriors.

    Computed on the knowns with the seen negatives, and with the unseen unknowns, weighted to the prior of the posterior.

    Args:
      posteriors: name -> (float64 [n, K + 1] or None, float [K + 1]: the prior under which the posterior holds).

    Returns:
      kind -> name -> {"expected_calibration_error", "negative_log_likelihood", "brier"}, with intervals; None if the
      posterior is None, or if a class with a positive prior has no image.
    """
    most = min(RESAMPLES_OF_SCORE, resamples)

    def measured(probabilities: np.ndarray | None, prior: np.ndarray, chosen: np.ndarray) -> dict[str, Any] | None:
        if probabilities is None:
            return None
        none = len(prior) - 1
        label = np.where(scored.label < 0, none, scored.label)[chosen]
        if (prior[np.bincount(label, minlength=none + 1) == 0] > 0).any():
            return None
        weight, given = mix_weights(label, prior), probabilities[chosen]
        measures = calibration_error.measures(given, label)
        found = {
            name: intervals.weighted(measure, label, weight, most=calibration_error.LARGEST[name], resamples=most)
            for name, measure in measures.items()
        }
        error = found["expected_calibration_error"]
        if error.value <= calibration_error.by_chance(given, weight, resamples=most):
            found["expected_calibration_error"] = error._replace(low=0.0)
        return {name: interval._asdict() for name, interval in found.items()}

    result = {}
    for kind, groups in kinds.items():
        chosen = (scored.label >= 0) | np.isin(scored.group, groups)
        result[kind] = {name: measured(values, prior, chosen) for name, (values, prior) in posteriors.items()}
    return result
