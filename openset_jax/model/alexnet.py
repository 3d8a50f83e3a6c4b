"""AlexNet: the single-tower network of 2014 (64-192-384-256-256) and the two-group network of 2012.

Krizhevsky, "One weird trick for parallelizing convolutional neural networks" (arXiv 1404.5997), with the layer shapes of
torchvision's AlexNet, so that parameters can be exchanged; and Krizhevsky, Sutskever and Hinton, "ImageNet Classification
with Deep Convolutional Neural Networks" (2012).
"""

import functools
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from openset_jax.errors import UserError
from openset_jax.model import layers, torch_layout
from openset_jax.model.batch_norm import BatchNorm
from openset_jax.model.network import IMAGENET, Network
from openset_jax.model.torch_layout import TorchParameter

# name -> ((kernel size, stride, padding) of conv1, side of the feature map that fc6 receives or None if it is not resized)
_STEMS = {"imagenet": ((11, 4, 2), 6), "small": ((5, 1, 2), None)}

_near_zero = nn.initializers.normal(0.01)  # Krizhevsky et al. 2012, for fc8: the initial outputs are nearly uniform


class AlexNet(Network):
    """Five convolutions and three fully connected layers. The features are those of fc7, after the ReLU.

    Attributes:
      norm: "none", "batch" (after each convolution) or "local_response" (after conv1 and conv2).
      stem: "imagenet" (11x11, stride 4; fc6 receives 6x6) or "small" (5x5, stride 1; for images of 15 to 64 pixels).
      width: multiplies the channels of conv1 to conv5 and of fc6 and fc7.
      dropout: rate before fc6 and before fc7.
      channels, splits: number of output channels and of groups of channels of conv1 to conv5.
    """

    stems: ClassVar[dict[str, int]] = {"imagenet": 63, "small": 15}  # at least one pixel is left after the last pooling
    norms = ("none", "batch", "local_response")
    own_dropout = 0.5
    groups: ClassVar[dict[str, tuple[str, ...]]] = {
        "head": ("fc8",),
        "fc": ("fc6", "fc7"),
        "conv5": ("conv5", "bn5"),
        "conv4": ("conv4", "bn4"),
        "conv3": ("conv3", "bn3"),
        "conv2": ("conv2", "bn2"),
        "conv1": ("conv1", "bn1"),
    }
    preprocessing = IMAGENET
    channels: ClassVar[tuple[int, ...]] = (64, 192, 384, 256, 256)
    splits: ClassVar[tuple[int, ...]] = (1, 1, 1, 1, 1)

    @nn.compact
    def __call__(
        self, images: jax.Array, *, train: bool = False, position: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """Runs the network; see `Network.__call__`."""
        first, side = _STEMS[self.stem]
        kernels = [first, (5, 1, 2), (3, 1, 1), (3, 1, 1), (3, 1, 1)]  # (size, stride, padding)
        convolution = functools.partial(layers.Convolution, use_bias=self.norm != "batch", dtype=self.dtype, ops=self.ops)
        x = images.astype(self.dtype)
        for i, (channels, splits, kernel) in enumerate(zip(self.channels, self.splits, kernels, strict=True), 1):
            pooled = i in (1, 2, 5)
            # without normalisation, only the bias and the ReLU are between the two, and max-pooling commutes with both
            pool_first = pooled and self.ops.pool_first and self.norm == "none"
            x = convolution(round(channels * self.width), *kernel, splits, pool=pool_first, name=f"conv{i}")(x)
            if self.norm == "batch":
                x = BatchNorm(self.dtype, self.axis_name, name=f"bn{i}")(x, train and f"conv{i}" in self.trained)
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
            dense = nn.Dense(self.feature_size, kernel_init=layers.he, dtype=self.dtype, name=name)
            x = self.ops.relu(dense(x))
        logits = nn.Dense(self.num_outputs, kernel_init=_near_zero, dtype=self.dtype, name="fc8")(x)
        return logits.astype(jnp.float32), x.astype(jnp.float32)

    @property
    def head_dropout(self) -> float:
        """Returns 0: there is no dropout before fc8."""
        return 0.0

    @property
    def feature_size(self) -> int:
        """Returns the width of fc6 and of fc7."""
        return round(4096 * self.width)

    def torch_layout(self) -> dict[str, TorchParameter]:
        """Returns torchvision's names."""
        kernels = {f"conv{i}": torch_layout.convolution(f"features.{n}.weight") for i, n in enumerate((0, 3, 6, 8, 10), 1)}
        kernels["fc6"] = torch_layout.flattened("classifier.1.weight", 6)
        kernels |= {name: torch_layout.dense(f"classifier.{n}.weight") for name, n in (("fc7", 4), ("fc8", 6))}
        found = {}
        for layer, kernel in kernels.items():
            found[f"params/{layer}/kernel"] = kernel
            found[f"params/{layer}/bias"] = torch_layout.vector(kernel.name.replace("weight", "bias"))
        return found

    def check(self) -> None:
        """Raises UserError if the width does not give each group of channels a whole number of them."""
        for channels, splits in zip(self.channels, self.splits, strict=True):
            if round(channels * self.width) < 1 or round(channels * self.width) % splits:
                raise UserError(
                    f"model.width: {self.width} makes {channels * self.width:g} of {channels} channels; a layer of this "
                    f"network needs a multiple of {splits}"
                )


class AlexNet2012(AlexNet):
    """The network of 2012: conv2, conv4 and conv5 in two groups, and local response normalisation."""

    norms = ("local_response", "none", "batch")
    channels = (96, 256, 384, 384, 256)
    splits = (1, 2, 1, 2, 2)
