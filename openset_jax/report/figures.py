"""The page's figures: Plotly's traces and layouts as plain dicts, so that nothing of Plotly is imported to make them.

No name that a user chose gets into them: Plotly reads some tags in text as HTML. A trace's `meta` says that it
follows the page's inputs, and how: "point" of a kind, "cost" of a kind, "threshold".
"""

from typing import Any

import numpy as np

from openset_jax.openset.decision.calibration import mix_weights
from openset_jax.openset.metrics import calibration_error, ranking
from openset_jax.openset.metrics.bands import bands
from openset_jax.openset.metrics.evaluation import Scored
from openset_jax.report.sentences import title

# Okabe and Ito 2008, which colour-blind people tell apart: without yellow, which is faint on white
OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_BLUE, _, _GREEN, _OTHER, _ORANGE, *_ = OKABE_ITO
COLOURS = {"known": _BLUE, "seen_negatives": _ORANGE, "unseen_unknowns": _GREEN}
_LINE = "#444444"
_DASHES = {"known": "solid", "seen_negatives": "solid", "unseen_unknowns": "dash"}
_POINTS, _BINS = 500, 60
_MARGIN = {"l": 56, "r": 16, "t": 16, "b": 56}


def of_kind(scored: Scored, kinds: dict[str, list[str]]) -> dict[str, np.ndarray]:
    """Which images are of each kind that has any, bool [n] each; "known" is the first."""
    chosen = {"known": scored.label >= 0}
    chosen |= {kind: np.isin(scored.group, groups) & (scored.label < 0) for kind, groups in kinds.items()}
    return {kind: images for kind, images in chosen.items() if images.any()}


def figure(traces: list[dict[str, Any]], x: str, y: str, **axes: Any) -> dict[str, Any]:
    """Traces with the titles of their axes, in the look that all figures share."""
    axis = {"gridcolor": "#e5e5e5", "zeroline": False, "linecolor": "#999999", "automargin": True}
    layout = {
        "xaxis": axis | {"title": {"text": x}} | axes.get("xaxis", {}),
        "yaxis": axis | {"title": {"text": y}} | axes.get("yaxis", {}),
        "margin": _MARGIN,
        "height": 380,
        "font": {"family": "system-ui, sans-serif", "size": 13, "color": "#222222"},
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        "paper_bgcolor": "white",
        "plot_bgcolor": "white",
        "hovermode": "closest",
    }
    return {"data": traces, "layout": layout}


def _line(name, x, y, kind, **more):
    style = {"color": COLOURS.get(kind, _OTHER), "width": 2, "dash": _DASHES.get(kind, "dot")}
    return {"type": "scatter", "mode": "lines", "name": name, "x": _numbers(x), "y": _numbers(y), "line": style} | more


def _point(kind):
    marker = {"color": COLOURS.get(kind, _OTHER), "size": 12, "line": {"color": "white", "width": 2}}
    same = {"type": "scatter", "mode": "markers", "x": [None], "y": [None], "showlegend": False}
    return same | {"name": f"{title(kind)}, at the threshold", "marker": marker, "meta": {"point": kind}}


def _threshold():
    return _line("threshold", [], [], "", line={"color": _LINE, "width": 1.5, "dash": "dot"}, meta={"threshold": True})


def _numbers(values):
    return [None if not np.isfinite(v) else float(f"{v:.6g}") for v in np.asarray(values, np.float64)]


def curves(scored: Scored, kinds: dict[str, list[str]]) -> dict[str, dict[str, Any]]:
    """{"roc", "oscr"}, each kind against the knowns, with 95 % bands; {} where a side is missing."""
    chosen = of_kind(scored, kinds)
    known, traces = chosen.pop("known", None), {"roc": [], "oscr": []}
    if known is None or not chosen:
        return {}
    right = (scored.known_class == scored.label)[known]
    for kind, images in chosen.items():
        ranked = ranking.rank(scored.score[known], scored.score[images], right)
        x, *ys = ranking.curve(ranked)
        band = bands(ranked)
        for found, y, (low, high) in zip(traces.values(), ys, band[1:], strict=True):
            seen = _thin(x, y)
            about = {"legendgroup": kind, "hovertemplate": "unknowns accepted %{x:.1%}<br>knowns %{y:.1%}<extra></extra>"}
            found.append(_area(band.unknown, low, high, kind))
            found.append(_line(title(kind), x[seen], y[seen], kind, **about))
            found.append(_point(kind))
    axes = {name: {"range": [-0.01, 1.01], "tickformat": ".0%"} for name in ("xaxis", "yaxis")}
    accepted = "unknowns accepted"
    return {
        "roc": figure(traces["roc"], accepted, "knowns accepted", **axes),
        "oscr": figure(traces["oscr"], accepted, "knowns accepted, class right", **axes),
    }


def _thin(x, y):
    """Places of at most `_POINTS` of a curve that never falls, evenly spaced along it, its ends among them."""
    length = x + y
    return np.unique(np.searchsorted(length, np.linspace(length[0], length[-1], _POINTS)))


def _area(x, low, high, kind):
    around = {"x": _numbers(np.concatenate([x, x[::-1]])), "y": _numbers(np.concatenate([high, low[::-1]]))}
    look = {
        "fill": "toself",
        "fillcolor": faint(COLOURS.get(kind, _OTHER)),
        "line": {"width": 0},
        "mode": "lines",
        "hoverinfo": "skip",
    }
    return {"type": "scatter", "showlegend": False, "legendgroup": kind} | around | look


def faint(colour: str, alpha: float = 0.18) -> str:
    """A colour, "#rrggbb", to fill areas with."""
    return f"rgba({', '.join(str(int(colour[i : i + 2], 16)) for i in (1, 3, 5))}, {alpha})"


def score_range(score: np.ndarray) -> tuple[float, float]:
    """What is drawn of the axis of scores: all but the outermost 0.1 % at either end."""
    finite = score[np.isfinite(score)]
    low, high = np.quantile(finite, [0.001, 0.999], method="nearest") if len(finite) else (0.0, 0.0)
    return (float(low), float(high)) if low < high else (float(low) - 0.5, float(high) + 0.5)


def histogram(scored: Scored, kinds: dict[str, list[str]]) -> dict[str, Any]:
    """Shares of each kind in bins of the score, the ends holding what is beyond them, and the threshold."""
    low, high = score_range(scored.score)
    edges, traces, top = np.linspace(low, high, _BINS + 1), [], 0.0
    for kind, images in of_kind(scored, kinds).items():
        count, _ = np.histogram(np.clip(scored.score[images], low, high), edges)
        share = count / images.sum()
        top = max(top, share.max())
        look = {
            "fill": "tozeroy",
            "fillcolor": faint(COLOURS.get(kind, _OTHER)),
            "hovertemplate": "from %{x:.4g}: %{y:.1%}<extra></extra>",
        }
        name = "known classes" if kind == "known" else title(kind)
        trace = _line(f"{name} ({images.sum():,})", edges, np.append(share, share[-1]), kind, **look)
        traces.append(trace | {"line": trace["line"] | {"shape": "hv"}})
    traces.append(_threshold())
    xaxis, yaxis = {"range": [low, high]}, {"range": [0, 1.05 * top or 1], "tickformat": ".0%"}
    return figure(traces, "score (larger is more unknown)", "share of the images of its kind", xaxis=xaxis, yaxis=yaxis)


def costs(scored: Scored, kinds: dict[str, list[str]]) -> dict[str, Any]:
    """Expected cost against the threshold: the page fills it in."""
    traces = []
    for kind in of_kind(scored, kinds):
        if kind != "known":
            traces += [_line(title(kind), [], [], kind, meta={"cost": kind}), _point(kind)]
    yaxis = {"rangemode": "tozero"}
    xaxis = {"range": list(score_range(scored.score))}
    return figure([*traces, _threshold()], "threshold", "expected cost of an image", xaxis=xaxis, yaxis=yaxis)


def calibration(scored: Scored, posterior: np.ndarray, prior: np.ndarray, kinds: dict[str, list[str]]) -> dict[str, Any]:
    """Reliability diagram of the knowns and one kind at a time, weighted to the prior that the probabilities hold under.

    Args:
      posterior: float64 [n, K + 1] under `prior`.
      prior: float64 [K + 1].

    Returns:
      {"calibration": figure}; {} where no kind has images of all that the prior says will come.
    """
    none, traces = len(prior) - 1, []
    for kind, images in of_kind(scored, kinds).items():
        chosen = images | (scored.label >= 0)
        label = np.where(scored.label < 0, none, scored.label)[chosen]
        if kind == "known" or (prior[np.bincount(label, minlength=none + 1) == 0] > 0).any():
            continue
        found = calibration_error.reliability(posterior[chosen], label, weight=mix_weights(label, prior))
        size = 5 + 15 * np.sqrt(found.mass)
        look = {"mode": "lines+markers", "marker": {"size": _numbers(size), "color": COLOURS.get(kind, _OTHER)}}
        look |= {"hovertemplate": "said %{x:.1%}, right %{y:.1%}<extra></extra>"}
        traces.append(_line(f"knowns and {title(kind)}", found.confidence, found.accuracy, kind, **look))
    if not traces:
        return {}
    ideal = {"line": {"color": _LINE, "width": 1, "dash": "dot"}, "hoverinfo": "skip"}
    traces.insert(0, _line("as said", [0, 1], [0, 1], "", **ideal))
    axes = {name: {"range": [0, 1.02], "tickformat": ".0%"} for name in ("xaxis", "yaxis")}
    return {"calibration": figure(traces, "probability of the likeliest answer", "how often it is right", **axes)}
