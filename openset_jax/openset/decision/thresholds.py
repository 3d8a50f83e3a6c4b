"""Accept or reject: a threshold on the score, chosen on validation images by a stated rule, and what it can be held to.

An image is accepted where its score is at or below the threshold, and is then given the class that costs least; otherwise
the answer is "none". The threshold is chosen once, saved, and used unchanged by whatever comes after.
"""

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

from openset_jax.errors import UserError
from openset_jax.openset.metrics.intervals import LEVEL, Interval

COSTS = ("accept_none", "confuse_knowns", "reject_known")
RULES = ("keep_knowns", "accept_negatives", "least_cost")
_TAIL = (1 - LEVEL) / 2
RESAMPLES = 1_000


@dataclasses.dataclass(frozen=True)
class Rule:
    """How the threshold is chosen.

    Attributes:
      name: "keep_knowns": accept the share `target` of knowns; "accept_negatives": accept at most the share `target` of
        negatives; "least_cost": the least expected cost under a deployment prior.
      target: a share, None for "least_cost".
    """

    name: str
    target: float | None


def plain(number: float | None) -> float | str | None:
    """As JSON can hold it: infinities, which it has no number for, are "inf" and "-inf"."""
    return str(number) if number in (np.inf, -np.inf) else number


@dataclasses.dataclass(frozen=True)
class Threshold:
    """A rule applied to validation images.

    Attributes:
      value, low, high: the threshold, and its 95 % bootstrap interval.
      knowns, negatives: validation images it was chosen on.
      kept: how many of the side that the rule is about are accepted: known images ("keep_knowns"), negatives
        ("accept_negatives"), None for "least_cost".
    """

    value: float
    low: float
    high: float
    knowns: int
    negatives: int
    kept: int | None


def choose(
    rule: Rule,
    known_score: np.ndarray,
    negative_score: np.ndarray,
    *,
    known_gain: np.ndarray | None = None,
    negative_gain: np.ndarray | None = None,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Threshold:
    """The threshold of a rule, on validation images.

    Args:
      known_score, negative_score: float [m], [n], larger = more unknown.
      known_gain, negative_gain: for "least_cost": what accepting each image costs, less what rejecting it does, times what
        it stands for under the deployment prior; from `gains`.
      resamples: for the interval; with 0 it is the threshold alone.

    Raises:
      UserError: too few validation images for the rule.
    """
    m, n = len(known_score), len(negative_score)
    if not m:
        raise UserError("decision.rule: the validation split has no known images to choose a threshold on")
    check_negatives(rule, "", n)
    if rule.name == "keep_knowns":
        pick = lambda known, _: _order_statistic(known_score[known], rule.target)
    elif rule.name == "accept_negatives":
        pick = lambda _, negative: _just_below(negative_score[negative], rule.target)
    else:
        pick = lambda known, negative: _cheapest(
            np.concatenate([known_score[known], negative_score[negative]]),
            np.concatenate([known_gain[known], negative_gain[negative]]),
        )
    value, rng = pick(np.arange(m), np.arange(n)), np.random.default_rng(seed)
    drawn = [pick(rng.integers(0, m, m), rng.integers(0, max(n, 1), n)) for _ in range(resamples)] or [value]
    low, high = np.quantile(drawn, [_TAIL, 1 - _TAIL], method="inverted_cdf")
    kept = {"keep_knowns": known_score, "accept_negatives": negative_score}.get(rule.name)
    return Threshold(value, float(low), float(high), m, n, None if kept is None else int((kept <= value).sum()))


def check_negatives(rule: Rule, calibrate: str, count: int) -> None:
    """Raises UserError where so many validation negatives are too few for the rule or the calibration."""
    if rule.name not in RULES:
        raise UserError(f"decision.rule: {rule.name!r} is not one of {', '.join(RULES)}")
    asked = f"decision.rule: {rule.name}" if rule.name != "keep_knowns" else f"decision.calibration: {calibrate}"
    if not count and (rule.name != "keep_knowns" or calibrate not in ("", "none")):
        raise UserError(
            f"{asked} needs negatives in the validation split; set data.held_out_negatives or data.negatives, or raise "
            "data.validation_fraction"
        )
    if rule.name == "accept_negatives" and rule.target * count < 1:
        raise UserError(
            f"decision.accept_negatives: a share of {rule.target:g} needs at least {int(np.ceil(1 / rule.target)):,} "
            f"negatives in the validation split; there are {count:,}"
        )


def _order_statistic(score, share):
    """The smallest score at or below which at least `share` of them are."""
    place = int(np.ceil(share * len(score) - 1e-9)) - 1
    return float(np.partition(score, place)[place])


def _just_below(score, share):
    """The largest number at or below which at most `share` of the scores are."""
    place = int(np.floor(share * len(score) + 1e-9))
    return float(np.nextafter(np.partition(score, place)[place], -np.inf)) if place < len(score) else float(score.max())


def _cheapest(score, gain):
    """The score up to which accepting costs least in all; -inf if accepting none does."""
    order = np.argsort(score)
    total, score = np.cumsum(gain[order]), score[order]
    last = np.flatnonzero(np.append(score[1:] != score[:-1], True))  # equals are accepted together
    best = last[np.argmin(total[last])]
    return float(score[best]) if total[best] < 0 else -np.inf


def gains(known_class: np.ndarray, truth: np.ndarray, costs: np.ndarray, prior: np.ndarray) -> np.ndarray:
    """For "least_cost": what accepting each image would cost, less what rejecting it does, times what it stands for.

    Args:
      known_class: int [n] in [0, K), the class it would be given.
      truth: int [n] in [0, K].
      costs: float [K + 1, K + 1], rows truth, columns answer.
      prior: float [K + 1] of the deployment. Classes without images here are left to the others.

    Returns:
      float64 [n].
    """
    none = len(prior) - 1
    count = np.bincount(truth, minlength=len(prior))
    return (costs[truth, known_class] - costs[truth, none]) * prior[truth] / count[truth]


def promise(rule: Rule, threshold: Threshold, count: int) -> Interval | None:
    """What share of `count` further images of the rule's side will be accepted: mean, and 95 % *prediction* interval.

    The validation images and the further ones are draws of one population; the share that falls at or below an order
    statistic is a beta variate whatever the population is, so that the number accepted is beta-binomial (Wilks 1941;
    Fligner and Wolfe 1976). With ties it is conservative. None for "least_cost", which promises no share.
    """
    if rule.name == "least_cost" or not count:
        return None
    if rule.name == "keep_knowns":
        below, all_ = threshold.kept, threshold.knowns
        shape = below, all_ - below + 1
    else:  # below the next larger one, which is rejected
        below, all_ = threshold.kept, threshold.negatives
        shape = below + 1, all_ - below
    if not shape[1]:
        return Interval(1.0, 1.0, 1.0)
    accepted = stats.betabinom(count, *shape)
    low, high = accepted.ppf([_TAIL, 1 - _TAIL]) / count
    return Interval(float(accepted.mean() / count), float(low), float(high))


def decide(score: np.ndarray, known_class: np.ndarray, threshold: float, num_classes: int) -> np.ndarray:
    """The answer to each image, int [n] in [0, K]: its class where the score is at most the threshold, else K, "none"."""
    return np.where(score <= threshold, known_class, num_classes)


def cheapest_class(posterior: np.ndarray, costs: np.ndarray) -> np.ndarray:
    """Which of the K classes costs least, were the image accepted: int [n]. With equal costs the most probable one."""
    beyond = costs[:, :-1] - costs[:, :-1].min(axis=1, keepdims=True)  # else what all have in common rounds the rest away
    return (posterior @ beyond).argmin(axis=1)


def cost_matrix(given: Any, classes: Sequence[str], field: str = "decision.costs") -> np.ndarray:
    """float64 [K + 1, K + 1]: what each answer (column) costs for each truth (row), "none" last.

    Args:
      given: some of `COSTS` by name, which are 1 where they are not said, with right answers free; or the whole table; None
        for all ones.
      field: where it was given, for messages.

    Raises:
      UserError: an unknown name, a table of another shape, or a cost that is negative or not finite.
    """
    size = len(classes) + 1
    if given is None or isinstance(given, dict):
        named = dict.fromkeys(COSTS, 1.0) | (given or {})
        if strange := set(named) - set(COSTS):
            raise UserError(f"{field}: {min(strange)!r} is not one of {', '.join(COSTS)}")
        if not all(isinstance(cost, int | float) for cost in named.values()):
            raise UserError(f"{field}: {given!r} does not give a number for each")
        costs = np.full((size, size), named["confuse_knowns"], np.float64)
        costs[-1], costs[:, -1] = named["accept_none"], named["reject_known"]
        np.fill_diagonal(costs, 0)
    else:
        try:
            costs = np.array(given, np.float64)
        except (TypeError, ValueError) as error:
            raise UserError(f"{field}: not a table of numbers ({error})") from error
        if costs.shape != (size, size):
            raise UserError(
                f"{field}: the table's shape is {costs.shape}; with {len(classes)} classes and 'none' it must be "
                f"({size}, {size}): rows are the truth, columns the answer, in the order {', '.join(classes)}, none"
            )
    wrong = ~(np.isfinite(costs) & (costs >= 0))
    if wrong.any():
        (truth, answer), names = np.argwhere(wrong)[0], [*classes, "none"]
        raise UserError(
            f"{field}: {names[answer]!r} for an image of {names[truth]!r} costs {costs[truth, answer]:g}; a cost must be a "
            "number, 0 or more"
        )
    return costs


def parse(text: str, field: str) -> Any:
    """ "name=number,name=number", or JSON, as flags and configs give priors and costs; None for "".

    Raises:
      UserError: neither of them, or a name comes twice; names `field`.
    """
    if not text.strip():
        return None
    try:
        if text.lstrip()[0] in "[{":
            return json.loads(text)
        pairs = [(name.strip(), float(number)) for name, number in (part.rsplit("=", 1) for part in text.split(","))]
    except ValueError as error:
        raise UserError(f'{field}: {text!r} is neither "name=number,name=number" nor JSON ({error})') from error
    if len(dict(pairs)) < len(pairs):
        raise UserError(f"{field}: {text!r} names something twice")
    return dict(pairs)


def deployment_prior(given: Any, classes: Sequence[str], training: np.ndarray, field: str = "decision.prior") -> np.ndarray:
    """float64 [K + 1], "none" last: how often each class comes where the classifier will be used.

    Args:
      given: {name or "none": share}; classes that are not named share what is left, in proportion to the training prior.
        None: as in training, or all alike where training had no negatives.
      training: float [K + 1], the effective prior of training.
      field: where it was given, for messages.

    Raises:
      UserError: a name that is no class, a share outside [0, 1], or shares that do not sum to 1.
    """
    names = [*classes, "none"]
    training = np.asarray(training, np.float64)
    reference = training if training[-1] > 0 else np.full(len(names), 1 / len(names))
    if given is None:
        return reference
    if not isinstance(given, dict) or not all(isinstance(share, int | float) for share in given.values()):
        raise UserError(f"{field}: {given!r} does not give a number for each class")
    if strange := [name for name in given if name not in names]:
        raise UserError(f"{field}: no class {strange[0]!r}; the classes are {', '.join(names)}")
    if wrong := [name for name, share in given.items() if not 0 <= share <= 1]:
        raise UserError(f"{field}: {wrong[0]}: {given[wrong[0]]!r} is not between 0 and 1")
    total, rest = sum(given.values()), np.array([name not in given for name in names])
    left = 1 - total
    if left < -1e-6 or (left > 1e-6 and not reference[rest].sum()):
        raise UserError(f"{field}: the shares of {', '.join(given)} sum to {total:g}, not to 1")
    prior = np.array([given.get(name, 0.0) for name in names], np.float64)
    if rest.any():
        prior[rest] = max(left, 0) * reference[rest] / max(reference[rest].sum(), 1e-300)
    return prior / prior.sum()
