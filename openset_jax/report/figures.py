"""The page's figures: Plotly's traces and layouts as plain dicts, so that this module does not import Plotly.

Figures contain no user-defined names, because Plotly interprets some tags in text as HTML. A trace that is updated when
the inputs of the page change has `meta`: {"point": kind}, {"cost": kind} or {"threshold": True}. Arguments named `kinds` map
each kind of "none" to its groups.
"""

from typing import Any

import numpy as np

from openset_jax.openset.decision.calibration import mix_weights
from openset_jax.openset.metrics import calibration_error, intervals, ranking
from openset_jax.openset.scored import Scored
from openset_jax.report.formatting import title

Trace = dict[str, Any]
Figure = dict[str, Any]  # {"data": traces, "layout": ...}

# Okabe and Ito 2008, distinct for colour-blind people; without yellow, which is faint on white
OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
COLOURS = {"known": OKABE_ITO[0], "seen_negatives": OKABE_ITO[4], "unseen_unknowns": OKABE_ITO[2]}
_LINE = "#444444"
_DASHES = {"known": "solid", "seen_negatives": "solid", "unseen_unknowns": "dash"}
_POINTS, _BINS = 500, 60


def of_kind(scored: Scored, kinds: dict[str, list[str]]) -> dict[str, np.ndarray]:
    """Returns masks, bool [n], of the images of "known" and of each kind of "none"; kinds without images are left out."""
    chosen = {"known": scored.label >= 0}
    chosen |= {kind: np.isin(scored.group, groups) & (scored.label < 0) for kind, groups in kinds.items()}
    return {kind: images for kind, images in chosen.items() if images.any()}


def figure(
    traces: list[Trace], x: str, y: str, *, xaxis: dict[str, Any] | None = None, yaxis: dict[str, Any] | None = None
) -> Figure:
    """Returns a figure with the common layout, from the titles `x` and `y` and further properties of the axes."""
    axis = {"gridcolor": "#e5e5e5", "zeroline": False, "linecolor": "#999999", "automargin": True}
    layout = {
        "xaxis": axis | {"title": {"text": x}} | (xaxis or {}),
        "yaxis": axis | {"title": {"text": y}} | (yaxis or {}),
        "margin": {"l": 56, "r": 16, "t": 16, "b": 56},
        "height": 380,
        "font": {"family": "system-ui, sans-serif", "size": 13, "color": "#222222"},
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        "paper_bgcolor": "white",
        "plot_bgcolor": "white",
        "hovermode": "closest",
    }
    return {"data": traces, "layout": layout}


def _colour(kind: str) -> str:
    return COLOURS.get(kind, OKABE_ITO[3])


def _line(name: str, x: np.ndarray | list[float], y: np.ndarray | list[float], kind: str, **more: Any) -> Trace:
    style = {"color": _colour(kind), "width": 2, "dash": _DASHES.get(kind, "dot")}
    return {"type": "scatter", "mode": "lines", "name": name, "x": _numbers(x), "y": _numbers(y), "line": style} | more


def _point(kind: str) -> Trace:
    marker = {"color": _colour(kind), "size": 12, "line": {"color": "white", "width": 2}}
    point = {"type": "scatter", "mode": "markers", "x": [None], "y": [None], "showlegend": False}
    return point | {"name": f"{title(kind)}, at the threshold", "marker": marker, "meta": {"point": kind}}


def _threshold() -> Trace:
    return _line("threshold", [], [], "", line={"color": _LINE, "width": 1.5, "dash": "dot"}, meta={"threshold": True})


def _numbers(values: np.ndarray | list[float]) -> list[float | None]:
    return [None if not np.isfinite(v) else float(f"{v:.6g}") for v in np.asarray(values, np.float64)]


def curves(scored: Scored, kinds: dict[str, list[str]]) -> dict[str, Figure]:
    """Returns {"roc", "oscr"}: knowns (positive) against each kind, with pointwise 95 % bands; {} if a side is empty."""
    chosen = of_kind(scored, kinds)
    known = chosen.pop("known", None)
    if known is None or not chosen:
        return {}
    roc: list[Trace] = []
    oscr: list[Trace] = []
    right = (scored.known_class == scored.label)[known]
    for kind, images in chosen.items():
        ranked = ranking.rank(scored.score[known], scored.score[images], right)
        x, *ys = ranking.curve(ranked)
        band = intervals.bands(ranked)
        for traces, y, (low, high) in zip((roc, oscr), ys, band[1:], strict=True):
            kept = _thin(x, y)
            look = {"legendgroup": kind, "hovertemplate": "unknowns accepted %{x:.1%}<br>knowns %{y:.1%}<extra></extra>"}
            curve = _line(title(kind), x[kept], y[kept], kind, **look)
            traces += [_area(band.unknown, low, high, kind), curve, _point(kind)]
    axis = {"range": [-0.01, 1.01], "tickformat": ".0%"}
    return {
        "roc": figure(roc, "unknowns accepted", "knowns accepted", xaxis=axis, yaxis=axis),
        "oscr": figure(oscr, "unknowns accepted", "knowns accepted, class right", xaxis=axis, yaxis=axis),
    }


def _thin(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Returns the indices of at most `_POINTS` points of a monotonic curve, evenly spaced along it, with both ends."""
    length = x + y
    return np.unique(np.searchsorted(length, np.linspace(length[0], length[-1], _POINTS)))


def _area(x: np.ndarray, low: np.ndarray, high: np.ndarray, kind: str) -> Trace:
    around = {"x": _numbers(np.concatenate([x, x[::-1]])), "y": _numbers(np.concatenate([high, low[::-1]]))}
    look = {"fill": "toself", "fillcolor": faint(_colour(kind)), "line": {"width": 0}, "mode": "lines", "hoverinfo": "skip"}
    return {"type": "scatter", "showlegend": False, "legendgroup": kind} | around | look


def faint(colour: str, alpha: float = 0.18) -> str:
    """Returns the fill colour of an area, "rgba(...)", from "#rrggbb"."""
    return f"rgba({', '.join(str(int(colour[i : i + 2], 16)) for i in (1, 3, 5))}, {alpha})"


def score_range(score: np.ndarray) -> tuple[float, float]:
    """Returns the range of the axis of scores: the quantiles 0.1 % and 99.9 % of the finite scores."""
    finite = score[np.isfinite(score)]
    low, high = np.quantile(finite, [0.001, 0.999], method="nearest") if len(finite) else (0.0, 0.0)
    return (float(low), float(high)) if low < high else (float(low) - 0.5, float(high) + 0.5)


def histogram(scored: Scored, kinds: dict[str, list[str]]) -> Figure:
    """Returns the share of each kind's images in bins of the score, and the threshold.

    The first and the last bin include the images beyond them.
    """
    low, high = score_range(scored.score)
    edges, top = np.linspace(low, high, _BINS + 1), 0.0
    traces: list[Trace] = []
    for kind, images in of_kind(scored, kinds).items():
        count, _ = np.histogram(np.clip(scored.score[images], low, high), edges)
        share = count / images.sum()
        top = max(top, share.max())
        hover = "from %{x:.4g}: %{y:.1%}<extra></extra>"
        look = {"fill": "tozeroy", "fillcolor": faint(_colour(kind)), "hovertemplate": hover}
        name = "known classes" if kind == "known" else title(kind)
        trace = _line(f"{name} ({images.sum():,})", edges, np.append(share, share[-1]), kind, **look)
        traces.append(trace | {"line": trace["line"] | {"shape": "hv"}})
    traces.append(_threshold())
    xaxis, yaxis = {"range": [low, high]}, {"range": [0, 1.05 * top or 1], "tickformat": ".0%"}
    return figure(traces, "score (larger is more unknown)", "share of the images of its kind", xaxis=xaxis, yaxis=yaxis)


def costs(scored: Scored, kinds: dict[str, list[str]]) -> Figure:
    """Returns the axes and empty traces of the expected cost against the threshold; the page computes the values."""
    traces: list[Trace] = []
    for kind in of_kind(scored, kinds):
        if kind != "known":
            traces += [_line(title(kind), [], [], kind, meta={"cost": kind}), _point(kind)]
    xaxis, yaxis = {"range": list(score_range(scored.score))}, {"rangemode": "tozero"}
    return figure([*traces, _threshold()], "threshold", "expected cost of an image", xaxis=xaxis, yaxis=yaxis)


def calibration(scored: Scored, posterior: np.ndarray, prior: np.ndarray, kinds: dict[str, list[str]]) -> dict[str, Figure]:
    """Returns the reliability diagram of the known images and one kind at a time, weighted to the prior.

    Args:
      posterior: float64 [n, K + 1] under `prior`.
      prior: float64 [K + 1].

    Returns:
      {"calibration": figure}; {} if for every kind some class with a positive prior has no images.
    """
    none = len(prior) - 1
    traces: list[Trace] = []
    for kind, images in of_kind(scored, kinds).items():
        chosen = images | (scored.label >= 0)
        label = np.where(scored.label < 0, none, scored.label)[chosen]
        if kind == "known" or (prior[np.bincount(label, minlength=none + 1) == 0] > 0).any():
            continue
        found = calibration_error.reliability(posterior[chosen], label, weight=mix_weights(label, prior))
        size = 5 + 15 * np.sqrt(found.mass)
        look: dict[str, Any] = {"mode": "lines+markers", "marker": {"size": _numbers(size), "color": _colour(kind)}}
        look |= {"hovertemplate": "probability %{x:.1%}, right %{y:.1%}<extra></extra>"}
        traces.append(_line(f"known images and {title(kind)}", found.confidence, found.accuracy, kind, **look))
    if not traces:
        return {}
    ideal: dict[str, Any] = {"line": {"color": _LINE, "width": 1, "dash": "dot"}, "hoverinfo": "skip"}
    traces.insert(0, _line("perfectly calibrated", [0, 1], [0, 1], "", **ideal))
    axis = {"range": [0, 1.02], "tickformat": ".0%"}
    x, y = "probability of the likeliest answer", "share of right answers"
    return {"calibration": figure(traces, x, y, xaxis=axis, yaxis=axis)}
