"""The answer in three sentences, each derived from the numbers. Plain text; pure functions of `metrics.json`."""

from collections.abc import Iterator
from typing import Any

from openset_jax.openset.losses import objectives

TITLES = {"seen_negatives": "seen negatives", "unseen_unknowns": "unseen unknowns"}


def title(kind: str) -> str:
    """What people call a kind of "none of these"."""
    return TITLES.get(kind, kind.replace("_", " "))


def share(number: dict[str, float] | None) -> str:
    """A share and its interval, as "95.2 % (94.1 to 96.0 %)"; "-" for None."""
    if number is None:
        return "-"
    return f"{100 * number['value']:.1f} % ({100 * number['low']:.1f} to {100 * number['high']:.1f} %)"


def plain(number: dict[str, float] | None) -> str:
    """A number and its interval, as "0.952 (0.941 to 0.960)"; "-" for None."""
    return "-" if number is None else f"{number['value']:.3f} ({number['low']:.3f} to {number['high']:.3f})"


def answer(result: dict[str, Any]) -> list[str]:
    """Three sentences: how knowns fare, how the rest does, and whether promise and score are as good as they could be.

    Args:
      result: the content of `metrics.json`.
    """
    point = result["operating_point"]
    in_use = objectives.get(result["objective"]).score
    others = {name: row for name, row in (result.get("scores") or {}).items() if name != in_use}  # which is "own"
    last = [_promise(point), *_better_score(others)]
    return [_knowns(point), _rejected(point["rejected"]), "; ".join(last) + "."]


def _knowns(point):
    if point["known_recall"] is None:
        return "There are no test images of known classes, so that nothing says how these are named."
    return (
        f"Of the test images of known classes {share(point['known_accuracy'])} are accepted and given the right class; "
        f"{share(point['known_recall'])} are accepted at all."
    )


def _rejected(rejected):
    there = [f"{share(number)} of {title(kind)}" for kind, number in rejected.items() if number]
    absent = [title(kind) for kind, number in rejected.items() if not number]
    missing = f"there are no test images of {' or '.join(absent)}, so that nothing says how many would be"
    if not there:
        return f'How many are answered "none" is not known: {missing.partition(",")[0]}.'
    note = ", which are of kinds that training never saw" if rejected.get("unseen_unknowns") else ""
    return f'Answered "none": {" and ".join(there)}{note}{"; " + missing if absent else ""}.'


def _promise(point):
    promised, side = point["promised"], "known images"
    accepted = point["known_recall"] and point["known_recall"]["value"]
    if point["rule"] == "accept_negatives":
        side, seen = title("seen_negatives"), point["rejected"].get("seen_negatives")
        accepted = seen and 1 - seen["value"]
    if point["rule"] == "least_cost":
        return "The threshold is the one of least expected cost on validation images, which promises no share"
    if promised is None or accepted is None:
        return "The validation images allow no promise about these test images"
    slack = 1e-9  # both are shares of whole images
    kept = promised["low"] - slack <= accepted <= promised["high"] + slack
    judged = "the promise was kept" if kept else f"{'more' if accepted > promised['high'] else 'fewer'} than promised"
    between = f"{100 * promised['low']:.1f} to {100 * promised['high']:.1f} %"
    return f"Validation promised that {between} of {side} would be accepted, and {100 * accepted:.1f} % were: {judged}"


def _better_score(scores: dict[str, Any]) -> Iterator[str]:
    """Whether another score tells the hardest kind that there is from knowns better, beyond both intervals."""
    own = scores.get("own") or {}
    kind = next((kind for kind in ("unseen_unknowns", "seen_negatives") if auroc(own, kind)), None)
    others = {name: auroc(row, kind) for name, row in scores.items() if name != "own" and auroc(row, kind)}
    if kind is None or not others:
        return
    mine = auroc(own, kind)
    name, best = max(others.items(), key=lambda item: item[1]["value"])
    if best["low"] > mine["high"]:
        yield (
            f"the score {name} tells {title(kind)} from knowns better than the one in use (AUROC {plain(best)} against "
            f"{plain(mine)})"
        )
    else:
        of_all = f"of {len(others)} other scores the best," if len(others) > 1 else "the other score,"
        yield (
            f"{of_all} {name}, does not tell {title(kind)} from knowns better beyond the intervals (AUROC {plain(best)} "
            f"against {plain(mine)})"
        )


def auroc(row: dict[str, Any] | None, kind: str | None) -> dict[str, float] | None:
    """AUROC of one score against one kind; None where it was not measured."""
    return ((row or {}).get(kind) or {}).get("auroc")
