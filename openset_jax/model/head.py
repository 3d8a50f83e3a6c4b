"""The head of a network, as a network for the features that the layers below it compute."""

from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from openset_jax.model.layers import Dropout
from openset_jax.model.network import Network
from openset_jax.platforms import dense


class Head(Network):
    """Dropout and the dense layer `layer`, with the parameters that they have in the whole network."""

    takes_vectors = True
    stems: ClassVar[dict[str, int]] = {"none": 1}
    norms = ("none",)
    own_dropout = 0.0
    groups: ClassVar[dict[str, tuple[str, ...]]] = {}
    layer: str = "head"

    @nn.compact
    def __call__(
        self, images: jax.Array, *, train: bool = False, position: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """Runs the head on features float [b, F]; see `Network.__call__`."""
        features = images.astype(jnp.float32)
        dropped = Dropout(self.dropout, self.ops.bernoulli, name="before_head")(features, position, train)
        logits = nn.Dense(self.num_outputs, dtype=self.dtype, dot_general=dense.dot_general, name=self.layer)(dropped)
        return logits.astype(jnp.float32), features

    @property
    def head(self) -> str:
        """Returns the name of the layer."""
        return self.layer

    @property
    def layers(self) -> tuple[str, ...]:
        """Returns the layer."""
        return (self.layer,)


def head_of(network: Network) -> Head:
    """Returns the head of a network, which is trained."""
    return Head(
        num_outputs=network.num_outputs, width=1.0, stem="none", norm="none", dropout=network.head_dropout,
        dtype=network.dtype, axis_name=network.axis_name, trained=(network.head,), layer=network.head,
    )  # fmt: skip
