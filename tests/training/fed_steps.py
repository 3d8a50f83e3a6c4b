"""Runs four steps of the small network on a packed pool with every image input, on all devices of this process.

    python fed_steps.py OUT.npz PACKED

Writes the losses by the name of the input. A process of its own, because the number of devices is fixed when JAX starts.
"""

import sys

import jax
import numpy as np
from small_run import make_small_run

from openset_jax.training import devices, state
from openset_jax.training.progress import Progress

INPUTS = {
    "stream": {"input": "stream"},
    "resident": {"input": "resident"},
    "sharded": {"input": "resident", "shard_resident": True},
    "two_a_call": {"input": "resident", "shard_resident": True, "steps_per_call": 2},
}


def losses_of(packed, **changes):
    four_steps = {"data.packed": packed, "optimizer.warmup_steps": 0, "steps": 4, "checkpoint.every": 4}
    run = make_small_run(**four_steps | changes)
    images = run.cache.images(run.spec, run.pool)
    model, _, optimizer = run.network
    begin = state.create_state(model, optimizer, seed=0, shape=run.spec.inputs.shape)
    current = devices.replicate(begin)
    step, losses = run.train_step(images, Progress()), []
    for batch in run.calls(images, 0):
        with jax.transfer_guard("disallow"):
            current, metrics = step(current, batch)
        losses.extend(jax.device_get(metrics["loss"]))
    return losses


if __name__ == "__main__":
    np.savez(sys.argv[1], **{name: losses_of(sys.argv[2], **changes) for name, changes in INPUTS.items()})
