"""The summary of a run in three sentences, derived from the content of `metrics.json`. Plain text."""

from collections.abc import Iterator, Mapping
from typing import Any

from openset_jax.openset.losses import objectives
from openset_jax.report.formatting import Number, format_number, format_share, title

_ROUNDING = 1e-9  # shares of whole images that are equal may differ by this much


def summary(result: Mapping[str, Any]) -> list[str]:
    """Returns three sentences: on known images, on "none", and on the prediction of the threshold and other scores."""
    point = result["operating_point"]
    in_use = objectives.get(result["objective"]).score.__name__
    scores = {name: row for name, row in (result.get("scores") or {}).items() if name != in_use}  # listed as "own"
    last = [_promise(point), *_best_score(scores)]
    return [_knowns(point), _none(point["rejected"]), "; ".join(last) + "."]


def _knowns(point: Mapping[str, Any]) -> str:
    if point["known_recall"] is None:
        return "There are no test images of known classes, so the accuracy on them was not measured."
    if len(point["prior"]) == 2:  # one known class, and "none"
        return f"Of the test images of the known class, {format_share(point['known_recall'])} are accepted."
    return (
        f"Of the test images of known classes, {format_share(point['known_accuracy'])} are accepted with the right class; "
        f"{format_share(point['known_recall'])} are accepted in all."
    )


def _none(rejected: Mapping[str, Number | None]) -> str:
    measured = [f"{format_share(number)} of {title(kind)}" for kind, number in rejected.items() if number]
    absent = [title(kind) for kind, number in rejected.items() if not number]
    missing = f"there are no test images of {' or '.join(absent)}"
    if not measured:
        return f'The share answered "none" was not measured: {missing}.'
    note = " (kinds that were never trained on)" if rejected.get("unseen_unknowns") else ""
    return f'Answered "none": {" and ".join(measured)}{note}{"; " + missing if absent else ""}.'


def _promise(point: Mapping[str, Any]) -> str:
    promised, side = point["promised"], "known images"
    accepted = point["known_recall"] and point["known_recall"]["value"]
    if point["rule"] == "accept_negatives":
        side, seen = title("seen_negatives"), point["rejected"].get("seen_negatives")
        accepted = seen and 1 - seen["value"]
    if point["rule"] == "least_cost":
        return "The threshold has the least expected cost on validation images; this rule has no target share"
    if promised is None or accepted is None:
        return "There is no prediction interval for these test images"
    kept = promised["low"] - _ROUNDING <= accepted <= promised["high"] + _ROUNDING
    verdict = "within" if kept else "above" if accepted > promised["high"] else "below"
    between = f"{100 * promised['low']:.1f} to {100 * promised['high']:.1f} %"
    return f"Accepted {side}: {100 * accepted:.1f} %, {verdict} the 95 % prediction interval of the threshold, {between}"


def _best_score(scores: Mapping[str, Any]) -> Iterator[str]:
    """Compares the best other score with the one in use, on the hardest kind that has test images.

    "Clearly better": the intervals do not overlap.
    """
    own_row = scores.get("own")
    for kind in ("unseen_unknowns", "seen_negatives"):
        if own := auroc(own_row, kind):
            break
    else:
        return
    others = {name: found for name, row in scores.items() if name != "own" and (found := auroc(row, kind))}
    if not others:
        return
    name, best = max(others.items(), key=lambda item: item[1]["value"])
    numbers = f"AUROC {format_number(best)} against {format_number(own)}"
    if best["low"] > own["high"]:
        yield f"the score {name} separates {title(kind)} from known images clearly better than the score in use ({numbers})"
    else:
        which = f"the best of {len(others)} other scores" if len(others) > 1 else "the other score"
        yield f"{which}, {name}, is not clearly better at separating {title(kind)} from known images ({numbers})"


def auroc(row: Mapping[str, Any] | None, kind: str) -> Number | None:
    """Returns the AUROC of a score against one kind, from its row of `scores`; None if it was not measured."""
    return ((row or {}).get(kind) or {}).get("auroc")
