"""Ten training steps of small networks on the devices of this process.

    python -m benchmarks.correctness_steps FOLDER NETWORK MODE...

A process of `benchmarks.correctness`. It writes FOLDER/MODE.npz for each mode, and FOLDER/machine.json. The step is the
one of `openset_jax.train`, with augmentation and dropout, whose random numbers are the same on all devices.
"""

import json
import pathlib
import sys
import time
import traceback
from typing import Any

import jax
import numpy as np
import optax

from benchmarks import hardware, inputs
from benchmarks.bare_step import Step, random_batch, random_state
from benchmarks.correctness_limits import BFLOAT16, HIGHEST, NETWORKS, STEPS
from configs import folder as full_size
from openset_jax.files import write_whole
from openset_jax.spec import RunSpec
from openset_jax.training import devices

BATCHES, NUM_CLASSES = 5, 10

# With the default learning rate the loss falls by a tenth to a half in ten steps. Adam's first steps move each
# parameter by about the learning rate, in the direction of its gradient; with larger rates, small differences of
# gradients become large differences of losses. No clipping, which would spread an error of one gradient over all.
_FIELDS = {
    "batch_size": 8, "model.width": 0.125, "optimizer.learning_rate": 1e-4, "optimizer.warmup_steps": 0,
    "optimizer.schedule": "constant", "optimizer.grad_clip": 0.0,
}  # fmt: skip


def make_spec(network: str, mode: str) -> RunSpec:
    """The spec of a network of `NETWORKS`. Its images are not opened."""
    dtype = BFLOAT16 if mode == BFLOAT16 else "float32"
    return inputs.resolve(full_size.get_config(), **_FIELDS, **NETWORKS[network], **{"model.dtype": dtype})


def take_steps(spec: RunSpec, mode: str) -> dict[str, np.ndarray]:
    """Takes ten steps on each of five random batches, each time from the initial state.

    Returns:
      "losses": float [batches, steps]; and for each parameter, as "conv1/kernel": its gradients in the first step,
      float [batches, ...].
    """
    step = Step(spec, NUM_CLASSES)
    found: dict[str, list[Any]] = {"losses": []}
    begin = random_state(step.model, step.optimizer, spec.inputs.shape)  # by NumPy: equal on all devices, bit by bit
    begin.params["fc8"]["kernel"] *= 0.1  # near 0, as at the start of training
    with jax.default_matmul_precision("highest" if mode == HIGHEST else None):
        for seed in range(BATCHES):
            batch = devices.shard_steps([random_batch(spec.program, NUM_CLASSES, seed)])
            current, losses = devices.replicate(begin), list[float]()
            for _ in range(STEPS):
                current, metrics = step.function(current, batch)
                if not losses:
                    moments = jax.device_get(optax.tree.get(current.opt_state, "mu"))
                losses.append(float(jax.device_get(metrics["loss"])[0]))
            found["losses"].append(losses)
            for path, moment in jax.tree_util.tree_leaves_with_path(moments):
                name = jax.tree_util.keystr(path, simple=True, separator="/")
                found.setdefault(name, []).append(moment / (1 - spec.program.optimizer.b1))
    return {name: np.stack(values) for name, values in found.items()}


def main(folder: pathlib.Path, network: str, modes: list[str]) -> None:
    """Writes the result of `take_steps` and "seconds" for each mode; MODE.error if it raises."""
    (folder / "machine.json").write_text(json.dumps(hardware.describe(devices=True)))
    for mode in modes:
        start = time.perf_counter()
        try:
            found = take_steps(make_spec(network, mode), mode)
        except Exception as error:
            traceback.print_exc()
            with write_whole(folder / f"{mode}.error") as file:
                file.write(f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:300]}")
            continue
        with write_whole(folder / f"{mode}.npz", "wb") as file:
            np.savez(file, **found, seconds=time.perf_counter() - start)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3:])
