import numpy as np
import pytest
from report import made_up

from openset_jax.openset.metrics import intervals, ranking
from openset_jax.report import figures


@pytest.fixture(scope="module")
def arguments():
    return made_up.arguments()


def test_figures_are_what_plotly_understands(arguments):
    import plotly.graph_objects as go

    scored, kinds, fitted = arguments["scored"], arguments["kinds"], arguments["classifier"]
    drawn = figures.curves(scored, kinds)
    drawn |= {"histogram": figures.histogram(scored, kinds), "costs": figures.costs(scored, kinds)}
    drawn |= figures.calibration(scored, arguments["fitted_posterior"], fitted.fitted_prior, kinds)
    assert all(go.Figure(figure) for figure in drawn.values())  # raises where a property is none


def test_curves_have_few_points_and_keep_their_area():
    arguments = made_up.arguments(knowns=300, unknowns=600)
    scored = arguments["scored"]
    known, unknown = scored.label >= 0, scored.label == -2
    traces = figures.curves(scored, made_up.KINDS)["roc"]["data"]
    trace = next(trace for trace in traces if trace.get("name") == "unseen unknowns")
    area = intervals.auroc(ranking.rank(scored.score[known], scored.score[unknown])).value
    assert len(trace["x"]) <= 500
    assert np.trapezoid(trace["y"], trace["x"]) == pytest.approx(area, abs=0.003)


def test_histograms_are_shares(arguments):
    for trace in figures.histogram(arguments["scored"], made_up.KINDS)["data"][:3]:
        assert sum(trace["y"][:-1]) == pytest.approx(1, abs=1e-4)
