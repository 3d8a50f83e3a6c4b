"""The charts of an experiment as plain data: the numbers of each line of a layout, independent of how they are drawn."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from openset_jax.openset.metrics.intervals import Interval
from openset_jax.report.formatting import title
from openset_jax.study.charts.chart_layout import Layout, Row, layouts
from openset_jax.study.stats.analysis import Analysis
from openset_jax.study.stats.measurements import KNOWN, Measurement
from openset_jax.study.stats.treatments import Treatment

_OF_KIND = {"auroc": "AUROC", "oscr": "OSCR", "balanced_accuracy": "balanced accuracy"}
_RECALL = {"recall": "known recall"}
_CLOSED = {
    "one_vs_rest_auc": "AUROC, a class against the rest",
    "balanced_accuracy": "balanced accuracy",
    "accuracy": "accuracy",
}
_DECIDED = ("balanced_accuracy", "recall")
_DODGE = 0.5  # the points of a category spread over this share of its width


class Point(NamedTuple):
    """A treatment.

    Attributes:
      treatment: whose numbers these are.
      place: on the axis, shifted if several lines have the same category.
      mean: over seeds; its ends are infinite with one seed.
      seeds: seed -> value.
    """

    treatment: Treatment
    place: float
    mean: Interval
    seeds: dict[int, float]


class Line(NamedTuple):
    """Points of one colour and style.

    Attributes:
      row: the line's row in the layout.
      decision: a name in `DECISIONS`; "" if the quantity needs none.
      points: from left to right.
      start: the point without negatives that the line starts from; None if there is none.
    """

    row: Row
    decision: str
    points: tuple[Point, ...]
    start: Point | None = None


class Panel(NamedTuple):
    """One quantity, a share; higher is better.

    Attributes:
      title: its name, and the kind of "none" that it is measured on.
      lines: in the order of the layout.
    """

    title: str
    lines: tuple[Line, ...]


class Chart(NamedTuple):
    """Panels that share a layout.

    Attributes:
      rows: of panels; the last may be shorter.
    """

    layout: Layout
    rows: tuple[tuple[Panel, ...], ...]

    @property
    def panels(self) -> tuple[Panel, ...]:
        """All panels, in reading order."""
        return tuple(itertools.chain.from_iterable(self.rows))

    @property
    def lines(self) -> tuple[Line, ...]:
        """The lines of all panels."""
        return tuple(line for panel in self.panels for line in panel.lines)


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
    def panels(metrics: Mapping[str, str], subset: str) -> tuple[Panel, ...]:
        of_kind = "" if subset == KNOWN else f", {title(subset)}"
        return tuple(_panel(analysis, layout, metric, f"{name}{of_kind}", subset) for metric, name in metrics.items())

    measured = kinds_measured(analysis)
    if not measured:
        return (panels(_CLOSED, KNOWN),)
    recall = panels(_RECALL, KNOWN)
    alike = lambda kind: all(analysis.tested_alike([t for t, _ in row.treatments], kind) for row in layout.rows)
    kinds = [kind for kind in measured if alike(kind)]
    if not kinds:
        return (recall,)
    first, *others = (panels(_OF_KIND, kind) for kind in kinds)
    return ((*first, *recall), *others) if others else (first[:2], first[2:] + recall)  # 2 x 2, not 1 x 4


def _panel(analysis: Analysis, layout: Layout, metric: str, name: str, subset: str) -> Panel:
    lines = []
    for row in layout.rows:
        for decision in row.decisions if metric in _DECIDED else ("",):
            if points := tuple(_points(analysis, row.treatments, Measurement(metric, subset, decision))):
                lines.append(Line(row, decision, points))
    if not layout.is_sweep:
        lines = _dodged(lines)
    points_of = {(p.treatment, line.decision): p for line in lines for p in line.points}
    start = lambda line: None if line.row.start is None else points_of.get((line.row.start, line.decision))
    return Panel(name, tuple(line._replace(start=start(line)) for line in lines))


def _points(analysis: Analysis, treatments: Sequence[tuple[Treatment, float]], measurement: Measurement) -> Iterator[Point]:
    for treatment, place in treatments:
        mean = analysis.mean(treatment, measurement)
        if mean is not None:
            yield Point(treatment, place, mean, analysis.per_seed(treatment, measurement))


def _dodged(lines: Sequence[Line]) -> list[Line]:
    """Shifts the points of each line sideways, so that points of one category do not hide each other."""
    step = _DODGE / max(3, len(lines) - 1)
    shifts = [step * (place - (len(lines) - 1) / 2) for place in range(len(lines))]
    moved = lambda points, shift: tuple(point._replace(place=point.place + shift) for point in points)
    return [line._replace(points=moved(line.points, shift)) for line, shift in zip(lines, shifts, strict=True)]
