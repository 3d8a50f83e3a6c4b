"""Conversions of PyTorch's parameters to the layout of this program."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class TorchParameter(NamedTuple):
    """The name of a parameter in PyTorch's state dict, and the function that converts it."""

    name: str
    convert: Callable[[np.ndarray], np.ndarray]


def convolution(name: str) -> TorchParameter:
    """The kernel of a convolution, [out, in, height, width] -> [height, width, in, out]."""
    return TorchParameter(name, lambda kernel: kernel.transpose(2, 3, 1, 0))


def dense(name: str) -> TorchParameter:
    """The kernel of a dense layer, [out, in] -> [in, out]."""
    return TorchParameter(name, np.transpose)


def flattened(name: str, side: int) -> TorchParameter:
    """The kernel of a dense layer whose inputs are a flattened feature map, [out, c side side] -> [side side c, out].

    PyTorch flattens maps with the channels first; here the channels are last.
    """

    def convert(kernel):
        maps = kernel.reshape(len(kernel), -1, side, side)
        return maps.transpose(2, 3, 1, 0).reshape(-1, len(kernel))

    return TorchParameter(name, convert)


def batch_norm(path: str, name: str) -> dict[str, TorchParameter]:
    """All variables of a batch normalisation: of the layer `path` here, "stem/bn", and of the module `name` in PyTorch."""
    names = {"params": {"scale": "weight", "bias": "bias"}, "batch_stats": {"mean": "running_mean", "var": "running_var"}}
    return {f"{kind}/{path}/{ours}": vector(f"{name}.{theirs}") for kind, of in names.items() for ours, theirs in of.items()}


def vector(name: str) -> TorchParameter:
    """A bias, a scale or a statistic, which is unchanged."""
    return TorchParameter(name, np.asarray)
