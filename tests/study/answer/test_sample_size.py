"""How many negatives are enough: opposite curves give opposite answers."""

import dataclasses
import re

from study import made_up
from study.reading import line, section

from openset_jax.openset.metrics.intervals import Interval
from openset_jax.study.answer import sample_size
from openset_jax.study.answer.answer_markdown import answer
from openset_jax.study.answer.sample_size import Curve
from openset_jax.study.stats.analysis import Analysis
from openset_jax.study.stats.comparisons import Comparison, Metric

N = "sampling.negatives"
AUROC = Metric("auroc", "seen_negatives")


def curve(*separations, field=N, values=(0, "0.1x", "1x", "10x"), seeds=3, **quality):
    """Returns the answer for treatments that differ in one field, with these separations of seen negatives."""
    pairs = zip(values, separations, strict=False)
    return answer(made_up.analysis(*(({field: v}, {"seen": s}) for v, s in pairs), jitter=0.02, seeds=seeds, **quality))


def test_more_negatives_help_without_end():
    found = line(section(curve(0.5, 1.0, 1.5, 2.0), "enough"), "**AUROC against seen")
    assert "is best with 700 negatives (10x)" in found and "More were not tried." in found
    assert "Fewer are not enough. No negatives (softmax, threshold only): worse by" in found
    assert "70 negatives (1x): worse by" in found and "may be enough" not in found


def test_more_negatives_hurt():
    found = line(section(curve(0.5, 2.0, 1.5, 1.0), "enough"), "**AUROC against seen")
    assert "is best with 7 negatives (0.1x)" in found
    assert "More are significantly worse. 70 negatives (1x): worse by" in found and "700 negatives (10x): worse by" in found
    assert "More were not tried" not in found and "no significant improvement" not in found


def test_some_are_enough():
    text = section(curve(0.5, 1.0, 2.0, 2.0), "enough")
    found = line(text, "**AUROC against seen")
    assert "No negatives (softmax, threshold only): worse by" in found and "7 negatives (0.1x): worse by" in found
    assert "the interval allows up to" in found
    short = line(text, "The smallest number that is not significantly worse")
    assert re.search(r"\*\*70 negatives \(1x\)\*\* by AUROC against seen negatives", short)
    assert re.search(r"\*\*no negatives \(softmax, threshold only\)\*\* by AUROC against unseen unknowns", short)


def test_the_number_does_nothing():
    found = line(section(curve(2.0, 2.0, 2.0, 2.0), "enough"), "**AUROC against seen")
    assert "No other is significantly different from the best, so the smallest may be enough." in found
    assert "worse" not in found


def test_choosing_fewer_costs_images():
    found = line(section(curve(0.5, 1.0, 1.5, 2.5), "enough"), "**Expected cost with seen")
    assert re.search(r"worse by 0\.\d+ \(.*?\) per image, [\d.]+ \([\d.]+ to [\d.]+\) in 1,000 images", found)


def test_one_seed_makes_no_number_enough():
    text = curve(0.5, 1.0, 1.5, 2.0, seeds=1)
    assert "Which number is enough is unknown." in text
    assert "There are none: 1 seed of each treatment" in section(text, "intervals")
    assert not re.search("better by|worse by|not significantly|Winner", text)


def test_from_how_many_groups():
    field = {"field": "data.negative_groups", "values": (1, 2, 5)}
    found = section(curve(1.0, 2.0, 2.0, **field, negatives=700), "groups")
    assert "1 kind: worse by" in line(found, "**AUROC against seen")
    assert re.search(r"\*\*2 kinds\*\* by AUROC against seen|\*\*5 kinds\*\* by AUROC against seen", found)
    found = section(curve(2.0, 2.0, 2.0, **field, negatives=700), "groups")
    assert "**1 kind** by AUROC against seen" in found and "differs, too" not in found


def test_arms_that_were_shown_other_groups_are_not_compared_by_these():
    arms = [
        made_up.shown(made_up.outcome({"data.negative_groups": len(groups)}, seed, seen=6.0 - len(groups)), *groups)
        for groups in (["n1"], ["n1", "n2"])
        for seed in (0, 1, 2)
    ]
    text = answer(Analysis(arms))
    found = section(text, "groups")
    assert "Each arm is tested on seen negatives of the kinds that it was trained on" in found
    assert "**1 kind** by AUROC against unseen unknowns" in found and "by AUROC against seen" not in found
    assert "How many kinds of negatives?** By AUROC against unseen unknowns" in text
    seen_alone = [dataclasses.replace(a, kinds={"seen_negatives": a.kinds["seen_negatives"]}) for a in arms]
    assert "The smallest number that is not" not in section(answer(Analysis(seen_alone)), "groups")


def test_seeds_that_all_show_the_same_group_are_said():
    def text(*one):
        few = [made_up.shown(made_up.outcome({"data.negative_groups": 1}, s), g) for s, g in enumerate(one)]
        return answer(Analysis([*few, *(made_up.outcome({"data.negative_groups": 2}, s) for s in (0, 1))]))

    alike, unlike = text("n2", "n2"), text("n1", "n2")
    assert "1 kind is n2 in all seeds: the comparison depends on which kinds these are" in section(alike, "groups")
    assert "(1 kind is n2 in all seeds)" in line(alike, "**How many kinds of negatives?**")
    assert "in all seeds" not in unlike


def test_numbers_of_negatives_that_differ_with_the_groups_are_said():
    arms = [made_up.outcome({"data.negative_groups": g}, s, negatives=100 * g) for g in (1, 7) for s in (0, 1)]
    assert "The number of negatives differs, too (100 and 700)" in section(answer(Analysis(arms)), "groups")


def test_a_point_of_one_seed_does_not_silence_the_others():
    arms = made_up.arms(({N: "1x"}, {"seen": 1.0}), ({N: "3x"}, {}), ({N: "10x"}, {"seen": 5.0}), jitter=0.02)
    found = section(answer(Analysis(arms[:7])), "enough")
    found = line(found, "**AUROC against seen")
    assert "is best with 210 negatives (3x)" in found and "70 negatives (1x): worse by" in found
    assert re.search(r"With one seed in common: 700 negatives \(10x\): \+0\.\d+ \(one seed\)", found)


def test_a_best_mean_over_other_seeds_is_no_victory():
    better = Comparison(AUROC, Interval(0.1, 0.05, 0.15))
    mean = Interval(0.9, 0.8, 1.0)
    assert "1x may be enough: better by" in sample_size.enough(AUROC, ["1x", "3x"], Curve(1, mean, "", {0: better}))
    assert "More are better on the seeds in common. 3x: better by" in sample_size.enough(
        AUROC, ["1x", "3x"], Curve(0, mean, "", {1: better})
    )


def test_enough_of_points_without_a_pair():
    assert sample_size.smallest_enough(0, {}) is None
    assert "in common" in sample_size.enough(AUROC, ["a", "b"], Curve(0, Interval(0.9, 0.8, 1.0), "", {}))
