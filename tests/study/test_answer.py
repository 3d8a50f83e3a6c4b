"""Every statement of an answer follows from the numbers: opposite numbers, opposite answers."""

import random
import re

import numpy as np
import pytest
from study import made_up

from openset_jax.openset.intervals import Interval
from openset_jax.study import collapse, enough, remedies, words
from openset_jax.study.analysis import Analysis
from openset_jax.study.answer import answer
from openset_jax.study.words import Compared, Yardstick

N, POLICY = "sampling.negatives", "sampling.policy"
AUROC, COST = Yardstick("auroc", "seen_negatives", False), Yardstick("expected_cost", "unseen_unknowns", True)
HEADINGS = {
    "none": '## Would it always say "none"?',
    "enough": "## How many negatives are enough?",
    "remedies": "## Undersample, reweight, or move the threshold?",
    "layers": "## Is retraining the last layer enough?",
    "groups": "## From how many kinds must they come?",
    "numbers": "## The numbers",
    "intervals": "## What these intervals are",
}


def section(text, name):
    """The text below a heading, up to the next of its level; None without it."""
    parts = dict(re.findall(r"^(## .*)$\n((?:(?!## ).*\n)*)", text, re.MULTILINE))
    return parts.get(HEADINGS.get(name, name))


def curve(*separations, field=N, values=(0, "0.1x", "1x", "10x"), seeds=3, **quality):
    """The answer of treatments that differ in one field, of these separations of seen negatives."""
    pairs = zip(values, separations, strict=False)
    return answer(made_up.analysis(*(({field: v}, {"seen": s}) for v, s in pairs), jitter=0.02, seeds=seeds, **quality))


def line(text, begin):
    return next(found for found in text.splitlines() if begin in found)


# numbers and words


@pytest.mark.parametrize(
    ("difference", "verdict", "said"),
    [
        ((0.012, 0.002, 0.022), "better", "better by 0.012 (0.002 to 0.022)"),
        ((-0.012, -0.022, -0.002), "worse", "worse by 0.012 (0.002 to 0.022)"),
        ((0.003, -0.01, 0.016), "same", "cannot be told apart (+0.003, -0.010 to +0.016: up to 0.016 could be hidden)"),
        ((0.0, 0.0, 0.0), "same", "cannot be told apart (exactly 0)"),
        ((0.1, -np.inf, np.inf), "one seed", "+0.100, but one seed tells nothing of another"),
        ((0.0014, 0.00004, 0.0027), "better", "better by 0.00140 (0.00004 to 0.00270)"),
        ((-0.00001, -0.00002, -0.000001), "worse", "worse by 0.000010 (0.000001 to 0.000020)"),
    ],
)
def test_words_say_no_more_than_the_interval(difference, verdict, said):
    compared = Compared(AUROC, Interval(*difference))
    assert (compared.verdict, str(compared)) == (verdict, said)


def test_a_higher_cost_is_worse_and_is_said_in_1000_images_too():
    dear, cheap = (Compared(COST, Interval(*d)) for d in ((0.02, 0.01, 0.03), (-0.02, -0.03, -0.01)))
    assert str(dear) == "worse by 0.020 (0.010 to 0.030) per image, 20.0 (10.0 to 30.0) in 1,000 images"
    assert cheap.verdict == "better"
    unclear = Compared(COST, Interval(0.02, -0.01, 0.05))
    assert str(unclear).endswith("up to 0.050 per image, 50.0 in 1,000 images, could be hidden)")


def test_means_stay_within_what_they_can_be():
    assert words.number(Interval(0.99, 0.97, 1.01)) == "0.990 (0.970 to 1.000)"
    assert words.number(Interval(1.99, 1.97, 2.01), np.inf) == "1.990 (1.970 to 2.010)"
    assert words.percent(Interval(0.01, -0.02, 0.04)) == "1.0 % (0.0 to 4.0 %)"
    assert words.number(Interval(0.5, -np.inf, np.inf)) == "0.500 (one seed)"
    assert words.number(None) == words.percent(None) == "-"
    assert words.points(Interval(0.0, 0.0, 0.0)) == "exactly as many"
    assert words.points(Interval(-0.2, -0.3, -0.1)) == "-20.0 points (-30.0 to -10.0)"
    assert "cannot be told" in words.points(Interval(0.1, -0.1, 0.3))


# how many negatives are enough


def test_more_negatives_help_without_end():
    found = line(section(curve(0.5, 1.0, 1.5, 2.0), "enough"), "**AUROC against seen")
    assert "is best with 700 negatives (10x)" in found and "More were not tried." in found
    assert "Fewer are not enough. No negatives (softmax, a threshold alone): worse by" in found
    assert "70 negatives (1x): worse by" in found and "may be enough" not in found


def test_more_negatives_hurt():
    found = line(section(curve(0.5, 2.0, 1.5, 1.0), "enough"), "**AUROC against seen")
    assert "is best with 7 negatives (0.1x)" in found
    assert "More hurts. 70 negatives (1x): worse by" in found and "700 negatives (10x): worse by" in found
    assert "More were not tried" not in found and "does not help" not in found


def test_some_are_enough():
    text = section(curve(0.5, 1.0, 2.0, 2.0), "enough")
    found = line(text, "**AUROC against seen")
    assert "No negatives (softmax, a threshold alone): worse by" in found and "7 negatives (0.1x): worse by" in found
    assert "could be hidden" in found
    short = line(text, "The least that cannot")
    assert re.search(r"\*\*70 negatives \(1x\)\*\* by AUROC against seen negatives", short)
    assert re.search(r"\*\*no negatives \(softmax, a threshold alone\)\*\* by AUROC against unseen unknowns", short)


def test_the_number_does_nothing():
    found = line(section(curve(2.0, 2.0, 2.0, 2.0), "enough"), "**AUROC against seen")
    assert "No other can be told apart from it, so that the least may be enough." in found
    assert "worse" not in found and "hurts" not in found


def test_choosing_fewer_costs_images():
    found = line(section(curve(0.5, 1.0, 1.5, 2.5), "enough"), "**Expected cost with seen")
    assert re.search(r"worse by 0\.\d+ \(.*?\) per image, [\d.]+ \([\d.]+ to [\d.]+\) in 1,000 images", found)


def test_one_seed_makes_no_number_enough():
    text = curve(0.5, 1.0, 1.5, 2.0, seeds=1)
    assert "No number can be called enough: one seed tells nothing of another." in text
    assert "There are none: 1 seed of each treatment" in section(text, "intervals")
    assert not re.search("better by|worse by|cannot be told apart|Winner", text)


# would it always say none


def always(**quality):
    plain = {"answered_none": 0.05}
    return section(answer(made_up.analysis(({N: "1x"}, plain), ({N: "10x"}, quality), jitter=0.02)), "none")


def test_always_none_because_of_the_threshold():
    found = always(answered_none=0.99)
    assert "**Yes, in 3 of 3 seeds**" in found and "With 700 negatives (10x)" in found
    assert found.count("the ranking is there") == 3 and found.count("moving it recovers them") == 3
    assert "nothing" not in found
    assert re.search(r"prior corrected \(prior\) the same network accepts 95\.0 % .*: \+93\.\d points", found)
    assert re.search(r"the same with 70 negatives \(1x\), .*: -93\.\d points", found)


def test_always_none_because_nothing_was_learned():
    found = always(answered_none=0.99, seen=0.0, unseen=0.0, accuracy=1 / 3)
    assert "**Yes, in 3 of 3 seeds**" in found
    assert found.count("the network learned nothing") == 3 and "recovers" not in found
    assert "a guess is right for 33.3 %" in found


def test_not_at_all():
    found = always()
    assert "**No, in none of 3 seeds**" in found and "Why?" not in found and "exactly as many" in found


def test_in_some_seeds():
    arms = [made_up.outcome({N: "10x"}, seed, answered_none=share) for seed, share in enumerate((0.05, 0.99, 0.05))]
    found = section(answer(Analysis(arms)), "none")
    assert "**Sometimes, in 1 of 3 seeds**" in found
    assert "Seed 1: the ranking is there" in found and "Seed 0" not in found


def test_a_network_that_cannot_say_none_cannot_collapse():
    found = section(answer(made_up.analysis(({"objective.name": "entropic"}, {}))), "none")
    assert "gives no answer" in found and "Yes" not in found


def test_without_negatives_it_is_not_asked():
    assert section(answer(made_up.analysis(({N: 0}, {}))), "none") is None


def test_causes_of_a_collapse():
    known = lambda auroc, accuracy, **corrected: collapse.Seed(
        3, Interval(auroc, auroc - 0.02, auroc + 0.02), Interval(accuracy, accuracy - 0.02, accuracy + 0.02), corrected
    )
    assert "the classes apart" in collapse.why(known(0.5, 0.9, prior=0.9), 0.1)
    assert "does not recover" in collapse.why(known(0.9, 0.9, prior=0.1, rule=0.2), 0.1)
    assert "nothing says whether it ranks" in collapse.why(known(0.9, 0.9)._replace(auroc=None), 0.1)


# undersample, reweight, or move the threshold


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


# which layers, from how many groups, other fields


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


def test_from_how_many_groups():
    field = {"field": "data.negative_groups", "values": (1, 2, 5)}
    found = section(curve(1.0, 2.0, 2.0, **field, negatives=700), "groups")
    assert "1 group: worse by" in line(found, "**AUROC against seen")
    assert re.search(r"\*\*2 groups\*\* by AUROC against seen|\*\*5 groups\*\* by AUROC against seen", found)
    found = section(curve(2.0, 2.0, 2.0, **field, negatives=700), "groups")
    assert "**1 group** by AUROC against seen" in found and "differs, too" not in found


def test_numbers_of_negatives_that_differ_with_the_groups_are_said():
    arms = [made_up.outcome({"data.negative_groups": g}, s, negatives=100 * g) for g in (1, 7) for s in (0, 1)]
    assert "The number of negatives differs, too (100 and 700)" in section(answer(Analysis(arms)), "groups")


def test_any_other_field_is_compared_with_its_first_value():
    found = answer(made_up.analysis(({}, {}), ({"model.width": 0.5}, {"unseen": 0.0}), jitter=0.02))
    found = section(found, "## Does model.width matter?")
    assert "- **0.5**, against as configured:\n  - worse in AUROC against unseen unknowns by" in found
    assert "cannot be told apart in AUROC against seen" in found


# the whole


def test_sections_are_there_only_for_what_was_tried():
    text = answer(made_up.analysis(({}, {})))
    assert [name for name in HEADINGS if section(text, name) is not None] == ["none", "numbers", "intervals"]


def test_the_order_of_the_arms_does_not_matter():
    arms = made_up.arms(({N: 0}, {}), ({N: "10x"}, {}), ({N: "10x", POLICY: "undersample"}, {}), jitter=0.1)
    assert len({answer(Analysis(random.Random(i).sample(arms, len(arms)))) for i in range(3)}) == 1


def test_means_are_in_the_tables():
    text = answer(made_up.analysis(({N: 0}, {}), ({N: "10x"}, {}), seeds=2))
    found = section(text, "numbers")
    assert line(found, "| sampling.negatives=0 | 0 | 2 | 0.9") and line(found, "| sampling.negatives=10x | 700 | 2 |")


def test_it_says_how_many_intervals_and_what_is_missing():
    arms = made_up.arms(({N: 0}, {}), ({N: "1x"}, {}), ({N: "10x"}, {}))
    found = section(answer(Analysis([*arms[:4], *arms[6:8]])), "intervals")
    assert "from 1 to 3 seeds" in found
    assert "sampling.negatives=1x: there is seed 0 alone, and one seed tells nothing of another." in found
    assert "sampling.negatives=10x: there is no arm of seed 2." in found
    found = section(answer(Analysis(arms)), "intervals")
    count = int(re.search(r"(\d+) paired differences with an interval were looked at", found)[1])
    assert f"1 in 20 misses by chance, here about {count / 20:.1f}" in found and "Not measured" not in found


def test_a_closed_set_has_answers_of_its_own():
    arms = made_up.analysis(
        ({}, {"answered_none": 0.9}),
        ({POLICY: "oversample"}, {}),
        ({"trainable": "head"}, {"accuracy": 0.5}),
        ({"model.width": 0.5}, {"accuracy": 0.6}),
        ({N: "1x"}, {}),
        ({N: 0}, {}),
        closed=True,
        jitter=0.02,
    )
    text = answer(arms)
    assert "known balanced accuracy" in section(text, "remedies").lower()
    assert "not enough" in section(text, "layers") and "worse in known one-vs-rest AUC" in text
    assert "auroc" not in text.lower() and "oscr" not in text.lower()
    assert "unseen unknowns: not all arms have test images of them." in section(text, "intervals")
    assert "always" in section(answer(made_up.analysis(({}, {"answered_none": 0.99}), closed=True)), "none")


def test_unfinished_experiments_are_no_error():
    assert "No arm is finished" in answer(Analysis([]))
    apart = Analysis([made_up.outcome({N: "1x"}, 0), made_up.outcome({N: "10x"}, 1), made_up.outcome({"a": 1}, 2)])
    assert answer(apart)
    assert answer(Analysis([made_up.outcome({N: "1x"}, 0, decisions=("argmax", "rule"))]))
    mixed = Analysis([made_up.outcome({"a": 1}, 0), made_up.outcome({"a": 2}, 0, closed=True)])
    assert answer(mixed)


def test_a_point_of_one_seed_does_not_silence_the_others():
    arms = made_up.arms(({N: "1x"}, {"seen": 1.0}), ({N: "3x"}, {}), ({N: "10x"}, {"seen": 5.0}), jitter=0.02)
    found = section(answer(Analysis(arms[:7])), "enough")
    found = line(found, "**AUROC against seen")
    assert "is best with 210 negatives (3x)" in found and "70 negatives (1x): worse by" in found
    assert re.search(r"Of one seed in common: 700 negatives \(10x\): \+0\.\d+, but one seed tells nothing", found)


def test_a_best_mean_over_other_seeds_is_no_victory():
    better, worse = Compared(AUROC, Interval(0.1, 0.05, 0.15)), Compared(AUROC, Interval(-0.1, -0.15, -0.05))
    assert "Winner:" not in remedies.winner("a", {"b": worse})
    mean = Interval(0.9, 0.8, 1.0)
    assert "1x may be enough: better by" in enough.enough(AUROC, ["1x", "3x"], 1, mean, "", {0: better})
    assert "More helps on the seeds in common. 3x: better by" in enough.enough(AUROC, ["1x", "3x"], 0, mean, "", {1: better})


def test_enough_of_points_without_a_pair():
    assert enough.least_enough(0, {}) is None
    assert "in common" in enough.enough(AUROC, ["a", "b"], 0, Interval(0.9, 0.8, 1.0), "", {})
