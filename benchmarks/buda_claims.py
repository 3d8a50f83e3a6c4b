"""Claims of Buda, Maki and Mazurowski 2018 (arXiv 1710.05381), each held against paired differences with intervals.

A difference is clear where its interval excludes 0. What a claim needs depends on what it says:

* that something is so everywhere: every difference is clear, on the claim's side;
* that it is mostly so: more than half are, and none is clearly on the other side;
* that it never is: no difference is clearly on the other side, and none wider than `HOLLOW` could be hidden, for an
  experiment that cannot see anything would confirm every such claim.

All else is "not confirmed", whether it is refuted or cannot be told; the reason says which. Pure functions.
"""

from collections.abc import Iterator, Mapping
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
)  # fmt: skip
from openset_jax.data.imbalance import Imbalance
from openset_jax.openset.metrics.intervals import Interval
from openset_jax.study.answer.phrases import ONE_SEED

CONFIRMED, NOT_CONFIRMED, NOT_TESTED = "confirmed", "not confirmed", "not tested here"
HOLLOW = 0.05  # of AUC: the paper's own repeated runs on ImageNet differ by nearly as much
BARELY = 0.01  # of AUC: "barely hurts"


class Claim(NamedTuple):
    """A claim, and what an experiment says of it.

    Attributes:
      name: "B1" to "B9", in the order in which the paper makes them, with its part; or "trap".
      text: what is claimed.
      of: the data.
      verdict: `CONFIRMED`, `NOT_CONFIRMED` or `NOT_TESTED`.
      why: in numbers.
      differences: what it was judged by, positive on the claim's side.
    """

    name: str
    text: str
    of: str
    verdict: str
    why: str
    differences: Mapping[str, Interval]


def signed(interval: Interval, digits: int = 4) -> str:
    """+0.0120 (+0.0020 to +0.0220)."""
    value, low, high = (f"{round(x, digits) + 0.0:+.{digits}f}" for x in interval)
    return f"{value} ({low} to {high})"


def less(interval: Interval) -> Interval:
    """The same with the sides exchanged."""
    return Interval(-interval.value, -interval.high, -interval.low)


def independent(one: Interval, other: Interval) -> Interval:
    """One less the other, of two experiments that share nothing.

    Zou and Donner 2008 (Statistics in Medicine 27:1693): a difference's interval from those of its parts.
    """
    value = one.value - other.value
    down = np.hypot(one.value - one.low, other.high - other.value)
    up = np.hypot(one.high - one.value, other.value - other.low)
    return Interval(value, float(value - down), float(value + up))


# --- Judging: differences, positive on the claim's side -> (verdict, why) ------------------------------------------------


def _judged(differences, verdict, hidden=None):
    known = {name: d for name, d in differences.items() if np.isfinite(d).all()}
    if not known:
        return NOT_TESTED, ONE_SEED if differences else "its arms are not there"
    clear, contrary = [n for n, d in known.items() if d.low > 0], [n for n, d in known.items() if d.high < 0]
    order = sorted(known, key=lambda n: known[n].value)
    ends = "; ".join(f"{n}: {signed(known[n])}" for n in dict.fromkeys((order[0], order[-1])))
    why = f"clearly so in {len(clear)} of {len(known)}, clearly the contrary in {len(contrary)}; from least to most, {ends}"
    why += f"; up to {hidden(known):.4f} of the contrary could be hidden" if hidden else ""
    return (CONFIRMED if verdict(len(clear), len(contrary), known) else NOT_CONFIRMED), why


def everywhere(differences: Mapping[str, Interval]) -> tuple[str, str]:
    """Each is clearly above 0."""
    return _judged(differences, lambda clear, contrary, known: clear == len(known))


def mostly(differences: Mapping[str, Interval]) -> tuple[str, str]:
    """More than half are clearly above 0, and none clearly below."""
    return _judged(differences, lambda clear, contrary, known: 2 * clear > len(known) and not contrary)


def never_below(differences: Mapping[str, Interval]) -> tuple[str, str]:
    """None is clearly below 0, nor could be by more than `HOLLOW`."""
    hidden = lambda known: max(0.0, *(-d.low for d in known.values()))
    return _judged(differences, lambda _, contrary, known: not contrary and hidden(known) <= HOLLOW, hidden)


def alike(differences: Mapping[str, Interval]) -> tuple[str, str]:
    """None is clearly on either side of 0, nor could be by more than `HOLLOW`."""
    hidden = lambda known: max(max(abs(d.low), abs(d.high)) for d in known.values())
    verdict, why = _judged(
        differences, lambda clear, contrary, known: not clear and not contrary and hidden(known) <= HOLLOW
    )
    known = {name: d for name, d in differences.items() if np.isfinite(d).all()}
    if not known:
        return verdict, why
    told = sum(d.low > 0 or d.high < 0 for d in known.values())
    widest = max(known, key=lambda n: abs(known[n].value))
    return verdict, (
        f"told apart in {told} of {len(known)}; the largest, {widest}: {signed(known[widest])}; a difference of up to "
        f"{hidden(known):.4f} could be hidden"
    )


def both(parts: Mapping[str, tuple[str, str]]) -> tuple[str, str]:
    """A claim of several parts, each by its name: confirmed if all are, and tested if all are."""
    if untested := [judged for judged in parts.values() if judged[0] == NOT_TESTED]:
        return untested[0]
    verdict = CONFIRMED if {verdict for verdict, _ in parts.values()} == {CONFIRMED} else NOT_CONFIRMED
    return verdict, ". ".join(f"{name}: {why}" for name, (_, why) in parts.items())


# --- The claims ---------------------------------------------------------------------------------------------------------


def claims(study: Study) -> Iterator[Claim]:
    """All that one experiment can be asked, in the order of their names."""
    make = lambda name, text, judged, differences: Claim(name, text, study.name, *judged, differences)
    for varied in ("rho", "mu"):
        steps, ends = study.falls(varied)
        judged = both({"From the first to the last": everywhere(ends), "From each to the next": never_below(steps)})
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
    why = "arms keep outputs on test images alone; what training logs is under dropout and of each method's own mix"
    yield make("B7", "oversampling does not widen the gap between training and test", (NOT_TESTED, why), {})
    if study.linear:
        yield from _linear(study, make)
    why = "no arm samples partially: sampling.policy over- and undersamples to equal classes"
    yield make("B9", "oversample fully; the best undersampling is partial and depends on mu", (NOT_TESTED, why), {})
    yield from _traps(study, make)


def _undersampling(study, make):
    at = {p: Network(UNDER, p) for p in study.points}
    pairs = [(p, q) for p in study.points for q in study.points if p.rho == q.rho and p.mu < q.mu]
    found = {f"rho={p.rho:g}, mu={q.mu:g} less {p.mu:g}": study.difference(at[q], at[p]) for p, q in pairs}
    found = {name: d for name, d in found.items() if d is not None}
    yield make("B4, mu", "at a fixed rho, undersampling's AUC does not depend on mu", alike(found), found)
    found = study.methods(BASELINE, UNDER)
    yield make("B4, baseline", "undersampling is often below the baseline (AUC)", mostly(found), found)
    extreme = label(max(study.points, key=lambda p: (p.mu, p.rho)))
    found = study.methods(OVER, UNDER)
    rest, last = ({n: d for n, d in found.items() if (n == extreme) is side} for side in (False, True))
    judged = both({"Oversampling is better elsewhere": everywhere(rest), "And there they are alike": alike(last)})
    yield make("B4, ties", "undersampling ties with oversampling only at high mu and extreme rho (AUC)", judged, found)


def _inside(study: Study, point: Imbalance, method: str, of: str) -> Interval | None:
    """How far a method's AUC is inside of those of the baseline and of `of`: above the lower one, or below the higher one,
    whichever is less; below 0 outside of them.

    An interval lies below 0 only where both differences lie on one side of 0.
    """
    ends = [study.difference(Network(method, point), Network(other, point)) for other in (BASELINE, of)]
    if None in ends:
        return None
    above = Interval(*(max(values) for values in zip(*ends, strict=True)))  # not below both
    below = Interval(*(max(values) for values in zip(*map(less, ends), strict=True)))  # not above both
    return Interval(*(min(values) for values in zip(above, below, strict=True)))


def _thresholding(study, make):
    gain = lambda method, sign: study.at_points(
        lambda p: sign(study.difference(Network(method, p, DIVIDED), Network(method, p), ACCURACY))
    )
    same, turned = (lambda d: d), (lambda d: d and less(d))
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


def _linear(study, make):
    last = study.linear[-1]
    drop = study.difference(Network(BASELINE, BALANCED), Network(BASELINE, last))
    found = {label(last): drop} if drop else {}
    judged = everywhere({n: Interval(BARELY - d.value, BARELY - d.high, BARELY - d.low) for n, d in found.items()})
    told = (
        f"it costs {signed(drop)} of AUC; barely is less than {BARELY:g}" if drop and np.isfinite(drop).all() else judged[1]
    )
    yield make("B8, linear", f"linear imbalance (here rho={last.rho:g}) barely hurts", (judged[0], told), found)
    for step in (p for p in study.points if (p.mu, p.rho) == (0.5, last.rho)):
        more = study.difference(Network(BASELINE, last), Network(BASELINE, step))
        found = {label(step): more} if more and drop else {}
        twice = {n: Interval(*(x - max(drop.value, 0.0) for x in d)) for n, d in found.items()}
        verdict, why = everywhere(twice)
        why = f"it costs {signed(more)} more; far more is twice as much" if verdict != NOT_TESTED else why
        yield make("B8, step", "step imbalance of as many images in all hurts far more (AUC)", (verdict, why), found)


def _traps(study, make):
    effect = lambda outputs: study.at_points(
        lambda p: study.difference(Network(BASELINE, p, outputs), Network(BASELINE, p), AUC)
    )
    plain, again = effect(DIVIDED), effect(RENORMALISED)
    text = "dividing outputs by priors leaves one-vs-rest AUC as it is, unless they are made to sum to 1 again"
    yield make("trap a", text, _unchanged(plain, again), again)
    for of in (OVER, UNDER):
        found = study.at_points(
            lambda p, of=of: study.difference(Network(of, p), Network(of, p, DIVIDED), CORRECTED, ACCURACY)
        )
        text = f"after {of} the original priors over-correct: the effective ones give a higher balanced accuracy"
        yield make(f"trap b, {of}", text, mostly(found), found)


def _unchanged(plain, again):
    if not plain:
        return NOT_TESTED, "its arms are not there"
    exact, changed = not any(d.value for d in plain.values()), [n for n, d in again.items() if d.value]
    clear = sum(d.low > 0 or d.high < 0 for d in again.values())
    most = max(again, key=lambda n: abs(again[n].value))
    return CONFIRMED if exact and changed else NOT_CONFIRMED, (
        f"divided: {'exactly as it was' if exact else 'another AUC'} in {len(plain)}; made to sum to 1 again: another AUC "
        f"in {len(changed)} of {len(again)}, clearly in {clear}, most at {most}: {signed(again[most])}"
    )


def scale(mnist: Study, cifar10: Study) -> Claim:
    """B2: how much larger rho must be on MNIST for the same loss of AUC.

    At each mu that both have, what CIFAR-10 loses at rho less what MNIST loses at the largest multiple of it: where that is
    above 0 everywhere, MNIST needs more than that multiple.
    """
    text = "the same loss of AUC needs about 100 times as large a rho on MNIST as on CIFAR-10"
    lost = lambda study, p: study.difference(Network(BASELINE, BALANCED), Network(BASELINE, p))
    found, verdicts = {}, {}
    for times in (10, 100):
        of = {}
        for p in cifar10.points:
            other = next((q for q in mnist.points if (q.mu, q.rho) == (p.mu, p.rho * times)), None)
            losses = (lost(cifar10, p), lost(mnist, other)) if other else (None, None)
            if None not in losses:
                of[f"mu={p.mu:g}, CIFAR-10 at rho={p.rho:g} less MNIST at {other.rho:g}"] = independent(*losses)
        verdicts[times], found = everywhere(of), found | of
    (ten, why), (hundred, why_hundred) = verdicts[10], verdicts[100]
    why = f"CIFAR-10 loses more than MNIST at 10 times its rho: {why}. At 100 times: {why_hundred}"
    if ten == NOT_TESTED:
        return Claim("B2", text, "both", NOT_TESTED, verdicts[10][1], found)
    bound = "more than 100 times are needed" if hundred == CONFIRMED else "whether 100 times are enough is left open"
    if ten == CONFIRMED:
        why = f"more than 10 times are needed, {bound}; no upper bound is tested. {why}"
    return Claim("B2", text, "both", ten, why, found)
