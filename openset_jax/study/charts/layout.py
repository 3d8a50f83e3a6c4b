"""Which treatments are a line of a chart, and where on its axis they stand. Nothing is measured here, nothing drawn.

The first chart is how much a number of negatives brings: a line for each policy, which is a treatment without
`sampling.negatives`. Arms without any negatives are points of their own: nothing tells them of "none", and how negatives are
sampled does not matter to them. Treatments that differ in something else than policy, and never in how many negatives they
have, are charts of their own, side by side on an axis of their values.
"""

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from openset_jax.study.stats.analysis import Analysis
from openset_jax.study.stats.axes import GROUPS, NEGATIVES, TRAINABLE, first
from openset_jax.study.stats.outcomes import Treatment

MOST_LINES, MOST_VALUES = 7, 12
_POLICY = ("sampling.", "objective.")  # what these fields say is a line on the axis of negatives
_DODGE = 0.02  # between points that are lines of their own, as a share of the axis
_APART = 0.13  # of ticks, as a share of the axis


class Row(NamedTuple):
    """A line.

    Attributes:
      label: of its treatments; "" where the axis says it all.
      colour: place in a palette of `MOST_LINES`; None of arms without negatives.
      treatments: (treatment, place on the axis) each, from left to right.
      joined: whether they are amounts of one thing, so that a line between them means something.
      decisions: by which it is drawn, names of `DECISIONS`.
      start: the arm without negatives that is alike in everything else, if there is one.
    """

    label: str
    colour: int | None
    treatments: tuple[tuple[Treatment, float], ...]
    joined: bool
    decisions: tuple[str, ...]
    start: Treatment | None = None


class Tick(NamedTuple):
    """A named place of the axis, with a second line below the name."""

    place: float
    text: str
    below: str


class Layout(NamedTuple):
    """A chart before anything is measured.

    Attributes:
      axis: its title.
      ticks: from left to right.
      gap: where the axis is broken, between 0 and a logarithmic scale; None where it is not.
      rows: the lines.
      left_out: labels of lines or values that are too many.
    """

    axis: str
    ticks: tuple[Tick, ...]
    gap: float | None
    rows: tuple[Row, ...]
    left_out: tuple[str, ...]

    @property
    def is_sweep(self) -> bool:
        """Whether the axis is of numbers, not of names."""
        return any(row.joined for row in self.rows)


def layouts(analysis: Analysis) -> tuple[Layout, ...]:
    """All charts, that of the number of negatives first where it varies; none without arms."""
    treatments, lines = analysis.treatments, {}
    for treatment in treatments:
        lines.setdefault(treatment.without(NEGATIVES), []).append(treatment)
    swept = [rest for rest, ts in lines.items() if len({_negatives(analysis, t) for t in ts}) > 1]
    if not swept:
        return tuple(_side_by_side(analysis, group) for group in _all_groups(treatments))
    apart = [t for rest, ts in lines.items() if rest not in swept and _apart(rest) for t in ts]
    on_axis = [ts for rest, ts in lines.items() if rest in swept or not _apart(rest)]
    return _sweep(analysis, on_axis), *(_side_by_side(analysis, group) for group in _groups(apart, treatments))


def short(fields: Sequence[tuple[str, Any]]) -> str:
    """Fields by the last part of their names."""
    return ", ".join(f"{name.rpartition('.')[2]}={value}" for name, value in fields) or Treatment(()).label


def _negatives(analysis, treatment):
    return round(np.mean([outcome.negatives for outcome in analysis.outcomes(treatment).values()]))


def _silent(analysis, treatment):
    """Whether a network has no output for "none", so that its own answer never is."""
    return any(outcome.scored.answer is None for outcome in analysis.outcomes(treatment).values())


def _apart(treatment):
    return [name for name, _ in treatment.fields if not name.startswith((NEGATIVES, *_POLICY))]


# ---- the axis of the number of negatives


def _sweep(analysis, on_axis):
    none = [t for ts in on_axis for t in ts if _negatives(analysis, t) == 0]
    lines = [some for ts in on_axis if (some := [t for t in ts if t not in none])]
    natural = next((ts for ts in lines if not ts[0].without(NEGATIVES).fields), lines[0])
    kept = sorted(lines, key=lambda ts: (ts is not natural, len(ts) == 1))[:MOST_LINES]  # stable: else as given
    drawn = [ts for ts in lines if ts in kept]
    numbers = {t: _negatives(analysis, t) for t in itertools.chain(none, *drawn)}
    place, gap = _scale(sorted(set(numbers.values())))
    span = place(max(numbers.values())) - place(min(numbers.values())) or 1.0
    alone = [ts for ts in drawn if len(ts) == 1]
    rows = []
    for colour, ts in enumerate(drawn):
        shift = _DODGE * span * (alone.index(ts) - (len(alone) - 1) / 2) if ts in alone else 0.0
        rest, own = ts[0].without(NEGATIVES), "rule" if _silent(analysis, ts[0]) else "argmax"
        decisions = tuple(dict.fromkeys([own, "prior", "rule"])) if ts is natural else (own,)
        starts = len(ts) > 1 or ts is natural  # else a line across the chart to a single point of another objective
        start = next((t for t in none if starts and _alike(t) == _alike(rest)), None)
        where = tuple((t, place(numbers[t]) + shift) for t in sorted(ts, key=numbers.get))
        rows.append(Row(short(rest.fields), colour, where, True, decisions, start))
    for treatment in none:
        others = _alike(treatment).fields if len(none) > 1 else ()
        label = "no negatives" + (f", {short(others)}" if others else "")
        rows.append(Row(label, None, ((treatment, place(0)),), False, ("argmax", "rule")))
    ticks = _ticks(numbers, place, span, _per_class(analysis, numbers))
    below = ", and that as multiples of a known class" if any(tick.below for tick in ticks) else ""
    left_out = tuple(short(ts[0].without(NEGATIVES).fields) for ts in lines if ts not in kept)
    return Layout(f"negative training images{below}", ticks, gap, tuple(rows), left_out)


def _alike(treatment):
    """What an arm without negatives, which needs another objective, shares with arms that have some."""
    return treatment.without(NEGATIVES, "objective.name")


def _scale(numbers):
    """(number -> place, where the axis is broken): the logarithm, with room for 0 at the left."""
    positive = [np.log10(n) for n in numbers if n > 0]
    zero = positive[0] - max(0.35, 0.2 * (positive[-1] - positive[0]))
    gap = float(zero + positive[0]) / 2 if numbers[0] == 0 else None
    return (lambda n: float(np.log10(n) if n > 0 else zero)), gap


def _per_class(analysis, treatments):
    """How many training images a known class has; None where arms differ in it."""
    found = [outcome.per_class for t in treatments for outcome in analysis.outcomes(t).values()]
    return float(np.mean(found)) if max(found) <= 1.02 * min(found) else None


def _ticks(numbers, place, span, per_class):
    """Ticks with room for their text, the right end first."""
    *wanted, last = sorted(set(numbers.values()))
    kept = [last]
    for n in wanted:
        if all(abs(place(n) - place(other)) > _APART * span for other in kept):
            kept.append(n)
    below = lambda n: f"{n / per_class:.2g}×" if per_class and n else ""  # noqa: RUF001
    return tuple(Tick(place(n), _count(n), below(n)) for n in sorted(kept))


def _count(n):
    return f"{n:,}" if n < 10_000 else f"{n / 1000:,.4g}k" if n < 1_000_000 else f"{n / 1e6:,.4g}M"


# ---- treatments side by side


def _groups(treatments, everything):
    """Those that differ in the same fields, with the treatments that have none of these fields but are alike."""
    left = list(treatments)
    while left:
        names, group = set(_apart(left[0])), []
        while more := [t for t in left if t not in group and names & set(_apart(t))]:
            group += more
            names = names.union(*map(_apart, more))
        left = [t for t in left if t not in group]
        plain = {t.without(*names) for t in group}
        yield [t for t in everything if t in group or t in plain]


def _all_groups(treatments):
    groups = list(_groups([t for t in treatments if _apart(t)], treatments))
    rest = [t for t in treatments if not _apart(t)]
    covered = all(any(t in group for group in groups) for t in rest)
    return groups if covered else [rest, *groups]


def _side_by_side(analysis, treatments):
    values = {name: [t.get(name) for t in treatments] for t in treatments for name, _ in t.fields}
    varied = [name for name in sorted(values) if any(value != values[name][0] for value in values[name])]
    axis = [name for name in varied if not name.startswith(_POLICY)] or varied
    of_axis = lambda t: tuple((name, value) for name, value in t.fields if name in axis)
    of_line = lambda t: tuple((name, value) for name, value in t.fields if name in varied and name not in axis)
    categories, lines = (list(dict.fromkeys(map(part, treatments))) for part in (of_axis, of_line))
    rows = []
    for colour, fields in enumerate(lines[:MOST_LINES]):
        ts = [t for t in treatments if of_line(t) == fields and of_axis(t) in categories[:MOST_VALUES]]
        own = "rule" if all(_silent(analysis, t) for t in ts) else "argmax"
        where = tuple((t, float(categories.index(of_axis(t)))) for t in ts)
        decisions = ("argmax", "prior", "rule") if colour == 0 else (own,)
        rows.append(Row(short(fields) if len(lines) > 1 else "", colour, where, False, decisions))
    names, title = _names(axis, categories), ", ".join(axis) or "treatment"
    if axis == [GROUPS]:  # the real number, of all kinds, too
        counts = {of_axis(t): first(analysis, t).negative_groups for t in treatments}
        names, title = [f"{counts[fields]}" for fields in categories], "kinds of negatives"
    elif axis == ["init_from", TRAINABLE]:
        names, title = [_layers(dict(fields)) for fields in categories], "layers that are trained"
    ticks = tuple(Tick(float(place), text, "") for place, text in enumerate(names[:MOST_VALUES]))
    left_out = tuple(map(short, [*categories[MOST_VALUES:], *lines[MOST_LINES:]]))
    return Layout(title, ticks, None, tuple(rows), left_out)


def _layers(fields):
    value = fields.get(TRAINABLE, "all")
    if fields.get("init_from"):
        return f"{value}, retrained"
    return "all, from scratch" if value == "all" else f"{value} at the end"


def _names(names, categories):
    """What to call each category: by as few of the fields as tell all of them apart, by the value alone if one does."""
    for name in names:
        rest = [[field for field in fields if field[0] != name] for fields in categories]
        if len(set(map(tuple, rest))) == len(categories):
            return _names([other for other in names if other != name], list(map(tuple, rest)))
    return [str(fields[0][1]) if len(names) == 1 and fields else short(fields) for fields in categories]
