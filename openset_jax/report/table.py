"""What a run prints: which images there are, what is drawn from them, the parameters, and how well it did."""

from collections.abc import Sequence
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
    known, open_set, counts = result["known"], result["open_set"], result["counts"]
    lines = [
        f"Test images, at step {result['step']}"
        + (f" ({counts['skipped']} unreadable, left out)" if counts["skipped"] else ""),
        columns(
            [
                ["known classes", "images", "accuracy", "accuracy with none", "rejected at argmax"],
                [
                    "all",
                    sum(counts["known"].values()),
                    known["accuracy"],
                    known["accuracy_with_none"],
                    known["rejected_at_argmax"],
                ],
                *([name, counts["known"][name], None, recall, None] for name, recall in known["recall"].items()),
            ]
        ),
        columns([["none of these", "images", "AUROC", "rejected at argmax"], *_none_rows(counts, open_set)]),
        '  Rejected at argmax: answered "none". AUROC: P(the image looks more like "none" than a known image does).',
        *_confusion(result["confusion"]),
    ]
    return "\n".join(lines)


def _confusion(confusion):
    if len(confusion["columns"]) > 2 * _SHOWN:
        return ["The confusion matrix is in metrics.json."]
    rows = zip(confusion["rows"], confusion["counts"], strict=True)
    table = columns([["", *confusion["columns"]], *([name, *row] for name, row in rows)])
    return ["Confusion (rows: truth, columns: answer)", table]


def _none_rows(counts, open_set):
    for kind, title in (("seen_negatives", "seen negatives"), ("unseen_unknowns", "unseen unknowns")):
        total = sum(counts[kind].values())
        yield [title, total, open_set[kind]["auroc"], open_set[kind]["rejected_at_argmax"]]
        for name, count in list(counts[kind].items())[:_SHOWN]:
            row = open_set["by_group"][name]
            yield [f"  {name}", count, row["auroc"], row["rejected_at_argmax"]]
