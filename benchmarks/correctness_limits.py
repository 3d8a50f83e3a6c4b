"""The networks and precisions of `benchmarks.correctness_steps`, and the limits of their differences from the CPU.

Differences are medians over five batches: if the two largest elements of a pooling window are nearly equal, or an
element before a ReLU is nearly 0, the smallest rounding sends a gradient to another element. In float32 this happens in
some batches, whereas a wrong program is wrong in all batches. With bfloat16 it happens in all batches, and more with
each layer: gradients of the first convolution differ by a fifth. So the limit of a rounded gradient is a multiple of
the difference that bfloat16 makes to it on the CPU.
"""

import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

STEPS = 10
HIGHEST, DEFAULT, BFLOAT16 = "float32_highest", "float32", "bfloat16"
MODES = {HIGHEST: "float32 at highest precision", DEFAULT: "float32 by default", BFLOAT16: "bfloat16"}  # in words

_PHOTOS = {"data.stored_size": 80, "data.image_size": 71}
_SMALL = {"model.stem": "small", "data.stored_size": 32, "data.image_size": 28, "augment.pad": 2}
# network -> its fields of the config, besides those of `correctness_steps`
NETWORKS: dict[str, dict[str, Any]] = {
    "imagenet stem": _PHOTOS,
    "small stem": _SMALL,
    "groups and local response norm": _PHOTOS | {"model.name": "alexnet_2012"},
    "batch norm": _SMALL | {"model.norm": "batch"},
}


class Limit(NamedTuple):
    """Limits of the differences from the CPU, which computes in float32.

    The limit of norm(g - h) / norm(h), for a gradient g and that of the CPU, h, is `gradient` + `rounding` * d, where d
    is the difference that bfloat16 on the CPU makes to the same gradient.

    Attributes:
      gradient, rounding: see above.
      loss: limit of the relative difference of each of the ten losses.
    """

    gradient: float
    rounding: float
    loss: float


LIMITS = {
    # Two float32 programs on the CPU, with different implementations of convolution and pooling, differ by up to 2e-6.
    HIGHEST: Limit(1e-4, 0.0, 1e-3),
    # A GPU's TF32 keeps 11 bits; imitated on the CPU, it makes at most 0.6 of bfloat16's difference. A TPU keeps 8 bits.
    DEFAULT: Limit(1e-3, 1.5, 1e-2),
    # Two bfloat16 programs on the CPU differ from float32 by amounts that agree within a fifth; their losses differ by up
    # to 0.01.
    BFLOAT16: Limit(1e-3, 2.0, 0.03),
}


def compare(
    found: Mapping[str, np.ndarray], reference: Mapping[str, np.ndarray], rounded: Mapping[str, np.ndarray], limit: Limit
) -> tuple[bool, str]:
    """Compares two results of `take_steps`.

    Args:
      found: of a device.
      reference: of the CPU, in float32.
      rounded: of the CPU, in bfloat16.

    Returns:
      (True if all differences are within the limits, one line about the difference that is largest relative to its limit).
    """
    gradients = [name for name in reference if name not in ("losses", "seconds")]
    if found.keys() != reference.keys() or not gradients:
        return False, f"the parameters differ: {', '.join(sorted(found.keys() ^ reference.keys()))}"
    differences = {name: difference(found[name], reference[name]) for name in gradients}
    limits = {n: limit.gradient + limit.rounding * difference(rounded[n], reference[n]) for n in gradients}
    excess = {name: np.nan_to_num(differences[name] / limits[name], nan=np.inf) for name in gradients}
    worst = max(excess, key=lambda name: excess[name])
    losses = np.abs(np.asarray(found["losses"]) / reference["losses"] - 1).max(1)
    of_losses = float(np.median(losses))
    detail = (
        f"worst first gradient of {len(gradients)} parameters: {worst}, {differences[worst]:.2g} (limit "
        f"{limits[worst]:.2g}); worst loss of {STEPS} steps: {of_losses:.2g} (limit {limit.loss:g})"
    )
    return bool(excess[worst] <= 1 and of_losses <= limit.loss), detail


def difference(found: np.ndarray, reference: np.ndarray) -> float:
    """The median over batches (the first axis) of norm(found - reference) / norm(reference)."""
    norm = lambda x: np.linalg.norm(np.asarray(x, np.float64).reshape(len(x), -1), axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.median(norm(found - reference) / norm(reference)))


def read(folder: pathlib.Path, mode: str) -> dict[str, np.ndarray]:
    """Reads the arrays that `main` wrote.

    Raises:
      StepFailed: the step raised.
      FileNotFoundError: `main` has not finished this mode.
    """
    if (error := folder / f"{mode}.error").exists():
        raise StepFailed(f"{folder.name}, {MODES[mode]}: {error.read_text()}")
    with np.load(folder / f"{mode}.npz") as arrays:
        return dict(arrays)


class StepFailed(Exception):
    """A training step raised."""
