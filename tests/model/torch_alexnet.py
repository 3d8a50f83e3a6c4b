"""The numbers with which AlexNet is compared with PyTorch's, and a script that prints PyTorch's logits.

    python torch_alexnet.py WIDTH [FILE.pth]

needs torch and NumPy. FILE.pth is written with `torch.save`. The layers are those of torchvision's AlexNet (`features.0` to
`features.12`, `classifier.0` to `classifier.6`), with all but the outputs WIDTH times as wide.
"""

import sys

import numpy as np

OUTPUTS = 10
CONVOLUTIONS = ((0, 64, 11), (3, 192, 5), (6, 384, 3), (8, 256, 3), (10, 256, 3))  # (place, channels, kernel size)
# width -> the first four logits of PyTorch 2.13, printed by this script
LOGITS = {
    0.0625: (2.5183539, 1.7123832, -1.1331077, -0.4270934),
    1.0: (-5.5101547, 7.3479304, 3.0455077, -3.9226243),
}


def numbers(shape, seed):
    """float32 numbers from -1 to 1, which need no generator of random numbers."""
    places = np.arange(np.prod(shape), dtype=np.int64)
    return (((places * 7919 + seed * 104729) * (places % 2003 + 17) % 20011) / 10005.0 - 1).astype(np.float32).reshape(shape)


def state_dict(width):
    """name -> array in PyTorch's layout; kernels as large as their number of inputs asks for, biases up to 0.1."""
    shapes, inputs = {}, 3
    for place, channels, side in CONVOLUTIONS:
        shapes[f"features.{place}"], inputs = (round(channels * width), inputs, side, side), round(channels * width)
    hidden = round(4096 * width)
    for place, shape in ((1, (hidden, inputs * 36)), (4, (hidden, hidden)), (6, (OUTPUTS, hidden))):
        shapes[f"classifier.{place}"] = shape
    found = {}
    for seed, (name, shape) in enumerate(shapes.items()):
        found[f"{name}.weight"] = numbers(shape, seed) * np.float32((6 / np.prod(shape[1:])) ** 0.5)
        found[f"{name}.bias"] = numbers(shape[:1], seed + 100) * np.float32(0.1)
    return found


def image():
    """float32 [1, 224, 224, 3]."""
    return numbers((1, 224, 224, 3), 50)


def main(width, path=None):
    """Prints the logits of PyTorch."""
    import torch
    from torch import nn

    pool, features, inputs = lambda: nn.MaxPool2d(3, 2), [], 3
    options = [{"stride": 4, "padding": 2}, {"padding": 2}, {"padding": 1}, {"padding": 1}, {"padding": 1}]
    for i, ((_, channels, side), given) in enumerate(zip(CONVOLUTIONS, options, strict=True)):
        features += [nn.Conv2d(inputs, round(channels * width), side, **given), nn.ReLU()]
        features += [pool()] if i in (0, 1, 4) else []
        inputs = round(channels * width)
    hidden = round(4096 * width)
    dense = [nn.Dropout(), nn.Linear(inputs * 36, hidden), nn.ReLU(), nn.Dropout(), nn.Linear(hidden, hidden), nn.ReLU()]
    model = nn.Module()
    model.features, model.classifier = nn.Sequential(*features), nn.Sequential(*dense, nn.Linear(hidden, OUTPUTS))
    model.load_state_dict({name: torch.from_numpy(values) for name, values in state_dict(width).items()})
    if path:
        torch.save(model.state_dict(), path)
    with torch.no_grad():
        maps = nn.AdaptiveAvgPool2d(6)(model.eval().features(torch.from_numpy(image()).permute(0, 3, 1, 2)))
        print(model.classifier(maps.flatten(1))[0].tolist())


if __name__ == "__main__":
    main(float(sys.argv[1]), *sys.argv[2:])
