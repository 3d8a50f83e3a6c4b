"""Scores, answers and labels of a split -> everything `metrics.json` says about it, with intervals. Pure arrays."""

import dataclasses
from typing import Any

import numpy as np

from openset_jax.openset.decision import thresholds as decisions
from openset_jax.openset.decision.calibration import mix_weights
from openset_jax.openset.metrics import calibration_error, intervals, ranking
from openset_jax.openset.metrics.intervals import Interval

FPRS = (1e-3, 1e-2, 1e-1)
RESAMPLES, RESAMPLES_OF_GROUP, RESAMPLES_OF_SCORE = 2_000, 500, 200  # at most; there may be many groups, and scores
COMPARED = ("auroc", "oscr", "unknowns_accepted_at_95_known_recall")
BOOTSTRAPPED = {
    "average_precision_unknown_positive": ranking.average_precision,
    "average_precision_known_positive": lambda r: ranking.average_precision(r.turned()),
    "average_precision_unknown_positive_at_equal_counts": ranking.average_precision_balanced,
    "aupr_trapezoid_unknown_positive": ranking.aupr_trapezoid,
    "aupr_trapezoid_known_positive": lambda r: ranking.aupr_trapezoid(r.turned()),
    "unknowns_accepted_at_95_known_recall": ranking.unknowns_accepted,
    "knowns_rejected_at_95_unknown_recall": ranking.knowns_rejected,
    "oscr": ranking.oscr,
    "detection_error": ranking.detection_error,
    "aurc": ranking.aurc,
}


@dataclasses.dataclass(frozen=True, eq=False)
class Scored:
    """Images of a split, with what the classifier makes of them.

    Attributes:
      label: int [n]: a known class, -1 negative, -2 unknown.
      group: object [n], names of the groups.
      score: float64 [n], larger = more unknown.
      known_class: int [n] in [0, K), the best known class.
      answer: int [n] in [0, K], the network's own, with K for "none"; None of a network that cannot say "none" by itself.
      decision: int [n] in [0, K], the answer at the operating point; None where there is none.
    """

    label: np.ndarray
    group: np.ndarray
    score: np.ndarray
    known_class: np.ndarray
    answer: np.ndarray | None
    decision: np.ndarray | None = None

    def __getitem__(self, chosen: np.ndarray) -> "Scored":
        columns = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return Scored(**{name: None if column is None else column[chosen] for name, column in columns.items()})


def evaluate_split(
    scored: Scored, *, classes: tuple[str, ...], kinds: dict[str, list[str]], with_intervals: bool = True
) -> dict[str, Any]:
    """Closed-set quality on the knowns, and how well each kind of "none of these" is told from them.

    A number without images behind it is None.

    Args:
      classes: names of the K known classes.
      kinds: kinds of "none of these" that are told apart ("seen_negatives", "unseen_unknowns") -> their groups.
      with_intervals: else every number is a plain float, and only AUROC, balanced accuracies and shares are there.

    Returns:
      The `counts`, `known` and `open_set` of `metrics.json`, whose schema is in the README.
    """
    known = scored[scored.label >= 0]
    of_kind = {kind: scored[np.isin(scored.group, groups) & (scored.label < 0)] for kind, groups in kinds.items()}
    of_group = {g: scored[(scored.group == g) & (scored.label < 0)] for groups in kinds.values() for g in groups}
    of_kind["together"] = scored[scored.label < 0]
    plain = (lambda interval: interval._asdict()) if with_intervals else (lambda interval: interval.value)
    number = lambda interval: None if interval is None else plain(interval)

    def against(others, most):
        answers = None if scored.answer is None else others.answer == len(classes)
        result = {"images": len(others.label), "rejected_at_argmax": number(_share(answers))}
        result["balanced_accuracy"] = number(_balanced(known, others, len(classes)))
        if not len(known.label) or not len(others.label):
            nothing = dict.fromkeys((*BOOTSTRAPPED, "ccr_at_fpr", "resamples", "over_groups")) if with_intervals else {}
            return {"auroc": None, **result, **nothing}
        ranked = ranking.rank(known.score, others.score, known.known_class == known.label)
        result = {"auroc": number(intervals.auroc(ranked)), **result}
        return result | _bootstrapped(ranked, others, number, most) if with_intervals else result

    return {
        "counts": {
            "known": {name: int((known.label == k).sum()) for k, name in enumerate(classes)},
            **{kind: {g: len(of_group[g].label) for g in groups} for kind, groups in kinds.items()},
        },
        "known": {
            "accuracy": number(_share(known.known_class == known.label)),
            "balanced_accuracy": number(intervals.mean_of_shares(*_recalls(known.label, known.known_class))),
            "accuracy_with_none": None if known.answer is None else number(_share(known.answer == known.label)),
            "rejected_at_argmax": None if known.answer is None else number(_share(known.answer == len(classes))),
            "recall": {
                name: number(_share(known.known_class[known.label == k] == k)) for k, name in enumerate(classes)
            },
        },
        "open_set": {
            **{kind: against(others, RESAMPLES) for kind, others in of_kind.items()},
            "by_group": {g: against(others, RESAMPLES_OF_GROUP) for g, others in of_group.items()},
        },
    }  # fmt: skip


def compare_scores(
    scored: Scored, further: dict[str, np.ndarray], *, kinds: dict[str, list[str]], own: dict[str, dict[str, Any]]
) -> dict[str, dict[str, dict[str, Any] | None]]:
    """How well each score ranks knowns below each kind of "none of these"; the classes are `scored.known_class` for all.

    Args:
      further: name -> float64 [n], larger = more unknown.
      own: kind -> what `evaluate_split` says of `scored.score`, the one that the threshold is compared with.

    Returns:
      name, "own" the first -> kind -> `COMPARED`, each with its interval; None for a kind without images.
    """
    known = scored.label >= 0
    right = (scored.known_class == scored.label)[known]
    bootstrapped = {name: BOOTSTRAPPED[name] for name in COMPARED if name in BOOTSTRAPPED}
    measured = {kind: own[kind]["auroc"] is not None for kind in kinds}
    result = {"own": {kind: {n: own[kind][n] for n in COMPARED} if there else None for kind, there in measured.items()}}
    for name, values in further.items():
        result[name] = {}
        for kind, groups in kinds.items():
            if not measured[kind]:
                result[name][kind] = None
                continue
            others = np.isin(scored.group, groups) & (scored.label < 0)
            ranked = ranking.rank(values[known], values[others], right)
            found = {"auroc": intervals.auroc(ranked)} | intervals.bootstrap(ranked, bootstrapped, most=RESAMPLES_OF_SCORE)
            result[name][kind] = {number: found[number]._asdict() for number in COMPARED}
    return result


def _share(hits: np.ndarray | None) -> Interval | None:
    return intervals.share(int(hits.sum()), len(hits)) if hits is not None and len(hits) else None


def _recalls(label, answer):
    """(right answers, images) of each class that there is."""
    there = np.unique(label)
    return [int((answer[label == k] == k).sum()) for k in there], [int((label == k).sum()) for k in there]


def _balanced(known, others, num_classes):
    """Balanced accuracy over the K classes and "none", of the network's own answers."""
    if known.answer is None or not len(others.label):
        return None
    truth = np.append(known.label, np.full(len(others.label), num_classes))
    return intervals.mean_of_shares(*_recalls(truth, np.append(known.answer, others.answer)))


def _bootstrapped(ranked, others, number, most):
    count = int(ranked.unknown.sum())
    wanted = BOOTSTRAPPED | {fpr: lambda r, fpr=fpr: ranking.ccr_at_fpr(r, fpr) for fpr in FPRS if fpr * count >= 1}
    found = intervals.bootstrap(ranked, wanted, most=most)
    result = {name: number(found[name]) for name in BOOTSTRAPPED}
    result["ccr_at_fpr"] = {f"{fpr:g}": number(found.get(fpr)) for fpr in FPRS}
    result["resamples"] = min(most, intervals.resamples(int(ranked.known.sum()) + count))
    names, result["over_groups"] = sorted(set(others.group)), None
    if len(names) > 1:
        place = np.searchsorted(ranked.score, others.score)
        table = np.stack([np.bincount(place[others.group == name], minlength=len(ranked.score)) for name in names])
        over = intervals.bootstrap(ranked, {"auroc": ranking.auroc, "oscr": ranking.oscr}, groups=table, most=most)
        result["over_groups"] = {"groups": len(names), **{name: number(interval) for name, interval in over.items()}}
    return result


def operating_point(
    scored: Scored, *, classes: tuple[str, ...], kinds: dict[str, list[str]], fitted: Any, promised: bool = True
) -> dict[str, Any]:
    """What the decisions are worth, how far the rule's promise was kept, and the confusion matrix that all of it comes from.

    Args:
      scored: with `decision`.
      fitted: the `Classifier` that decided.
      promised: whether the side that the rule is about is here of the kinds that it was on validation; else nothing is
        promised.

    Returns:
      The `operating_point` of `metrics.json`, and its `confusion`.
    """
    k, rule, threshold = len(classes), fitted.rule, fitted.threshold
    rows = {name: scored.decision[scored.label == i] for i, name in enumerate(classes)}
    rows |= {kind: scored.decision[np.isin(scored.group, groups) & (scored.label < 0)] for kind, groups in kinds.items()}
    table = np.array([np.bincount(decided, minlength=k + 1) for decided in rows.values()])
    known, of_kind = table[:k], dict(zip(kinds, table[k:], strict=True))
    number = lambda interval: None if interval is None else interval._asdict()
    share = lambda hits, count: number(intervals.share(int(hits), int(count))) if count else None
    right, accepted = np.trace(known), known[:, :k].sum()
    side = known.sum() if rule.name == "keep_knowns" else of_kind["seen_negatives"].sum()
    point = {
        "rule": rule.name,
        "target": rule.target,
        "threshold": {name: decisions.plain(getattr(threshold, name)) for name in ("value", "low", "high")},
        "validation": {"knowns": threshold.knowns, "negatives": threshold.negatives, "accepted": threshold.kept},
        "promised": number(decisions.promise(rule, threshold, int(side))) if promised else None,
        "prior": dict(zip([*classes, "none"], fitted.prior.tolist(), strict=True)),
        "known_recall": share(accepted, known.sum()),
        "known_accuracy": share(right, known.sum()),
        "accuracy_of_accepted_knowns": share(right, accepted),
        "rejected": {kind: share(row[k], row.sum()) for kind, row in of_kind.items()},
        "expected_cost": {
            kind: number(intervals.expected_cost(np.vstack([known, row]), fitted.costs, fitted.prior))
            for kind, row in of_kind.items()
        },
    }
    return {
        "operating_point": point,
        "confusion": {"rows": list(rows), "columns": [*classes, "none"], "counts": table.tolist()},
    }


def calibration(
    scored: Scored, posteriors: dict[str, tuple[np.ndarray | None, np.ndarray]], *, kinds: dict[str, list[str]]
) -> dict[str, Any]:
    """How far probabilities are to be believed.

    On the test images of the knowns and of one kind of "none of these" at a time, weighted to the prior that the
    probabilities are said to hold under.

    Args:
      posteriors: name -> (float64 [n, K + 1] or None, that prior).

    Returns:
      kind -> name -> {"expected_calibration_error", "negative_log_likelihood", "brier"}, each with its interval; None
      without images, or without probabilities.
    """

    def measured(probabilities, prior, chosen):
        if probabilities is None:
            return None
        none = len(prior) - 1
        label = np.where(scored.label < 0, none, scored.label)[chosen]
        there = np.bincount(label, minlength=none + 1) > 0
        if (prior[~there] > 0).any():
            return None
        weight, given = mix_weights(label, prior), probabilities[chosen]
        found = {
            name: intervals.weighted(measure, label, weight, most=RESAMPLES_OF_SCORE)
            for name, measure in calibration_error.measures(given, label).items()
        }
        error = found["expected_calibration_error"]
        if error.value <= calibration_error.by_chance(given, weight):
            found["expected_calibration_error"] = error._replace(low=0.0)
        return {name: interval._asdict() for name, interval in found.items()}

    result = {}
    for kind, groups in kinds.items():
        chosen = (scored.label >= 0) | np.isin(scored.group, groups)
        result[kind] = {name: measured(*what, chosen) for name, what in posteriors.items()}
    return result
