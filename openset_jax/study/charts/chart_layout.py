"""The layout of each chart: which treatments form a line, and their places on the axis. No measurements, no drawing.

The first chart shows the effect of the number of negatives, if it varies. It has one line for each policy, that is, each
treatment without `sampling.negatives`. Arms without negatives are separate points: their network has no output for "none",
and the sampling policy does not affect them. Treatments that differ in other fields, and whose number of negatives does not
vary, have charts of their own, with one category for each combination of values.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from openset_jax.config import FIRST_PHASE, PRETRAINED
from openset_jax.report.figures import OKABE_ITO
from openset_jax.study.stats.analysis import Analysis
from openset_jax.study.stats.arm_outcome import Training
from openset_jax.study.stats.treatments import GROUPS, NEGATIVES, TRAINABLE, Treatment

MOST_LINES, MOST_VALUES = 7, 12
GREY = "#666666"
_POLICY = ("sampling.", "objective.")  # fields that distinguish lines, not categories
_DODGE = 0.02  # shift between lines that have a single point, as a share of the axis
_TICK_DISTANCE = 0.13  # minimum, as a share of the axis


class Row(NamedTuple):
    """A line.

    Attributes:
      label: in the legend; "" if there is only one line.
      palette: index of its colour, less than `MOST_LINES`; None for arms without negatives.
      treatments: (treatment, place on the axis) each, from left to right.
      joined: True to connect the points of a numeric axis.
      decisions: names in `DECISIONS`; the line is drawn once for each.
      start: the treatment without negatives whose other fields are the same; None if there is none.
    """

    label: str
    palette: int | None
    treatments: tuple[tuple[Treatment, float], ...]
    joined: bool
    decisions: tuple[str, ...]
    start: Treatment | None = None

    @property
    def colour(self) -> str:
        """The colour as "#rrggbb"."""
        return GREY if self.palette is None else OKABE_ITO[self.palette]


class Tick(NamedTuple):
    """A place on the axis with its text, and a second line of text below."""

    place: float
    text: str
    below: str


class Layout(NamedTuple):
    """A chart without measurements."""

    axis: str  # title
    ticks: tuple[Tick, ...]
    gap: float | None  # place of the break between 0 and the logarithmic scale; None without a break
    rows: tuple[Row, ...]
    left_out: tuple[str, ...]  # labels of lines or categories beyond `MOST_LINES` or `MOST_VALUES`

    @property
    def is_sweep(self) -> bool:
        """True if the axis is numeric, False if it has categories."""
        return any(row.joined for row in self.rows)


def layouts(analysis: Analysis) -> tuple[Layout, ...]:
    """Returns the layouts of all charts, the number of negatives first; empty without arms."""
    treatments = analysis.treatments
    lines: dict[Treatment, list[Treatment]] = {}
    for treatment in treatments:
        lines.setdefault(treatment.without(NEGATIVES), []).append(treatment)
    swept = [rest for rest, ts in lines.items() if len({_negatives(analysis, t) for t in ts}) > 1]
    if not swept:
        groups = list(_groups([t for t in treatments if _category_fields(t)], treatments))
        others = [t for t in treatments if not _category_fields(t)]
        groups = groups if set(others) <= set().union(*groups) else [others, *groups]
        return tuple(_side_by_side(analysis, group) for group in groups)
    apart = [t for rest, ts in lines.items() if rest not in swept and _category_fields(rest) for t in ts]
    on_axis = [ts for rest, ts in lines.items() if rest in swept or not _category_fields(rest)]
    return _sweep(analysis, on_axis), *(_side_by_side(analysis, group) for group in _groups(apart, treatments))


def short(fields: Sequence[tuple[str, Any]]) -> str:
    """Returns fields and values, with the last part of each field's name only."""
    return ", ".join(f"{name.rpartition('.')[2]}={value}" for name, value in fields) or Treatment(()).label


def _negatives(analysis: Analysis, treatment: Treatment) -> int:
    return round(np.mean([outcome.negatives for outcome in analysis.outcomes(treatment).values()]))


def _category_fields(treatment: Treatment) -> list[str]:
    return [name for name, _ in treatment.fields if not name.startswith((NEGATIVES, *_POLICY))]


# ---- The chart of the number of negatives


def _sweep(analysis: Analysis, on_axis: Sequence[Sequence[Treatment]]) -> Layout:
    none = [t for ts in on_axis for t in ts if _negatives(analysis, t) == 0]
    lines = [some for ts in on_axis if (some := [t for t in ts if t not in none])]
    natural = next((ts for ts in lines if not ts[0].without(NEGATIVES).fields), lines[0])
    kept = sorted(lines, key=lambda ts: (ts is not natural, len(ts) == 1))[:MOST_LINES]  # stable
    drawn = [ts for ts in lines if ts in kept]
    numbers = {t: _negatives(analysis, t) for t in itertools.chain(none, *drawn)}
    place, gap = _scale(sorted(set(numbers.values())))
    span = place(max(numbers.values())) - place(min(numbers.values())) or 1.0
    single = [ts for ts in drawn if len(ts) == 1]
    rows = []
    for palette, ts in enumerate(drawn):
        shift = _DODGE * span * (single.index(ts) - (len(single) - 1) / 2) if ts in single else 0.0
        rest, own = ts[0].without(NEGATIVES), "argmax" if analysis.first(ts[0]).has_none_output else "rule"
        decisions = tuple(dict.fromkeys([own, "prior", "rule"])) if ts is natural else (own,)
        starts = len(ts) > 1 or ts is natural  # a single point of another objective is not connected to the start
        start = next((t for t in none if starts and _start_of(t) == _start_of(rest)), None)
        where = tuple((t, place(numbers[t]) + shift) for t in sorted(ts, key=lambda t: numbers[t]))
        rows.append(Row(short(rest.fields), palette, where, True, decisions, start))
    for treatment in none:
        others = _start_of(treatment).fields if len(none) > 1 else ()
        label = "no negatives" + (f", {short(others)}" if others else "")
        rows.append(Row(label, None, ((treatment, place(0)),), False, ("argmax", "rule")))
    images = [outcome.images_per_class for t in numbers for outcome in analysis.outcomes(t).values()]
    per_class = float(np.mean(images)) if max(images) <= 1.02 * min(images) else None  # None if arms differ in it
    ticks = _ticks(set(numbers.values()), place, span, per_class)
    below = ", and as multiples of a known class" if any(tick.below for tick in ticks) else ""
    left_out = tuple(short(ts[0].without(NEGATIVES).fields) for ts in lines if ts not in kept)
    return Layout(f"negative training images{below}", ticks, gap, tuple(rows), left_out)


def _start_of(treatment: Treatment) -> Treatment:
    """Returns the fields that arms with and without negatives can share; their objectives differ."""
    return treatment.without(NEGATIVES, "objective.name")


def _scale(numbers: Sequence[int]) -> tuple[Callable[[int], float], float | None]:
    """Returns (number -> place, place of the break): a logarithmic scale, with 0 at its left."""
    positive = [np.log10(n) for n in numbers if n > 0]
    zero = positive[0] - max(0.35, 0.2 * (positive[-1] - positive[0]))
    gap = float(zero + positive[0]) / 2 if numbers[0] == 0 else None
    return (lambda n: float(np.log10(n) if n > 0 else zero)), gap


def _ticks(numbers: set[int], place: Callable[[int], float], span: float, per_class: float | None) -> tuple[Tick, ...]:
    """Returns ticks far enough apart for their text; the right end always has one."""
    *wanted, last = sorted(numbers)
    kept = [last]
    for n in wanted:
        if all(abs(place(n) - place(other)) > _TICK_DISTANCE * span for other in kept):
            kept.append(n)
    short = lambda share: round(share, 2) if share >= 0.05 else share  # 0.0994 of a class is 0.1
    below = lambda n: f"{short(n / per_class):.2g}×" if per_class and n else ""  # noqa: RUF001
    return tuple(Tick(place(n), _count(n), below(n)) for n in sorted(kept))


def _count(n: int) -> str:
    return f"{n:,}" if n < 10_000 else f"{n / 1000:,.4g}k" if n < 1_000_000 else f"{n / 1e6:,.4g}M"


# ---- Charts of categories


def _groups(treatments: Sequence[Treatment], everything: Sequence[Treatment]) -> Iterator[list[Treatment]]:
    """Yields groups of treatments whose fields overlap, with the treatments that they become without these fields."""
    left = list(treatments)
    while left:
        names: set[str] = set(_category_fields(left[0]))
        group: list[Treatment] = []
        while more := [t for t in left if t not in group and names & set(_category_fields(t))]:
            group += more
            names = names.union(*map(_category_fields, more))
        left = [t for t in left if t not in group]
        plain = {t.without(*names) for t in group}
        yield [t for t in everything if t in group or t in plain]


def _side_by_side(analysis: Analysis, treatments: Sequence[Treatment]) -> Layout:
    values = {name: [t.get(name) for t in treatments] for t in treatments for name, _ in t.fields}
    varied = [name for name in sorted(values) if any(value != values[name][0] for value in values[name])]
    axis = [name for name in varied if not name.startswith(_POLICY)] or varied
    of_axis = lambda t: tuple((name, value) for name, value in t.fields if name in axis)
    of_line = lambda t: tuple((name, value) for name, value in t.fields if name in varied and name not in axis)
    treatments = sorted(treatments, key=lambda t: _depth(analysis.first(t).training) if TRAINABLE in axis else ())
    categories, lines = (list(dict.fromkeys(map(part, treatments))) for part in (of_axis, of_line))
    rows = []
    for palette, fields in enumerate(lines[:MOST_LINES]):
        ts = [t for t in treatments if of_line(t) == fields and of_axis(t) in categories[:MOST_VALUES]]
        own = "argmax" if any(analysis.first(t).has_none_output for t in ts) else "rule"
        where = tuple((t, float(categories.index(of_axis(t)))) for t in ts)
        decisions = ("argmax", "prior", "rule") if palette == 0 else (own,)
        rows.append(Row(short(fields) if len(lines) > 1 else "", palette, where, False, decisions))
    names, title = _names(axis, categories), ", ".join(axis) or "treatment"
    if axis == [GROUPS]:  # the resolved number, also where the field is not set
        counts = {of_axis(t): analysis.first(t).negative_groups for t in treatments}
        names, title = [f"{counts[fields]}" for fields in categories], "kinds of negatives"
    elif axis and set(axis) <= {"init_from", TRAINABLE}:
        trained = {of_axis(t): analysis.first(t).training for t in treatments}
        found = [_trained(trained[fields]) for fields in categories]
        names, title = found if len(set(found)) == len(found) else names, "layers that are trained"
    ticks = tuple(Tick(float(place), text, "") for place, text in enumerate(names[:MOST_VALUES]))
    left_out = tuple(map(short, [*categories[MOST_VALUES:], *lines[MOST_LINES:]]))
    return Layout(title, ticks, None, tuple(rows), left_out)


def _depth(training: Training) -> tuple[bool, int]:
    """Returns a key that sorts from the fewest trained layers to all, then from scratch."""
    return training.from_scratch, training.layers


def _trained(training: Training) -> str:
    how = {"": "from scratch", PRETRAINED: PRETRAINED, FIRST_PHASE: "at the end"}.get(training.start, "retrained")
    return f"{training.trainable}, {how}"


def _names(names: Sequence[str], categories: Sequence[Sequence[tuple[str, Any]]]) -> list[str]:
    """Returns a name for each category: the fewest fields that distinguish all, or only the value of a single field."""
    for name in names:
        rest = [[field for field in fields if field[0] != name] for fields in categories]
        if len(set(map(tuple, rest))) == len(categories):
            return _names([other for other in names if other != name], list(map(tuple, rest)))
    return [str(fields[0][1]) if len(names) == 1 and fields else short(fields) for fields in categories]
