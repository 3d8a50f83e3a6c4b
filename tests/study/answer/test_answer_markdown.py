"""The whole of ANSWER.md."""

import random
import re

from study import made_up
from study.reading import HEADINGS, line, section

from openset_jax.study.answer.answer_markdown import answer
from openset_jax.study.stats.analysis import Analysis

N, POLICY = "sampling.negatives", "sampling.policy"


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


def test_what_one_seed_means_is_said_once():
    arms = made_up.arms(({N: "1x"}, {}), ({N: "10x"}, {}), ({N: "10x", POLICY: "balanced"}, {}), seeds=2)
    one_seed = "one seed, differences between seeds are unknown"
    assert one_seed not in answer(Analysis(arms))
    for some, of_each in ((arms[:5], False), (arms[::2], True)):
        text = answer(Analysis(some))
        assert text.count(one_seed) == text.partition("\n## ")[0].count(one_seed) == 1
        assert "of 1 seed" not in text and (" (one seed)" in text) is not of_each


def test_it_says_how_many_intervals_and_what_is_missing():
    arms = made_up.arms(({N: 0}, {}), ({N: "1x"}, {}), ({N: "10x"}, {}))
    text = answer(Analysis([*arms[:4], *arms[6:8]]))
    found = section(text, "intervals")
    assert "from 1 to 3 seeds" in found
    assert "sampling.negatives=1x: there is only seed 0." in found
    assert "sampling.negatives=10x: there is no arm of seed 2." in found
    found = section(answer(Analysis(arms)), "intervals")
    count = int(re.search(r"(\d+) paired differences with an interval were examined", found)[1])
    assert (
        f"1 in 20 misses the true difference by chance, here about {count / 20:.1f}" in found and "Not measured" not in found
    )


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


def test_any_other_field_is_compared_with_its_first_value():
    found = answer(made_up.analysis(({}, {}), ({"model.width": 0.5}, {"unseen": 0.0}), jitter=0.02))
    found = section(found, "## Does model.width matter?")
    assert "- **0.5**, compared with the configured value:\n  - worse in AUROC against unseen unknowns by" in found
    assert "not significantly different in AUROC against seen" in found
