"""Treatments (the config fields that the runs of several seeds share), how treatments differ, and their order."""

import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from openset_jax.data import imbalance

NEGATIVES, GROUPS, TRAINABLE = "sampling.negatives", "data.negative_groups", "trainable"
UNCHANGED = "config.run unchanged"  # the name of the treatment without fields

# Fields of the methods against class imbalance -> the value that means "no method"
_NATURAL = {
    "sampling.policy": "natural",
    "sampling.negative_fraction": None,
    "objective.class_weights": "none",
    "objective.effective_number_beta": None,
    "objective.logit_adjustment": 0,
    "objective.negative_weight": None,
}
_SWITCHES = ("sampling.policy", "objective.class_weights", "objective.logit_adjustment", "objective.negative_weight")


@dataclasses.dataclass(frozen=True)
class Treatment:
    """The config fields that the arms of several seeds share, and that differ from the experiment's `run`.

    It also has the fields of methods against class imbalance that `run` sets and other arms change (`methods_of`), so that
    the treatment alone says which method an arm uses.
    """

    fields: tuple[tuple[str, Any], ...]  # (dotted name, value), sorted by name

    @property
    def label(self) -> str:
        """The name in tables and sentences."""
        return ", ".join(f"{name}={value}" for name, value in self.fields) or UNCHANGED

    def get(self, name: str, default: Any = None) -> Any:
        """Returns the value of a field; the default if the treatment does not set the field."""
        return dict(self.fields).get(name, default)

    def without(self, *names: str) -> "Treatment":
        """Returns the treatment without these fields."""
        return Treatment(tuple((name, value) for name, value in self.fields if name not in names))

    @property
    def imbalance_method(self) -> "Treatment":
        """The part that counters class imbalance: sampling policy, class weights, logit adjustment, negative weight."""
        names = imbalance_fields(dict(self.fields))
        return Treatment(tuple((n, value) for n, value in self.fields if n in names and value != _NATURAL.get(n)))

    @property
    def is_natural(self) -> bool:
        """True if no field counters class imbalance."""
        return not self.imbalance_method.fields


def field_names(treatments: Iterable[Treatment]) -> tuple[str, ...]:
    """Returns the names of all fields that any of the treatments sets, sorted."""
    return tuple(sorted({name for treatment in treatments for name, _ in treatment.fields}))


def imbalance_fields(names: Iterable[str]) -> tuple[str, ...]:
    """Returns the fields of methods against class imbalance: weights and every `sampling` field except pool sizes."""
    pool_sizes = (NEGATIVES, imbalance.FIELD)
    return tuple(n for n in names if n in _NATURAL or (n.startswith("sampling.") and n not in pool_sizes))


def methods_of(run: Mapping[str, Any], varied: Iterable[str]) -> dict[str, Any]:
    """Returns the methods against class imbalance in the fields of `run`, {dotted name: value}, of the `varied` fields."""
    return {name: run[name] for name in _SWITCHES if name in varied and run[name] != _NATURAL[name]}


def differing_only_in(treatments: Sequence[Treatment], *names: str) -> list[tuple[Treatment, ...]]:
    """Returns groups of two or more treatments that differ in these fields only, in the given order."""
    groups: dict[Treatment, list[Treatment]] = {}
    for treatment in treatments:
        groups.setdefault(treatment.without(*names), []).append(treatment)
    return [tuple(group) for group in groups.values() if len(group) > 1]


def one_field_pairs(treatments: Sequence[Treatment]) -> list[tuple[Treatment, Treatment, str]]:
    """Returns (treatment, reference, field) for each pair that differs in one field only; the earlier is the reference."""
    pairs = []
    for reference, treatment in itertools.combinations(treatments, 2):
        names = {name for name, _ in set(treatment.fields) ^ set(reference.fields)}
        if len(names) == 1:
            pairs.append((treatment, reference, names.pop()))
    return pairs


def sort_key(
    treatment: Treatment, names: Iterable[str], *, negatives: int, negative_groups: int, layers: int
) -> list[tuple[Any, ...]]:
    """Returns a key that sorts treatments by their fields, in the order of `names`, ascending.

    A field that the treatment does not set comes first. `negatives`, `negative_groups` and `layers`, the number of trained
    layers, are the numbers that `sampling.negatives`, `data.negative_groups` and `trainable` resolve to.
    """
    resolved = {NEGATIVES: negatives, GROUPS: negative_groups, TRAINABLE: layers}
    return [_field_key(name, treatment.get(name, ...), resolved) for name in names]


def _field_key(name: str, value: Any, resolved: dict[str, int]) -> tuple[Any, ...]:
    if name in resolved:
        return (resolved[name], repr(value))
    if name == imbalance.FIELD:
        sizes = imbalance.parse("" if value is ... else value) or imbalance.Imbalance("", 0.0)
        return (sizes.rho, sizes.form, sizes.mu or 0.0, repr(value))
    if value is ... or value is None:
        return (0, 0.0, "" if value is ... else "none")
    return (1, float(value), repr(value)) if isinstance(value, int | float) else (2, 0.0, repr(value))
