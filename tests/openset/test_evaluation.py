"""Logits and labels -> what metrics.json says."""

import numpy as np

from openset_jax.openset.evaluation import evaluate_split

KINDS = {"seen_negatives": ["n1", "n2"], "unseen_unknowns": ["u"]}


def evaluate(rows):
    """rows: (logits, label, group)."""
    logits, label, group = zip(*rows, strict=True)
    return evaluate_split(
        np.array(logits, np.float32), np.array(label), np.array(group, object), classes=("a", "b"), kinds=KINDS
    )


def test_numbers_of_a_case_worked_by_hand():
    result = evaluate(
        [
            ((3, 0, 0), 0, "a"),  # right
            ((0, 3, 0), 0, "a"),  # taken for b
            ((0, 3, 4), 1, "b"),  # right among the knowns, but rejected
            ((0, 0, 5), -1, "n1"),  # rejected
            ((5, 0, 0), -1, "n2"),  # accepted as a
        ]
    )
    assert result["known"]["accuracy"] == 2 / 3
    assert result["known"]["balanced_accuracy"] == (1 / 2 + 1) / 2
    assert result["known"]["accuracy_with_none"] == 1 / 3
    assert result["known"]["rejected_at_argmax"] == 1 / 3
    assert result["known"]["recall"] == {"a": 0.5, "b": 0.0}
    assert result["open_set"]["by_group"]["n1"] == {
        "auroc": 1.0, "rejected_at_argmax": 1.0, "balanced_accuracy": (0.5 + 0 + 1) / 3
    }  # fmt: skip
    assert result["open_set"]["by_group"]["n2"]["auroc"] == 0.0
    assert result["open_set"]["seen_negatives"]["auroc"] == 0.5
    assert result["counts"] == {"known": {"a": 2, "b": 1}, "seen_negatives": {"n1": 1, "n2": 1}, "unseen_unknowns": {"u": 0}}
    assert result["confusion"]["counts"] == [[1, 1, 0], [0, 0, 1], [1, 0, 1], [0, 0, 0]]


def test_a_number_without_images_is_none_and_seen_and_unseen_stay_apart():
    result = evaluate([((3, 0, 0), 0, "a"), ((0, 3, 0), 1, "b"), ((0, 0, 9), -2, "u")])
    assert result["open_set"]["seen_negatives"] == {"auroc": None, "rejected_at_argmax": None, "balanced_accuracy": None}
    assert result["open_set"]["unseen_unknowns"]["auroc"] == 1.0
