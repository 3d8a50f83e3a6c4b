"""Example weights in the loss: class weights, weight of negatives, logit adjustment; the effective prior of all three."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike
from scipy import optimize

from openset_jax.errors import UserError
from openset_jax.openset.losses.objectives import Loss

CLASS_WEIGHTS = ("none", "inverse_frequency", "effective_number")


class Weights(NamedTuple):
    """The reduction of the losses of a batch to one number.

    With a `negative_weight` w, it is the mean over the knowns of the batch plus w times the mean over its negatives, so
    that the weight of the negatives does not depend on their number. With None, it is one mean over all examples.

    Attributes:
      by_class: float64 [K + 1], the weight of an example of each class, "none" last; mean 1 under the sampler's prior.
      tau: the strength of logit adjustment, 0 for none.
      prior: float64 [K + 1], of the sampler.
    """

    by_class: np.ndarray
    negative_weight: float | None
    tau: float
    prior: np.ndarray

    @property
    def mass(self) -> np.ndarray:
        """The total weight of the examples of each class in the loss of an average batch, float64 [K + 1]."""
        mass = self.prior * self.by_class
        if self.negative_weight is None:
            return mass
        return np.append(mass[:-1] / mass[:-1].sum(), self.negative_weight * (self.prior[-1] > 0))

    @property
    def effective_prior(self) -> np.ndarray:
        """The prior under which the softmax outputs estimate the posterior, float64 [K + 1], sums to 1.

        The normalised mass^(1 - tau): logit adjustment removes the factor mass^tau from the outputs.
        """
        prior = np.where(self.mass > 0, np.maximum(self.mass, 1e-300) ** (1 - self.tau), 0.0)
        return prior / prior.sum()

    def adjustment(self, num_outputs: int) -> np.ndarray:
        """Returns tau log prior, float32 [num_outputs], which training adds to the logits.

        The logit-adjusted loss (Menon et al. 2021, arXiv 2007.07314, equation 10); tau = 1 is balanced softmax (Ren et al.
        2020, arXiv 2007.10740, equation 3).
        """
        mass = self.mass[:num_outputs] / self.mass[:num_outputs].sum()
        return (self.tau * np.log(np.where(mass > 0, mass, 1.0))).astype(np.float32)


def example_weights(label: jax.Array, by_class: ArrayLike, negative_weight: ArrayLike | None, axis: str) -> jax.Array:
    """Returns weights, float32 [b]: the sum of weight x loss on each device, averaged over devices, is the reduced loss.

    The labels are int32 [b] in [0, K], of one device's share of the batch; `axis` names the mapped axis over devices.
    """
    table = jnp.asarray(by_class, jnp.float32)
    weight = table[label]
    if negative_weight is None:
        return weight / len(label)
    negative = label == len(table) - 1
    mass = lax.psum(jnp.stack([jnp.where(negative, 0.0, weight).sum(), negative.sum(dtype=jnp.float32)]), axis)
    share = jnp.where(negative, negative_weight / jnp.maximum(mass[1], 1), weight / jnp.maximum(mass[0], 1e-9))
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
    """Computes the class weights.

    Args:
      prior: float [K + 1], of the sampler.
      counts: int [K + 1], number of training images of each class.
      class_weights: "inverse_frequency": 1 / prior; "effective_number": (1 - beta) / (1 - beta^count) (Cui et al. 2019,
        arXiv 1901.05555, equation 2), with beta in [0, 1); "none": 1.

    Raises:
      UserError: `class_weights` is not one of `CLASS_WEIGHTS`.
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


def plateau_loss(loss: Loss, weights: Weights, num_outputs: int) -> float:
    """Returns the minimum of the loss over constant logits, with features 0: that of a network that ignores its images.

    For `background` without weights it is the entropy of the prior.
    """
    hashed: Any = loss  # functions are hashable; their type does not say so
    return _least_loss(hashed, tuple(weights.mass.tolist()), tuple(weights.adjustment(num_outputs).tolist()))


@functools.lru_cache
def _least_loss(loss: Loss, mass: tuple[float, ...], adjustment: tuple[float, ...]) -> float:
    fixed = np.array(mass, np.float32), np.array(adjustment, np.float32)
    evaluate = lambda z: tuple(np.asarray(v, np.float64) for v in _mean_loss(z.astype(np.float32), *fixed, loss=loss))
    return float(optimize.minimize(evaluate, np.zeros(len(adjustment)), jac=True, method="L-BFGS-B").fun)


@functools.partial(jax.jit, static_argnames="loss")
@jax.value_and_grad
def _mean_loss(logits: jax.Array, mass: jax.Array, adjustment: jax.Array, *, loss: Loss) -> jax.Array:
    """The loss of the same logits, [outputs], for every example, where a label has the weight `mass`, [K + 1]."""
    labels = jnp.arange(len(mass))
    losses = loss(jnp.broadcast_to(logits, (len(mass), len(logits))), jnp.zeros((len(mass), 1)), labels, adjustment)
    return jnp.where(mass > 0, mass * losses, 0.0).sum()
