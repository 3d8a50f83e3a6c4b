"""JSON as text: the same values in fewer lines."""

import json

import numpy as np

from openset_jax.json_text import json_text


def test_lists_of_numbers_are_one_line_and_the_values_are_unchanged():
    value = {
        "a": [[1, 2.5], [None, True]],
        "b": ["[\n1,\n2]", "x"],
        "c": {},
        "d": [],
        "e": [{"f": [1e-300]}],
        "g": "[1,  2]",
    }
    text = json_text(value)
    assert json.loads(text) == value
    assert "[1, 2.5],\n" in text and '"f": [1e-300]' in text and text.endswith("}\n")
    assert json_text({"g": "[1,  2]"}) == '{\n  "g": "[1,  2]"\n}\n'


def test_a_confusion_matrix_of_1000_classes_has_a_line_for_each_class():
    text = json_text({"counts": np.zeros((1_000, 1_000), int).tolist()})
    assert text.count("\n") < 1_010 and len(text) < 3_100_000
