"""Ten training steps of small networks, on this process's devices, and how far they may be from the CPU's.

    python -m benchmarks.correctness_steps FOLDER NETWORK MODE...

A process for `benchmarks.correctness`; it writes FOLDER/MODE.npz for each mode, and FOLDER/machine.json. The step is the one
of `openset_jax.train`, with augmentation and dropout, whose random numbers are the same on all devices.

Why medians over five batches: where the two largest elements of a pooling window are nearly equal, or an element is nearly
0 before a ReLU, the smallest rounding sends a gradient elsewhere. In float32 this happens in some batches; a wrong program
is wrong in all. Rounding to bfloat16 does it in all batches, and more so with each layer: gradients of the first
convolution differ by a fifth. So the limit of a rounded gradient is a multiple of the difference that bfloat16 makes to it
on the CPU.
"""

import json
import pathlib
import sys
import time
import traceback
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from openset_jax.files import write_whole

BATCHES, STEPS, NUM_CLASSES = 5, 10, 10
HIGHEST, DEFAULT, BFLOAT16 = "float32_highest", "float32", "bfloat16"
MODES = {HIGHEST: "float32 at highest precision", DEFAULT: "float32 by default", BFLOAT16: "bfloat16"}  # in words

_PHOTOS = {"data.stored_size": 80, "data.image_size": 71}
_SMALL = {"model.stem": "small", "data.stored_size": 32, "data.image_size": 28, "augment.pad": 2}
# by name: fields of `configs/default.py`, beside `_FIELDS`
NETWORKS = {
    "imagenet stem": _PHOTOS,
    "small stem": _SMALL,
    "groups and local response norm": _PHOTOS | {"model.name": "alexnet_2012"},
    "batch norm": _SMALL | {"model.norm": "batch"},
}
# The default learning rate: in ten steps the loss falls by a tenth to a half. Adam's first steps move each parameter by
# about the learning rate, in the direction of its gradient; with larger rates, small differences of gradients become large
# differences of losses. No clipping: it would spread an error of one gradient over all.
_FIELDS = {
    "batch_size": 8, "model.width": 0.125, "optimizer.learning_rate": 1e-4, "optimizer.warmup_steps": 0,
    "optimizer.schedule": "constant", "optimizer.grad_clip": 0.0,
}  # fmt: skip


class Limit(NamedTuple):
    """How far a gradient g may be from that of the CPU, h, which computes in float32: norm(g - h) / norm(h).

    Attributes:
      gradient: this much at least,
      rounding: and this multiple of the difference that computing in bfloat16 on the CPU makes to the same gradient.
      loss: the relative difference of each of the ten losses.
    """

    gradient: float
    rounding: float
    loss: float


LIMITS = {
    # Two float32 programs of the CPU, with different forms of convolution and pooling, differ by up to 2e-6.
    HIGHEST: Limit(1e-4, 0.0, 1e-3),
    # A GPU's TF32 keeps 11 bits: imitated on the CPU, it makes 0.6 of bfloat16's difference or less. A TPU keeps 8 bits.
    DEFAULT: Limit(1e-3, 1.5, 1e-2),
    # Two bfloat16 programs of the CPU are as far from float32 as each other, to a fifth; their losses by up to 0.01.
    BFLOAT16: Limit(1e-3, 2.0, 0.03),
}


def make_config(network: str, mode: str) -> Any:
    """The config of a network of `NETWORKS`."""
    from configs import default

    config = default.get_config()
    config.update_from_flattened_dict(_FIELDS | NETWORKS[network])
    config.model.dtype = BFLOAT16 if mode == BFLOAT16 else "float32"
    return config


def take_steps(config: Any, mode: str) -> dict[str, np.ndarray]:
    """Takes ten steps on each of five random batches, each time from the initial state.

    Returns:
      "losses": [batches, steps]; and by the name of each parameter, as "conv1/kernel": its gradients in the first step,
      [batches, ...].
    """
    import jax
    import optax

    from benchmarks.step import random_batch, random_state
    from openset_jax import build, programs
    from openset_jax.training import devices
    from openset_jax.training.feed import IMAGES_IN_BATCH

    model, (_, optimizer) = build.make_model(config, NUM_CLASSES), build.make_optimizer(config)
    begin = random_state(model, optimizer, config.data.image_size)  # by NumPy: the same on all devices, bit by bit
    begin.params["fc8"]["kernel"] *= 0.1  # near 0, as training begins
    weights, found = build.make_weights(config, NUM_CLASSES), {"losses": []}
    step = programs.make_train_step(config, model, optimizer, IMAGES_IN_BATCH, weights)
    with jax.default_matmul_precision("highest" if mode == HIGHEST else None):
        for seed in range(BATCHES):
            batch = devices.shard_steps([random_batch(config, NUM_CLASSES, seed)])
            current, losses = devices.replicate(begin), []
            for _ in range(STEPS):
                current, metrics = step(current, batch)
                if not losses:
                    moments = jax.device_get(optax.tree.get(current.opt_state, "mu"))
                losses.append(float(jax.device_get(metrics["loss"])[0]))
            found["losses"].append(losses)
            for path, moment in jax.tree_util.tree_leaves_with_path(moments):
                name = jax.tree_util.keystr(path, simple=True, separator="/")
                found.setdefault(name, []).append(moment / (1 - config.optimizer.b1))
    return {name: np.stack(values) for name, values in found.items()}


def compare(
    found: Mapping[str, np.ndarray], reference: Mapping[str, np.ndarray], rounded: Mapping[str, np.ndarray], limit: Limit
) -> tuple[bool, str]:
    """Compares two results of `take_steps`.

    Args:
      found: of a device.
      reference: of the CPU, in float32.
      rounded: of the CPU, in bfloat16.

    Returns:
      (whether all differences are within the limits, one line about the one that is largest for its limit).
    """
    gradients = [name for name in reference if name not in ("losses", "seconds")]
    if found.keys() != reference.keys() or not gradients:
        return False, f"the parameters differ: {', '.join(sorted(found.keys() ^ reference.keys()))}"
    differences = {name: difference(found[name], reference[name]) for name in gradients}
    limits = {n: limit.gradient + limit.rounding * difference(rounded[n], reference[n]) for n in gradients}
    excess = {name: np.nan_to_num(differences[name] / limits[name], nan=np.inf) for name in gradients}
    worst = max(excess, key=excess.get)
    losses = np.abs(np.asarray(found["losses"]) / reference["losses"] - 1).max(1)
    of_losses = float(np.median(losses))
    detail = (
        f"worst first gradient of {len(gradients)} parameters: {worst}, {differences[worst]:.2g} (limit "
        f"{limits[worst]:.2g}); worst loss of {STEPS} steps: {of_losses:.2g} (limit {limit.loss:g})"
    )
    return bool(excess[worst] <= 1 and of_losses <= limit.loss), detail


def difference(found: np.ndarray, reference: np.ndarray) -> float:
    """norm(found - reference) / norm(reference), the median over batches, which are the first axis."""
    norm = lambda x: np.linalg.norm(np.asarray(x, np.float64).reshape(len(x), -1), axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.median(norm(found - reference) / norm(reference)))


def main(folder: pathlib.Path, network: str, modes: list[str]) -> None:
    """Writes what `take_steps` finds in each mode, and "seconds"; or MODE.error, where it raises."""
    from benchmarks import common

    (folder / "machine.json").write_text(json.dumps(common.machine(devices=True)))
    for mode in modes:
        start = time.perf_counter()
        try:
            found = take_steps(make_config(network, mode), mode)
        except Exception as error:
            traceback.print_exc()
            with write_whole(folder / f"{mode}.error") as file:
                file.write(f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:300]}")
            continue
        with write_whole(folder / f"{mode}.npz", "wb") as file:
            np.savez(file, **found, seconds=time.perf_counter() - start)


def read(folder: pathlib.Path, mode: str) -> dict[str, np.ndarray]:
    """What `main` wrote.

    Raises:
      StepFailed: the step raised.
      FileNotFoundError: `main` did not get there.
    """
    if (error := folder / f"{mode}.error").exists():
        raise StepFailed(f"{folder.name}, {MODES[mode]}: {error.read_text()}")
    with np.load(folder / f"{mode}.npz") as arrays:
        return dict(arrays)


class StepFailed(Exception):
    """A training step raised."""


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3:])
