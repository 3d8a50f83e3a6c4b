"""AlexNet: the single-tower network of 2014 (64-192-384-256-256) and the two-group network of 2012.

Krizhevsky, "One weird trick for parallelizing convolutional neural networks" (arXiv 1404.5997), with the layer shapes of
torchvision's AlexNet, so that parameters can be exchanged; and Krizhevsky, Sutskever and Hinton, "ImageNet Classification
with Deep Convolutional Neural Networks" (2012).
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Dtype

from openset_jax.errors import UserError
from openset_jax.model import layers
from openset_jax.model.layers import Ops

# name -> (output channels of conv1 to conv5, their groups, the normalisation that is part of the network)
NETWORKS = {
    "alexnet": ((64, 192, 384, 256, 256), (1, 1, 1, 1, 1), "none"),
    "alexnet_2012": ((96, 256, 384, 384, 256), (1, 2, 1, 2, 2), "local_response"),
}
NORMS = ("", "none", "batch", "local_response")  # "" is the network's own
# name -> ((kernel size, stride, padding) of conv1, side of the feature map that fc6 receives or None if it is not resized,
# side of the smallest image that leaves at least one pixel after the last pooling)
STEMS = {"imagenet": ((11, 4, 2), 6, 63), "small": ((5, 1, 2), None, 15)}
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
LAYERS = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8")
TRAINABLE = {"head": LAYERS[-1:], "fc": LAYERS[-3:], "all": LAYERS}  # value of `trainable` -> trained layers

_near_zero = nn.initializers.normal(0.01)  # Krizhevsky et al. 2012, for fc8: the initial outputs are nearly uniform


class AlexNet(nn.Module):
    """Five convolutions and three fully connected layers.

    Attributes:
      num_outputs: width of fc8.
      features, groups: number of output channels and of groups of conv1 to conv5.
      norm: "none", "batch" (after each convolution, synchronised over `axis_name`) or "local_response" (after conv1 and
        conv2).
      stem: "imagenet" (11x11, stride 4; fc6 receives 6x6) or "small" (5x5, stride 1; for images of 15 to 64 pixels).
      width: multiplies the channels of conv1 to conv5 and of fc6 and fc7.
      dropout: rate before fc6 and before fc7.
      dtype: of the computation; parameters and logits are float32.
      axis_name: of the device axis, for batch normalisation.
      trained: the layers that are trained. The frozen layers run as in evaluation: without dropout before them, and with
        running statistics for batch normalisation.
    """

    num_outputs: int
    features: tuple[int, ...]
    groups: tuple[int, ...]
    norm: str
    stem: str
    width: float
    dropout: float
    dtype: Dtype
    axis_name: str | None
    trained: tuple[str, ...]
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
        first, side, _ = STEMS[self.stem]
        kernels = [first, (5, 1, 2), (3, 1, 1), (3, 1, 1), (3, 1, 1)]  # (size, stride, padding)
        convolution = functools.partial(layers.Convolution, use_bias=self.norm != "batch", dtype=self.dtype, ops=self.ops)
        batch_norm = functools.partial(nn.BatchNorm, momentum=0.9, dtype=self.dtype, axis_name=self.axis_name)
        x = images.astype(self.dtype)
        for i, (features, groups, kernel) in enumerate(zip(self.features, self.groups, kernels, strict=True), 1):
            pooled = i in (1, 2, 5)
            # without normalisation, only the bias and the ReLU are between the two, and max-pooling commutes with both
            pool_first = pooled and self.ops.pool_first and self.norm == "none"
            x = convolution(round(features * self.width), *kernel, groups, pool=pool_first, name=f"conv{i}")(x)
            if self.norm == "batch":
                frozen = not (train and f"conv{i}" in self.trained)
                x = batch_norm(use_running_average=frozen, name=f"bn{i}")(x)
            x = self.ops.relu(x)
            if self.norm == "local_response" and i <= 2:
                x = layers.local_response_norm(x)
            if pooled and not pool_first:
                x = self.ops.max_pool(x)
        if side:
            x = layers.adaptive_average_pool(x, side)
        x = x.reshape(len(x), -1)
        for name in ("fc6", "fc7"):
            dropout = layers.Dropout(self.dropout, self.ops.bernoulli, name=f"dropout_{name}")
            x = dropout(x, position, train and name in self.trained)
            dense = nn.Dense(round(4096 * self.width), kernel_init=layers.he, dtype=self.dtype, name=name)
            x = self.ops.relu(dense(x))
        logits = nn.Dense(self.num_outputs, kernel_init=_near_zero, dtype=self.dtype, name="fc8")(x)
        return logits.astype(jnp.float32), x.astype(jnp.float32)


def make_alexnet(
    num_outputs: int, *, name: str, norm: str, stem: str, width: float, dropout: float, dtype: str, axis_name: str | None,
    trainable: str = "all",
) -> AlexNet:  # fmt: skip
    """Makes the module for a config's `model`, without parameters.

    The arguments are as in `AlexNet`; `name`, `dtype` and `trainable` are keys of `NETWORKS`, `DTYPES` and `TRAINABLE`.

    Raises:
      UserError: a field is out of range.
    """
    for field, value, choices in (
        ("name", name, NETWORKS), ("stem", stem, STEMS), ("dtype", dtype, DTYPES), ("norm", norm, NORMS)
    ):  # fmt: skip
        if value not in choices:
            raise UserError(f"model.{field}: {value!r} is not one of {', '.join(map(repr, choices))}")
    features, groups, own_norm = NETWORKS[name]
    odd = [c for c, g in zip(features, groups, strict=True) if round(c * width) < 1 or round(c * width) % g]
    if odd:
        raise UserError(
            f"model.width: {width} makes {odd[0] * width:g} of {odd[0]} channels; {name} needs a multiple of its groups"
        )
    if trainable not in TRAINABLE:
        raise UserError(f"trainable: {trainable!r} is not one of {', '.join(TRAINABLE)}")
    return AlexNet(
        num_outputs, features, groups, norm or own_norm, stem, width, dropout, DTYPES[dtype], axis_name, TRAINABLE[trainable]
    )
