"""The numbers of an experiment as tables for whoever computes with them: results.csv and comparisons.csv.

Both are functions of the outcomes alone: the same arms in another order give the same bytes. Numbers are as exact as floats
are; a cell is empty where there is no number.
"""

import csv
import json
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from openset_jax.files import write_whole
from openset_jax.openset.metrics.intervals import Interval
from openset_jax.study.stats import axes
from openset_jax.study.stats.analysis import KNOWN, Analysis, Measure
from openset_jax.study.stats.outcomes import DECISIONS, Outcome, Treatment

# column -> (metric, whether it is of the knowns, whether it is of a decision)
NUMBERS = {
    "known_accuracy": ("accuracy", True, False),
    "one_vs_rest_auc": ("one_vs_rest_auc", True, False),
    "auroc": ("auroc", False, False),
    "oscr": ("oscr", False, False),
    "known_recall": ("recall", True, True),
    "known_correct": ("correct", True, True),
    "rejected": ("rejected", False, True),
    "balanced_accuracy": ("balanced_accuracy", False, True),
    "expected_cost": ("expected_cost", False, True),
}


def write_results(analysis: Analysis, path: pathlib.Path) -> None:
    """One row for each arm, decision and group of "none of these"; both kinds come before their groups.

    Every number has three columns, as `auroc`, `auroc_low` and `auroc_high`: that arm's, and its 95 % interval for other
    test images, which says nothing of other seeds. What is about known images alone stands in each of their rows again.
    """
    treatments = axes.ordered(analysis)
    names = axes.fields(treatments)
    closed = any(not _groups(outcome) for t in treatments for outcome in analysis.outcomes(t).values())
    numbers = [name for name in NUMBERS if closed or name != "one_vs_rest_auc"]
    columns = ["arm", *names, "seed", "objective", "negatives", "negative_groups", "decision", "group", "images"]
    columns += [name + end for name in numbers for end in ("", "_low", "_high")]
    _write(path, columns, _arms(analysis, treatments, names, numbers))


def _arms(analysis, treatments, names, numbers) -> Iterator[list[str]]:
    for treatment in treatments:
        for seed, outcome in sorted(analysis.outcomes(treatment).items()):
            arm = [outcome.name, *_values(treatment, names), str(seed), outcome.objective]
            arm += [str(outcome.negatives), str(outcome.negative_groups)]
            for decision in (name for name in DECISIONS if name in outcome.decisions):
                for group, images in (_groups(outcome) or {KNOWN: int((outcome.scored.label >= 0).sum())}).items():
                    measures = [_measure(name, group, decision) for name in numbers]
                    found = [analysis.of_test_images(treatment, seed, measure) for measure in measures]
                    yield [*arm, decision, group, str(images), *(cell for number in found for cell in _interval(number))]


def _measure(column: str, group: str, decision: str) -> Measure:
    metric, of_knowns, decided = NUMBERS[column]
    return Measure(metric, KNOWN if of_knowns else group, decision if decided else "")


def _groups(outcome: Outcome) -> dict[str, int]:
    """Kinds, then groups by name, -> how many test images there are; only those that have some."""
    none = outcome.scored.group[outcome.scored.label < 0]
    counts = {kind: int(np.isin(none, groups).sum()) for kind, groups in outcome.kinds.items()}
    counts |= {g: int((none == g).sum()) for g in sorted(g for groups in outcome.kinds.values() for g in groups)}
    return {name: count for name, count in counts.items() if count}


def write_comparisons(analysis: Analysis, path: pathlib.Path) -> None:
    """One row for each number of each treatment, its mean over seeds; and of each two treatments that differ in one field,
    the difference, treatment less reference, paired by seed and test images.

    95 % intervals are for other seeds and other test images; empty of one seed, which says nothing of another. `per_seed`
    has the numbers, or the differences, of the seeds in `seed`, in that order, with ";" between them.
    """
    treatments = axes.ordered(analysis)
    names = axes.fields(treatments)
    columns = ["comparison", "treatment", *names, "reference", "differs_in", "reference_value"]
    columns += ["metric", "decision", "group", "seeds", "seed", "value", "low", "high", "per_seed"]
    _write(path, columns, [*_means(analysis, treatments, names), *_differences(analysis, treatments, names)])


def _means(analysis, treatments, names) -> Iterator[list[str]]:
    for treatment in treatments:
        for measure in _of_kinds(analysis, treatment):
            mean, per_seed = analysis.mean(treatment, measure), analysis.per_seed(treatment, measure)
            yield ["mean", treatment.label, *_values(treatment, names), "", "", "", *_number(measure, mean, per_seed)]


def _differences(analysis, treatments, names) -> Iterator[list[str]]:
    for treatment, reference, field in axes.pairs(treatments):
        row = ["difference", treatment.label, *_values(treatment, names)]
        row += [reference.label, field, *_values(reference, [field])]
        for measure in _of_kinds(analysis, treatment):
            difference = analysis.difference(treatment, reference, measure)
            if difference is not None:
                one, other = (analysis.per_seed(t, measure) for t in (treatment, reference))
                per_seed = {seed: one[seed] - other[seed] for seed in one if seed in other}
                yield [*row, *_number(measure, difference, per_seed)]


def _of_kinds(analysis: Analysis, treatment: Treatment) -> list[Measure]:
    """In one order, whatever order an arm had its decisions in."""
    of, decisions = [KNOWN, *axes.first(analysis, treatment).kinds], ["", *DECISIONS]
    found = [m for m in analysis.measures(treatment) if m.of in of]
    return sorted(found, key=lambda m: (decisions.index(m.decision), m.metric, of.index(m.of)))


def _number(measure: Measure, number: Interval, per_seed: dict[int, float]) -> list[str]:
    seeds = sorted(per_seed)
    cells = [measure.metric, measure.decision, measure.of, str(len(seeds)), ";".join(map(str, seeds)), *_interval(number)]
    return [*cells, ";".join(repr(per_seed[seed]) for seed in seeds)]


def _interval(number: Interval | None) -> list[str]:
    return [""] * 3 if number is None else [repr(float(x)) if np.isfinite(x) else "" for x in number]


def _values(treatment: Treatment, names: Sequence[str]) -> list[str]:
    """Strings as they are, anything else as JSON; empty where it does not set the field."""
    values = [treatment.get(name, "") for name in names]
    return [value if isinstance(value, str) else json.dumps(value, default=str) for value in values]


def _write(path: pathlib.Path, columns: Sequence[str], rows: Any) -> None:
    with write_whole(path, newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)
