"""Training losses: functions of logits and labels, one value per example."""

from collections.abc import Callable

import jax
import optax

from openset_jax.errors import UserError


def background(logits: jax.Array, label: jax.Array) -> jax.Array:
    """Softmax cross-entropy over K classes and "none", the extra class that all negatives belong to.

    Called "background" or "garbage class"; Dhamija, Guenther and Boult 2018 (arXiv 1811.04110), section 2.

    Args:
      logits: float32 [b, K + 1], "none" last.
      label: int32 [b] in [0, K].

    Returns:
      float32 [b], nats.
    """
    return optax.softmax_cross_entropy_with_integer_labels(logits, label)


OBJECTIVES = {"background": background}


def get(name: str) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """The objective of that name: (logits, label) -> loss of each example.

    Raises:
      UserError: there is none.
    """
    if name not in OBJECTIVES:
        raise UserError(f"objective.name: {name!r} is not one of {', '.join(OBJECTIVES)}")
    return OBJECTIVES[name]
