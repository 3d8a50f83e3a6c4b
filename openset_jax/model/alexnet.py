"""AlexNet: the single-tower network of 2014 (64-192-384-256-256) and the two-group network of 2012.

Krizhevsky, "One weird trick for parallelizing convolutional neural networks" (arXiv 1404.5997), with the layer shapes of
torchvision's AlexNet, so that parameters can be exchanged; and Krizhevsky, Sutskever and Hinton, "ImageNet Classification
with Deep Convolutional Neural Networks" (2012).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Dtype

from openset_jax.errors import UserError
from openset_jax.model.layers import Convolution, Dropout, Ops, adaptive_average_pool, local_response_norm


class Network(NamedTuple):
    """The hyperparameters in which the published networks differ.

    Attributes:
      features: output channels of conv1 to conv5.
      groups: number of groups in the convolutions conv1 to conv5.
      norm: the normalisation that is part of the network, one of `NORMS`.
    """

    features: tuple[int, ...]
    groups: tuple[int, ...]
    norm: str


class Stem(NamedTuple):
    """The first convolution, and the sizes that follow from it.

    Attributes:
      kernel_size, stride, padding: of conv1.
      side: of the feature map that fc6 receives; None if the map is not resized.
      smallest: side of the smallest image that leaves at least one pixel after the last pooling.
    """

    kernel_size: int
    stride: int
    padding: int
    side: int | None
    smallest: int


NETWORKS = {
    "alexnet": Network((64, 192, 384, 256, 256), (1, 1, 1, 1, 1), "none"),
    "alexnet_2012": Network((96, 256, 384, 384, 256), (1, 2, 1, 2, 2), "local_response"),
}
NORMS = ("", "none", "batch", "local_response")  # "" is the network's own
STEMS = {"imagenet": Stem(11, 4, 2, 6, 63), "small": Stem(5, 1, 2, None, 15)}
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
LAYERS = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8")
TRAINABLE = {"head": LAYERS[-1:], "fc": LAYERS[-3:], "all": LAYERS}  # value of `trainable` -> trained layers

_he = nn.initializers.he_normal()  # He et al. 2015, arXiv 1502.01852: variance 2 / fan_in, for layers before a ReLU
_near_zero = nn.initializers.normal(0.01)  # Krizhevsky et al. 2012, for fc8: the initial outputs are nearly uniform


class AlexNet(nn.Module):
    """Five convolutions and three fully connected layers.

    Attributes:
      num_outputs: width of fc8.
      features: output channels of conv1 to conv5, before they are multiplied by `width`.
      groups: number of groups in the convolutions conv1 to conv5.
      norm: "none", "batch" (after each convolution, synchronised over `axis_name`) or "local_response" (after conv1 and
        conv2).
      stem: "imagenet" (11x11, stride 4; fc6 receives 6x6) or "small" (5x5, stride 1; for images of 15 to 64 pixels).
      width: multiplies the channels of conv1 to conv5 and of fc6 and fc7.
      dropout: rate before fc6 and before fc7.
      dtype: of the computation; parameters and logits are float32.
      axis_name: of the device axis, for batch normalisation.
      trained: the layers that are trained. The frozen layers run as in evaluation: without dropout before them, and with
        running statistics for batch normalisation.
      ops: implementation of the operations.
    """

    num_outputs: int
    features: tuple[int, ...] = NETWORKS["alexnet"].features
    groups: tuple[int, ...] = NETWORKS["alexnet"].groups
    norm: str = "none"
    stem: str = "imagenet"
    width: float = 1.0
    dropout: float = 0.5
    dtype: Dtype = jnp.float32
    axis_name: str | None = None
    trained: tuple[str, ...] = LAYERS
    ops: Ops = Ops()

    def split(self, params: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Returns (the parameters of the trained layers, the parameters of the frozen layers)."""
        moves = lambda name: name.replace("bn", "conv") in self.trained
        return {k: v for k, v in params.items() if moves(k)}, {k: v for k, v in params.items() if not moves(k)}

    @nn.compact
    def __call__(
        self, images: jax.Array, *, train: bool = False, position: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """Runs the network.

        Args:
          images: float32 [b, H, W, 3], normalised.
          train: whether to use batch statistics and dropout; dropout needs the rng "dropout".
          position: int32 [b], positions in the global batch. Dropout masks depend only on these and on the rng.

        Returns:
          (logits float32 [b, num_outputs], penultimate features float32 [b, F], after the ReLU of fc7).
        """
        stem = STEMS[self.stem]
        kernels = [(stem.kernel_size, stem.stride, stem.padding), (5, 1, 2), (3, 1, 1), (3, 1, 1), (3, 1, 1)]
        x = images.astype(self.dtype)
        for i, (kernel, step, pad) in enumerate(kernels, 1):
            pooled = i in (1, 2, 5)
            # without normalisation, only the bias and the ReLU are between the two, and max-pooling commutes with both
            pool_first = pooled and self.ops.pool_first and self.norm == "none"
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
                ops=self.ops,
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
            x = self.ops.relu(x)
            if self.norm == "local_response" and i <= 2:
                x = local_response_norm(x)
            if pooled and not pool_first:
                x = self.ops.max_pool(x)
        if stem.side:
            x = adaptive_average_pool(x, stem.side)
        x = x.reshape(len(x), -1)
        for name in ("fc6", "fc7"):
            dropout = Dropout(self.dropout, self.ops.bernoulli, name=f"dropout_{name}")
            x = dropout(x, position, train and name in self.trained)
            x = self.ops.relu(nn.Dense(round(4096 * self.width), kernel_init=_he, dtype=self.dtype, name=name)(x))
        logits = nn.Dense(self.num_outputs, kernel_init=_near_zero, dtype=self.dtype, name="fc8")(x)
        return logits.astype(jnp.float32), x.astype(jnp.float32)


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
    """Makes the module for a config's `model`, without parameters.

    Args:
      num_outputs, width, dropout, dtype, axis_name: as in `AlexNet`.
      name, stem: keys of `NETWORKS` and `STEMS`.
      norm: one of `NORMS`; "" is the network's own normalisation.
      trainable: a key of `TRAINABLE`.

    Raises:
      UserError: a field is out of range.
    """
    for field, value, choices in (
        ("name", name, NETWORKS), ("stem", stem, STEMS), ("dtype", dtype, DTYPES), ("norm", norm, NORMS)
    ):  # fmt: skip
        if value not in choices:
            raise UserError(f"model.{field}: {value!r} is not one of {', '.join(map(repr, choices))}")
    network = NETWORKS[name]
    odd = [c for c, g in zip(network.features, network.groups, strict=True) if round(c * width) < 1 or round(c * width) % g]
    if odd:
        raise UserError(
            f"model.width: {width} makes {odd[0] * width:g} of {odd[0]} channels; {name} needs a multiple of its groups"
        )
    if trainable not in TRAINABLE:
        raise UserError(f"trainable: {trainable!r} is not one of {', '.join(TRAINABLE)}")
    return AlexNet(
        num_outputs,
        network.features,
        network.groups,
        norm or network.norm,
        stem,
        width,
        dropout,
        DTYPES[dtype],
        axis_name,
        TRAINABLE[trainable],
    )
