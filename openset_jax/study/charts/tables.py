"""The tables of an experiment's page: a row for each treatment, or each of its decisions, and a column for each metric."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from openset_jax.openset.metrics.intervals import Interval
from openset_jax.report.formatting import title
from openset_jax.study.charts.chart_data import kinds_measured
from openset_jax.study.stats.analysis import Analysis
from openset_jax.study.stats.arm_outcome import DECISIONS
from openset_jax.study.stats.measurements import KNOWN, Measurement
from openset_jax.study.stats.treatments import Treatment

Columns = Mapping[str, tuple[str, str]]  # heading -> (metric, subset)
COSTS = "expected cost"  # the headings of costs begin with it; smaller is better


class TableRow(NamedTuple):
    """A row of a table.

    Attributes:
      treatment: whose numbers these are.
      decision: "" if the columns need none.
      cells: one for each column; None if it was not measured.
    """

    treatment: Treatment
    decision: str
    cells: list[Interval | None]


def ranking_columns(analysis: Analysis) -> Columns:
    """Returns the columns that need no decision."""
    columns: dict[str, tuple[str, str]] = {}
    kinds = kinds_measured(analysis)
    for kind in kinds:
        columns |= {f"AUROC, {title(kind)}": ("auroc", kind), f"OSCR, {title(kind)}": ("oscr", kind)}
    if not kinds:
        columns |= {"AUROC, a class against the rest": ("one_vs_rest_auc", KNOWN)}
    return columns | {"accuracy among the known classes": ("accuracy", KNOWN)}


def answer_columns(analysis: Analysis) -> Columns:
    """Returns the columns that need a decision."""
    columns = {"known images accepted": ("recall", KNOWN), "known images accepted, class right": ("correct", KNOWN)}
    kinds = kinds_measured(analysis)
    for metric, name in (("rejected", "rejected"), ("balanced_accuracy", "balanced accuracy"), ("expected_cost", COSTS)):
        columns |= {f"{name}, {title(kind)}": (metric, kind) for kind in kinds}
    return columns if kinds else columns | {"balanced accuracy": ("balanced_accuracy", KNOWN)}


def rows(
    treatments: Sequence[Treatment],
    columns: Columns,
    number: Callable[[Treatment, Measurement], Interval | None],
    decisions: Sequence[str] = ("",),
) -> Iterator[TableRow]:
    """Yields the rows with a number in any column.

    Args:
      treatments: in the order of the rows.
      columns: as `ranking_columns` or `answer_columns`.
      number: such as `Analysis.mean`.
      decisions: one row for each.
    """
    for treatment in treatments:
        for decision in decisions:
            cells = [number(treatment, Measurement(metric, subset, decision)) for metric, subset in columns.values()]
            if any(cell is not None for cell in cells):
                yield TableRow(treatment, decision, cells)


def tables(analysis: Analysis, reference: Treatment) -> dict[str, tuple[Columns, list[TableRow]]]:
    """Returns name -> columns and rows.

    "rankings" and "answers" have the means of all treatments; "ranking_gains" and "answer_gains" have the differences of
    the other treatments, treatment minus reference.
    """
    gain = lambda treatment, measurement: analysis.difference(treatment, reference, measurement)
    others = [treatment for treatment in analysis.treatments if treatment != reference]
    ranking, answer = ranking_columns(analysis), answer_columns(analysis)
    return {
        "rankings": (ranking, list(rows(analysis.treatments, ranking, analysis.mean))),
        "answers": (answer, list(rows(analysis.treatments, answer, analysis.mean, tuple(DECISIONS)))),
        "ranking_gains": (ranking, list(rows(others, ranking, gain))),
        "answer_gains": (answer, list(rows(others, answer, gain, tuple(DECISIONS)))),
    }
