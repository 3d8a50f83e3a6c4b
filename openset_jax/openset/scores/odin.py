"""ODIN: the image is first moved a little towards what the network takes it for, which moves knowns further. On devices."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

TEMPERATURE = 1000.0
EPSILON = 0.0014  # of pixels in [0, 1]


def perturbed_logits(
    apply: Callable[[jax.Array], jax.Array],
    images: jax.Array,
    *,
    known: slice,
    std: Sequence[float],
    temperature: float = TEMPERATURE,
    epsilon: float = EPSILON,
) -> jax.Array:
    """Logits of x + epsilon sign(grad_x log S(x; T)), S the largest softmax probability of z / T.

    Liang, Li and Srikant 2018, arXiv 1706.02690, equation 2; the score is then the maximum softmax probability at T
    (`scores.odin`). T and epsilon are what the authors found for CIFAR-10, and OpenOOD's defaults; nothing is tuned here.

    Args:
      apply: normalised images -> logits [b, outputs]; images must not depend on each other.
      images: float32 [b, H, W, 3], normalised.
      known: which outputs are the K known classes.
      std: of each channel, which pixels were divided by: epsilon is in [0, 1] pixels.

    Returns:
      float32 [b, outputs].
    """

    def likeliest(x):
        return jax.nn.log_softmax(apply(x)[:, known] / temperature).max(-1).sum()

    towards = jnp.sign(jax.grad(likeliest)(images))
    return apply(images + epsilon / jnp.asarray(std, images.dtype) * towards)
