"""A network in one file, as a user would add it."""

from typing import ClassVar

import jax.numpy as jnp
from flax import linen as nn

from openset_jax.model import layers, torch_layout
from openset_jax.model.network import Network, Preprocessing


class Tiny(Network):
    """Two convolutions with batch normalisation, and the mean over all pixels."""

    stems: ClassVar[dict[str, int]] = {"imagenet": 8}
    norms = ("batch",)
    own_dropout = 0.1
    groups: ClassVar[dict[str, tuple[str, ...]]] = {
        "head": ("answer",), "second": ("second", "second_norm"), "first": ("first", "first_norm")
    }  # fmt: skip
    preprocessing = Preprocessing(20, 16, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))

    @nn.compact
    def __call__(self, images, *, train=False, position=None):
        x = images.astype(self.dtype)
        for name, channels in (("first", 8), ("second", self.feature_size)):
            x = layers.Convolution(channels, 3, 2, 1, 1, False, False, self.dtype, self.ops, name=name)(x)
            frozen = not (train and name in self.trained)
            x = nn.BatchNorm(frozen, momentum=0.9, dtype=self.dtype, axis_name=self.axis_name, name=f"{name}_norm")(x)
            x = self.ops.relu(x)
        x = x.mean((1, 2))
        given = layers.Dropout(self.dropout, self.ops.bernoulli)(x, position, train)
        logits = nn.Dense(self.num_outputs, dtype=self.dtype, name="answer")(given)
        return logits.astype(jnp.float32), x.astype(jnp.float32)

    @property
    def feature_size(self) -> int:
        return round(16 * self.width)

    def torch_layout(self):
        found = {
            "params/answer/kernel": torch_layout.dense("fc.weight"),
            "params/answer/bias": torch_layout.vector("fc.bias"),
        }
        for name in ("first", "second"):
            found[f"params/{name}/kernel"] = torch_layout.convolution(f"{name}.0.weight")
            found |= torch_layout.batch_norm(f"{name}_norm", f"{name}.1")
        return found
