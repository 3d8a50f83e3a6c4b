"""The axes of an experiment: which treatments can be compared with which, and in what order they stand."""

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

from openset_jax.data import imbalance
from openset_jax.study.stats.analysis import Analysis
from openset_jax.study.stats.outcomes import Outcome, Treatment

NEGATIVES, GROUPS, TRAINABLE = "sampling.negatives", "data.negative_groups", "trainable"
IMBALANCE = imbalance.FIELD
RETRAINED = ("head", "fc", "all")  # values of `trainable`, the least first


def fields(treatments: Iterable[Treatment]) -> tuple[str, ...]:
    """Names of all fields that any of them sets, sorted."""
    return tuple(sorted({name for treatment in treatments for name, _ in treatment.fields}))


def first(analysis: Analysis, treatment: Treatment) -> Outcome:
    """The arm of its lowest seed, for what all its arms share."""
    outcomes = analysis.outcomes(treatment)
    return outcomes[min(outcomes)]


def ordered(analysis: Analysis) -> tuple[Treatment, ...]:
    """All treatments, field by field from the least to the most; the same whatever order the arms came in."""
    names = fields(analysis.treatments)
    key = lambda treatment: [_place(name, treatment, first(analysis, treatment)) for name in names]
    return tuple(sorted(analysis.treatments, key=key))


def lines(treatments: Sequence[Treatment], *names: str) -> list[tuple[Treatment, ...]]:
    """Treatments that differ in these fields alone, two or more together, in the order given."""
    found = {}
    for treatment in treatments:
        found.setdefault(treatment.without(*names), []).append(treatment)
    return [tuple(line) for line in found.values() if len(line) > 1]


def pairs(treatments: Sequence[Treatment]) -> list[tuple[Treatment, Treatment, str]]:
    """(treatment, reference, field) for each two that differ in one field, which one of them may lack; the earlier is the
    reference."""
    differing = ((one, other, _differing(one, other)) for other, one in itertools.combinations(treatments, 2))
    return [(one, other, names[0]) for one, other, names in differing if len(names) == 1]


def _differing(one, other):
    names = fields((one, other))
    absent = object()
    return [name for name in names if one.get(name, absent) != other.get(name, absent)]


def _place(name: str, treatment: Treatment, outcome: Outcome) -> tuple[Any, ...]:
    """Where a treatment stands on an axis: by the real number, where the field stands for one; else absent comes first."""
    value = treatment.get(name, ...)
    if name == NEGATIVES:
        return (outcome.negatives, repr(value))
    if name == GROUPS:
        return (outcome.negative_groups, repr(value))
    if name == TRAINABLE:  # absent: all of it
        return (RETRAINED.index(value) if value in RETRAINED else len(RETRAINED), repr(value))
    if name == IMBALANCE:  # absent: classes as they are
        asked = imbalance.parse("" if value is ... else value) or imbalance.Imbalance("", 0.0)
        return (asked.rho, asked.form, asked.mu or 0.0, repr(value))
    if value is ... or value is None:
        return (0, 0.0, "" if value is ... else "none")
    return (1, float(value), repr(value)) if isinstance(value, int | float) else (2, 0.0, repr(value))
