"""Training losses: functions of a network's outputs and the labels, one value per example.

In all of them z are logits, K the number of known classes, and a label of K stands for "none of these". How the values of a
batch become one number, and what `negative_weight` does to it, is in `Weights`. Every paper weighs negatives in its own way:

| paper | here |
|---|---|
| K + 1 classes, natural batches | background, negative_weight=None: every example counts the same |
| Dhamija et al. 2018, background: negatives weigh as much as one known class | background, negative_weight=1 / K |
| Dhamija et al. 2018, entropic: one mean over the batch | entropic, negative_weight=None |
| Hendrycks et al. 2019, lambda = 0.5, both means apart | outlier_exposure, negative_weight=0.5 |
| Liu et al. 2020, 0.1 times both hinges | energy_margin, negative_weight=0.1 |
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from openset_jax.errors import UserError


def background(logits: jax.Array, features: jax.Array, label: jax.Array, *, adjustment: jax.Array) -> jax.Array:
    """Softmax cross-entropy over K classes and "none", the extra class that all negatives belong to.

    Called "background" or "garbage class"; Dhamija, Guenther and Boult 2018 (arXiv 1811.04110), section 2.

    Args:
      logits: float32 [b, K + 1], "none" last.
      features: not used.
      label: int32 [b] in [0, K].
      adjustment: float32 [K + 1], added to the logits: see `Weights.adjustment`.

    Returns:
      float32 [b], nats.
    """
    return optax.softmax_cross_entropy_with_integer_labels(logits + adjustment, label)


def one_vs_rest(logits: jax.Array, features: jax.Array, label: jax.Array) -> jax.Array:
    """The sum of K binary cross-entropies: "this class or not". A negative's label is all zeros.

    Args:
      logits: float32 [b, K].
    """
    targets = jax.nn.one_hot(label, logits.shape[-1])  # all zeros for K
    return optax.sigmoid_binary_cross_entropy(logits, targets).sum(-1)


def softmax(logits: jax.Array, features: jax.Array, label: jax.Array, *, adjustment: jax.Array) -> jax.Array:
    """Cross-entropy of the knowns over K classes, and 0 for negatives.

    Args:
      logits: float32 [b, K].
    """
    own = jnp.take_along_axis(logits + adjustment, jnp.minimum(label, logits.shape[-1] - 1)[:, None], -1)[:, 0]
    return jnp.where(_known(logits, label), jax.nn.logsumexp(logits + adjustment, -1) - own, 0.0)


def entropic(logits: jax.Array, features: jax.Array, label: jax.Array, *, adjustment: jax.Array) -> jax.Array:
    """Cross-entropy of the knowns, and of negatives against the uniform distribution: -(1 / K) sum_k log p_k.

    Entropic open-set loss (Dhamija, Guenther and Boult 2018, arXiv 1811.04110, equation 2); outlier exposure (Hendrycks,
    Mazeika and Dietterich 2019, arXiv 1812.04606, section 3) is the same function with another weight.

    Args:
      logits: float32 [b, K].
    """
    uniform = jax.nn.logsumexp(logits, -1) - logits.mean(-1)  # unadjusted: of balanced classes none is to be likelier
    return softmax(logits, features, label, adjustment=adjustment) + jnp.where(_known(logits, label), 0.0, uniform)


def objectosphere(
    logits: jax.Array, features: jax.Array, label: jax.Array, *, adjustment: jax.Array, magnitude: float, ring_weight: float
) -> jax.Array:
    """The entropic loss, and features that are long for knowns and short for negatives.

    ring_weight * max(0, magnitude - ||F||)^2 for knowns, ring_weight * ||F||^2 for negatives (Dhamija, Guenther and Boult
    2018, arXiv 1811.04110, equation 3, whose xi is 50 and whose weight 1e-4 in the authors' experiments).

    Args:
      logits: float32 [b, K].
      features: float32 [b, F], of the penultimate layer.
    """
    squared = jnp.square(features).sum(-1)
    length = jnp.sqrt(jnp.maximum(squared, 1e-12))  # the root's slope at 0 is infinite
    ring = jnp.where(_known(logits, label), jnp.square(jax.nn.relu(magnitude - length)), squared)
    return entropic(logits, features, label, adjustment=adjustment) + ring_weight * ring


def energy_margin(
    logits: jax.Array,
    features: jax.Array,
    label: jax.Array,
    *,
    adjustment: jax.Array,
    margins: tuple[float, float] | None,
    negative_weight: float,
) -> jax.Array:
    """Cross-entropy of the knowns, and squared hinges that part energies E = -logsumexp(z).

    negative_weight * max(0, E - m_known)^2 for knowns; max(0, m_negative - E)^2 for negatives, which `Weights` weighs as
    much (Liu, Wang, Owens and Li 2020, arXiv 2010.03759, equation 8). Without margins, the cross-entropy alone.

    Args:
      logits: float32 [b, K].
      margins: (m_known, m_negative).
    """
    loss = softmax(logits, features, label, adjustment=adjustment)
    if margins is None:
        return loss
    energy = -jax.nn.logsumexp(logits, -1)
    too_high, too_low = jax.nn.relu(energy - margins[0]), jax.nn.relu(margins[1] - energy)
    return loss + jnp.where(_known(logits, label), negative_weight * jnp.square(too_high), jnp.square(too_low))


def _known(logits, label):
    return label < logits.shape[-1]


class Objective(NamedTuple):
    """A loss and what must be known about it.

    Attributes:
      loss: (logits, features, label, **options) -> loss of each example.
      none_output: whether the network has an output for "none".
      negative_weight: the mass of the negative term for each unit of the known one, where the config does not say: None
        for one mean over all examples.
      softmax: whether outputs compete; else each is a binary answer.
      score: name of the function of `scores` that ranks images by how unknown they are.
      options: names of the loss's own options, fields of the config's `objective`.
      uses_negatives: whether negatives are trained on at all.
    """

    loss: Callable[..., jax.Array]
    none_output: bool
    negative_weight: float | None
    softmax: bool = True
    score: str = "msp"
    options: tuple[str, ...] = ()
    uses_negatives: bool = True


OBJECTIVES = {
    "background": Objective(background, True, None, score="none_log_odds"),
    "one_vs_rest": Objective(one_vs_rest, False, None, softmax=False, score="energy"),
    "softmax": Objective(softmax, False, None, uses_negatives=False),
    "entropic": Objective(entropic, False, None),
    "outlier_exposure": Objective(entropic, False, 0.5),
    "objectosphere": Objective(objectosphere, False, None, options=("magnitude", "ring_weight")),
    "energy_margin": Objective(energy_margin, False, 0.1, score="energy", options=("margins", "negative_weight")),
}


def get(name: str) -> Objective:
    """The objective of that name.

    Raises:
      UserError: there is none.
    """
    if name not in OBJECTIVES:
        raise UserError(f"objective.name: {name!r} is not one of {', '.join(OBJECTIVES)}")
    return OBJECTIVES[name]


def answer(objective: Objective, logits: jax.Array, *, num_classes: int) -> jax.Array:
    """The class of each example, int32 [b] in [0, K]; networks without a none-output and without sigmoids never say K."""
    best = jnp.argmax(logits, -1)
    return best if objective.softmax else jnp.where(logits.max(-1) > 0, best, num_classes)
