"""Remedies, layers and other fields: opposite numbers, opposite answers."""

import re

from study import made_up
from study.reading import section

from openset_jax.openset.metrics.intervals import Interval
from openset_jax.study.answer import remedies
from openset_jax.study.answer.document import answer
from openset_jax.study.answer.phrases import Compared, Yardstick

N, POLICY = "sampling.negatives", "sampling.policy"
AUROC = Yardstick("auroc", "seen_negatives", False)


def remedied(**undersampled):
    """A natural run that always answers none, whose threshold can be moved, and undersampling."""
    natural = ({N: "10x"}, {"answered_none": 0.99})
    again = ({N: "10x", POLICY: "undersample"}, undersampled)
    return section(answer(made_up.analysis(natural, again, jitter=0.02, images=100)), "remedies")


def test_undersampling_is_better():
    found = remedied(seen=4.0)
    assert "**Winner: sampling.policy=undersample by " in found and "Winner: the natural run" not in found
    assert "  - better in AUROC against seen negatives by" in found


def test_undersampling_is_worse_than_moving_the_threshold_though_better_than_leaving_it():
    found = remedied(seen=0.5)
    assert "**Winner: the natural run by " in found and "Winner: sampling" not in found
    assert re.search("against the natural run's own, better by .* against the natural run's best, worse by", found)
    assert "  - worse in AUROC against seen negatives by" in found


def test_undersampling_is_the_same():
    found = remedied()
    assert "Winner:" not in found
    assert found.count("No winner: ") == 4


def test_weights_are_remedies_and_stand_at_their_number_of_negatives():
    arms = made_up.analysis(
        ({N: "10x"}, {}),
        ({N: "10x", "objective.logit_adjustment": 1.0}, {}),
        ({N: "1x", "objective.class_weights": "inverse_frequency"}, {}),
    )
    found = section(answer(arms), "remedies")
    assert "### 700 negatives (10x)\n" in found and "objective.logit_adjustment=1.0" in found
    assert "inverse_frequency" not in found, "there is no natural run of as many"


def test_natural_values_are_no_remedy():
    natural = {POLICY: "natural", "objective.class_weights": "none", "objective.logit_adjustment": 0.0, N: "1x"}
    assert remedies.is_natural(made_up.treatment(natural))
    assert not remedies.is_natural(made_up.treatment(natural | {"sampling.first_phase": 0.5}))


def test_a_winner_is_beyond_all_intervals():
    better, same = Compared(AUROC, Interval(0.1, 0.05, 0.15)), Compared(AUROC, Interval(0.1, -0.05, 0.25))
    assert remedies.winner("a", {"b": better, "c": better}) == "**Winner: a**, of 3."
    assert remedies.winner("a", {"b": better, "c": same}).endswith("but is not told to be better than c.")
    worse = Compared(AUROC, Interval(-0.1, -0.15, -0.05))  # on the seeds in common; the mean is over others, too
    assert "Winner:" not in remedies.winner("a", {"b": worse})


def layered(**head):
    arms = made_up.analysis(({"trainable": "all"}, {}), ({"trainable": "head"}, head), ({}, {}))
    return section(answer(arms), "layers")


def test_the_last_layer_is_not_enough():
    found = layered(seen=1.0)
    assert "**Retraining the last layer (head), against retraining all layers: not enough.**" in found
    assert "**Retraining the last layer (head), against training from scratch: not enough.**" in found
    assert (
        "**Retraining all layers, against training from scratch: may be enough, no worse as far as can be told.**" in found
    )
    assert re.search("worse in AUROC against seen negatives by .*, OSCR against seen", found)


def test_the_last_layer_is_enough():
    found = layered()
    assert "(head), against retraining all layers: may be enough, no worse as far as can be told.**" in found
    assert "not enough" not in found and "worse in" not in found


def test_any_other_field_is_compared_with_its_first_value():
    found = answer(made_up.analysis(({}, {}), ({"model.width": 0.5}, {"unseen": 0.0}), jitter=0.02))
    found = section(found, "## Does model.width matter?")
    assert "- **0.5**, against as configured:\n  - worse in AUROC against unseen unknowns by" in found
    assert "cannot be told apart in AUROC against seen" in found
