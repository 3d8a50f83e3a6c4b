"""The tables of an experiment: a row for each treatment, or for each of its decisions, and a column for each number."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from openset_jax.openset.metrics.intervals import Interval
from openset_jax.report.sentences import title
from openset_jax.study.charts.curves import kinds_measured
from openset_jax.study.stats.analysis import KNOWN, Analysis, Measure
from openset_jax.study.stats.outcomes import DECISIONS, Treatment

Columns = Mapping[str, tuple[str, str]]  # heading -> (metric, of)
COSTS = "expected cost"  # how headings begin whose numbers are no shares, and the smaller the better


class TableRow(NamedTuple):
    """A line of a table.

    Attributes:
      decision: "" of a ranking.
      cells: one for each column; None where it was not measured.
    """

    treatment: Treatment
    decision: str
    cells: list[Interval | None]


def ranking_columns(analysis: Analysis) -> Columns:
    """What does not depend on a decision."""
    found, kinds = {}, kinds_measured(analysis)
    for kind in kinds:
        found |= {f"AUROC, {title(kind)}": ("auroc", kind), f"OSCR, {title(kind)}": ("oscr", kind)}
    closed = {} if kinds else {"AUROC, a class against the rest": ("one_vs_rest_auc", KNOWN)}
    return found | closed | {"accuracy among the known classes": ("accuracy", KNOWN)}


def answer_columns(analysis: Analysis) -> Columns:
    """What depends on a decision."""
    found = {"knowns accepted": ("recall", KNOWN), "knowns accepted, class right": ("correct", KNOWN)}
    kinds = kinds_measured(analysis)
    for metric, name in (("rejected", "rejected"), ("balanced_accuracy", "balanced accuracy"), ("expected_cost", COSTS)):
        found |= {f"{name}, {title(kind)}": (metric, kind) for kind in kinds}
    return found if kinds else found | {"balanced accuracy": ("balanced_accuracy", KNOWN)}


def rows(
    treatments: Sequence[Treatment],
    columns: Columns,
    number: Callable[[Treatment, Measure], Interval | None],
    decisions: Sequence[str] = ("",),
) -> Iterator[TableRow]:
    """Those with a number in any column.

    Args:
      number: of a treatment, as `Analysis.mean`.
    """
    for treatment in treatments:
        for decision in decisions:
            cells = [number(treatment, Measure(metric, of, decision)) for metric, of in columns.values()]
            if any(cell is not None for cell in cells):
                yield TableRow(treatment, decision, cells)


def tables(analysis: Analysis, reference: Treatment) -> dict[str, tuple[Columns, list[TableRow]]]:
    """name -> columns and rows: "rankings" and "answers" of all treatments; what the others have more than the reference,
    "ranking_gains" and "answer_gains".
    """
    gain = lambda treatment, measure: analysis.difference(treatment, reference, measure)
    others = [treatment for treatment in analysis.treatments if treatment != reference]
    ranking, answer = ranking_columns(analysis), answer_columns(analysis)
    return {
        "rankings": (ranking, list(rows(analysis.treatments, ranking, analysis.mean))),
        "answers": (answer, list(rows(analysis.treatments, answer, analysis.mean, tuple(DECISIONS)))),
        "ranking_gains": (ranking, list(rows(others, ranking, gain))),
        "answer_gains": (answer, list(rows(others, answer, gain, tuple(DECISIONS)))),
    }
