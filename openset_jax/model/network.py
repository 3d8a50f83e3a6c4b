"""Everything that the rest of the program asks of a network.

A new network is one file with a subclass of `Network`, and one line in `networks.NETWORKS`.
"""

from typing import Any, ClassVar, NamedTuple

import jax
from flax import linen as nn
from flax.typing import Dtype

from openset_jax.errors import UserError
from openset_jax.model.layers import Ops
from openset_jax.model.torch_layout import TorchParameter


class Preprocessing(NamedTuple):
    """The images that published weights were trained on: sides in pixels; mean and std of pixels in [0, 1]."""

    stored_size: int  # the shorter side after scaling
    image_size: int  # the side of the crop
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


IMAGENET = Preprocessing(256, 224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class Published(NamedTuple):
    """Weights that are published in a package of the Python package index."""

    distribution: str  # name of the package
    file: str  # path of the file with the weights, relative to the folder in which the package is installed
    sha256: str  # of the file, in hexadecimal digits
    extra: str  # the extra of pyproject.toml that installs the package


class Network(nn.Module):
    """The base class of all networks.

    Attributes:
      num_outputs: width of the head.
      width: multiplies the numbers of channels.
      stem: first layers, a key of `stems`.
      norm: normalisation, one of `norms`; "batch" is synchronised over `axis_name`.
      dropout: rate of the dropout before the head, and before other layers if the network has it there.
      dtype: of the computation; parameters and logits are float32.
      axis_name: of the device axis, for batch normalisation.
      trained: the layers that are trained, top-level names in the parameters. The frozen layers run as in evaluation:
        without dropout before them, and with running statistics for batch normalisation.
    """

    num_outputs: int
    width: float
    stem: str
    norm: str
    dropout: float
    dtype: Dtype
    axis_name: str | None
    trained: tuple[str, ...]
    ops: Ops = Ops()

    takes_vectors: ClassVar[bool] = False  # instead of images
    # name of a stem -> side of the smallest image that it takes, in pixels; the network's own stem first
    stems: ClassVar[dict[str, int]]
    norms: ClassVar[tuple[str, ...]]  # the network's own normalisation first
    own_dropout: ClassVar[float]  # the rate of the published network
    # Groups of layers from the head down: name -> its layers, in the order in which they run. The first is "head", one
    # dense layer, whose inputs are the features.
    groups: ClassVar[dict[str, tuple[str, ...]]]
    preprocessing: ClassVar[Preprocessing]
    published: ClassVar[Published | None] = None  # None: without published weights

    def __call__(
        self, images: jax.Array, *, train: bool = False, position: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """Runs the network.

        Args:
          images: float32 [b, H, W, 3], normalised.
          train: whether to use batch statistics and dropout; dropout needs the rng "dropout".
          position: int32 [b], positions in the global batch. Dropout masks depend only on these and on the rng.

        Returns:
          (logits float32 [b, num_outputs], features float32 [b, feature_size], the inputs of the head without dropout).
        """
        raise NotImplementedError

    @property
    def feature_size(self) -> int:
        """Returns the number of features."""
        raise NotImplementedError

    def torch_layout(self) -> dict[str, TorchParameter]:
        """Returns "params/conv1/kernel" -> its name and layout in PyTorch's state dict, for all variables, or {}."""
        return {}

    def check(self) -> None:
        """Raises UserError if the network does not exist with this combination of fields; names the field."""

    @property
    def head(self) -> str:
        """Returns the name of the head."""
        return self.groups["head"][0]

    @property
    def head_dropout(self) -> float:
        """Returns the rate of the dropout before the head."""
        return self.dropout

    @property
    def layers(self) -> tuple[str, ...]:
        """Returns the names of all layers in the order in which they run."""
        return self.layers_of("all")

    @classmethod
    def layers_of(cls, trainable: str) -> tuple[str, ...]:
        """Returns the layers that a value of `trainable` trains, in the order in which they run.

        The value is the name of a group, for its layers and those of all groups above it, or "all". Raises UserError for
        another value.
        """
        names = list(cls.groups)
        if trainable not in (*names, "all"):
            raise UserError(f"trainable: {trainable!r} is not one of {', '.join(names)}, all")
        above = names if trainable == "all" else names[: names.index(trainable) + 1]
        return tuple(layer for name in reversed(above) for layer in cls.groups[name])

    def split(self, params: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Returns (the parameters of the trained layers, the parameters of the frozen layers)."""
        trained = {name: values for name, values in params.items() if name in self.trained}
        return trained, {name: values for name, values in params.items() if name not in self.trained}
