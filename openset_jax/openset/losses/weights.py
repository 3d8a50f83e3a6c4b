"""What each example counts: class weights, the mass of negatives, logit adjustment, and the prior that they amount to."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from openset_jax.errors import UserError

CLASS_WEIGHTS = ("none", "inverse_frequency", "effective_number")


class Weights(NamedTuple):
    """How the losses of a batch become one number.

    With `negative_weight` w, the mean over the knowns of the batch plus w times the mean over its negatives: then the number
    of negatives decides how many kinds are seen, and not what they weigh. Without, one mean over all.

    Attributes:
      by_class: float64 [K + 1], of an example of each class, "none" last; their mean under the sampler's prior is 1.
      negative_weight: w, or None.
      tau: the strength of logit adjustment, 0 for none.
      prior: float64 [K + 1], the sampler's.
    """

    by_class: np.ndarray
    negative_weight: float | None
    tau: float
    prior: np.ndarray

    @property
    def mass(self) -> np.ndarray:
        """float64 [K + 1]: what all examples of a class together weigh in the loss of an average batch."""
        mass = self.prior * self.by_class
        if self.negative_weight is None:
            return mass
        return np.append(mass[:-1] / mass[:-1].sum(), self.negative_weight * (self.prior[-1] > 0))

    @property
    def effective_prior(self) -> np.ndarray:
        """float64 [K + 1], sums to 1: the prior under which the outputs of a softmax are probabilities.

        The mass of each class; to the power of 1 - tau with logit adjustment, which takes the rest out of the logits.
        """
        prior = np.where(self.mass > 0, np.maximum(self.mass, 1e-300) ** (1 - self.tau), 0.0)
        return prior / prior.sum()

    def adjustment(self, num_outputs: int) -> np.ndarray:
        """float32 [num_outputs]: tau log prior, which training adds to the logits.

        The logit-adjusted loss (Menon et al. 2021, arXiv 2007.07314, equation 10); tau = 1 is balanced softmax (Ren et al.
        2020, arXiv 2007.10740, equation 3).
        """
        mass = self.mass[:num_outputs] / self.mass[:num_outputs].sum()
        return (self.tau * np.log(np.where(mass > 0, mass, 1.0))).astype(np.float32)

    def of_examples(self, label: jax.Array, axis: str) -> jax.Array:
        """float32 [b]: factors such that the mean over devices of the sum of factor x loss is the number asked for.

        Args:
          label: int32 [b] in [0, K], of one device's share of the batch.
          axis: of the devices.
        """
        weight = jnp.asarray(self.by_class, jnp.float32)[label]
        if self.negative_weight is None:
            return weight / len(label)
        negative = label == len(self.prior) - 1
        mass = lax.psum(jnp.stack([jnp.where(negative, 0.0, weight).sum(), negative.sum(dtype=jnp.float32)]), axis)
        share = jnp.where(negative, self.negative_weight / jnp.maximum(mass[1], 1), weight / jnp.maximum(mass[0], 1e-9))
        return lax.axis_size(axis) * share


def make_weights(
    prior: np.ndarray,
    counts: np.ndarray,
    *,
    negative_weight: float | None,
    class_weights: str = "none",
    beta: float = 0.9999,
    tau: float = 0.0,
) -> Weights:
    """The weights that a config asks for.

    Args:
      prior: float [K + 1], of the sampler.
      counts: int [K + 1], images of each class that may be drawn.
      class_weights: "inverse_frequency": 1 / prior; "effective_number": (1 - beta) / (1 - beta^count) (Cui et al. 2019,
        arXiv 1901.05555, equation 2); "none": 1.

    Raises:
      UserError: no such class weights.
    """
    prior, counts = np.asarray(prior, np.float64), np.asarray(counts, np.float64)
    if class_weights not in CLASS_WEIGHTS:
        raise UserError(f"objective.class_weights: {class_weights!r} is not one of {', '.join(CLASS_WEIGHTS)}")
    drawn, weight = prior > 0, np.ones(len(prior))
    if class_weights == "inverse_frequency":
        weight = 1 / np.where(drawn, prior, 1.0)
    if class_weights == "effective_number":
        weight = (1 - beta) / -np.expm1(np.maximum(counts, 1) * np.log(beta))
    weight = np.where(drawn, weight / (weight * prior).sum(), 0.0)
    return Weights(weight, negative_weight, tau, prior)


def plateau_loss(loss: Callable[..., jax.Array], weights: Weights, num_outputs: int) -> float:
    """The loss of a network that ignores its images: the least over constant logits, with features of zero (dead units).

    For `background` with nothing weighted it is the entropy of the prior.

    Args:
      loss: (logits, features, label) -> loss of each example.
    """
    from scipy import optimize

    labels = np.flatnonzero(weights.mass > 0)
    mass = jnp.asarray(weights.mass[labels], jnp.float32)

    def total(logits):
        logits = jnp.broadcast_to(logits, (len(labels), num_outputs))
        return (mass * loss(logits, jnp.zeros((len(labels), 1)), jnp.asarray(labels))).sum()

    both = jax.jit(jax.value_and_grad(total))
    evaluate = lambda z: tuple(np.asarray(v, np.float64) for v in both(z.astype(np.float32)))
    return float(optimize.minimize(evaluate, np.zeros(num_outputs), jac=True, method="L-BFGS-B").fun)
