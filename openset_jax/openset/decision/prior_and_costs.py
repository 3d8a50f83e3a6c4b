"""The class prior and the costs of the deployment: parsed, validated and completed.

`classes` are the names of the K known classes. `field` is the config field or the flag of the value, for messages.
"""

import collections
import json
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from openset_jax.errors import UserError
from openset_jax.text import abridged

# costs of a known class for an image of "none", of another known class for a known image, of "none" for a known image
COSTS = ("accept_none", "confuse_knowns", "reject_known")


def parse(text: str, field: str) -> object:
    """Parses "name=number,name=number" to a dictionary, JSON to its value, and an empty text to None.

    Raises:
      UserError: the text has neither format, is nested too deeply, or has a name twice.
    """
    if not text.strip():
        return None
    shown = repr(text if len(text) <= 200 else f"{text[:200]}...")

    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        if twice := [name for name, count in collections.Counter(name for name, _ in pairs).items() if count > 1]:
            raise UserError(f"{field}: {shown} has the name {twice[0]!r} twice")
        return dict(pairs)

    try:
        if text.lstrip()[0] in "[{":
            return json.loads(text, object_pairs_hook=unique, parse_int=float)
        return unique([(n.strip(), float(number)) for n, number in (part.rsplit("=", 1) for part in text.split(","))])
    except ValueError as error:
        raise UserError(f'{field}: {shown} is neither "name=number,name=number" nor JSON ({error})') from error
    except RecursionError as error:
        raise UserError(f"{field}: {shown} has too many nested brackets") from error


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def cost_matrix(given: object, classes: Sequence[str], field: str = "decision.costs") -> np.ndarray:
    """Returns the cost of each decision (column) for each true class (row), "none" last: float64 [K + 1, K + 1].

    Args:
      given: {name of `COSTS`: cost}, missing costs are 1, correct decisions cost 0; or the whole matrix; or None: every
        wrong decision costs 1.

    Raises:
      UserError: an unknown name, a matrix of another shape, or a cost that is negative or not finite.
    """
    size = len(classes) + 1
    if given is None or isinstance(given, dict):
        named = dict.fromkeys(COSTS, 1.0) | (given or {})
        if strange := set(named) - set(COSTS):
            raise UserError(f"{field}: {min(strange)!r} is not one of {', '.join(COSTS)}")
        if not all(map(_is_number, named.values())):
            raise UserError(f"{field}: every cost must be a number, not {given!r}")
        costs = np.full((size, size), named["confuse_knowns"], np.float64)
        costs[-1], costs[:, -1] = named["accept_none"], named["reject_known"]
        np.fill_diagonal(costs, 0)
    else:
        try:
            costs = np.array(given, np.float64)
        except (TypeError, ValueError) as error:
            raise UserError(f"{field}: not a matrix of numbers ({error})") from error
        if costs.shape != (size, size):
            raise UserError(
                f"{field}: the matrix's shape is {costs.shape}; with {len(classes)} classes and 'none' it must be "
                f"({size}, {size}): rows are the truth, columns the decision, in the order {abridged([*classes, 'none'])}"
            )
    if len(wrong := np.argwhere(~(np.isfinite(costs) & (costs >= 0)))):
        (truth, answer), names = wrong[0], [*classes, "none"]
        raise UserError(
            f"{field}: {names[answer]!r} for an image of {names[truth]!r} costs {costs[truth, answer]:g}; a cost must be a "
            "number, 0 or more"
        )
    return costs


def named_costs(costs: np.ndarray) -> dict[str, float] | None:
    """Returns the costs by the names of `COSTS`; None if they cannot express the matrix, float [K + 1, K + 1]."""
    confuse = costs[0, 1] if len(costs) > 2 else 1.0  # one known class cannot be confused
    named = dict(zip(COSTS, map(float, (costs[-1, 0], confuse, costs[0, -1])), strict=True))
    return named if np.array_equal(cost_matrix(named, [""] * (len(costs) - 1)), costs) else None


def deployment_prior(
    given: object, classes: Sequence[str], training: ArrayLike, field: str = "decision.prior"
) -> np.ndarray:
    """Returns the class prior of the deployment, float64 [K + 1], "none" last.

    Args:
      given: {class name or "none": share}; missing classes share the rest in proportion to the training prior. None for the
        training prior, or, if training had no negatives, for a uniform prior over all K + 1.
      training: float [K + 1], the effective prior of training.

    Raises:
      UserError: an unknown class name, a share outside [0, 1], or shares that do not sum to 1.
    """
    names = [*classes, "none"]
    reference = np.asarray(training, np.float64)
    if not reference[-1] > 0:
        reference = np.full(len(names), 1 / len(names))
    if given is None:
        return reference
    if not isinstance(given, dict) or not all(map(_is_number, given.values())):
        raise UserError(f"{field}: every share of a class must be a number, not {given!r}")
    if strange := [name for name in given if name not in names]:
        raise UserError(f"{field}: no class {strange[0]!r}; the classes are {abridged(names)}")
    if wrong := [name for name, share in given.items() if not 0 <= share <= 1]:
        raise UserError(f"{field}: {wrong[0]}: {given[wrong[0]]!r} is not between 0 and 1")
    total, rest = sum(given.values()), np.array([name not in given for name in names])
    left = 1 - total
    if left < -1e-6 or (left > 1e-6 and not reference[rest].sum()):
        raise UserError(f"{field}: the shares of {abridged(list(given))} sum to {total:g}, not to 1")
    prior = np.array([given.get(name, 0.0) for name in names], np.float64)
    if rest.any():
        prior[rest] = max(left, 0) * reference[rest] / max(reference[rest].sum(), 1e-300)
    return prior / prior.sum()
