"""The text states no more than the numbers support."""

import numpy as np
import pytest

from openset_jax.openset.metrics.intervals import Interval
from openset_jax.study.answer import phrases
from openset_jax.study.stats.comparisons import Comparison, Metric

AUROC, COST = Metric("auroc", "seen_negatives"), Metric("expected_cost", "unseen_unknowns")


@pytest.mark.parametrize(
    ("difference", "verdict", "text"),
    [
        ((0.012, 0.002, 0.022), "better", "better by 0.012 (95 % CI 0.002 to 0.022)"),
        ((-0.012, -0.022, -0.002), "worse", "worse by 0.012 (95 % CI 0.002 to 0.022)"),
        (
            (0.003, -0.01, 0.016),
            "not significant",
            "not significantly different (+0.003, 95 % CI -0.010 to +0.016: the interval allows up to 0.016)",
        ),
        ((0.0, 0.0, 0.0), "not significant", "not significantly different (exactly 0)"),
        ((0.1, -np.inf, np.inf), "one seed", "+0.100 (one seed)"),
        ((0.0014, 0.00004, 0.0027), "better", "better by 0.00140 (95 % CI 0.00004 to 0.00270)"),
        ((-0.00001, -0.00002, -0.000001), "worse", "worse by 0.000010 (95 % CI 0.000001 to 0.000020)"),
    ],
)
def test_the_text_states_no_more_than_the_interval(difference, verdict, text):
    compared = Comparison(AUROC, Interval(*difference))
    assert (compared.verdict, phrases.comparison(compared)) == (verdict, text)


def test_a_higher_cost_is_worse_and_is_said_in_1000_images_too():
    dear, cheap = (Comparison(COST, Interval(*d)) for d in ((0.02, 0.01, 0.03), (-0.02, -0.03, -0.01)))
    assert (
        phrases.comparison(dear) == "worse by 0.020 (95 % CI 0.010 to 0.030) per image, 20.0 (10.0 to 30.0) in 1,000 images"
    )
    assert cheap.verdict == "better"
    unclear = Comparison(COST, Interval(0.02, -0.01, 0.05))
    assert phrases.comparison(unclear).endswith("the interval allows up to 0.050 per image, 50.0 in 1,000 images)")


def test_means():
    assert phrases.number(Interval(1.99, 1.97, 2.01)) == "1.990 (1.970 to 2.010)"
    assert phrases.percent(Interval(0.01, 0.0, 0.04)) == "1.0 % (0.0 to 4.0 %)"
    assert phrases.number(Interval(0.5, -np.inf, np.inf)) == "0.500 (one seed)"
    assert phrases.number(None) == phrases.percent(None) == "-"
    assert phrases.points(Interval(0.0, 0.0, 0.0)) == "no change"
    assert phrases.points(Interval(-0.2, -0.3, -0.1)) == "-20.0 points (95 % CI -30.0 to -10.0)"
    assert "not significant" in phrases.points(Interval(0.1, -0.1, 0.3))


def test_names_cannot_break_a_table():
    assert phrases.table([["a|b", "c"], ["d\ne", "f"]]) == "| a\\|b | c |\n|---|---|\n| d e | f |"
