"""Retraining fewer layers: opposite numbers give opposite answers."""

import re

from study import made_up
from study.reading import section

from openset_jax.study.answer.answer_markdown import answer


def layered(**head):
    arms = made_up.analysis(({"trainable": "all"}, {}), ({"trainable": "head"}, head), ({}, {}))
    return section(answer(arms), "layers")


def test_the_last_layer_is_not_enough():
    found = layered(seen=1.0)
    assert "**Retraining the last layer (head), compared with retraining all layers: not enough.**" in found
    assert "**Retraining the last layer (head), compared with training from scratch: not enough.**" in found
    assert "**Retraining all layers, compared with training from scratch: may be enough, not significantly worse.**" in found
    assert re.search("worse in AUROC against seen negatives by .*, OSCR against seen", found)


def test_the_last_layer_is_enough():
    found = layered()
    assert "(head), compared with retraining all layers: may be enough, not significantly worse.**" in found
    assert "not enough" not in found and "worse in" not in found
