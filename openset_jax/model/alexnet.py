"""AlexNet: the single-tower network of 2014 (64-192-384-256-256) and the two-group network of 2012.

Krizhevsky, "One weird trick for parallelizing convolutional neural networks" (arXiv 1404.5997), in the geometry that
torchvision made common, so that parameters correspond one to one; and Krizhevsky, Sutskever and Hinton, "ImageNet
Classification with Deep Convolutional Neural Networks" (2012).
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from openset_jax.errors import UserError
from openset_jax.platforms.forms import Forms

# by name: output channels of conv1 to conv5, their groups, and the normalisation that is part of the network
NETWORKS = {
    "alexnet": ((64, 192, 384, 256, 256), (1, 1, 1, 1, 1), "none"),
    "alexnet_2012": ((96, 256, 384, 384, 256), (1, 2, 1, 2, 2), "local_response"),
}
NORMS = ("", "none", "batch", "local_response")
# by name: size, stride and padding of the first convolution; side of the feature map that fc6 sees (None: as it comes); the
# smallest image that leaves anything to see
STEMS = {"imagenet": (11, 4, 2, 6, 63), "small": (5, 1, 2, None, 15)}
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
LAYERS = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8")
TRAINABLE = {"head": LAYERS[-1:], "fc": LAYERS[-3:], "all": LAYERS}  # by name: the layers that training changes

_he = nn.initializers.he_normal()  # He et al. 2015, arXiv 1502.01852: variance 2 / fan_in, for what a ReLU follows
_near_zero = nn.initializers.normal(0.01)  # Krizhevsky et al. 2012, for fc8: the first loss is that of a uniform guess


class AlexNet(nn.Module):
    """Five convolutions, three fully connected layers.

    Attributes:
      num_outputs: width of fc8.
      features: output channels of conv1 to conv5, before `width`.
      groups: of conv1 to conv5.
      norm: "none", "batch" (after each convolution, synchronised over `axis_name`) or "local_response" (after conv1 and 2).
      stem: "imagenet" (11x11, stride 4; fc6 sees 6x6) or "small" (5x5, stride 1; for images of 16 to 64 pixels).
      width: multiplies the channels of conv1 to conv5 and of fc6 and fc7.
      dropout: rate before fc6 and before fc7.
      dtype: of the computation; parameters and logits are float32.
      axis_name: of the device axis, for batch normalisation.
      trained: the layers that training changes; the others run as they do in evaluation, without dropout before them, and
        with the normalisation that they have.
      forms: the equal computations that it is made of.
    """

    num_outputs: int
    features: tuple[int, ...] = NETWORKS["alexnet"][0]
    groups: tuple[int, ...] = NETWORKS["alexnet"][1]
    norm: str = "none"
    stem: str = "imagenet"
    width: float = 1.0
    dropout: float = 0.5
    dtype: Any = jnp.float32
    axis_name: str | None = None
    trained: tuple[str, ...] = LAYERS
    forms: Forms = Forms()

    def split(self, params: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Parameters of the trained layers, and of the others."""
        moves = lambda name: name.replace("bn", "conv") in self.trained
        return {k: v for k, v in params.items() if moves(k)}, {k: v for k, v in params.items() if not moves(k)}

    @nn.compact
    def __call__(
        self, images: jax.Array, *, train: bool = False, position: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """Runs the network.

        Args:
          images: float32 [b, H, W, 3], normalised.
          train: use batch statistics, and dropout, which needs the rng "dropout".
          position: int32 [b], places in the global batch; dropout masks depend on these and the rng alone.

        Returns:
          (logits float32 [b, num_outputs], penultimate features float32 [b, F], after the ReLU of fc7).
        """
        size, stride, padding, side, _ = STEMS[self.stem]
        kernels = [(size, stride, padding), (5, 1, 2), (3, 1, 1), (3, 1, 1), (3, 1, 1)]
        x = images.astype(self.dtype)
        for i, (kernel, step, pad) in enumerate(kernels, 1):
            pooled = i in (1, 2, 5)
            # nothing but the bias and the ReLU is between, and they commute
            pool_first = pooled and self.forms.pool_first and self.norm == "none"
            x = Convolution(
                round(self.features[i - 1] * self.width),
                kernel,
                step,
                pad,
                self.groups[i - 1],
                pool=pool_first,
                use_bias=self.norm != "batch",
                kernel_init=_he,
                dtype=self.dtype,
                forms=self.forms,
                name=f"conv{i}",
            )(x)
            if self.norm == "batch":
                x = nn.BatchNorm(
                    use_running_average=not (train and f"conv{i}" in self.trained),
                    momentum=0.9,
                    dtype=self.dtype,
                    axis_name=self.axis_name,
                    name=f"bn{i}",
                )(x)
            x = self.forms.relu(x)
            if self.norm == "local_response" and i <= 2:
                x = local_response_norm(x)
            if pooled and not pool_first:
                x = self.forms.max_pool(x)
        if side:
            x = adaptive_average_pool(x, side)
        x = x.reshape(len(x), -1)
        for name in ("fc6", "fc7"):
            dropout = Dropout(self.dropout, self.forms.bernoulli, name=f"dropout_{name}")
            x = dropout(x, position, train and name in self.trained)
            x = self.forms.relu(nn.Dense(round(4096 * self.width), kernel_init=_he, dtype=self.dtype, name=name)(x))
        logits = nn.Dense(self.num_outputs, kernel_init=_near_zero, dtype=self.dtype, name="fc8")(x)
        return logits.astype(jnp.float32), x.astype(jnp.float32)


class Convolution(nn.Module):
    """`nn.Conv` with the same parameters, followed by max-pooling if asked for, and by the bias last.

    Pooling and adding a bias commute, rounding included: the larger of two sums is the sum with the larger. Pooled first,
    there is a quarter of the elements to add to, and to sum the bias's gradient over.

    Attributes:
      features: output channels.
      kernel_size: side of the kernel.
      stride, padding, groups: of the convolution, alike in both dimensions.
      pool: whether to max-pool, 3x3 with stride 2.
      use_bias: whether there is one.
      dtype: of the computation.
      forms: how to convolve and to pool.
    """

    features: int
    kernel_size: int
    stride: int
    padding: int
    groups: int
    pool: bool
    use_bias: bool
    kernel_init: nn.initializers.Initializer
    dtype: Any
    forms: Forms = Forms()

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (self.kernel_size, self.kernel_size, x.shape[-1] // self.groups, self.features)
        kernel = self.param("kernel", self.kernel_init, shape).astype(self.dtype)
        x = self.forms.convolve(x.astype(self.dtype), kernel, self.stride, self.padding, self.groups)
        if self.pool:
            x = self.forms.max_pool(x)
        if not self.use_bias:
            return x
        return x + self.param("bias", nn.initializers.zeros, (self.features,)).astype(self.dtype)


class Dropout(nn.Module):
    """Dropout whose mask depends on the example's place in the global batch, not on the device that holds it.

    `nn.Dropout` draws one mask per device, so that a run would change with the number of devices.
    """

    rate: float
    bernoulli: Callable[..., Any] = jax.random.bernoulli

    @nn.compact
    def __call__(self, x: jax.Array, position: jax.Array | None, train: bool) -> jax.Array:
        if not train or self.rate == 0:
            return x
        key, keep_rate = self.make_rng("dropout"), 1 - self.rate
        draw = lambda i: self.bernoulli(jax.random.fold_in(key, i), keep_rate, x.shape[1:])
        return jnp.where(jax.vmap(draw)(position), x / keep_rate, 0)


def local_response_norm(x: jax.Array) -> jax.Array:
    """x / (k + alpha sum of squares over n neighbouring channels)^beta, k = 2, n = 5, alpha = 1e-4, beta = 0.75.

    Krizhevsky et al. 2012, section 3.3: alpha is not divided by n, as it is in Caffe and PyTorch.
    """
    squares = jnp.square(x.astype(jnp.float32))
    total = jax.lax.reduce_window(squares, 0.0, jax.lax.add, (1, 1, 1, 5), (1, 1, 1, 1), "SAME")
    return (x * (2.0 + 1e-4 * total) ** -0.75).astype(x.dtype)


def adaptive_average_pool(x: jax.Array, side: int) -> jax.Array:
    """[b, H, W, c] -> [b, side, side, c]; output i averages rows floor(i H / side) to ceil((i + 1) H / side).

    PyTorch's AdaptiveAvgPool2d, which also repeats pixels where the map is smaller than `side`.
    """
    if x.shape[1:3] == (side, side):
        return x

    def weights(n):
        rows = np.arange(n)[None], np.arange(side)[:, None]
        inside = (rows[0] >= rows[1] * n // side) & (rows[0] < -(-(rows[1] + 1) * n // side))
        return jnp.asarray(inside / inside.sum(1, keepdims=True), x.dtype)

    return jnp.einsum("oh,bhwc,pw->bopc", weights(x.shape[1]), x, weights(x.shape[2]))


def make_alexnet(
    num_outputs: int,
    *,
    name: str,
    norm: str,
    stem: str,
    width: float,
    dropout: float,
    dtype: str,
    axis_name: str | None,
    trainable: str = "all",
) -> AlexNet:
    """The network that a config's `model` section describes; `norm=""` is the named network's own.

    Args:
      trainable: of `TRAINABLE`.

    Raises:
      UserError: names the field that is out of range.
    """
    for field, value, choices in (
        ("name", name, NETWORKS), ("stem", stem, STEMS), ("dtype", dtype, DTYPES), ("norm", norm, NORMS)
    ):  # fmt: skip
        if value not in choices:
            raise UserError(f"model.{field}: {value!r} is not one of {', '.join(map(repr, choices))}")
    features, groups, own_norm = NETWORKS[name]
    odd = [c for c, g in zip(features, groups, strict=True) if round(c * width) < 1 or round(c * width) % g]
    if odd:
        raise UserError(f"model.width: {width} leaves {odd[0] * width:g} of {odd[0]} channels, which {name} cannot divide")
    if trainable not in TRAINABLE:
        raise UserError(f"trainable: {trainable!r} is not one of {', '.join(TRAINABLE)}")
    trained = TRAINABLE[trainable]
    return AlexNet(num_outputs, features, groups, norm or own_norm, stem, width, dropout, DTYPES[dtype], axis_name, trained)
