"""Methods against class imbalance: opposite numbers give opposite answers."""

import re

from study import made_up
from study.reading import section

from openset_jax.openset.metrics.intervals import Interval
from openset_jax.study.answer.answer_markdown import answer
from openset_jax.study.answer.imbalance_methods import winner
from openset_jax.study.stats.comparisons import Comparison, Metric

N, POLICY = "sampling.negatives", "sampling.policy"
AUROC = Metric("auroc", "seen_negatives")


def undersampled(**quality):
    """Returns the section on undersampling and a natural run that always answers "none", whose threshold can be moved."""
    natural = ({N: "10x"}, {"answered_none": 0.99})
    again = ({N: "10x", POLICY: "undersample"}, quality)
    return section(answer(made_up.analysis(natural, again, jitter=0.02, images=100)), "remedies")


def test_undersampling_is_better():
    found = undersampled(seen=4.0)
    assert "**Winner: sampling.policy=undersample by " in found and "Winner: the natural run" not in found
    assert "  - better in AUROC against seen negatives by" in found


def test_undersampling_is_worse_than_moving_the_threshold_though_better_than_leaving_it():
    found = undersampled(seen=0.5)
    assert "**Winner: the natural run by " in found and "Winner: sampling" not in found
    assert re.search(
        "compared with the natural run: both by argmax, better by .* each by its best decision .*, worse by", found
    )
    assert "  - worse in AUROC against seen negatives by" in found


def test_undersampling_is_the_same():
    found = undersampled()
    assert "Winner:" not in found
    assert found.count("No winner: ") == 4


def test_weights_are_methods_and_stand_at_their_number_of_negatives():
    arms = made_up.analysis(
        ({N: "10x"}, {}),
        ({N: "10x", "objective.logit_adjustment": 1.0}, {}),
        ({N: "1x", "objective.class_weights": "inverse_frequency"}, {}),
    )
    found = section(answer(arms), "remedies")
    assert "### 700 negatives (10x)\n" in found and "objective.logit_adjustment=1.0" in found
    assert "inverse_frequency" not in found, "there is no natural run of as many"


def test_natural_values_are_no_method():
    natural = {POLICY: "natural", "objective.class_weights": "none", "objective.logit_adjustment": 0.0, N: "1x"}
    assert made_up.treatment(natural).is_natural
    assert not made_up.treatment(natural | {"sampling.first_phase": 0.5}).is_natural


def test_every_natural_run_is_compared_with_the_methods():
    """Two natural runs that differ in a field without effect; each has its own part."""
    weighted = {"objective.effective_number_beta": None}
    arms = made_up.analysis(*((fields, {}) for fields in ({}, weighted, {POLICY: "balanced"})), jitter=0.02)
    assert section(answer(arms), "remedies").count("### 700 negatives (10x)") == 2


def test_a_winner_is_beyond_all_intervals():
    better, same = Comparison(AUROC, Interval(0.1, 0.05, 0.15)), Comparison(AUROC, Interval(0.1, -0.05, 0.25))
    assert winner("a", [("b", better), ("c", better)]) == "**Winner: a**, of 3 runs."
    assert winner("a", [("b", better), ("c", same)]).endswith("but is not significantly better than c.")
    assert winner("a", [("b", same), ("b", better)]).startswith("No winner: "), "two runs of the same name are two runs"
    worse = Comparison(AUROC, Interval(-0.1, -0.15, -0.05))  # on the seeds in common; the mean also includes others
    assert "Winner:" not in winner("a", [("b", worse)])
