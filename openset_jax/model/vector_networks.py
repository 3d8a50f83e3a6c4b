"""Networks for vectors, such as the features of another network: a linear layer, and layers of hidden units."""

from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from openset_jax.errors import UserError
from openset_jax.model import layers
from openset_jax.model.network import Network
from openset_jax.platforms import dense

HIDDEN = 512  # units of each hidden layer, at width 1
STANDARDISE = "standardise"  # name of the layer with the statistics, "mean" and "std" in the batch statistics


class Standardise(nn.Module):
    """Subtracts the mean of each feature and divides by one standard deviation; training changes neither.

    A run sets both to those of its training vectors (`training/standardise.py`).
    """

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """float32 [b, F] -> float32 [b, F]."""
        mean = self.variable("batch_stats", "mean", jnp.zeros, x.shape[1:])
        std = self.variable("batch_stats", "std", jnp.ones, ())
        return (x - mean.value) * (1 / std.value)


class Linear(Network):
    """A head on standardised vectors, which are the features; with a softmax this is multinomial logistic regression.

    Dropout, if there is any, is before every layer except the first hidden one.
    """

    takes_vectors = True
    stems: ClassVar[dict[str, int]] = {"none": 1}
    norms = ("none",)
    own_dropout = 0.0
    groups: ClassVar[dict[str, tuple[str, ...]]] = {"head": ("head",)}

    @nn.compact
    def __call__(
        self, images: jax.Array, *, train: bool = False, position: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """Runs the network on vectors float32 [b, F]; see `Network.__call__`."""
        dropped = lambda x, before: layers.Dropout(self.dropout, self.ops.bernoulli)(
            x, position, train and before in self.trained
        )
        x = Standardise(name=STANDARDISE)(images)
        for i, name in enumerate(self.layers[:-1]):
            hidden = nn.Dense(self._hidden_units, kernel_init=layers.he, dtype=self.dtype, name=name)
            x = nn.relu(hidden(dropped(x, name) if i else x))
        x = x.astype(jnp.float32)
        near_zero = nn.initializers.normal(0.01)  # the initial outputs are nearly uniform
        product = dense.dot_general
        head = nn.Dense(self.num_outputs, kernel_init=near_zero, dtype=self.dtype, dot_general=product, name="head")
        return head(dropped(x, "head")).astype(jnp.float32), x

    @property
    def _hidden_units(self) -> int:
        return round(HIDDEN * self.width)

    def check(self) -> None:
        """Raises UserError if the width leaves no hidden unit, or is not 1 without hidden layers."""
        if len(self.layers) == 1 and self.width != 1:
            raise UserError(f"model.width: {self.width}, but linear has no hidden units; leave it at 1.0, or use mlp")
        if not self._hidden_units:
            raise UserError(f"model.width: {self.width} leaves none of the {HIDDEN} units of a hidden layer")


class OneHidden(Linear):
    """One hidden layer with ReLU, of 512 units times `width`; its outputs are the features."""

    own_dropout = 0.2
    groups: ClassVar[dict[str, tuple[str, ...]]] = {"head": ("head",), "hidden1": ("hidden1",)}


class TwoHidden(Linear):
    """Two hidden layers with ReLU, of 512 units times `width` each; the outputs of the second are the features."""

    own_dropout = 0.2
    groups: ClassVar[dict[str, tuple[str, ...]]] = {"head": ("head",), "hidden2": ("hidden2",), "hidden1": ("hidden1",)}
