"""Training objectives: the loss of each example, and the table of objectives that a config can name.

Notation: z are the logits, K is the number of known classes, and the label K means "none of these". `Weights` reduces the
losses of a batch to one number and applies `negative_weight`. The papers weigh negatives differently:

| paper | here |
|---|---|
| K + 1 classes, natural batches | background, negative_weight=None: all examples have equal weights |
| Dhamija et al. 2018, background: negatives weigh as much as one known class | background, negative_weight=1 / K |
| Dhamija et al. 2018, entropic: one mean over the batch | entropic, negative_weight=None |
| Hendrycks et al. 2019, lambda = 0.5, two means | outlier_exposure, negative_weight=0.5 |
| Liu et al. 2020, 0.1 times both hinges | energy_margin, negative_weight=0.1 |
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike

from openset_jax.errors import UserError
from openset_jax.openset.scores import logit_scores


class Loss(Protocol):
    """A loss with its own options bound."""

    def __call__(self, logits: jax.Array, features: jax.Array, label: jax.Array, adjustment: ArrayLike) -> jax.Array:
        """Returns the loss of each example, float32 [b], in nats.

        Args:
          logits: float32 [b, K]; for `background` [b, K + 1], "none" last.
          features: float32 [b, F], of the penultimate layer.
          label: int32 [b] in [0, K].
          adjustment: float32 [outputs], added to the logits: see `Weights.adjustment`.
        """


def background(logits: jax.Array, features: jax.Array, label: jax.Array, adjustment: ArrayLike) -> jax.Array:
    """Computes the softmax cross-entropy over K classes and "none", the class of all negatives.

    Also called "garbage class"; Dhamija, Guenther and Boult 2018 (arXiv 1811.04110), section 2. See `Loss` for arguments.
    """
    return optax.softmax_cross_entropy_with_integer_labels(logits + adjustment, label)


def one_vs_rest(logits: jax.Array, features: jax.Array, label: jax.Array, adjustment: ArrayLike) -> jax.Array:
    """Computes the sum of K binary cross-entropies, one for each class against the rest. Negatives have all targets 0.

    The adjustment is not used: logit adjustment is defined for a softmax only.
    """
    targets = jax.nn.one_hot(label, logits.shape[-1])  # all zeros for label K
    return optax.sigmoid_binary_cross_entropy(logits, targets).sum(-1)


def softmax(logits: jax.Array, features: jax.Array, label: jax.Array, adjustment: ArrayLike) -> jax.Array:
    """Computes the cross-entropy over K classes for knowns, and 0 for negatives."""
    own = jnp.take_along_axis(logits + adjustment, jnp.minimum(label, logits.shape[-1] - 1)[:, None], -1)[:, 0]
    return jnp.where(_known(logits, label), jax.nn.logsumexp(logits + adjustment, -1) - own, 0.0)


def entropic(logits: jax.Array, features: jax.Array, label: jax.Array, adjustment: ArrayLike) -> jax.Array:
    """Computes the cross-entropy for knowns, and that of the uniform distribution, -(1 / K) sum_k log p_k, for negatives.

    Entropic open-set loss (Dhamija, Guenther and Boult 2018, arXiv 1811.04110, equation 2). Outlier exposure (Hendrycks,
    Mazeika and Dietterich 2019, arXiv 1812.04606, section 3) is the same function with another weight of negatives.
    """
    uniform = jax.nn.logsumexp(logits, -1) - logits.mean(-1)  # not adjusted: uniform outputs are the target
    return softmax(logits, features, label, adjustment) + jnp.where(_known(logits, label), 0.0, uniform)


def objectosphere(
    logits: jax.Array, features: jax.Array, label: jax.Array, adjustment: ArrayLike, *, magnitude: float, ring_weight: float
) -> jax.Array:
    """Computes the entropic loss plus a penalty on knowns with a small feature norm and negatives with a large one.

    The penalty is ring_weight * max(0, magnitude - ||F||)^2 for knowns and ring_weight * ||F||^2 for negatives (Dhamija,
    Guenther and Boult 2018, arXiv 1811.04110, equation 3; the authors use a magnitude xi of 50 and a weight of 1e-4).
    """
    squared = jnp.square(features).sum(-1)
    length = jnp.sqrt(jnp.maximum(squared, 1e-12))  # the derivative of the root is infinite at 0
    ring = jnp.where(_known(logits, label), jnp.square(jax.nn.relu(magnitude - length)), squared)
    return entropic(logits, features, label, adjustment) + ring_weight * ring


def energy_margin(
    logits: jax.Array,
    features: jax.Array,
    label: jax.Array,
    adjustment: ArrayLike,
    *,
    margins: tuple[float, float] | None,
    negative_weight: float,
) -> jax.Array:
    """Computes the cross-entropy for knowns plus squared hinges that separate the energies E = -logsumexp(z).

    The hinges are negative_weight * max(0, E - m_known)^2 for knowns and max(0, m_negative - E)^2 for negatives; `Weights`
    multiplies the latter by negative_weight, too (Liu, Wang, Owens and Li 2020, arXiv 2010.03759, equation 8). The margins
    are (m_known, m_negative); None for the cross-entropy alone.
    """
    loss = softmax(logits, features, label, adjustment)
    if margins is None:
        return loss
    energy = -jax.nn.logsumexp(logits, -1)
    too_high, too_low = jax.nn.relu(energy - margins[0]), jax.nn.relu(margins[1] - energy)
    return loss + jnp.where(_known(logits, label), negative_weight * jnp.square(too_high), jnp.square(too_low))


def _known(logits: jax.Array, label: jax.Array) -> jax.Array:
    return label < logits.shape[-1]


class Objective(NamedTuple):
    """A loss, the outputs that it needs, and its score.

    Attributes:
      loss: a `Loss` that also takes `options` as keywords.
      none_output: whether the network has an output for "none".
      negative_weight: the default of `objective.negative_weight`: the weight of the negative term relative to the known
        term; None for one mean over all examples.
      softmax: whether the outputs are one softmax; otherwise each is a sigmoid.
      score: logits float [n, outputs] -> float64 [n], larger = more unknown; for AUROC and the threshold.
      options: names of the loss's own options, which are fields of the config's `objective`.
      uses_negatives: whether the network trains on negatives.
    """

    name: str
    loss: Callable[..., jax.Array]
    none_output: bool
    negative_weight: float | None
    softmax: bool = True
    score: Callable[[np.ndarray], np.ndarray] = logit_scores.msp
    options: tuple[str, ...] = ()
    uses_negatives: bool = True

    @property
    def says_none(self) -> bool:
        """Whether the network can answer "none" by itself, without a threshold."""
        return self.none_output or not self.softmax

    def num_outputs(self, num_classes: int) -> int:
        """Returns the number of the network's outputs for K known classes: K, or K + 1."""
        return num_classes + self.none_output

    @property
    def known_outputs(self) -> slice:
        """The outputs of the K known classes."""
        return slice(-1) if self.none_output else slice(None)

    def check_classes(self, classes: Sequence[str]) -> None:
        """Raises UserError if there is one known class and the objective is a softmax over the known classes.

        Its probability is then 1 and its cross-entropy 0, whatever the logit. Only the norm term of `objectosphere` and the
        hinges of `energy_margin` remain, but the score of the first is constant, and the margins of the second are measured
        on a network that the cross-entropy has trained.
        """
        if len(classes) == 1 and not self.says_none:
            working = " or ".join(objective.name for objective in OBJECTIVES.values() if objective.says_none)
            raise UserError(
                f"objective.name: {self.name} is a softmax over the known classes, and there is only one, {classes[0]!r}: "
                f"its probability is 1 and its cross-entropy 0 for every image. Use {working}"
            )

    def predict_class(self, logits: jax.Array, num_classes: int) -> jax.Array:
        """Returns the class of each example, int32 [b] in [0, K]; never K ("none") unless `says_none`."""
        best = jnp.argmax(logits, -1)
        return best if self.softmax else jnp.where(logits.max(-1) > 0, best, num_classes)


OBJECTIVES: dict[str, Objective] = {
    objective.name: objective
    for objective in (
        Objective("background", background, True, None, score=logit_scores.none_log_odds),
        Objective("one_vs_rest", one_vs_rest, False, None, softmax=False, score=logit_scores.energy),
        Objective("softmax", softmax, False, None, uses_negatives=False),
        Objective("entropic", entropic, False, None),
        Objective("outlier_exposure", entropic, False, 0.5),
        Objective("objectosphere", objectosphere, False, None, options=("magnitude", "ring_weight")),
        Objective(
            "energy_margin", energy_margin, False, 0.1, score=logit_scores.energy, options=("margins", "negative_weight")
        ),
    )
}


def get(name: str) -> Objective:
    """Returns the objective of that name; raises UserError if there is none."""
    if name not in OBJECTIVES:
        raise UserError(f"objective.name: {name!r} is not one of {', '.join(OBJECTIVES)}")
    return OBJECTIVES[name]
