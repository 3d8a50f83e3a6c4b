"""The margins of the energy objective, measured on the user's data.

The authors' are energies of one network on one data set, and are of no use with others. Here the network first learns from
the knowns alone; then the margins are the energies it has: knowns are to be below the mean of knowns, negatives above the
mean of negatives.
"""

from typing import Any

import numpy as np

from openset_jax.openset.scores import logit_scores

SHARE = 0.2  # of the steps, which come before
_MOST = 2_048  # images of either side


def due(steps: int, steps_per_call: int) -> int:
    """The step at which margins are measured: a fifth of all, and at least one call."""
    return max(round(SHARE * steps) // steps_per_call, 1) * steps_per_call


def measure(pool: Any, inference: Any, variables: Any, members: list[np.ndarray]) -> list[float]:
    """[mean energy of knowns, mean energy of negatives] of training images, in nats.

    Args:
      members: rows of each class, "none" last. Of either side at most 2,048 are looked at, the same in every run.
    """
    means = []
    for rows in (np.concatenate(members[:-1]), members[-1]):
        chosen = rows[np.argsort(pool.key[rows], kind="stable")[:_MOST]]
        _, logits = inference.logits(variables, chosen)
        means.append(float(logit_scores.energy(logits).mean()))
    return means


def line(known: float, negative: float) -> str:
    """What to say of them."""
    text = f"Energies are parted from here on: knowns below {known:.2f}, negatives above {negative:.2f}."
    if known < negative:
        return text
    return f"{text} But negatives have the lower energy so far: train longer, or give objective.margins."
