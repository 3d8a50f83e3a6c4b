"""Writes results.csv and comparisons.csv: the numbers of an experiment for further computation.

Both files depend on the outcomes only: the same arms in another order give the same bytes. Numbers have full float
precision. A cell is empty if there is no number.
"""

import json
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from openset_jax.files import write_whole
from openset_jax.openset.metrics.intervals import Interval
from openset_jax.report import csv_rows
from openset_jax.study.stats.analysis import Analysis
from openset_jax.study.stats.arm_outcome import DECISIONS, Outcome
from openset_jax.study.stats.measurements import KNOWN, Measurement
from openset_jax.study.stats.treatments import Treatment, field_names, one_field_pairs

# column -> (metric, whether it is measured on known images only, whether it needs a decision)
_COLUMNS = {
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
    """Writes one row for each arm, decision, and kind or group of "none"; the kinds come before the groups.

    Every number has three columns, such as `auroc`, `auroc_low` and `auroc_high`: the arm's value and its 95 % interval over
    test images, which does not include differences between seeds. Numbers about known images are repeated in each row.
    """
    treatments = analysis.ordered()
    names = field_names(treatments)
    outcomes = [outcome for treatment in treatments for outcome in analysis.outcomes(treatment).values()]
    closed = any(not _group_sizes(outcome) for outcome in outcomes)
    numbers = {name: column for name, column in _COLUMNS.items() if closed or name != "one_vs_rest_auc"}
    columns = ["arm", *names, "seed", "objective", "negatives", "negative_groups", "decision", "group", "images"]
    columns += [name + end for name in numbers for end in ("", "_low", "_high")]
    rows = []
    for outcome in outcomes:
        arm: list[Any] = [outcome.name, *_values(outcome.treatment, names), outcome.seed, outcome.objective]
        arm += [outcome.negatives, outcome.negative_groups]
        sizes = _group_sizes(outcome) or {KNOWN: int((outcome.scored.label >= 0).sum())}
        for decision in (name for name in DECISIONS if name in outcome.decisions):
            for group, images in sizes.items():
                row = [*arm, decision, group, images]
                for metric, on_known, needs_decision in numbers.values():
                    measurement = Measurement(metric, KNOWN if on_known else group, decision if needs_decision else "")
                    row += _interval(analysis.arm_interval(outcome.treatment, outcome.seed, measurement))
                rows.append(row)
    _write(path, columns, rows)


def _group_sizes(outcome: Outcome) -> dict[str, int]:
    """Returns kind or group -> number of test images, if above 0: the kinds first, then the groups by name."""
    none = outcome.scored.group[outcome.scored.label < 0]
    counts = {kind: int(np.isin(none, groups).sum()) for kind, groups in outcome.kinds.items()}
    counts |= {g: int((none == g).sum()) for g in sorted(g for groups in outcome.kinds.values() for g in groups)}
    return {name: count for name, count in counts.items() if count}


def write_comparisons(analysis: Analysis, path: pathlib.Path) -> None:
    """Writes one row for each mean over seeds, and one for each paired difference of treatments that differ in one field.

    A difference is treatment minus reference, paired by seed and test images. The 95 % intervals are over seeds and test
    images; they are empty with one seed. `per_seed` has the value or difference of each seed in `seed`, in the same order,
    separated by ";".
    """
    treatments = analysis.ordered()
    names = field_names(treatments)
    columns = ["comparison", "treatment", *names, "reference", "differs_in", "reference_value"]
    columns += ["metric", "decision", "group", "seeds", "seed", "value", "low", "high", "per_seed"]
    rows = []
    for treatment in treatments:
        start = ["mean", treatment.label, *_values(treatment, names), "", "", ""]
        for measurement in _of_kinds(analysis, treatment):
            mean, per_seed = analysis.mean(treatment, measurement), analysis.per_seed(treatment, measurement)
            rows.append([*start, *_number(measurement, mean, per_seed)])
    for treatment, reference, field in one_field_pairs(treatments):
        start = ["difference", treatment.label, *_values(treatment, names)]
        start += [reference.label, field, *_values(reference, [field])]
        for measurement in _of_kinds(analysis, treatment):
            difference = analysis.difference(treatment, reference, measurement)
            if difference is not None:
                one, other = (analysis.per_seed(t, measurement) for t in (treatment, reference))
                per_seed = {seed: one[seed] - other[seed] for seed in one if seed in other}
                rows.append([*start, *_number(measurement, difference, per_seed)])
    _write(path, columns, rows)


def _of_kinds(analysis: Analysis, treatment: Treatment) -> list[Measurement]:
    """Returns the measurements on kinds and known images, in an order that does not depend on the arms."""
    subsets, decisions = [KNOWN, *analysis.first(treatment).kinds], ["", *DECISIONS]
    measured = [m for m in analysis.measurements(treatment) if m.subset in subsets]
    return sorted(measured, key=lambda m: (decisions.index(m.decision), m.metric, subsets.index(m.subset)))


def _number(measurement: Measurement, interval: Interval | None, per_seed: dict[int, float]) -> list[Any]:
    cells = [measurement.metric, measurement.decision, measurement.subset, len(per_seed), ";".join(map(str, per_seed))]
    return [*cells, *_interval(interval), ";".join(map(repr, per_seed.values()))]


def _interval(interval: Interval | None) -> list[float | None]:
    return [None] * 3 if interval is None else [float(x) if np.isfinite(x) else None for x in interval]


def _values(treatment: Treatment, names: Sequence[str]) -> list[str]:
    """Returns the values of fields: strings unchanged, others as JSON, empty if the treatment does not set the field."""
    values = [treatment.get(name, "") for name in names]
    return [value if isinstance(value, str) else json.dumps(value, default=str) for value in values]


def _write(path: pathlib.Path, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    with write_whole(path, newline="") as file:
        write_row = csv_rows.row_writer(file)
        for row in [columns, *rows]:
            write_row(row)
