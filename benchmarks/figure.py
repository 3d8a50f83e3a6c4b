"""The figure of the suite: images per second of every benchmark, ours and the other's."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

OURS, OTHER = "#1b6ca8", "#e07b39"


def draw(path: pathlib.Path, rows: Sequence[Mapping[str, Any]], title: str) -> None:
    """Draws points on a logarithmic axis, ours above the other's; whiskers reach from the slowest to the fastest round.

    Args:
      path: of the file.
      rows: from top to bottom: "name" (the part after its first colon is on a second line), "ours" and "other" (summaries of
        images/s; "other" may be None), "other_name".
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(10, 1.6 + 0.68 * len(rows)), layout="constrained")
    everything = [row[side] for row in rows for side in ("ours", "other") if row[side]]
    low, high = min(v["min"] for v in everything), max(v["max"] for v in everything)
    axes.set_xscale("log")
    axes.set_xlim(low / 1.6, high * (high / low) ** 0.35 * 4)  # room for the text on the right
    for i, row in enumerate(rows):
        if i % 2:
            axes.axhspan(i - 0.5, i + 0.5, color="black", alpha=0.04, linewidth=0)
        for side, colour, shift in (("ours", OURS, -0.19 if row["other"] else 0.0), ("other", OTHER, 0.19)):
            if not (values := row[side]):
                continue
            median = values["median"]
            whiskers = [[median - values["min"]], [values["max"] - median]]
            axes.errorbar(median, i + shift, xerr=whiskers, fmt="o", color=colour, markersize=7, capsize=3, linewidth=1.5)
            text = f"{median:,.0f}" if median >= 100 else f"{median:,.1f}"
            if side == "ours" and row["other"]:
                text += f"   x {median / row['other']['median']:.2f}"
            elif side == "other":
                text += f"   {row['other_name']}"
            axes.annotate(
                text, (values["max"], i + shift), (9, 0), textcoords="offset points", va="center", fontsize=8.5,
                color=colour, fontweight="bold" if side == "ours" else "normal",
            )  # fmt: skip
    axes.set_yticks(range(len(rows)), [row["name"].replace(": ", "\n", 1) for row in rows], fontsize=8.5)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel("images per second, logarithmic: median, slowest and fastest round")
    axes.grid(axis="x", which="major", alpha=0.3)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_major_formatter(lambda x, _: f"{x:,.0f}" if x >= 1 else f"{x:g}")
    points = [plt.Line2D([], [], color=c, marker="o", linestyle="none", markersize=7) for c in (OURS, OTHER)]
    figure.legend(points, ["openset_jax", "the other side"], fontsize=9, loc="outside upper right", ncols=2)
    figure.suptitle(title, fontsize=11, x=0.01, ha="left")
    figure.savefig(path, dpi=150)
    plt.close(figure)
