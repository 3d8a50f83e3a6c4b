"""Which of several equal computations a network is made of."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax

from openset_jax.platforms import convolution, max_pool


@dataclasses.dataclass(frozen=True)
class Forms:
    """The defaults choose by platform what was measured to be fastest there; `benchmarks.variants` measures others.

    Attributes:
      convolve: see `convolution.convolve`.
      max_pool: see `max_pool.max_pool`.
      pool_first: max-pool before adding the bias, not after the ReLU, where nothing else lies between them.
      relu: max(x, 0).
      bernoulli: see `jax.random.bernoulli`: draws the masks of dropout.
    """

    convolve: Callable[..., jax.Array] = convolution.convolve
    max_pool: Callable[[jax.Array], jax.Array] = max_pool.max_pool
    pool_first: bool = True
    relu: Callable[[jax.Array], jax.Array] = jax.nn.relu
    bernoulli: Callable[..., Any] = jax.random.bernoulli
