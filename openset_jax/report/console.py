"""What a run prints: which images there are, what is drawn from them, the parameters, and how well it did."""

from collections.abc import Mapping, Sequence
from typing import Any

from openset_jax.data.pools import ROLES, SPLITS, Pool
from openset_jax.data.sampler import Sampler

_SHOWN = 12  # groups of a role listed one by one


def columns(rows: Sequence[Sequence[Any]], *, indent: str = "  ") -> str:
    """Rows of cells as aligned text: the first column to the left, the others to the right."""
    text = [[_cell(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in text) for i in range(len(text[0]))]
    line = lambda row: row[0].ljust(widths[0]) + "".join(f"  {c.rjust(w)}" for c, w in zip(row[1:], widths[1:], strict=True))
    return "\n".join((indent + line(row)).rstrip() for row in text)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, dict):  # a number and its interval
        return f"{value['value']:.4f} ({value['low']:.3f}-{value['high']:.3f})"
    return f"{value:.4f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


def pool_table(pool: Pool) -> str:
    """Images by role, group and split."""
    rows = [["images", *SPLITS]]
    for role, groups in zip(ROLES, pool.counts().values(), strict=True):
        shown = list(groups.items())
        for name, counts in shown[:_SHOWN]:
            rows.append([f"{role}: {name}", *counts.values()])
        if rest := shown[_SHOWN:]:
            rows.append([f"{role}: {len(rest)} more", *(sum(counts[s] for _, counts in rest) for s in SPLITS)])
    return columns(rows)


def sampler_lines(sampler: Sampler, names: Sequence[str], plateau: float) -> str:
    """What training draws: batch, prior, and the loss of a network that learned nothing but that prior."""
    shares = [f"{name} {p:.1%}" for name, p in zip(names, sampler.prior, strict=False)]
    shown = shares if len(shares) <= _SHOWN else [*shares[: _SHOWN - 2], "...", shares[-1]]
    return (
        f"Each batch of {sampler.batch_size}: {', '.join(shown)}. A network that knows only these shares has a loss of "
        f"{plateau:.3f}."
    )


def parameters(params: Any) -> str:
    """Parameters by layer, and their number."""
    from clu import parameter_overview  # here: evaluation does without clu

    return parameter_overview.get_parameter_overview(params, include_stats=False)


def result_table(result: dict[str, Any]) -> str:
    """The content of `metrics.json` for people."""
    known, counts = result["known"], result["counts"]
    lines = [
        f"Test images, at step {result['step']}"
        + (f" ({counts['skipped']} unreadable, left out)" if counts["skipped"] else "")
        + "; in brackets 95 % intervals",
        columns(
            [
                ["known classes", "images", "accuracy"],
                ["all", sum(counts["known"].values()), known["accuracy"]],
                *([name, counts["known"][name], recall] for name, recall in known["recall"].items()),
            ]
        ),
        columns([["none of these", "images", "AUROC", "OSCR", "rejected"], *_none_rows(result)]),
        "  AUROC: P(the image looks more unknown than a known one). OSCR: the same, and the known one's class is right.",
        *_scores(result),
        *_operating_lines(result["operating_point"]),
        *_confusion(result["confusion"]),
    ]
    return "\n".join(lines)


def _scores(result):
    if not result["scores"].keys() - {"own"}:
        return
    best = sorted(result["scores"].items(), key=lambda item: _against_unseen(item[1]), reverse=True)
    auroc = lambda kind: None if kind is None else kind["auroc"]
    yield "Scores of unknownness by AUROC; own is what the threshold is compared with"
    yield columns([["", *(kind.replace("_", " ") for kind in best[0][1])], *([n, *map(auroc, k.values())] for n, k in best)])
    for name, why in result["scores_left_out"].items():
        yield f"  {name}: left out: {why}"


def _against_unseen(kinds):
    """AUROC on unseen unknowns, or on seen negatives where there are none."""
    found = kinds["unseen_unknowns"] or kinds["seen_negatives"]
    return found["auroc"]["value"] if found else 0.0


def _operating_lines(point):
    threshold, rejected = point["threshold"], point["rejected"]
    side = {"keep_knowns": "knowns", "accept_negatives": "negatives"}.get(point["rule"])
    target = "the least expected cost" if side is None else f"{point['rule'].replace('_', ' ')} = {point['target']:g}"
    yield (
        f"Operating point: {target} on {point['validation']['knowns']:,} knowns and {point['validation']['negatives']:,} "
        f"negatives of the validation split; accepted: score <= {float(threshold['value']):.4g} "
        f"({float(threshold['low']):.4g} to {float(threshold['high']):.4g})"
    )
    if point["promised"]:
        promised = point["promised"]
        yield (
            f"  Promised: {promised['low']:.1%} to {promised['high']:.1%} of the test split's {side} accepted (95 % "
            "prediction interval, for images like those of the validation split)."
        )
    cells = [["known recall", point["known_recall"]], ["known accuracy", point["known_accuracy"]]]
    cells += [[f"{kind.replace('_', ' ')} rejected", share] for kind, share in rejected.items()]
    cells += [[f"expected cost, {kind.replace('_', ' ')}", cost] for kind, cost in point["expected_cost"].items()]
    yield columns(cells)


def _confusion(confusion):
    if len(confusion["columns"]) > 2 * _SHOWN:
        return ["The confusion matrix is in metrics.json."]
    rows = zip(confusion["rows"], confusion["counts"], strict=True)
    table = columns([["", *confusion["columns"]], *([name.replace("_", " "), *row] for name, row in rows)])
    return ["Confusion at the operating point (rows: truth, columns: answer)", table]


def _none_rows(result):
    open_set, counts, rejected = result["open_set"], result["counts"], result["operating_point"]["rejected"]
    for kind in ("seen_negatives", "unseen_unknowns"):
        row = open_set[kind]
        yield [kind.replace("_", " "), row["images"], row["auroc"], row.get("oscr"), rejected[kind]]
        for name in list(counts[kind])[:_SHOWN]:
            row = open_set["by_group"][name]
            yield [f"  {name}", row["images"], row["auroc"], row.get("oscr"), None]


def arm_table(arms: Sequence[Any], sizes: Mapping[str, Any], finished: Sequence[Any]) -> str:
    """The arms of an experiment and what each sees, one line for all seeds of a treatment.

    Args:
      arms: `grid.Arm`s.
      sizes: `check.Size` of each, by its name.
      finished: those that are.
    """
    rows = [["arms", "known images", "negatives", "kinds", 'share of "none"', "examples seen", "seeds done"]]
    for treatment in dict.fromkeys(arm.treatment for arm in arms):
        alike = [arm for arm in arms if arm.treatment == treatment]
        size, done = sizes[alike[0].name], sum(arm in finished for arm in alike)
        counts = [size.known, size.negatives, size.groups, f"{size.none:.1%}", size.examples]
        rows.append([treatment.label, *counts, f"{done} of {len(alike)}"])
    return columns(rows)
