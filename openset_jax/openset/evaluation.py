"""Logits and labels of a split -> everything `metrics.json` says about it. Pure arrays."""

from typing import Any

import numpy as np

from openset_jax.openset import metrics, scores


def evaluate_split(
    logits: np.ndarray, label: np.ndarray, group: np.ndarray, *, classes: tuple[str, ...], kinds: dict[str, list[str]]
) -> dict[str, Any]:
    """Closed-set quality on the knowns, and how well each kind of "none of these" is told from them.

    A number without images behind it is None.

    Args:
      logits: float [n, K + 1], "none" last.
      label: int [n]: a known class, -1 negative, -2 unknown.
      group: object [n], names of the groups.
      classes: names of the K known classes.
      kinds: kinds of "none of these" that are told apart ("seen_negatives", "unseen_unknowns") -> their groups.

    Returns:
      The `counts`, `known`, `open_set` and `confusion` of `metrics.json`, whose schema is in the README.
    """
    known = label >= 0
    decision = logits.argmax(axis=1)
    closed = logits[:, :-1].argmax(axis=1)
    score = scores.none_log_odds(logits)
    truth = np.where(known, label, len(classes))
    matrix = metrics.confusion_matrix(label, decision, len(classes))

    def against(chosen):
        both = known | chosen if chosen.any() else chosen
        return {
            "auroc": metrics.auroc(score[known], score[chosen]),
            "rejected_at_argmax": metrics.share(decision[chosen] == len(classes)),
            "balanced_accuracy": metrics.balanced_accuracy(truth[both], decision[both]),
        }

    return {
        "counts": {
            "known": {name: int(((label == k) & known).sum()) for k, name in enumerate(classes)},
            **{kind: {g: int(((group == g) & ~known).sum()) for g in groups} for kind, groups in kinds.items()},
        },
        "known": {
            "accuracy": metrics.share(closed[known] == label[known]),
            "balanced_accuracy": metrics.balanced_accuracy(label[known], closed[known]),
            "accuracy_with_none": metrics.share(decision[known] == label[known]),
            "rejected_at_argmax": metrics.share(decision[known] == len(classes)),
            "recall": {name: metrics.share(decision[label == k] == k) for k, name in enumerate(classes)},
        },
        "open_set": {
            **{kind: against(np.isin(group, groups) & ~known) for kind, groups in kinds.items()},
            "by_group": {g: against((group == g) & ~known) for groups in kinds.values() for g in groups},
        },
        "confusion": {
            "rows": [*classes, "negatives", "unknowns"],
            "columns": [*classes, "none"],
            "counts": matrix.tolist(),
        },
    }
