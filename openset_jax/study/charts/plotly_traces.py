"""The charts of an experiment as Plotly traces and layouts: plain dicts, without importing Plotly.

Plotly reads tags in text as HTML, so every name that a user chose is escaped.
"""

import html
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from openset_jax.report.figures import faint, figure
from openset_jax.report.formatting import format_number
from openset_jax.study.charts.chart_data import Chart, Line, Panel, Point
from openset_jax.study.stats.arm_outcome import DECISIONS

_DASHES = {"": "solid", "argmax": "solid", "prior": "dash", "rule": "dot"}
_SYMBOLS = {"": "circle", "argmax": "circle", "prior": "triangle-up", "rule": "square"}


def panel_figure(chart: Chart, panel: Panel) -> dict[str, Any]:
    """Returns {"data": traces, "layout": layout}; the `meta` of a trace is the index of its row in the chart's layout."""
    ticks, rows = chart.layout.ticks, chart.layout.rows
    edge = 0.06 * (ticks[-1].place - ticks[0].place) if chart.layout.is_sweep else 0.6
    ends = [ticks[0].place - edge, ticks[-1].place + edge]
    traces = [trace | {"meta": rows.index(line.row)} for line in panel.lines for trace in _traces(line, ends)]
    named = ["<br>".join(filter(None, [_text(_brief(tick.text)), tick.below])) for tick in ticks]
    xaxis = {"range": ends, "tickvals": [tick.place for tick in ticks], "ticktext": named, "showgrid": False}
    fits = chart.layout.is_sweep or sum(len(tick.text) for tick in ticks) < 30
    xaxis |= {"tickangle": 0 if fits else -40, "tickfont": {"size": 10 if chart.layout.is_sweep else 11}}
    below = textwrap.wrap(chart.layout.axis, 38) if chart.layout.is_sweep else []  # else it is the chart's heading
    xaxis |= {"title": {"text": "<br>".join(map(_text, below)), "font": {"size": 12}}}
    made = figure(traces, "", "", xaxis=xaxis)
    made["layout"] |= {"showlegend": False, "height": 340 if fits else 420, "margin": {"l": 52, "r": 12, "t": 36, "b": 48}}
    made["layout"]["title"] = {"text": f"<b>{_text(panel.title)}</b>", "font": {"size": 14}, "x": 0.01, "xanchor": "left"}
    if chart.layout.gap is not None:
        mark = {"x": chart.layout.gap, "y": 0, "yref": "paper", "text": "//", "showarrow": False, "bgcolor": "white"}
        made["layout"]["annotations"] = [mark | {"yanchor": "middle", "borderpad": 0}]
    return made


def _brief(name: str) -> str:
    return name if len(name) <= 28 else name[:27] + "…"


def _text(name: str) -> str:
    return html.escape(name.encode("utf-8", "backslashreplace").decode("utf-8"), quote=False)


def _traces(line: Line, ends: Sequence[float]) -> Iterator[dict[str, Any]]:
    colour, without_negatives = line.row.colour, line.row.palette is None
    x, y = [p.place for p in line.points], [p.mean.value for p in line.points]
    has_intervals, joined = all(np.isfinite(p.mean.low) for p in line.points), line.row.joined and len(x) > 1
    faded = {"type": "scatter", "mode": "lines", "hoverinfo": "skip"}
    if joined and has_intervals:
        around = {"x": [*x, *x[::-1]], "y": [*(p.mean.high for p in line.points), *(p.mean.low for p in line.points[::-1])]}
        yield faded | around | {"fill": "toself", "fillcolor": faint(colour, 0.13), "line": {"width": 0}}
    if without_negatives and line.decision != "rule":
        yield faded | {"x": ends, "y": [y[0]] * 2, "line": {"color": colour, "width": 1, "dash": "dot"}}
    if line.start is not None:
        start = {"x": [line.start.place, x[0]], "y": [line.start.mean.value, y[0]]}
        yield faded | start | {"line": {"color": colour, "width": 1, "dash": "dot"}}
    dots = [(p.place, value) for p in line.points for value in p.seeds.values() if len(p.seeds) > 1]
    if dots:
        dot = {"color": colour, "size": 4, "opacity": 0.5}
        yield faded | {"mode": "markers", "x": [d[0] for d in dots], "y": [d[1] for d in dots], "marker": dot}
    symbol = ("diamond-open" if line.decision == "rule" else "diamond") if without_negatives else _SYMBOLS[line.decision]
    made: dict[str, Any] = {"type": "scatter", "mode": "lines+markers" if joined else "markers", "x": x, "y": y}
    marker = {"color": colour, "size": 7 if joined else 9, "symbol": symbol, "line": {"color": colour, "width": 1}}
    made |= {"line": {"color": colour, "width": 2, "dash": _DASHES[line.decision]}, "marker": marker}
    made |= {"text": [_hover(line, point) for point in line.points], "hovertemplate": "%{text}<extra></extra>"}
    yield made if joined and has_intervals else made | {"error_y": _bars(line.points)}


def _bars(points: Sequence[Point]) -> dict[str, Any]:
    """Returns Plotly's error bars; of length 0 with one seed, which has no interval."""
    up, down = [], []
    for value, low, high in (point.mean for point in points):
        up.append(high - value if np.isfinite(high) else 0.0)
        down.append(value - low if np.isfinite(low) else 0.0)
    return {"type": "data", "symmetric": False, "array": up, "arrayminus": down, "thickness": 1.3, "width": 0}


def _hover(line: Line, point: Point) -> str:
    mean, seeds = point.mean, ", ".join(f"{value:.4f}" for value in point.seeds.values())
    number = f"{mean.value:.3f}, one seed" if not np.isfinite(mean.low) else format_number(mean._asdict())
    by = f"by {DECISIONS[line.decision]}" if line.decision else ""
    return "<br>".join(filter(None, [f"<b>{_text(point.treatment.label)}</b>", by, number, f"seeds: {seeds}"]))
