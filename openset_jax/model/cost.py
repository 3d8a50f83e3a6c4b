"""The number of floating-point operations of a network's step."""

import functools

import jax
import jax.numpy as jnp

from openset_jax.model.layers import Ops
from openset_jax.model.network import Network
from openset_jax.platforms import chunks, convolution, max_pool

# The plain operations: the forms that are fast on a platform may have more multiplications.
_PLAIN = Ops(convolution.convolve_plainly, max_pool.max_pool_by_windows, pool_first=False, in_chunks=chunks.at_once)
_EXAMPLES = 8  # products of matrices with one row would be counted as products of vectors


@functools.lru_cache(maxsize=64)
def flops_per_example(network: Network, shape: tuple[int, ...], *, train: bool = True) -> float:
    """Returns the operations for one example, as XLA counts them before it optimises; a multiply-add counts as 2.

    Args:
      shape: of one example as the network takes it.
      train: with the backward pass through the trained layers of the network; without the update of the parameters.
    """
    network = network.clone(ops=_PLAIN, axis_name=None, dropout=0.0)
    images = jax.ShapeDtypeStruct((_EXAMPLES, *shape), jnp.float32)
    variables = jax.eval_shape(network.init, jax.random.key(0), images)
    trained, frozen = network.split(variables["params"])

    def loss(trained, frozen, statistics, images):
        variables = {"params": frozen | trained, **statistics}
        (logits, _), updated = network.apply(
            variables, images, train=train, position=jnp.arange(_EXAMPLES), mutable=["batch_stats"]
        )
        return jnp.square(logits).sum(), updated

    statistics = {name: values for name, values in variables.items() if name != "params"}
    step = jax.grad(loss, has_aux=True) if train else loss
    counted = jax.jit(step).lower(trained, frozen, statistics, images).cost_analysis()
    assert counted is not None
    return counted["flops"] / _EXAMPLES
