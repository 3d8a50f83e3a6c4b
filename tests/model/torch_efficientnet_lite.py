"""The numbers with which EfficientNet-Lite0 is compared with PyTorch's, and a script that prints PyTorch's outputs.

    python torch_efficientnet_lite.py SIDE [FILE.pth]

needs torch, NumPy and the package efficientnet-lite-pytorch 0.1.0. FILE.pth has other weights than `state_dict`.
"""

import sys

import numpy as np
from torch_alexnet import numbers

OUTPUTS = 10
STAGES = ((1, 3, 1, 16), (2, 3, 6, 24), (2, 5, 6, 40), (3, 3, 6, 80), (3, 5, 6, 112), (4, 5, 6, 192), (1, 3, 6, 320))
SIDE = 63  # 63, 32, 16, 8, 4, 2: zeros on one side, and on both
# the first four logits and features of PyTorch 2.13, printed by this script
LOGITS = (0.12801480, 0.44200683, 0.11467028, 1.0006807)
FEATURES = (3.4318366, 1.7751722, 0.5536471, 0.8544764)
# of the published weights and `image(224)`
PUBLISHED_LOGITS = (-2.1611874, 0.52722317, 0.85484385, 0.07472122)
PUBLISHED_FEATURES = (0.22842520, 0.0, 1.6644858, 0.0)


def image(side):
    """float32 [1, side, side, 3] from -1 to 1."""
    return numbers((1, side, side, 3), 50)


def state_dict():
    """name -> array in PyTorch's layout."""
    units, inputs, number = [("_conv_stem", "_bn0", (32, 3, 3, 3))], 32, 0
    for blocks, side, expansion, channels in STAGES:
        for _ in range(blocks):
            block, more = f"_blocks.{number}.", inputs * expansion
            if expansion > 1:
                units.append((f"{block}_expand_conv", f"{block}_bn0", (more, inputs, 1, 1)))
            units.append((f"{block}_depthwise_conv", f"{block}_bn1", (more, 1, side, side)))
            units.append((f"{block}_project_conv", f"{block}_bn2", (channels, more, 1, 1)))
            inputs, number = channels, number + 1
    units.append(("_conv_head", "_bn1", (1280, inputs, 1, 1)))
    found = {}
    for seed, (conv, norm, shape) in enumerate(units):
        found[f"{conv}.weight"] = numbers(shape, seed) * np.float32((6 / np.prod(shape[1:])) ** 0.5)
        draw = lambda more, shape=shape, seed=seed: numbers(shape[:1], seed + more)
        found[f"{norm}.weight"], found[f"{norm}.bias"] = 1 + draw(100) / 2, draw(200) / 2
        found[f"{norm}.running_mean"], found[f"{norm}.running_var"] = draw(300) / 2, 1 + draw(400) / 2
    found["_fc.weight"] = numbers((OUTPUTS, 1280), 60) / np.float32(1280**0.5)
    found["_fc.bias"] = numbers((OUTPUTS,), 61)
    return found


def main(side, path=None):
    """Prints PyTorch's logits and features."""
    import torch
    from efficientnet_lite_pytorch import EfficientNet

    net = EfficientNet.from_name("efficientnet-lite0", image_size=side, num_classes=1000 if path else OUTPUTS)
    state = torch.load(path, weights_only=True) if path else {k: torch.from_numpy(v) for k, v in state_dict().items()}
    net.load_state_dict(state, strict=bool(path))
    with torch.no_grad():
        images = torch.from_numpy(image(side)).permute(0, 3, 1, 2)
        print(net.eval()(images)[0, :4].tolist(), net.extract_features(images).mean((2, 3))[0, :4].tolist())


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])
