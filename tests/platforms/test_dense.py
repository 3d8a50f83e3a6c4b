"""The product of a head and its gradients, alone and for many heads at once."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from openset_jax.platforms import dense, xla


def inputs(outputs, heads=()):
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.normal(size=(*heads, *shape)).astype(np.float32)) for shape in ((16, 40), (40, outputs))]


def value_and_gradients(product, x, kernel):
    loss = lambda x, kernel: jnp.square(product(x, kernel) + 1).sum()
    return jax.value_and_grad(loss, argnums=(0, 1))(x, kernel)


@pytest.mark.parametrize("outputs", [1, 7])
@pytest.mark.parametrize("heads", [(), (1,), (3,)])
def test_product_and_gradients_are_those_of_the_plain_product(outputs, heads):
    ours, plain = (functools.partial(value_and_gradients, product) for product in (dense.multiply, jnp.matmul))
    if heads:
        ours, plain = jax.vmap(ours), jax.vmap(plain)
    found, expected = (jax.jit(each)(*inputs(outputs, heads)) for each in (ours, plain))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-4), found, expected)


def test_the_compiled_gradient_of_the_kernel_is_a_product_of_few_rows():
    x, kernel = inputs(7)
    compiled = xla.compile_lowered(
        jax.jit(lambda x, w: value_and_gradients(dense.multiply, x, w)).lower(x, kernel)
    ).as_text()
    assert "f32[7,40]{1,0} dot(" in compiled
    assert "f32[40,7]{1,0} dot(" not in compiled, "the form that XLA computes slowly"


def test_a_dense_layer_takes_it_unless_it_has_many_outputs():
    for outputs, custom in ((256, True), (257, False)):
        layer = nn.Dense(outputs, dot_general=dense.dot_general)
        params = layer.init(jax.random.key(0), jnp.zeros((1, 3)))
        assert ("custom_vjp" in str(jax.make_jaxpr(layer.apply)(params, jnp.zeros((2, 3))))) == custom
