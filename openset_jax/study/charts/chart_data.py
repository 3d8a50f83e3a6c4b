"""The charts of an experiment as plain data: the numbers of each line of a layout, independent of how they are drawn."""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

from openset_jax.openset.metrics.intervals import Interval
from openset_jax.report.formatting import title
from openset_jax.study.charts.chart_layout import Layout, Row, layouts
from openset_jax.study.stats.analysis import Analysis
from openset_jax.study.stats.measurements import KNOWN, Measurement
from openset_jax.study.stats.treatments import Treatment

_TITLES = {"auroc": "AUROC", "oscr": "OSCR", "one_vs_rest_auc": "AUROC, a class against the rest", "recall": "known recall"}
_DECIDED = ("balanced_accuracy", "recall")
_DODGE = 0.5  # the points of a category spread over this share of its width


class Point(NamedTuple):
    """A treatment."""

    treatment: Treatment
    place: float  # on the axis, shifted if several lines have the same category
    mean: Interval  # over seeds; its ends are infinite with one seed
    seeds: dict[int, float]  # seed -> value


class Line(NamedTuple):
    """Points of one colour and style."""

    row: Row
    decision: str  # a name in `DECISIONS`; "" if the quantity needs none
    points: tuple[Point, ...]  # from left to right
    start: Point | None = None  # the point without negatives that the line starts from; None if there is none


class Panel(NamedTuple):
    """One quantity, a share; higher is better."""

    title: str  # the quantity's name, and the kind of "none" that it is measured on
    lines: tuple[Line, ...]  # in the order of the layout


class Chart(NamedTuple):
    """Panels that share a layout."""

    layout: Layout
    rows: tuple[tuple[Panel, ...], ...]  # the last may be shorter

    @property
    def panels(self) -> tuple[Panel, ...]:
        """All panels, in reading order."""
        return tuple(itertools.chain.from_iterable(self.rows))


def charts(analysis: Analysis) -> tuple[Chart, ...]:
    """Returns all charts, the number of negatives first if it varies; empty without arms."""
    return tuple(Chart(layout, _rows(analysis, layout)) for layout in layouts(analysis))


def seeds_text(analysis: Analysis) -> str:
    """Returns the number of seeds of a treatment, as "3 seeds" or "1 to 3 seeds"."""
    counts = {len(analysis.outcomes(treatment)) for treatment in analysis.treatments} or {0}
    few, many = min(counts), max(counts)
    return f"{few} to {many} seeds" if few < many else f"{many} seed{'' if many == 1 else 's'}"


def bands_text(analysis: Analysis) -> str:
    """Returns what the bands, bars and dots around lines and points show."""
    if not any(len(analysis.outcomes(treatment)) > 1 for treatment in analysis.treatments):
        return "no intervals, since differences between seeds are unknown with one seed"
    return "bands and bars: 95 % confidence intervals of the mean over seeds and test images; small dots: single seeds"


def kinds_measured(analysis: Analysis) -> list[str]:
    """Returns the kinds of "none" with test images, the hardest first."""
    measured = {measurement for treatment in analysis.treatments for measurement in analysis.measurements(treatment)}
    outcomes = [outcome for treatment in analysis.treatments for outcome in analysis.outcomes(treatment).values()]
    kinds = dict.fromkeys(kind for outcome in outcomes for kind in outcome.kinds)
    return [kind for kind in reversed(kinds) if Measurement("auroc", kind) in measured]


def _rows(analysis: Analysis, layout: Layout) -> tuple[tuple[Panel, ...], ...]:
    measured = kinds_measured(analysis)
    drawn = lambda subset, *metrics: (_panel(analysis, layout, metric, subset) for metric in metrics)
    panels = lambda subset, *metrics: tuple(panel for panel in drawn(subset, *metrics) if panel.lines)
    if not measured:
        return (panels(KNOWN, "one_vs_rest_auc", "balanced_accuracy", "accuracy"),)
    recall = panels(KNOWN, "recall")
    alike = lambda kind: all(analysis.tested_alike([t for t, _ in row.treatments], kind) for row in layout.rows)
    kinds = [kind for kind in measured if alike(kind)]
    if not kinds:
        return (recall,)
    first, *others = (panels(kind, "auroc", "oscr", "balanced_accuracy") for kind in kinds)
    return ((*first, *recall), *others) if others else (first[:2], first[2:] + recall)  # 2 x 2, not 1 x 4


def _panel(analysis: Analysis, layout: Layout, metric: str, subset: str) -> Panel:
    name = _TITLES.get(metric, metric.replace("_", " "))
    lines = []
    for row in layout.rows:
        for decision in row.decisions if metric in _DECIDED else ("",):
            measurement = Measurement(metric, subset, decision)
            points = []
            for treatment, place in row.treatments:
                if (mean := analysis.mean(treatment, measurement)) is not None:
                    points.append(Point(treatment, place, mean, analysis.per_seed(treatment, measurement)))
            if points:
                lines.append(Line(row, decision, tuple(points)))
    if not layout.is_sweep:
        lines = _dodged(lines)
    points_of: dict[tuple[Treatment | None, str], Point]
    points_of = {(p.treatment, line.decision): p for line in lines for p in line.points}
    lines = [line._replace(start=points_of.get((line.row.start, line.decision))) for line in lines]
    return Panel(name if subset == KNOWN else f"{name}, {title(subset)}", tuple(lines))


def _dodged(lines: Sequence[Line]) -> list[Line]:
    """Shifts the points of each line sideways, so that points of one category do not hide each other."""
    step, moved = _DODGE / max(3, len(lines) - 1), []
    for i, line in enumerate(lines):
        shift = step * (i - (len(lines) - 1) / 2)
        moved.append(line._replace(points=tuple(p._replace(place=p.place + shift) for p in line.points)))
    return moved
