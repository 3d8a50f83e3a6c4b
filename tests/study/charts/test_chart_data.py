"""The lines of each chart and their points."""

import itertools
import math

import pytest
from study import made_up_arms as made_up
from study.made_up_arms import treatment

from openset_jax.study.charts import chart_data, chart_layout
from openset_jax.study.stats.analysis import Analysis
from openset_jax.study.stats.measurements import KNOWN, Measurement


def panel(chart, title, of=""):
    return next(p for p in chart.panels if p.title == (f"{title}, {of}" if of else title))


def line(panel, label, decision=""):
    return next(found for found in panel.lines if (found.row.label, found.decision) == (label, decision))


@pytest.fixture(scope="module")
def usual():
    return made_up.CASES["usual"]()


def test_a_line_is_a_policy_and_its_points_are_numbers_of_negatives(usual):
    (chart,) = chart_data.charts(usual)
    drawn = line(panel(chart, "AUROC", "unseen unknowns"), "policy=undersample")
    amounts = ["0.1x", "1x", "3x", "10x", None]
    assert [p.treatment.get("sampling.negatives") for p in drawn.points] == amounts
    places = [math.log10(n) for n in (70, 700, 2100, 7000, 42_000)]
    assert [p.place for p in drawn.points] == pytest.approx(places)
    assert drawn.row.joined and drawn.row.palette == 1


def test_points_hold_the_means_and_the_seeds_of_the_analysis(usual):
    (chart,) = chart_data.charts(usual)
    for title, measurement in (
        ("OSCR", Measurement("oscr", "seen_negatives")),
        ("balanced accuracy", Measurement("balanced_accuracy", "seen_negatives", "prior")),
    ):
        for point in line(panel(chart, title, "seen negatives"), "config.run unchanged", measurement.decision).points:
            assert point.mean == usual.mean(point.treatment, measurement)
            assert point.seeds == usual.per_seed(point.treatment, measurement) and set(point.seeds) == {0, 1, 2}


def test_four_quantities_apart_for_each_kind(usual):
    (chart,) = chart_data.charts(usual)
    of_kind = lambda kind: [f"{title}, {kind}" for title in ("AUROC", "OSCR", "balanced accuracy")]
    assert [[p.title for p in row] for row in chart.rows] == [
        [*of_kind("unseen unknowns"), "known recall"],
        of_kind("seen negatives"),
    ]


def test_the_natural_line_is_drawn_by_other_decisions_too(usual):
    (chart,) = chart_data.charts(usual)
    decisions = lambda label, of: {found.decision for found in of.lines if found.row.label == label}
    for of in (panel(chart, "known recall"), panel(chart, "balanced accuracy", "seen negatives")):
        assert decisions("config.run unchanged", of) == {"argmax", "prior", "rule"}
        assert decisions("policy=undersample", of) == {"argmax"}
        assert decisions("no negatives", of) == {"argmax", "rule"}
    assert decisions("config.run unchanged", panel(chart, "AUROC", "seen negatives")) == {""}


def test_no_negatives_is_a_point_left_of_a_break_and_starts_the_lines_that_it_is_alike(usual):
    (chart,) = chart_data.charts(usual)
    auroc = panel(chart, "AUROC", "seen negatives")
    none, natural = line(auroc, "no negatives"), line(auroc, "config.run unchanged")
    assert none.row.palette is None and len(none.points) == 1
    assert none.points[0].place < chart.layout.gap < min(p.place for p in natural.points)
    assert natural.start == none.points[0]
    assert line(auroc, "policy=undersample").start is None
    assert chart.layout.ticks[0].text == "0"


def test_no_negatives_may_say_that_its_objective_is_another():
    arms = [treatment(sampling__negatives=0, objective__name="softmax"), treatment(sampling__negatives="1x"), treatment()]
    (chart,) = chart_data.charts(made_up.analysis(arms))
    assert [found.row.label for found in chart.panels[0].lines] == ["config.run unchanged", "no negatives"]
    assert chart.panels[0].lines[0].start is not None


def test_a_single_point_of_another_objective_starts_nowhere():
    arms = [treatment(sampling__negatives=n) for n in (0, "1x")] + [treatment(), treatment(objective__name="one_vs_rest")]
    (chart,) = chart_data.charts(made_up.analysis(arms))
    starts = {found.row.label: found.start for found in chart.panels[0].lines}
    assert starts["config.run unchanged"] is not None and starts["name=one_vs_rest"] is None


def test_every_line_without_negatives_has_its_own_name():
    policies = ({}, {"objective__class_weights": "balanced"})
    arms = [treatment(sampling__negatives=n, **p) for p in policies for n in (0, "1x", "3x")]
    (chart,) = chart_data.charts(made_up.analysis(arms))
    lines = chart.panels[0].lines
    assert [found.row.label for found in lines if found.row.palette is None] == [
        "no negatives",
        "no negatives, class_weights=balanced",
    ]
    assert [found.start.treatment for found in lines if found.start] == [arms[0], arms[3]]


def test_the_axis_says_multiples_of_a_known_class(usual):
    (chart,) = chart_data.charts(usual)
    assert [(tick.text, tick.below) for tick in chart.layout.ticks[:3]] == [("0", ""), ("70", "0.1×"), ("700", "1×")]  # noqa: RUF001
    assert chart.layout.axis == "negative training images, and as multiples of a known class"


def test_ticks_leave_each_other_room():
    amounts = (0, 1, 700, 701, 710, 800, 40_000, 42_000)
    (chart,) = chart_data.charts(made_up.analysis([treatment(sampling__negatives=n) for n in amounts], seeds=1))
    places = [tick.place for tick in chart.layout.ticks]
    assert all(b - a > 0.1 * (places[-1] - places[0]) for a, b in itertools.pairwise(places))
    assert [chart.layout.ticks[0].text, chart.layout.ticks[-1].text] == ["0", "42k"]


def test_one_seed_has_no_intervals():
    analysis = made_up.CASES["one seed"]()
    point = chart_data.charts(analysis)[0].panels[0].lines[0].points[0]
    assert math.isinf(point.mean.low) and len(point.seeds) == 1
    assert chart_data.seeds_text(analysis) == "1 seed" and "no intervals" in chart_data.bands_text(analysis)


def test_unequal_numbers_of_seeds_are_said(usual):
    some = [made_up.outcome(treatment(), 0), *(made_up.outcome(treatment(sampling__negatives="1x"), s) for s in range(3))]
    assert chart_data.seeds_text(Analysis(some)) == "1 to 3 seeds"
    assert chart_data.seeds_text(usual) == "3 seeds"


def test_too_many_lines_are_left_out_and_named():
    (chart,) = chart_data.charts(made_up.analysis(made_up.sweep(policies=made_up.POLICIES[::-1]), seeds=1))
    drawn = {found.row.label for p in chart.panels for found in p.lines if found.row.palette is not None}
    assert len(drawn) == chart_layout.MOST_LINES and "config.run unchanged" in drawn
    assert len(chart.layout.left_out) == len(made_up.POLICIES) - chart_layout.MOST_LINES and not drawn & set(
        chart.layout.left_out
    )


def test_policies_with_one_number_of_negatives_are_points_that_do_not_hide_each_other():
    arms = [*made_up.sweep(policies=({},)), treatment(sampling__policy="a"), treatment(sampling__policy="b")]
    (chart,) = chart_data.charts(made_up.analysis(arms, seeds=1))
    lines = [found for found in chart.panels[0].lines if found.row.palette]
    assert [len(found.points) for found in lines] == [1, 1]
    assert lines[0].points[0].place != lines[1].points[0].place


def test_what_never_varies_negatives_is_side_by_side_on_its_own_axis():
    sweep, trainable, groups = chart_data.charts(made_up.CASES["apart"]())
    assert sweep.layout.gap is not None
    assert trainable.layout.axis == "layers that are trained"
    words = ["head, retrained", "fc, retrained", "all, retrained", "all, from scratch"]
    assert [tick.text for tick in trainable.layout.ticks] == words
    assert groups.layout.axis == "kinds of negatives" and [tick.text for tick in groups.layout.ticks] == ["9", "3"]
    drawn = trainable.panels[0].lines
    assert [found.row.label for found in drawn] == [""] and not drawn[0].row.joined
    assert {p.treatment for found in sweep.panels[0].lines for p in found.points}.isdisjoint(made_up.APART)


def test_a_kind_whose_groups_differ_along_an_axis_is_not_drawn_over_it():
    few = {"seen_negatives": ["n1"], "unseen_unknowns": ["u"]}
    three, all_of_them = made_up.treatment(data__negative_groups=3), made_up.treatment()
    arms = [made_up.outcome(t, s, kinds=k) for t, k in ((three, few), (all_of_them, made_up.KINDS)) for s in (0, 1)]
    (chart,) = chart_data.charts(Analysis(arms))
    assert [panel.title.rpartition(", ")[2] for panel in chart.panels] == ["unseen unknowns"] * 3 + ["known recall"]
    seen = [made_up.outcome(a.treatment, a.seed, kinds=a.kinds | {"unseen_unknowns": []}) for a in arms]
    (chart,) = chart_data.charts(Analysis(seen))
    assert [panel.title for panel in chart.panels] == ["known recall"]


def test_two_axes_side_by_side_are_an_axis_and_lines():
    arms = [treatment(trainable=t, sampling__policy=p) for t in ("fc", "all") for p in ("natural", "balanced")]
    (chart,) = chart_data.charts(made_up.analysis(arms))
    assert chart.layout.axis == "layers that are trained"
    assert [tick.text for tick in chart.layout.ticks] == ["fc, from scratch", "all, from scratch"]
    assert [found.row.label for found in chart.panels[0].lines] == ["policy=natural", "policy=balanced"]
    assert [found.decision for found in panel(chart, "known recall").lines] == ["argmax", "prior", "rule", "argmax"]


def test_without_images_of_none_only_knowns_are_measured():
    analysis = made_up.CASES["closed set"]()
    (chart,) = chart_data.charts(analysis)
    assert [p.title for p in chart.panels] == ["AUROC, a class against the rest", "balanced accuracy", "accuracy"]
    point = chart.panels[1].lines[0].points[0]
    assert point.mean == analysis.mean(point.treatment, Measurement("balanced_accuracy", KNOWN, "argmax"))


def test_without_arms_there_are_no_charts():
    assert chart_data.charts(Analysis([])) == ()


def test_a_network_that_cannot_say_none_is_drawn_by_its_threshold():
    arms = [made_up.outcome(t, 0) for t in made_up.sweep(policies=({},))]
    silent = [treatment(objective__name="entropic", sampling__negatives=n) for n in ("1x", "3x")]
    arms += [made_up.outcome(t, 0, silent=True) for t in silent]
    (chart,) = chart_data.charts(Analysis(arms))
    assert [found.decision for found in panel(chart, "known recall").lines if found.row.palette == 1] == ["rule"]


def test_one_known_class_is_drawn_without_what_it_does_not_have():
    arms = [
        made_up.outcome(treatment(sampling__negatives=n), seed, classes=("cat",)) for n in (700, 7000) for seed in (0, 1)
    ]
    (chart,) = chart_data.charts(Analysis(arms))
    assert [[p.title.split(",")[0] for p in row] for row in chart.rows] == [
        ["AUROC", "balanced accuracy", "known recall"], ["AUROC", "balanced accuracy"],
    ]  # fmt: skip
