"""Chooses the threshold on validation images; gives its bootstrap interval, and predicts the share that it accepts.

If the score of an image is at or below the threshold, the image is accepted, and the decision is the class of least expected
cost; otherwise the decision is "none". The threshold is chosen once, saved, and used unchanged.
"""

import dataclasses
from typing import Any

import numpy as np
from scipy import stats

from openset_jax.errors import UserError
from openset_jax.openset import checks
from openset_jax.openset.metrics.intervals import LEVEL, Interval

RULES = ("keep_knowns", "accept_negatives", "least_cost")
_TAIL = (1 - LEVEL) / 2
RESAMPLES = 1_000


@dataclasses.dataclass(frozen=True)
class Rule:
    """A rule to choose the threshold.

    "keep_knowns": accept at least the share `target`, in [0, 1], of knowns; "accept_negatives": accept at most the share
    `target` of negatives; "least_cost": least expected cost under the deployment prior, without a target.
    """

    name: str
    target: float | None

    @property
    def share(self) -> float:
        """The target; raises ValueError if the rule has none."""
        if self.target is None:
            raise ValueError(f"rule {self.name!r} has no target share")
        return self.target


def json_number(number: float | None) -> float | str | None:
    """Returns the number, or "inf" or "-inf" for the infinities, which JSON lacks."""
    return str(number) if number in (np.inf, -np.inf) else number


@dataclasses.dataclass(frozen=True)
class Threshold:
    """A threshold chosen on validation images.

    Attributes:
      value, low, high: the threshold and its 95 % bootstrap interval.
      knowns, negatives: number of validation images.
      kept: number of accepted validation images: knowns for "keep_knowns", negatives for "accept_negatives"; None for
        "least_cost".
    """

    value: float
    low: float
    high: float
    knowns: int
    negatives: int
    kept: int | None


def rule_from_json(saved: dict[str, Any]) -> Rule:
    """Returns the rule whose fields were saved; raises ValueError, KeyError or TypeError if there is no such rule."""
    if saved["name"] not in RULES:
        raise ValueError(f"rule.name must be one of {', '.join(RULES)}, not {saved['name']!r}")
    target = None if saved["name"] == "least_cost" else checks.number(saved["target"], "rule.target", 0, 1)
    return Rule(saved["name"], target)


def threshold_from_json(saved: dict[str, Any]) -> Threshold:
    """Returns the threshold whose fields were saved, infinities by `json_number`.

    Raises:
      ValueError, KeyError or TypeError: a field is missing, NaN, or not in its range.
    """
    given = lambda value: float(value) if value in ("inf", "-inf") else value
    value, low, high = (checks.number(given(saved[name]), f"threshold.{name}") for name in ("value", "low", "high"))
    knowns, negatives = (checks.count(saved[name], f"threshold.{name}") for name in ("knowns", "negatives"))
    kept = None if saved["kept"] is None else checks.count(saved["kept"], "threshold.kept", max(knowns, negatives))
    return Threshold(value, low, high, knowns, negatives, kept)


def choose(
    rule: Rule,
    known_score: np.ndarray,
    negative_score: np.ndarray,
    *,
    known_cost: np.ndarray | None = None,
    negative_cost: np.ndarray | None = None,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Threshold:
    """Chooses the threshold on validation images.

    Args:
      known_score, negative_score: float [m], [n], larger = more unknown.
      known_cost, negative_cost: float [m], [n], from `acceptance_costs`; only for "least_cost".
      resamples: number of bootstrap resamples; with 0, low and high are the threshold.

    Raises:
      UserError: too few validation images for the rule.
      ValueError: "least_cost" without costs.
    """
    m, n = len(known_score), len(negative_score)
    if not m:
        raise UserError("decision.rule: the validation split has no known images to choose a threshold on")
    check_negatives(rule, "", n)
    if rule.name == "keep_knowns":
        pick = lambda known, negative: _order_statistic(known_score[known], rule.share)
    elif rule.name == "accept_negatives":
        pick = lambda known, negative: _just_below(negative_score[negative], rule.share)
    elif known_cost is None or negative_cost is None:
        raise ValueError(f"rule {rule.name!r} needs the acceptance costs of the validation images")
    else:
        pick = lambda known, negative: _cheapest(
            np.concatenate([known_score[known], negative_score[negative]]),
            np.concatenate([known_cost[known], negative_cost[negative]]),
        )
    value, rng = pick(np.arange(m), np.arange(n)), np.random.default_rng(seed)
    resampled = [pick(rng.integers(0, m, m), rng.integers(0, max(n, 1), n)) for _ in range(resamples)] or [value]
    low, high = np.quantile(resampled, [_TAIL, 1 - _TAIL], method="inverted_cdf")
    kept = {"keep_knowns": known_score, "accept_negatives": negative_score}.get(rule.name)
    return Threshold(value, float(low), float(high), m, n, None if kept is None else int((kept <= value).sum()))


def check_negatives(rule: Rule, calibrate: str, count: int) -> None:
    """Raises UserError if the rule or the calibration needs more validation negatives than `count`."""
    if rule.name not in RULES:
        raise UserError(f"decision.rule: {rule.name!r} is not one of {', '.join(RULES)}")
    asked = f"decision.rule: {rule.name}" if rule.name != "keep_knowns" else f"decision.calibration: {calibrate}"
    if not count and (rule.name != "keep_knowns" or calibrate not in ("", "none")):
        raise UserError(
            f"{asked} needs negatives in the validation split; set data.held_out_negatives or data.negatives, or raise "
            "data.validation_fraction"
        )
    if rule.name == "accept_negatives" and rule.share * count < 1:
        raise UserError(
            f"decision.accept_negatives: a share of {rule.share:g} needs at least {int(np.ceil(1 / rule.share)):,} "
            f"negatives in the validation split; there are {count:,}"
        )


def _order_statistic(score: np.ndarray, share: float) -> float:
    """Returns the smallest score t such that at least `share` of the scores are <= t."""
    place = int(np.ceil(share * len(score) - 1e-9)) - 1
    return float(np.partition(score, place)[place])


def _just_below(score: np.ndarray, share: float) -> float:
    """Returns the largest float t such that at most `share` of the scores are <= t."""
    place = int(np.floor(share * len(score) + 1e-9))
    return float(np.nextafter(np.partition(score, place)[place], -np.inf)) if place < len(score) else float(score.max())


def _cheapest(score: np.ndarray, cost: np.ndarray) -> float:
    """Returns the threshold of least total cost; -inf if accepting no image costs least."""
    order = np.argsort(score)
    total, score = np.cumsum(cost[order]), score[order]
    last = np.flatnonzero(np.append(score[1:] != score[:-1], True))  # ties are accepted together
    best = last[np.argmin(total[last])]
    return float(score[best]) if total[best] < 0 else -np.inf


def acceptance_costs(known_class: np.ndarray, truth: np.ndarray, costs: np.ndarray, prior: np.ndarray) -> np.ndarray:
    """Returns the cost of accepting each image minus that of rejecting it, weighted to the deployment prior, float64 [n].

    `known_class`, int [n] in [0, K), is the class of each image if accepted, `truth`, int [n] in [0, K], the true one. The
    costs are [K + 1, K + 1], rows the truth, columns the decision. Classes without images do not contribute.
    """
    count = np.bincount(truth, minlength=len(prior))
    return (costs[truth, known_class] - costs[truth, -1]) * prior[truth] / count[truth]


def promise(rule: Rule, threshold: Threshold, count: int) -> Interval | None:
    """Predicts the share of `count` new knowns ("keep_knowns") or negatives ("accept_negatives") that is accepted.

    Returns the mean and the 95 % prediction interval; None for "least_cost", which has no target share, or if `count` is 0.
    Validation images and new images are samples of one population. The share of the population at or below an order
    statistic has a beta distribution for all continuous scores, so the number accepted is beta-binomial (Wilks 1941; Fligner
    and Wolfe 1976). With ties the interval is conservative.
    """
    accepted = threshold.kept
    if accepted is None or not count:
        return None
    if rule.name == "keep_knowns":
        shape = accepted, threshold.knowns - accepted + 1
    elif accepted == threshold.negatives:  # the threshold is the largest score
        shape = accepted, 1
    else:  # the threshold is just below the first score that is rejected
        shape = accepted + 1, threshold.negatives - accepted
    further = stats.betabinom(count, *shape)
    low, high = further.ppf([_TAIL, 1 - _TAIL]) / count
    return Interval(float(further.mean() / count), float(low), float(high))


def decide(score: np.ndarray, known_class: np.ndarray, threshold: float, num_classes: int) -> np.ndarray:
    """Returns the decisions, int [n] in [0, K]: `known_class` if the score is at most the threshold, else K ("none")."""
    return np.where(score <= threshold, known_class, num_classes)


def cheapest_class(posterior: np.ndarray, costs: np.ndarray) -> np.ndarray:
    """Returns the class of least expected cost if the image is accepted, int [n] in [0, K).

    With equal costs of all errors it is the most probable class. The posterior is [n, K + 1]; the costs are
    [K + 1, K + 1], rows the truth, columns the decision.
    """
    beyond = costs[:, :-1] - costs[:, :-1].min(axis=1, keepdims=True)  # large common costs would round differences away
    return (posterior @ beyond).argmin(axis=1)
