"""How many layers to train: opposite numbers give opposite answers, for any number of depths and any start."""

import dataclasses
import re

import pytest
from study import made_up
from study.reading import line, section

from openset_jax.config import FIRST_PHASE
from openset_jax.study.answer import retraining
from openset_jax.study.answer.answer_markdown import answer
from openset_jax.study.stats.analysis import Analysis
from openset_jax.study.stats.comparisons import Comparisons

START = "arm:sampling.negatives=0"


def retrained(trainable="all", start=START):
    return {"init_from": start, "trainable": trainable}


def depths(seeds=3, scratch=None, **quality):
    """The section of head, conv3, all and from scratch, with the `outcome` arguments of each."""
    treatments = [(retrained(trainable), quality.get(trainable, {})) for trainable in ("all", "head", "conv3")]
    return section(answer(made_up.analysis(*treatments, ({}, scratch or {}), seeds=seeds)), "layers")


def test_the_last_layer_is_enough():
    found = depths()
    assert (
        "**Starting from a network trained without negatives, retraining the last layer (head) may be enough for known "
        in found
    )
    assert " (42 % of the operations of a step that trains all layers: 5 of 12 GFLOP per image).**" in found
    assert "(head), compared with retraining all layers: may be enough, not significantly worse.**" in found
    assert "not enough" not in found and "worse in" not in found
    assert "trained without negatives" in line(answer(_analysis()), "**How much of the network?** Starting from a network")


def _analysis(*more, **quality):
    return made_up.analysis((retrained("head"), quality), (retrained(), {}), ({}, {}), *more)


def test_the_last_layer_is_not_enough():
    found = depths(head={"unseen": 0.0})
    assert (
        "retraining the last layer (head) may be enough for known accuracy, AUROC against seen negatives and OSCR" in found
    )
    assert "; retraining the layers from conv3 up may be enough for AUROC against unseen unknowns and OSCR against" in found
    assert "(83 % of the operations of a step that trains all layers: 10 of 12 GFLOP per image).**" in found
    assert re.search(
        r"against unseen unknowns\*\* needs .*the best; retraining the last layer \(head\) is worse by 0\.", found
    )
    assert "- **Known accuracy** needs retraining the last layer (head), with a mean of 0.9" in found
    assert "**Retraining the last layer (head), compared with retraining all layers: not enough.**" in found
    assert "**Retraining the last layer (head), compared with training from scratch: not enough.**" in found
    assert "**Retraining all layers, compared with training from scratch: may be enough, not significantly worse.**" in found
    assert re.search("worse in AUROC against unseen unknowns by .*OSCR against unseen", found)


def test_no_retrained_network_is_enough():
    worse = {"accuracy": 0.6}
    found = depths(head=worse, conv3=worse, all=worse)
    assert "training from scratch is needed for known accuracy" in found
    assert "retraining the last layer (head) may be enough for AUROC against seen negatives and AUROC" in found
    worse = {"accuracy": 0.6, "seen": 0.0, "unseen": 0.0}
    assert "(head) is not enough for any of these numbers.**" in depths(head=worse, conv3=worse, all=worse)


def test_with_one_seed_it_is_unknown():
    found = depths(seeds=1)
    assert "it is unknown which layers are enough" in found
    assert "all layers: unknown.**" in found and "may be enough" not in found


def test_a_row_for_each_depth_from_the_fewest_layers_to_from_scratch():
    rows = [row.split(" | ") for row in depths().splitlines() if row.startswith("| ")]
    assert [row[0] for row in rows] == [
        "| trained", "| retraining the last layer (head)", "| retraining the layers from conv3 up",
        "| retraining all layers", "| training from scratch",
    ]  # fmt: skip
    assert rows[0][2:7] == [
        "known accuracy", "AUROC against seen negatives", "OSCR against seen negatives", "AUROC against unseen unknowns",
        "OSCR against unseen unknowns",
    ]  # fmt: skip
    assert [row[1] for row in rows[1:]] == ["3"] * 4
    assert re.fullmatch(r"0\.\d+ \(0\.\d+ to 0\.\d+\)", rows[1][2])
    assert rows[1][-3:] == ["5", "1.0 MiB", "900 images/s |"] and rows[3][-3:] == ["12", "8.0 MiB", "112 images/s |"]
    unknown = [
        dataclasses.replace(arm, training=arm.training._replace(memory=None, images_per_second=None))
        for arm in made_up.arms((retrained("head"), {}), (retrained(), {}))
    ]
    assert line(answer(Analysis(unknown)), "| retraining all layers |").endswith("| 12 | - | - |")


def test_every_start_has_an_answer_of_its_own_and_all_are_compared_with_from_scratch():
    found = section(
        answer(_analysis((retrained("head", "pretrained"), {"seen": 4.0}), (retrained("fc", "pretrained"), {}))), "layers"
    )
    assert found.count("### ") == 2
    assert "### Starting from a network trained without negatives\n" in found
    published = found.partition("### Starting from published weights\n")[2].partition("\n### ")[0]
    rows = [row.split(" | ")[0] for row in published.splitlines() if row.startswith("| ")]
    assert [row[2:] for row in rows[1:]] == [
        "retraining the last layer (head)", "retraining the layers from fc up", "training from scratch"
    ]  # fmt: skip


def test_a_start_that_all_arms_share_is_known_from_the_outcomes():
    """As with `run.init_from=pretrained`, `run.trainable=head`: no field of the treatments says so."""
    arms = made_up.arms(
        ({}, {}), ({"trainable": "fc"}, {}), ({"trainable": "all"}, {}), ({"init_from": "", "trainable": "all"}, {})
    )
    head = {"trainable": "head", "layers": 1}
    arms = [
        dataclasses.replace(
            arm,
            training=arm.training._replace(
                start=arm.treatment.get("init_from", "pretrained"), **({} if arm.treatment.fields else head)
            ),
        )
        for arm in arms
    ]
    (found,) = retraining.lines(Comparisons(Analysis(arms)))
    assert [t.label for t in found] == ["config.run unchanged", "trainable=fc", "trainable=all", "init_from=, trainable=all"]
    assert "Starting from published weights, retraining the last layer (head) may be enough" in answer(Analysis(arms))
    assert section(answer(Analysis(arms)), "none").count("**No, in none of 3 seeds**") == 1, "of the unchanged run only"


@pytest.mark.parametrize(
    ("start", "text"),
    [
        ("", "random parameters"),
        ("pretrained", "published weights"),
        (FIRST_PHASE, "the first of two phases"),
        ("arm:sampling.negatives=0, steps=9", "a network trained without negatives"),
        ("arm:sampling.negatives=0.1x", "the network of the arm sampling.negatives=0.1x"),
        ("runs/known", "the weights of known"),
        ("/home/a/alexnet.pth", "the weights of alexnet.pth"),
    ],
)
def test_a_start_is_named(start, text):
    assert retraining.start_name(start) == text


def test_without_test_images_of_none_the_known_classes_decide():
    found = section(
        answer(made_up.analysis((retrained("head"), {"accuracy": 0.5}), (retrained(), {}), closed=True)), "layers"
    )
    assert "retraining all layers may be enough for known accuracy" in found and "one-vs-rest AUC" in found
