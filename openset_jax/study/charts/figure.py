"""figure.png: the charts of an experiment in one image, drawn with matplotlib."""

import io
import pathlib
import textwrap
import warnings
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure, SubFigure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from PIL import Image

from openset_jax.files import write_whole
from openset_jax.report.figures import OKABE_ITO
from openset_jax.study.charts import chart_data
from openset_jax.study.charts.chart_data import Chart, Line, Panel
from openset_jax.study.charts.chart_layout import GREY, Tick
from openset_jax.study.stats.analysis import Analysis
from openset_jax.study.stats.arm_outcome import DECISIONS

_DASHES = {"": "-", "argmax": "-", "prior": "--", "rule": ":"}
_MARKERS = {"": "o", "argmax": "o", "prior": "^", "rule": "s"}
_WIDTH, _ROW, _LOW_ROW, _DPI = 15.0, 3.85, 2.7, 100  # inches; rows are lower if there are several charts
_COLOURS = 80  # of the PNG's palette, besides those of the lines
_NAMED = 6  # names listed at most as "Not drawn"
_LONGEST = 38  # maximum length of a slanted name
_STYLE: dict[Any, Any] = {  # keys are literals of matplotlib
    "text.parse_math": False,  # names may contain dollar signs
    "font.family": "DejaVu Sans", "font.size": 10,
    "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": "#999999",
    "axes.titlesize": 11, "axes.titleweight": "bold", "axes.titlelocation": "left",
    "text.color": "#222222", "axes.labelcolor": "#222222", "xtick.color": "#444444", "ytick.color": "#444444",
}  # fmt: skip


def write_figure(analysis: Analysis, path: pathlib.Path) -> None:
    """Writes all charts, one above the other, as a PNG; equal arms give equal bytes."""
    buffer = io.BytesIO()
    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # names in scripts that the font lacks
        _figure(analysis, chart_data.charts(analysis)).savefig(buffer, format="png", metadata={"Software": None})
    picture = _with_few_colours(Image.open(buffer).convert("RGB"))
    with write_whole(path, "wb") as file:
        picture.save(file, format="PNG", optimize=True)


def _with_few_colours(picture: Image.Image) -> Image.Image:
    """Returns the picture with a palette of its main colours and the exact colours of the lines: a third of the bytes."""
    common = (picture.quantize(_COLOURS, dither=Image.Dither.NONE).getpalette() or [])[: 3 * _COLOURS]
    exact = [int(name[i : i + 2], 16) for name in ("#ffffff", *OKABE_ITO, GREY) for i in (1, 3, 5)]
    palette = np.reshape([*exact, *common], (-1, 3))
    pixels = np.asarray(picture, np.int32) @ [1 << 16, 1 << 8, 1]
    packed, inverse = np.unique(pixels, return_inverse=True)
    colours = packed[:, None] >> [16, 8, 0] & 255
    nearest = ((colours[:, None] - palette) ** 2).sum(-1).argmin(1)
    few = Image.fromarray(nearest[inverse].reshape(pixels.shape).astype(np.uint8), "L")
    few.putpalette(palette.ravel().tolist())
    return few


def _figure(analysis: Analysis, charts: Sequence[Chart]) -> Figure:
    row = _ROW if len(charts) == 1 else _LOW_ROW
    heights = [row * len(chart.rows) + 0.5 + _room(chart) for chart in charts]
    engine = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.08)
    figure = Figure(figsize=(_WIDTH, max(2.0, sum(heights) + 0.7)), dpi=_DPI, layout=engine)
    FigureCanvasAgg(figure)
    if charts:
        parts = figure.subfigures(len(charts), 1, height_ratios=heights, squeeze=False)[:, 0]
        for part, chart in zip(parts, charts, strict=True):
            _draw(part, chart)
    text = f"{chart_data.seeds_text(analysis)} of each treatment; {chart_data.bands_text(analysis)}."
    text = f"Higher is better. {text}" if charts else "No arm is finished."
    figure.suptitle(text, x=0.008, ha="left", fontsize=12)
    return figure


def _room(chart: Chart) -> float:
    """Returns the height in inches of the text below the panels."""
    long = max(len(tick.text) for tick in chart.layout.ticks) > 28
    return ((1.4 if long else 0.9) if _slanted(chart) else 0.0) * len(chart.rows) + 0.2 * len(_left_out(chart).splitlines())


def _left_out(chart: Chart) -> str:
    names = [_text(name, 60) for name in chart.layout.left_out]
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return textwrap.fill("Not drawn: " + "; ".join(names[:_NAMED]) + more, 150) if names else ""


def _text(name: str, most: int = 120) -> str:
    """Returns a name of printable characters, shortened to `most` characters."""
    name = " ".join(name.encode("utf-8", "replace").decode("utf-8").split())
    name = "".join(c if c.isprintable() else "?" for c in name)
    return name if len(name) <= most else name[: most - 1] + "…"


def _ends(name: str) -> str:
    """Returns a name; a long one without its middle, since long names differ at the end."""
    name = _text(name)
    return name if len(name) <= _LONGEST else f"{name[:4]}…{name[5 - _LONGEST :]}"


def _draw(part: SubFigure, chart: Chart) -> None:
    columns = max(map(len, chart.rows))
    beside = len(chart.rows[-1]) == columns  # the grid has no free cell, so the legend gets its own column
    widths = [1.0] * columns + [(0.36 if _slanted(chart) else 0.28) * columns] * beside
    axes = part.subplots(len(chart.rows), len(widths), squeeze=False, width_ratios=widths)
    for row, panels in zip(axes, chart.rows, strict=True):
        for ax, panel in zip(row, panels, strict=False):
            _panel(ax, panel, chart)
        for ax in row[len(panels) :]:
            ax.set_axis_off()
    corner = axes[0 if beside else -1, -1]
    legend = corner.legend(handles=_legend(chart), loc="upper left", frameon=False, fontsize=9.5, borderaxespad=0)
    legend.set_in_layout(False)
    part.supxlabel("\n".join(filter(None, [_text(chart.layout.axis), _left_out(chart)])), fontsize=10.5)


def _panel(ax: Axes, panel: Panel, chart: Chart) -> None:
    ax.set_title(_text(panel.title))
    ax.grid(axis="y", color="#e5e5e5", linewidth=0.8)
    ax.set_axisbelow(True)
    for line in panel.lines:
        _line(ax, line)
    places = [tick.place for tick in chart.layout.ticks]
    slant: dict[str, Any] = {"rotation": 35 if len(places) <= 5 else 60, "ha": "right", "rotation_mode": "anchor"}
    names = [_tick(tick, len(places)) for tick in chart.layout.ticks]
    ax.set_xticks(places, names, fontsize=9, **(slant if _slanted(chart) else {}))
    edge = 0.06 * (places[-1] - places[0]) if chart.layout.is_sweep else 0.6
    ax.set_xlim(places[0] - edge, places[-1] + edge)
    ax.margins(y=0.08)
    low, high = ax.get_ylim()
    ax.set_ylim(max(low, -0.02), min(high, 1 + 0.04 * (1 - low)))
    if chart.layout.gap is not None:
        look: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 9, "color": "#777777"}
        look |= {"bbox": {"fc": "white", "ec": "none", "pad": 1}}
        ax.text(chart.layout.gap, 0, "//", transform=ax.get_xaxis_transform(), **look)


def _tick(tick: Tick, among: int) -> str:
    lines = textwrap.wrap(_text(tick.text), 24, max_lines=2, placeholder="…") if among <= 8 else [_ends(tick.text)]
    return "\n".join(filter(None, [*lines, tick.below]))


def _slanted(chart: Chart) -> bool:
    longest = max(len(tick.text) for tick in chart.layout.ticks)
    return not chart.layout.is_sweep and longest * len(chart.layout.ticks) > 130 / max(map(len, chart.rows))


def _line(ax: Axes, line: Line) -> None:
    colour = line.row.colour
    x, y = [p.place for p in line.points], [p.mean.value for p in line.points]
    low, high = np.array([p.mean[1:] for p in line.points]).T
    look: dict[str, Any] = {"color": colour, "marker": _MARKERS[line.decision], "markersize": 5.5, "zorder": 3}
    look |= {"linestyle": _DASHES[line.decision], "linewidth": 1.8, "markeredgecolor": "white", "markeredgewidth": 0.7}
    joined = line.row.joined and len(x) > 1
    if joined and np.isfinite(low).all():
        ax.fill_between(x, low, high, color=colour, alpha=0.13, linewidth=0)
    else:
        bar: dict[str, Any] = {"color": colour, "linewidth": 1.3, "alpha": 0.75, "zorder": 2, "solid_capstyle": "butt"}
        for point in (p for p in line.points if np.isfinite(p.mean.low)):
            ax.plot([point.place] * 2, point.mean[1:], **bar)
    if not joined:
        look |= {"linestyle": "none", "markersize": 6.5}
    if line.row.palette is None:
        look |= {"marker": "D", "markeredgecolor": colour, "markerfacecolor": colour}
        if line.decision == "rule":
            look |= {"markerfacecolor": "white"}
        else:
            ax.axhline(y[0], color=colour, linewidth=0.9, linestyle=(0, (1, 3)), zorder=1)
    ax.plot(x, y, **look)
    if line.start is not None:
        to = ([line.start.place, x[0]], [line.start.mean.value, y[0]])
        ax.plot(*to, color=colour, linewidth=1, linestyle=(0, (2, 2)), alpha=0.7, zorder=2)
    dots = [(p.place, value) for p in line.points for value in p.seeds.values() if len(p.seeds) > 1]
    if dots:
        places, values = zip(*dots, strict=True)
        ax.scatter(places, values, s=9, color=colour, alpha=0.5, linewidths=0, zorder=2)


def _legend(chart: Chart) -> list[Line2D]:
    lines = [line for panel in chart.panels for line in panel.lines]
    handles: dict[tuple[str, int | None], Line2D] = {}  # (label, palette) -> handle
    wrapped = lambda text: "\n".join(textwrap.wrap(_text(text), 38))
    for line in [line for line in lines if line.row.label]:
        row, label = line.row, line.row.label
        joined = row.joined and any(len(other.points) > 1 for other in lines if other.row.label == label)
        look: dict[str, Any] = {"color": row.colour, "linestyle": "-" if joined else "none"}
        look |= {"marker": "D" if row.palette is None else "o"}
        if row.palette is None and line.decision == "rule":
            label, look = f"{label}, by the threshold", look | {"markerfacecolor": "white"}
        handles.setdefault((label, row.palette), Line2D([], [], label=wrapped(label), linewidth=1.8, **look))
    by_decision = []
    for decision in [name for name in DECISIONS if any(line.decision == name for line in lines)]:
        look = {"linestyle": _DASHES[decision] if any(line.row.joined for line in lines) else "none"}
        look |= {"marker": _MARKERS[decision], "label": wrapped(f"by {DECISIONS[decision]}")}
        by_decision.append(Line2D([], [], color="#222222", linewidth=1.5, markersize=5, **look))
    return [*handles.values(), *by_decision]
