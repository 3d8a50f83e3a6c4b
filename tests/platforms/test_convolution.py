"""Convolutions: each rewriting equals the plain form, gradients included, and is lowered on its platforms only."""

import re

import jax
import jax.numpy as jnp
import pytest
from gradients import assert_close, in_both_dtypes, normal, value_and_gradients

from openset_jax.platforms import convolution, depthwise, max_pool

SAME = {3: (0, 1), 5: (1, 2)}  # TensorFlow's padding of an even side, with stride 2
BLOCKS = {
    "cpu": lambda x, kernel: convolution.convolve_blocks(x, kernel, 4, 2, alone=True),
    "cuda": lambda x, kernel: convolution.convolve_blocks(x, kernel, 4, 2),
}
PLAIN = lambda x, kernel: convolution.convolve_plainly(x, kernel, 4, 2)


@pytest.mark.parametrize(
    ("size", "dtype", "tolerance"),
    in_both_dtypes(((63, 63),), ((64, 71),), ((66, 69),), ((224, 224),), tolerance=1e-5),
)
@pytest.mark.parametrize("platform", BLOCKS)
def test_convolution_of_blocks_is_the_plain_one(platform, size, dtype, tolerance):
    x, kernel = normal(0, 2, *size, 3, dtype=dtype), normal(1, 11, 11, 3, 8, dtype=dtype)
    assert_close(value_and_gradients(BLOCKS[platform], x, kernel), value_and_gradients(PLAIN, x, kernel), tolerance)


@pytest.mark.parametrize(
    ("shape", "features", "side", "padding", "dtype", "tolerance"),
    in_both_dtypes(
        ((28, 28, 3), 8, 5, 2), ((32, 32, 3), 16, 5, 2), ((20, 24, 3), 7, 5, 2), ((15, 15, 3), 7, 5, 2),
        ((16, 16, 1), 4, 3, 1), ((27, 27, 8), 6, 5, 2), ((13, 13, 6), 10, 3, 1), ((3, 3, 5), 4, 3, 1), tolerance=1e-5,
    ),
)  # fmt: skip
def test_a_convolution_of_stride_1_and_its_gradients_are_the_plain_ones(shape, features, side, padding, dtype, tolerance):
    x, kernel = normal(0, 2, *shape, dtype=dtype), normal(1, side, side, shape[-1], features, dtype=dtype)
    found, expected = (
        value_and_gradients(lambda x, kernel, f=f: f(x, kernel, 1, padding), x, kernel)
        for f in (convolution.convolve, convolution.convolve_plainly)
    )
    assert_close(found, expected, tolerance)


@pytest.mark.parametrize(
    ("shape", "channels", "side", "stride", "padding", "dtype", "tolerance"),
    in_both_dtypes(
        ((32, 32, 3), 8, 3, 2, SAME[3]), ((15, 15, 3), 8, 3, 2, 1), ((12, 12, 6), 4, 3, 1, (0, 2)), ((9, 7, 6), 10, 1, 1, 0),
        tolerance=1e-5,
    ),
)  # fmt: skip
def test_unequal_padding_and_single_pixels_are_the_plain_ones(shape, channels, side, stride, padding, dtype, tolerance):
    x, kernel = normal(0, 2, *shape, dtype=dtype), normal(1, side, side, shape[-1], channels, dtype=dtype)
    found, expected = (
        value_and_gradients(lambda x, kernel, f=f: f(x, kernel, stride, padding), x, kernel)
        for f in (convolution.convolve, convolution.convolve_plainly)
    )
    assert_close(found, expected, tolerance)


@pytest.mark.parametrize(
    ("shape", "side", "stride", "padding", "dtype", "tolerance"),
    in_both_dtypes(
        ((14, 14, 6), 3, 1, 1), ((9, 7, 6), 5, 1, 2), ((14, 14, 6), 3, 2, SAME[3]), ((14, 14, 6), 5, 2, SAME[5]),
        ((15, 13, 6), 5, 2, 2), ((9, 10, 4), 3, 3, (0, 2)), ((1, 1, 8), 5, 1, 2), ((2, 2, 8), 5, 2, SAME[5]),
        ((7, 7, 1), 3, 2, 0), tolerance=1e-5,
    ),
)  # fmt: skip
def test_a_depthwise_convolution_and_its_gradients_are_the_plain_ones(shape, side, stride, padding, dtype, tolerance):
    x, kernel = normal(0, 2, *shape, dtype=dtype), normal(1, side, side, 1, shape[-1], dtype=dtype)
    edges = (padding, padding) if isinstance(padding, int) else padding
    form = lambda x, kernel: depthwise.convolve_depthwise(x, kernel, stride, edges)
    plain = lambda x, kernel: convolution.convolve_plainly(x, kernel, stride, padding, shape[-1])
    assert_close(value_and_gradients(form, x, kernel), value_and_gradients(plain, x, kernel), tolerance)


@pytest.mark.parametrize(("platform", "rewritten"), [("cpu", True), ("cuda", False)])
@pytest.mark.parametrize(("kernel", "groups"), [((3, 3, 1, 6), 6), ((1, 1, 6, 4), 1)], ids=["depthwise", "pixels"])
def test_on_a_cpu_depthwise_and_single_pixels_are_no_convolutions(kernel, groups, platform, rewritten):
    shapes = [jax.ShapeDtypeStruct(s, jnp.float32) for s in ((2, 8, 8, 6), kernel)]
    loss = lambda x, kernel: jnp.sum(convolution.convolve(x, kernel, 1, kernel.shape[0] // 2, groups) ** 2)
    text = jax.jit(jax.grad(loss, (0, 1))).trace(*shapes).lower(lowering_platforms=(platform,)).as_text()
    assert ("stablehlo.convolution" not in text) == rewritten


def test_inside_a_loop_all_convolutions_are_of_the_form_that_a_library_knows():
    """XLA leaves convolutions with exchanged dimensions unchanged in loops, where they take ten times as long."""

    def steps(x, kernel):
        one = lambda kernel, _: (kernel - jax.grad(lambda k: jnp.sum(convolution.convolve(x, k, 1, 1) ** 2))(kernel), None)
        return jax.lax.scan(one, kernel, length=3)[0]

    shapes = [jax.ShapeDtypeStruct(s, jnp.float32) for s in ((2, 8, 8, 6), (3, 3, 6, 4))]
    text = jax.jit(steps).trace(*shapes).lower(lowering_platforms=("cpu",)).as_text()
    forms = re.findall(r"stablehlo.convolution.*?dim_numbers = (.*?), window", text)
    assert len(forms) == 2
    assert set(forms) == {"[b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f]"}


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
    assert ("bitcast_convert" in lowered) == (platform == "cpu")  # from `isolated`, whose branch would make a GPU wait
