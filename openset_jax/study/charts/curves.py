"""The charts of an experiment as plain data: the numbers of each line of a layout; nothing of how they look."""

import itertools
from typing import NamedTuple

from openset_jax.openset.metrics.intervals import Interval
from openset_jax.report.sentences import title
from openset_jax.study.charts.layout import Layout, Row, layouts
from openset_jax.study.stats.analysis import KNOWN, Analysis, Measure
from openset_jax.study.stats.outcomes import Treatment

_OF_KIND = {"auroc": "AUROC", "oscr": "OSCR", "balanced_accuracy": "balanced accuracy"}
_RECALL = {"recall": "known recall"}
_CLOSED = {
    "one_vs_rest_auc": "AUROC, a class against the rest",
    "balanced_accuracy": "balanced accuracy",
    "accuracy": "accuracy",
}
_DECIDED = ("balanced_accuracy", "recall")
_DODGE = 0.5  # how much of a category's width its points take


class Point(NamedTuple):
    """A treatment.

    Attributes:
      place: on the axis, a little off where others have the same.
      mean: over seeds; infinite ends with one seed.
      seeds: seed -> number.
    """

    treatment: Treatment
    place: float
    mean: Interval
    seeds: dict[int, float]


class Line(NamedTuple):
    """What is drawn in one colour and style.

    Attributes:
      row: its place in the layout, what it is called, and its colour.
      decision: a name of `DECISIONS`; "" of a ranking.
      points: from left to right.
      start: the point that it starts from, of the arm without negatives.
    """

    row: Row
    decision: str
    points: tuple[Point, ...]
    start: Point | None = None


class Panel(NamedTuple):
    """One quantity; all are shares, the higher the better.

    Attributes:
      title: its name, and the kind of "none" that it is about.
    """

    title: str
    lines: tuple[Line, ...]


class Chart(NamedTuple):
    """Panels that share a layout.

    Attributes:
      rows: of panels; the last may be the shortest.
    """

    layout: Layout
    rows: tuple[tuple[Panel, ...], ...]

    @property
    def panels(self) -> tuple[Panel, ...]:
        """All of them, in reading order."""
        return tuple(itertools.chain.from_iterable(self.rows))

    @property
    def lines(self) -> tuple[Line, ...]:
        """Those of all panels."""
        return tuple(line for panel in self.panels for line in panel.lines)


def charts(analysis: Analysis) -> tuple[Chart, ...]:
    """All charts, that of the number of negatives first where it varies; none without arms."""
    return tuple(Chart(layout, _rows(analysis, layout)) for layout in layouts(analysis))


def seeds_text(analysis: Analysis) -> str:
    """How many seeds there are, as "3 seeds" or "1 to 3 seeds"."""
    counts = {len(analysis.outcomes(treatment)) for treatment in analysis.treatments} or {0}
    few, many = min(counts), max(counts)
    return f"{few} to {many} seeds" if few < many else f"{many} seed{'' if many == 1 else 's'}"


def bands_text(analysis: Analysis) -> str:
    """What is drawn around lines and points."""
    if not any(len(analysis.outcomes(treatment)) > 1 for treatment in analysis.treatments):
        return "one seed tells nothing of another: no intervals"
    return "bands and bars: 95 % intervals of the mean, for other seeds and other test images; small dots: seeds"


def kinds_measured(analysis: Analysis) -> list[str]:
    """The kinds of "none" with test images, the hardest first."""
    there = {measure for treatment in analysis.treatments for measure in analysis.measures(treatment)}
    outcomes = [outcome for treatment in analysis.treatments for outcome in analysis.outcomes(treatment).values()]
    kinds = dict.fromkeys(kind for outcome in outcomes for kind in outcome.kinds)
    return [kind for kind in reversed(kinds) if Measure("auroc", kind) in there]


def _rows(analysis, layout):
    panel = lambda metric, name, of: _panel(analysis, layout, metric, f"{name}{'' if of == KNOWN else ', ' + title(of)}", of)
    of = lambda metrics, kind: tuple(panel(metric, name, kind) for metric, name in metrics.items())
    measured, recall = kinds_measured(analysis), of(_RECALL, KNOWN)
    if not measured:
        return (of(_CLOSED, KNOWN),)
    alike = lambda kind: all(analysis.tested_alike([t for t, _ in row.treatments], kind) for row in layout.rows)
    kinds = [kind for kind in measured if alike(kind)]
    if not kinds:
        return (recall,)
    first, *others = (of(_OF_KIND, kind) for kind in kinds)
    return ((*first, *recall), *others) if others else (first[:2], first[2:] + recall)  # two of two, rather than one of four


def _panel(analysis, layout, metric, name, of):
    lines = []
    for row in layout.rows:
        for decision in row.decisions if metric in _DECIDED else ("",):
            measure = Measure(metric, of, decision)
            if points := tuple(_points(analysis, row.treatments, measure)):
                lines.append(Line(row, decision, points))
    if not layout.is_sweep:
        lines = _dodged(lines)
    places = {(p.treatment, line.decision): p for line in lines for p in line.points}
    return Panel(name, tuple(line._replace(start=places.get((line.row.start, line.decision))) for line in lines))


def _points(analysis, treatments, measure):
    for treatment, place in treatments:
        mean = analysis.mean(treatment, measure)
        if mean is not None:
            yield Point(treatment, place, mean, analysis.per_seed(treatment, measure))


def _dodged(lines):
    step = _DODGE / max(3, len(lines) - 1)
    shifts = [step * (place - (len(lines) - 1) / 2) for place in range(len(lines))]
    moved = lambda points, shift: tuple(point._replace(place=point.place + shift) for point in points)
    return [line._replace(points=moved(line.points, shift)) for line, shift in zip(lines, shifts, strict=True)]
