"""The claims of Buda, Maki and Mazurowski 2018 (arXiv 1710.05381), each judged by paired differences with intervals.

`buda_verdicts` says how. Pure functions.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import numpy as np

from benchmarks.buda_study import (
    ACCURACY,
    AUC,
    BALANCED,
    BASELINE,
    CORRECTED,
    DIVIDED,
    OVER,
    RENORMALISED,
    TWO_PHASE,
    UNDER,
    Network,
    Study,
    label,
)
from benchmarks.buda_verdicts import (
    CONFIRMED,
    NOT_CONFIRMED,
    NOT_TESTED,
    Differences,
    Judged,
    alike,
    both,
    everywhere,
    independent,
    mostly,
    negated,
    never_below,
    signed,
)
from openset_jax.data.imbalance import Imbalance
from openset_jax.openset.metrics.intervals import Interval

BARELY = 0.01  # of AUC: "barely hurts"


class Claim(NamedTuple):
    """A claim and its verdict.

    Attributes:
      name: "B1" to "B9", in the order of the paper, with the part of the claim; or "trap".
      text: the claim.
      data: the data set.
      verdict: `CONFIRMED`, `NOT_CONFIRMED` or `NOT_TESTED`.
      reason: in numbers.
      differences: that it was judged by, positive on the claim's side.
    """

    name: str
    text: str
    data: str
    verdict: str
    reason: str
    differences: Mapping[str, Interval]


MakeClaim = Callable[[str, str, Judged, Differences], Claim]  # (name, text, judged, differences)


def claims(study: Study) -> Iterator[Claim]:
    """The claims that one experiment can test, in the order of their names."""
    make: MakeClaim = lambda name, text, judged, differences: Claim(name, text, study.name, *judged, differences)
    for varied in ("rho", "mu"):
        steps, ends = study.falls(varied)
        judged = both({"From first to last value": everywhere(ends), "From each value to the next": never_below(steps)})
        yield make(f"B1, {varied}", f"without a remedy AUC falls monotonically with {varied}", judged, ends | steps)
    found = study.methods(OVER, BASELINE)
    yield make(
        "B3", "oversampling is at least as good as the baseline, and never clearly worse (AUC)", never_below(found), found
    )
    yield from _undersampling(study, make)
    for of, method in TWO_PHASE.items():
        found = study.at_points(lambda p, of=of, method=method: _inside(study, p, method, of))
        text = f"two-phase training lies between the baseline and {of} (AUC)"
        yield make(f"B5, {of}", text, never_below(found), found)
    yield from _thresholding(study, make)
    reason = "arms save outputs on test images only; training metrics include dropout and the class mix of each method"
    yield make("B7", "oversampling does not widen the gap between training and test", (NOT_TESTED, reason), {})
    if study.linear:
        yield from _linear(study, make)
    reason = "no arm samples partially: sampling.policy over- and undersamples to equal classes"
    yield make("B9", "oversample fully; the best undersampling is partial and depends on mu", (NOT_TESTED, reason), {})
    yield from _traps(study, make)


def _undersampling(study: Study, make: MakeClaim) -> Iterator[Claim]:
    at = {p: Network(UNDER, p) for p in study.points}
    pairs = [(p, q) for p in study.points for q in study.points if p.rho == q.rho and p.mu < q.mu]
    differences = {f"rho={p.rho:g}, mu={q.mu:g} minus {p.mu:g}": study.difference(at[q], at[p]) for p, q in pairs}
    found = {name: d for name, d in differences.items() if d is not None}
    yield make("B4, mu", "at a fixed rho, undersampling's AUC does not depend on mu", alike(found), found)
    found = study.methods(BASELINE, UNDER)
    yield make("B4, baseline", "undersampling is often below the baseline (AUC)", mostly(found), found)
    extreme = label(max(study.points, key=lambda p: (p.mu, p.rho)))
    found = study.methods(OVER, UNDER)
    rest, last = ({n: d for n, d in found.items() if (n == extreme) is side} for side in (False, True))
    judged = both({"Oversampling is better elsewhere": everywhere(rest), "Equal at the highest mu and rho": alike(last)})
    yield make("B4, ties", "undersampling ties with oversampling only at high mu and extreme rho (AUC)", judged, found)


def _inside(study: Study, point: Imbalance, method: str, of: str) -> Interval | None:
    """The distance of a method's AUC from the nearer of the baseline's and `of`'s; negative if it is not between them.

    Its interval lies below 0 only if both differences lie on one side of 0.
    """
    ends = [study.difference(Network(method, point), Network(other, point)) for other in (BASELINE, of)]
    if None in ends:
        return None
    above = Interval(*(max(values) for values in zip(*ends, strict=True)))  # not below both
    below = Interval(*(max(values) for values in zip(*map(negated, ends), strict=True)))  # not above both
    return Interval(*(min(values) for values in zip(above, below, strict=True)))


def _thresholding(study: Study, make: MakeClaim) -> Iterator[Claim]:
    gain = lambda method, sign: study.at_points(
        lambda p: sign(study.difference(Network(method, p, DIVIDED), Network(method, p), ACCURACY))
    )
    same, turned = (lambda d: d), (lambda d: d and negated(d))
    for of, text in ((BASELINE, "the baseline's"), (OVER, "oversampling's")):
        found = gain(of, same)
        yield make(
            f"B6, {of}", f"dividing {text} outputs by the original priors raises balanced accuracy", mostly(found), found
        )
    found = gain(UNDER, turned)
    yield make("B6, undersampling", "it should not be combined with undersampling, whose balanced accuracy it lowers",
               mostly(found), found)  # fmt: skip
    found = study.at_points(lambda p: study.difference(Network(BASELINE, p, DIVIDED), Network(UNDER, p, DIVIDED), ACCURACY))
    yield make("B6, best", "thresholding is better alone than with undersampling (balanced accuracy)", mostly(found), found)


def _linear(study: Study, make: MakeClaim) -> Iterator[Claim]:
    last = study.linear[-1]
    drop = study.difference(Network(BASELINE, BALANCED), Network(BASELINE, last))
    found = {label(last): drop} if drop else {}
    judged = everywhere({n: Interval(BARELY - d.value, BARELY - d.high, BARELY - d.low) for n, d in found.items()})
    reason = (
        f'AUC falls by {signed(drop)}; "barely": less than {BARELY:g}' if drop and np.isfinite(drop).all() else judged[1]
    )
    yield make("B8, linear", f"linear imbalance (here rho={last.rho:g}) barely hurts", (judged[0], reason), found)
    for step in (p for p in study.points if (p.mu, p.rho) == (0.5, last.rho)):
        more = study.difference(Network(BASELINE, last), Network(BASELINE, step))
        found = {label(step): more} if more and drop else {}
        twice = {n: Interval(*(x - max(drop.value, 0.0) for x in d)) for n, d in found.items()}
        verdict, reason = everywhere(twice)
        reason = f'AUC falls by {signed(more)} more; "far more": at least twice as much' if verdict != NOT_TESTED else reason
        yield make("B8, step", "step imbalance of the same total size hurts far more (AUC)", (verdict, reason), found)


def _traps(study: Study, make: MakeClaim) -> Iterator[Claim]:
    effect = lambda outputs: study.at_points(
        lambda p: study.difference(Network(BASELINE, p, outputs), Network(BASELINE, p), AUC)
    )
    plain, again = effect(DIVIDED), effect(RENORMALISED)
    text = "dividing outputs by priors does not change one-vs-rest AUC, unless the outputs are then renormalised to sum to 1"
    yield make("trap a", text, _unchanged(plain, again), again)
    for of in (OVER, UNDER):
        found = study.at_points(
            lambda p, of=of: study.difference(Network(of, p), Network(of, p, DIVIDED), CORRECTED, ACCURACY)
        )
        text = f"after {of} the original priors over-correct: the effective ones give a higher balanced accuracy"
        yield make(f"trap b, {of}", text, mostly(found), found)


def _unchanged(plain: Differences, again: Differences) -> Judged:
    if not plain:
        return NOT_TESTED, "no arm for it is finished"
    exact, changed = not any(d.value for d in plain.values()), [n for n, d in again.items() if d.value]
    clear = sum(d.low > 0 or d.high < 0 for d in again.values())
    most = max(again, key=lambda n: abs(again[n].value))
    return CONFIRMED if exact and changed else NOT_CONFIRMED, (
        f"AUC of divided outputs: {'unchanged' if exact else 'changed'} in {len(plain)}; renormalised to sum to 1: changed "
        f"in {len(changed)} of {len(again)}, significantly in {clear}; the largest change, {most}: {signed(again[most])}"
    )


def scale(mnist: Study, cifar10: Study) -> Claim:
    """Judges B2: the ratio of rho on MNIST and on CIFAR-10 for the same loss of AUC.

    At each mu that both have: CIFAR-10's loss at rho minus MNIST's loss at a multiple of rho. If the difference is
    significantly above 0 everywhere, MNIST needs more than that multiple.
    """
    text = "the same loss of AUC needs about 100 times as large a rho on MNIST as on CIFAR-10"
    lost = lambda study, p: study.difference(Network(BASELINE, BALANCED), Network(BASELINE, p))
    found: dict[str, Interval] = {}
    verdicts: dict[int, Judged] = {}
    for times in (10, 100):
        of: dict[str, Interval] = {}
        for p in cifar10.points:
            other = next((q for q in mnist.points if (q.mu, q.rho) == (p.mu, p.rho * times)), None)
            losses = (lost(cifar10, p), lost(mnist, other)) if other else (None, None)
            if None not in losses:
                of[f"mu={p.mu:g}, CIFAR-10 at rho={p.rho:g} minus MNIST at {other.rho:g}"] = independent(*losses)
        verdicts[times], found = everywhere(of), found | of
    (ten, reason), (hundred, reason_hundred) = verdicts[10], verdicts[100]
    reason = f"CIFAR-10 loses more than MNIST at 10 times its rho: {reason}. At 100 times: {reason_hundred}"
    if ten == NOT_TESTED:
        return Claim("B2", text, "both", NOT_TESTED, verdicts[10][1], found)
    bound = "more than 100 times are needed" if hundred == CONFIRMED else "whether 100 times are enough is left open"
    if ten == CONFIRMED:
        reason = f"more than 10 times are needed, {bound}; no upper bound is tested. {reason}"
    return Claim("B2", text, "both", ten, reason, found)
