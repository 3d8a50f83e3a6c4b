"""The networks of `torch_step.py`, in usual PyTorch: all are [b, 3, H, W] -> logits [b, num_outputs].

All take the same arguments; see `openset_jax/model/` for their meanings.
"""

import torch
from torch import nn

FEATURES = (64, 192, 384, 256, 256)


class AlexNet(nn.Module):
    """torchvision's AlexNet: [b, 3, H, W] -> logits [b, num_outputs]; see `openset_jax/model/alexnet.py` for the options."""

    def __init__(self, *, num_outputs: int, width: float, stem: str, norm: str, dropout: float, image_size: int):
        super().__init__()
        first = (11, 4, 2) if stem == "imagenet" else (5, 1, 2)
        layers, channels, side = [], 3, image_size
        for i, (size, stride, padding) in enumerate((first, (5, 1, 2), (3, 1, 1), (3, 1, 1), (3, 1, 1))):
            out = round(FEATURES[i] * width)
            layers.append(nn.Conv2d(channels, out, size, stride, padding, bias=norm != "batch"))
            layers += [nn.BatchNorm2d(out)] if norm == "batch" else []
            layers.append(nn.ReLU(inplace=True))
            channels, side = out, (side + 2 * padding - size) // stride + 1
            if i in (0, 1, 4):
                layers.append(nn.MaxPool2d(3, 2))
                side = (side - 3) // 2 + 1
        if stem == "imagenet" and side != 6:
            layers.append(nn.AdaptiveAvgPool2d(6))
            side = 6
        self.features, hidden = nn.Sequential(*layers), round(4096 * width)
        self.classifier = nn.Sequential(
            nn.Dropout(dropout), nn.Linear(channels * side * side, hidden), nn.ReLU(inplace=True),
            nn.Dropout(dropout), nn.Linear(hidden, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, num_outputs),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the logits [b, num_outputs] of images [b, 3, H, W]."""
        return self.classifier(self.features(x).flatten(1))


# (blocks, kernel size, stride of the first block, expansion, channels)
STAGES = ((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112), (4, 5, 2, 6, 192),
          (1, 3, 1, 6, 320))  # fmt: skip


class EfficientNetLite0(nn.Module):
    """EfficientNet-Lite0 for images whose side is a multiple of 32."""

    def __init__(self, *, num_outputs: int, width: float, stem: str, norm: str, dropout: float, image_size: int):
        super().__init__()
        scaled = lambda channels: round(channels * width)
        layers, channels = [normalised(3, scaled(32), 3, stride=2)], scaled(32)
        for blocks, size, stride, expansion, features in STAGES:
            for block in range(blocks):
                layers.append(Block(channels, scaled(features), size, 1 if block else stride, expansion, added=block > 0))
                channels = scaled(features)
        self.features = nn.Sequential(*layers, normalised(channels, scaled(1280), 1))
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(scaled(1280), num_outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the logits [b, num_outputs] of images [b, 3, H, W]."""
        return self.classifier(self.features(x).mean((2, 3)))


class Block(nn.Module):
    """An inverted residual: 1x1 to more channels, depthwise, 1x1; the input is `added` or not."""

    def __init__(self, channels: int, features: int, size: int, stride: int, expansion: int, *, added: bool):
        super().__init__()
        more, self.added = channels * expansion, added
        expand = [normalised(channels, more, 1)] if expansion > 1 else []
        depthwise, project = (
            normalised(more, more, size, stride=stride, groups=more),
            normalised(more, features, 1, act=False),
        )
        self.layers = nn.Sequential(*expand, depthwise, project)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[b, c, H, W] -> [b, features, h, w]."""
        return x + self.layers(x) if self.added else self.layers(x)


def normalised(channels: int, features: int, size: int, *, stride: int = 1, groups: int = 1, act: bool = True) -> nn.Module:
    """A convolution, batch normalisation and ReLU6; with stride 2 the zeros are those of TensorFlow's padding SAME."""
    first, padding = [], size // 2
    if stride == 2:
        first, padding = [nn.ZeroPad2d((size // 2 - 1, size // 2) * 2)], 0
    layers = [*first, nn.Conv2d(channels, features, size, stride, padding, groups=groups, bias=False)]
    layers.append(nn.BatchNorm2d(features, eps=1e-3))
    return nn.Sequential(*layers, *([nn.ReLU6(inplace=True)] if act else []))


NETWORKS = {"alexnet": AlexNet, "efficientnet_lite0": EfficientNetLite0}
