"""The table of networks, and the function that makes one from the config's `model`."""

import jax.numpy as jnp

from openset_jax.errors import UserError
from openset_jax.model import alexnet, efficientnet_lite, vector_networks
from openset_jax.model.network import Network

NETWORKS: dict[str, type[Network]] = {
    "alexnet": alexnet.AlexNet,
    "alexnet_2012": alexnet.AlexNet2012,
    "efficientnet_lite0": efficientnet_lite.EfficientNetLite0,
    "linear": vector_networks.Linear,
    "mlp": vector_networks.OneHidden,
    "mlp2": vector_networks.TwoHidden,
}
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


def get(name: str) -> type[Network]:
    """Returns the network of that name; raises UserError if there is none."""
    if name not in NETWORKS:
        raise UserError(f"model.name: {name!r} is not one of {', '.join(map(repr, NETWORKS))}")
    return NETWORKS[name]


def make(
    num_outputs: int, *, name: str, width: float = 1.0, stem: str = "", norm: str = "", dropout: float | None = None,
    dtype: str = "float32", axis_name: str | None = None, trainable: str = "all",
) -> Network:  # fmt: skip
    """Makes the module for a config's `model`, without parameters.

    Args:
      num_outputs, width, axis_name: attributes of `Network`.
      name: a key of `NETWORKS`.
      stem, norm: one of the network's `stems` and `norms`; "" for the first of them, its own.
      dropout: None for the network's own.
      dtype: a key of `DTYPES`.
      trainable: the group down to which the layers are trained; see `Network.layers_of`.

    Raises:
      UserError: names the first field that is out of range.
    """
    network = get(name)
    for field, value, choices in (
        ("stem", stem, ("", *network.stems)),
        ("norm", norm, ("", *network.norms)),
        ("dtype", dtype, DTYPES),
    ):
        if value not in choices:
            raise UserError(f"model.{field}: {value!r} is not one of {', '.join(map(repr, choices))}, which {name} has")
    made = network(
        num_outputs=num_outputs,
        width=width,
        stem=stem or next(iter(network.stems)),
        norm=norm or network.norms[0],
        dropout=network.own_dropout if dropout is None else dropout,
        dtype=DTYPES[dtype],
        axis_name=axis_name,
        trained=network.layers_of(trainable),
    )
    made.check()
    return made
