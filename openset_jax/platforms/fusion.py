"""What XLA's CPU compiler must not fuse."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax


def by_itself(function: Callable[..., Any], *arrays: jax.Array) -> Any:
    """function(*arrays), computed from arrays that are in memory, and not fused with what they are made of.

    Where a result goes into two fusions, XLA's CPU compiler computes it in both, in the order of each: a pooled map again
    for a transposition, in an order that is bad for caches. `lax.optimization_barrier` is gone before it fuses; a branch is
    not. The other branch is never taken: the last bit of a number is 0 or 1, which the compiler does not see.
    """
    bits = lax.bitcast_convert_type(arrays[0].ravel()[0].astype(jnp.float32), jnp.int32)
    nothing = lambda *arrays: jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(function, *arrays))
    return lax.cond((bits & 1) < 2, function, nothing, *arrays)
