"""Functions of images applied to chunks: results and gradients equal those of one call."""

import jax
import jax.numpy as jnp
import pytest
from gradients import assert_close, normal, value_and_gradients

from openset_jax.platforms import chunks

FUNCTION = lambda x: jnp.tanh(x[:, ::2, 1:]) * x[:, :1, :1]


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7])
def test_chunks_give_the_result_and_the_gradient_of_one_call(count):
    x = normal(0, count, 4, 6, 3)
    found, expected = (
        value_and_gradients(f, x)
        for f in (lambda x: chunks.chunk_by_chunk(FUNCTION, x, 2), lambda x: chunks.at_once(FUNCTION, x))
    )
    assert_close(found, expected, 1e-6)


@pytest.mark.parametrize(("platform", "loops"), [("cpu", True), ("cuda", False), ("tpu", False)])
def test_only_on_cpus_there_is_a_loop_and_the_chunks_of_large_images_are_small(platform, loops):
    shape = jax.ShapeDtypeStruct((64, 1024, 1024, 3), jnp.float32)
    traced = jax.jit(lambda x: chunks.in_chunks(FUNCTION, x)).trace(shape)
    assert ("stablehlo.while" in traced.lower(lowering_platforms=(platform,)).as_text()) == loops
