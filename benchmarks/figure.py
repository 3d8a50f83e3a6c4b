"""Images per second of every benchmark, ours beside the other, as one picture."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

OURS, PEER = "#1b6ca8", "#e07b39"


def draw(path: pathlib.Path, rows: Sequence[Mapping[str, Any]], title: str) -> None:
    """Horizontal bars on a logarithmic axis; whiskers reach from the slowest to the fastest round.

    Args:
      rows: from top to bottom: "name", "ours" and "other" (summaries of images/s, "other" may be None), "other_name".
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(9, 1.3 + 0.62 * len(rows)), layout="constrained")
    everything = [row[side] for row in rows for side in ("ours", "other") if row[side]]
    low, high = min(v["min"] for v in everything), max(v["max"] for v in everything)
    axes.set_xscale("log")
    axes.set_xlim(low / 3, high * 6)
    for i, row in enumerate(rows):
        sides = [("ours", OURS, -0.19 if row["other"] else 0.0), ("other", PEER, 0.19)]
        for side, colour, shift in sides:
            if not (values := row[side]):
                continue
            median = values["median"]
            axes.barh(i + shift, median, height=0.36, color=colour)
            whiskers = [[median - values["min"]], [values["max"] - median]]
            axes.errorbar(median, i + shift, xerr=whiskers, color="black", capsize=2.5, linewidth=1)
            text = f"{median:,.0f}" if median >= 100 else f"{median:,.1f}"
            if side == "other":
                text += f"  {row['other_name']}"
            elif row["other"]:
                text += f"  (x {median / row['other']['median']:.2f})"
            axes.text(values["max"] * 1.08, i + shift, text, va="center", fontsize=8)
    axes.set_yticks(range(len(rows)), [row["name"] for row in rows], fontsize=9)
    axes.invert_yaxis()
    axes.set_xlabel("images per second (logarithmic); whiskers: slowest and fastest round")
    axes.set_title(title, fontsize=10, loc="left")
    axes.grid(axis="x", which="major", alpha=0.3)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    handles = [plt.Rectangle((0, 0), 1, 1, color=c) for c in (OURS, PEER)]
    axes.legend(handles, ["openset_jax", "what it is compared with"], fontsize=8, loc="lower right")
    figure.savefig(path, dpi=150)
    plt.close(figure)
