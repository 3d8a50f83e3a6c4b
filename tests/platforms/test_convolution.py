"""The rewritings: equal to the plain forms, gradients included, and lowered on their platforms only."""

import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from openset_jax.platforms import convolution, fusion, max_pool

BLOCKS = {
    "cpu": lambda x, kernel: convolution.convolve_blocks(x, kernel, 4, 2, alone=True),
    "cuda": lambda x, kernel: convolution.convolve_blocks(x, kernel, 4, 2),
}
POOLS = {"cpu": max_pool.max_pool_by_slices, "cuda": max_pool.max_pool_by_parity}
PLAIN = lambda x, kernel: convolution.convolve_plainly(x, kernel, 4, 2)


def normal(seed, *shape, dtype=jnp.float32):
    return jax.random.normal(jax.random.key(seed), shape).astype(dtype)


def value_and_gradients(function, *arguments):
    value, pull = jax.vjp(function, *arguments)
    return value, *pull(normal(9, *value.shape, dtype=value.dtype))


def assert_close(found, expected, tolerance):
    for a, b in zip(found, expected, strict=True):
        chex.assert_equal_shape([a, b])
        assert a.dtype == b.dtype
        a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
        np.testing.assert_allclose(a, b, atol=tolerance * np.abs(b).max(), rtol=0)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("bfloat16", 0.02)])
@pytest.mark.parametrize("size", [(63, 63), (64, 71), (66, 69), (224, 224)])
@pytest.mark.parametrize("platform", BLOCKS)
def test_convolution_of_blocks_is_the_plain_one(platform, size, dtype, tolerance):
    x, kernel = normal(0, 2, *size, 3, dtype=dtype), normal(1, 11, 11, 3, 8, dtype=dtype)
    assert_close(value_and_gradients(BLOCKS[platform], x, kernel), value_and_gradients(PLAIN, x, kernel), tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-6), ("bfloat16", 0.02)])
@pytest.mark.parametrize("size", [(3, 3), (6, 6), (13, 13), (28, 32), (27, 30), (55, 55)])
@pytest.mark.parametrize("pool", POOLS.values(), ids=POOLS)
def test_pooling_is_that_by_windows(pool, size, dtype, tolerance):
    x = normal(0, 2, *size, 5, dtype=dtype)
    by_windows = jax.vjp(max_pool.max_pool_by_windows, x)[0]
    chex.assert_trees_all_equal(pool(x), by_windows)
    found, expected = (value_and_gradients(f, x) for f in (pool, max_pool.max_pool_by_windows))
    assert_close(found, expected, tolerance)


@pytest.mark.parametrize("pool", POOLS.values(), ids=POOLS)
def test_of_equal_elements_the_first_gets_the_gradient_of_the_window(pool):
    x = jnp.zeros((1, 5, 7, 1)).at[0, 1, 1].set(1).at[0, 1, 2].set(1)
    found, expected = (value_and_gradients(f, x)[1] for f in (pool, max_pool.max_pool_by_windows))
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert found[0, 1, 1] != 0 and found[0, 0, 4] != 0


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("bfloat16", 0.02)])
@pytest.mark.parametrize(
    ("shape", "features", "side", "padding"),
    [((28, 28, 3), 8, 5, 2), ((32, 32, 3), 16, 5, 2), ((20, 24, 3), 7, 5, 2), ((15, 15, 3), 7, 5, 2), ((16, 16, 1), 4, 3, 1),
     ((27, 27, 8), 6, 5, 2), ((13, 13, 6), 10, 3, 1), ((3, 3, 5), 4, 3, 1)],
)  # fmt: skip
def test_a_convolution_of_stride_1_and_its_gradients_are_the_plain_ones(shape, features, side, padding, dtype, tolerance):
    x, kernel = normal(0, 2, *shape, dtype=dtype), normal(1, side, side, shape[-1], features, dtype=dtype)
    found, expected = (
        value_and_gradients(lambda x, kernel, f=f: f(x, kernel, 1, padding), x, kernel)
        for f in (convolution.convolve, convolution.convolve_plainly)
    )
    assert_close(found, expected, tolerance)


def test_a_function_by_itself_is_the_function_whatever_the_numbers():
    for value in (0.0, -0.0, 1.5, np.inf, np.nan, np.float32(np.uint32(0x7FC00001).view(np.float32))):
        x = jnp.full((2, 3), value, jnp.float32)
        np.testing.assert_array_equal(jax.jit(lambda x: fusion.by_itself(jnp.add, x, jnp.ones_like(x)))(x), x + 1)


def test_inside_a_loop_all_convolutions_are_of_the_form_that_a_library_knows():
    """Exchanged dimensions would be left as they are there, and take ten times as long."""

    def steps(x, kernel):
        one = lambda kernel, _: (kernel - jax.grad(lambda k: jnp.sum(convolution.convolve(x, k, 1, 1) ** 2))(kernel), None)
        return jax.lax.scan(one, kernel, length=3)[0]

    shapes = [jax.ShapeDtypeStruct(s, jnp.float32) for s in ((2, 8, 8, 6), (3, 3, 6, 4))]
    text = jax.jit(steps).trace(*shapes).lower(lowering_platforms=("cpu",)).as_text()
    forms = re.findall(r"stablehlo.convolution.*?dim_numbers = (.*?), window", text)
    assert len(forms) == 2
    assert set(forms) == {"[b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f]"}


def test_pooling_before_the_bias_is_pooling_after_it():
    x, bias = normal(0, 2, 13, 13, 6), normal(1, 6)
    before = jax.nn.relu(max_pool.max_pool(x) + bias)
    chex.assert_trees_all_equal(before, max_pool.max_pool_by_windows(jax.nn.relu(x + bias)))


@pytest.mark.parametrize("platform", ["cpu", "cuda", "rocm", "tpu"])
def test_each_platform_gets_its_own_forms(platform):
    def loss(x, kernel):
        return jnp.sum(max_pool.max_pool(convolution.convolve(x, kernel, 4, 2)) ** 2)

    shapes = [jax.ShapeDtypeStruct(s, jnp.float32) for s in ((2, 63, 63, 3), (11, 11, 3, 8))]
    traced = jax.jit(jax.grad(loss, argnums=1)).trace(*shapes)
    lowered = traced.lower(lowering_platforms=(platform,)).as_text()
    rewritten = platform in ("cpu", "cuda")
    assert ("select_and_scatter" in lowered) != rewritten
    assert ("11x11x3x8xf32>) -> tensor<2x15x15x8xf32>" in lowered) != rewritten
    assert ("bitcast_convert" in lowered) == (platform == "cpu")  # of `by_itself`, a branch that a GPU would wait for


def test_a_function_for_several_platforms_can_be_exported():
    traced = jax.export.export(jax.jit(jax.grad(lambda x: max_pool.max_pool(x).sum())), platforms=["cpu", "tpu"])
    assert traced(jax.ShapeDtypeStruct((2, 13, 13, 4), jnp.float32)).platforms == ("cpu", "tpu")
