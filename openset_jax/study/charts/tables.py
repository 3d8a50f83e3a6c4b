"""The tables of an experiment's page: a row for each treatment, or each of its decisions, and a column for each metric."""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from openset_jax.openset.metrics.intervals import Interval
from openset_jax.report.formatting import title
from openset_jax.study.charts.chart_data import kinds_measured
from openset_jax.study.stats.analysis import Analysis
from openset_jax.study.stats.arm_outcome import DECISIONS
from openset_jax.study.stats.measurements import KNOWN, Measurement
from openset_jax.study.stats.treatments import Treatment

Columns = Mapping[str, tuple[str, str]]  # heading -> (metric, subset)
Number = Callable[[Treatment, Measurement], Interval | None]  # such as `Analysis.mean`
COSTS = "expected cost"  # the headings of costs begin with it; smaller is better


class TableRow(NamedTuple):
    """The numbers of a treatment."""

    treatment: Treatment
    decision: str  # "" if the columns need none
    cells: list[Interval | None]  # one for each column; None if it was not measured


def ranking_columns(analysis: Analysis) -> Columns:
    """Returns the columns that need no decision."""
    columns: dict[str, tuple[str, str]] = {}
    for kind in kinds_measured(analysis):
        columns |= {f"AUROC, {title(kind)}": ("auroc", kind), f"OSCR, {title(kind)}": ("oscr", kind)}
    columns = columns or {"AUROC, a class against the rest": ("one_vs_rest_auc", KNOWN)}
    return columns | {"accuracy among the known classes": ("accuracy", KNOWN)}


def answer_columns(analysis: Analysis) -> Columns:
    """Returns the columns that need a decision."""
    columns = {"known images accepted": ("recall", KNOWN), "known images accepted, class right": ("correct", KNOWN)}
    kinds = kinds_measured(analysis)
    for metric, name in (("rejected", "rejected"), ("balanced_accuracy", "balanced accuracy"), ("expected_cost", COSTS)):
        columns |= {f"{name}, {title(kind)}": (metric, kind) for kind in kinds}
    return columns if kinds else columns | {"balanced accuracy": ("balanced_accuracy", KNOWN)}


def _rows(
    treatments: Sequence[Treatment], columns: Columns, number: Number, decisions: Iterable[str] = ("",)
) -> list[TableRow]:
    """Returns one row for each treatment and decision that has a number in any column."""
    rows = []
    for treatment, decision in itertools.product(treatments, decisions):
        cells = [number(treatment, Measurement(metric, subset, decision)) for metric, subset in columns.values()]
        if any(cell is not None for cell in cells):
            rows.append(TableRow(treatment, decision, cells))
    return rows


def tables(analysis: Analysis, reference: Treatment) -> dict[str, tuple[Columns, list[TableRow]]]:
    """Returns name -> columns and rows.

    "rankings" and "answers" have the means of all treatments; "ranking_gains" and "answer_gains" have the differences of
    the other treatments, treatment minus reference.
    """
    gain = lambda treatment, measurement: analysis.difference(treatment, reference, measurement)
    others = [treatment for treatment in analysis.treatments if treatment != reference]
    measured = {(m.metric, m.subset) for treatment in analysis.treatments for m in analysis.measurements(treatment)}
    ranking, answer = (
        {heading: column for heading, column in columns.items() if column in measured}
        for columns in (ranking_columns(analysis), answer_columns(analysis))
    )
    return {
        "rankings": (ranking, _rows(analysis.treatments, ranking, analysis.mean)),
        "answers": (answer, _rows(analysis.treatments, answer, analysis.mean, DECISIONS)),
        "ranking_gains": (ranking, _rows(others, ranking, gain)),
        "answer_gains": (answer, _rows(others, answer, gain, DECISIONS)),
    }
