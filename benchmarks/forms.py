"""Candidate forms: other implementations of operations of the network, of the augmentation and of the optimizer.

No benchmark of its own: `benchmarks.variants` measures them. A form that is the fastest on a platform moves to
`openset_jax/platforms/`; the others stay here, because they may be the fastest on the next device.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jax import lax

from openset_jax.platforms import convolution, max_pool
from openset_jax.spec import OptimizerSpec

FEW_CHANNELS = 4  # the input of the first convolution, the image, has fewer

Convolve = Callable[..., jax.Array]
MakeOptimizer = Callable[[OptimizerSpec, optax.Schedule], optax.GradientTransformation]  # as state.make_optimizer


def first_convolution(form: Convolve) -> Convolve:
    """An `Ops.convolve` that computes the first convolution by form(x, kernel, stride, padding); the others as in use."""

    def convolve(x, kernel, stride, padding, groups=1):
        if x.shape[-1] < FEW_CHANNELS and groups == 1:
            return form(x, kernel, stride, padding)
        return convolution.convolve(x, kernel, stride, padding, groups)

    return convolve


def convolve_padded(
    x: jax.Array, kernel: jax.Array, stride: int, padding: convolution.Padding, *, channels: int
) -> jax.Array:
    """Convolves an image whose channels are padded with zeros to `channels`."""
    more = channels - x.shape[-1]
    x = jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, more)))
    kernel = jnp.pad(kernel, ((0, 0), (0, 0), (0, more), (0, 0)))
    return convolution.convolve_plainly(x, kernel, stride, padding)


def convolve_patches(x: jax.Array, kernel: jax.Array, stride: int, padding: convolution.Padding) -> jax.Array:
    """Convolves by one matrix product of all patches with the kernel (im2col)."""
    side, features = kernel.shape[0], kernel.shape[-1]
    patches = lax.conv_general_dilated_patches(
        x, (side, side), (stride, stride), [convolution.both_edges(padding)] * 2, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )  # channels are the slowest index
    return patches @ kernel.transpose(2, 0, 1, 3).reshape(-1, features)


@jax.custom_vjp
def max_pool_by_comparison(x: jax.Array) -> jax.Array:
    """Max-pooling, 3x3 with stride 2, whose gradient finds the largest element of a window by comparing.

    It does not store the place of the largest element: the input and the output are in memory anyway.
    """
    return max_pool.largest_of_windows(x)[0]


def _compare(residuals, gradient):
    x, largest = residuals
    height, width = (2 * side - 1 for side in largest.shape[1:3])
    where, taken = jnp.full(largest.shape, -1, jnp.int8), jnp.zeros(largest.shape, bool)
    for k in range(9):
        top, left = divmod(k, 3)
        mine = (x[:, top : top + height : 2, left : left + width : 2] == largest) & ~taken
        where, taken = jnp.where(mine, jnp.int8(k), where), taken | mine
    return (max_pool.spread_by_parity(x.shape[1:3], where, gradient),)


max_pool_by_comparison.defvjp(lambda x: ((y := max_pool.largest_of_windows(x)[0]), (x, y)), _compare)


@jax.custom_vjp
def relu_by_output(x: jax.Array) -> jax.Array:
    """ReLU whose gradient is computed from its output, which the next layer stores anyway, instead of its input."""
    return jnp.maximum(x, 0)


relu_by_output.defvjp(
    lambda x: ((y := jnp.maximum(x, 0)), y), lambda y, gradient: (jnp.where(y > 0, gradient, jnp.zeros((), y.dtype)),)
)


def bernoulli_of_bytes(key: jax.Array, p: float, shape: tuple[int, ...]) -> jax.Array:
    """As `jax.random.bernoulli`, with p rounded to a multiple of 1/256, from one byte of random bits for each element."""
    return jax.random.bits(key, shape, jnp.uint8) < jnp.asarray(min(255, round(256 * p)), jnp.uint8)


def crop_one_by_one(images: jax.Array, corner: jax.Array, mirrored: jax.Array, size: int) -> jax.Array:
    """Computes `platforms.crop.crop` by a loop over images: each crop is a copy of a slice."""

    def one(given):
        image, corner, mirrored = given
        image = lax.dynamic_slice(image, (*corner, 0), (size, size, 3))
        return jnp.where(mirrored, image[:, ::-1], image)

    return lax.map(one, (images, corner, mirrored))


def crop_by_products(images: jax.Array, corner: jax.Array, mirrored: jax.Array, size: int) -> jax.Array:
    """Computes `platforms.crop.crop` by two one-hot products; exact in bfloat16, which has all integers up to 256."""
    along = jnp.arange(size)
    rows, columns = corner[:, :1] + along, corner[:, 1:] + along
    columns = jnp.where(mirrored[:, None], columns[:, ::-1], columns)
    hot = lambda index, length: jax.nn.one_hot(index, length, dtype=jnp.bfloat16)
    x = jnp.einsum("brh,bhwc->brwc", hot(rows, images.shape[1]), images.astype(jnp.bfloat16))
    return jnp.einsum("bsw,brwc->brsc", hot(columns, images.shape[2]), x).astype(jnp.uint8)


def flat_adam(optimizer: OptimizerSpec, schedule: optax.Schedule) -> optax.GradientTransformation:
    """The optimizer of `state.make_optimizer`, with clipping and Adam over one vector of all parameters."""
    return _adamw(optimizer, schedule, wrap=optax.flatten)


def adam_with_bfloat16(*moments: str) -> MakeOptimizer:
    """A `state.make_optimizer` that stores some of the moments "mu" and "nu" in bfloat16."""

    def stored(optimizer):
        def cast(state, to):
            names = {name: getattr(state[-1], name) for name in moments}
            moved = {name: jax.tree.map(lambda x: x.astype(to), tree) for name, tree in names.items()}
            return (*state[:-1], state[-1]._replace(**moved))

        def update(updates, state, params=None):
            updates, state = optimizer.update(updates, cast(state, jnp.float32), params)
            return updates, cast(state, jnp.bfloat16)

        return optax.GradientTransformation(lambda params: cast(optimizer.init(params), jnp.bfloat16), update)

    return functools.partial(_adamw, wrap=stored)


def _adamw(
    optimizer: OptimizerSpec,
    schedule: optax.Schedule,
    *,
    wrap: Callable[[optax.GradientTransformation], optax.GradientTransformation],
) -> optax.GradientTransformation:
    kernels = lambda params: jax.tree.map(lambda p: p.ndim > 1, params)
    clip = optax.clip_by_global_norm(optimizer.grad_clip) if optimizer.grad_clip else optax.identity()
    adam = optax.scale_by_adam(b1=optimizer.b1, b2=optimizer.b2, eps=optimizer.eps)
    return optax.chain(
        wrap(optax.chain(clip, adam)),
        optax.add_decayed_weights(optimizer.weight_decay, kernels),
        optax.scale_by_learning_rate(schedule),
    )
