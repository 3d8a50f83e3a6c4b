"""Runs ten steps of a small network with dropout, augmentation and batch normalisation, on all devices of this process.

    python ten_steps.py OUT.npz [PROCESS_ID NUM_PROCESSES PORT] [--workdir=DIR]

Writes the losses, and the parameters after the first step. A process of its own, because the number of devices of a process
is fixed when JAX starts.
"""

import pathlib
import sys

import numpy as np

from openset_jax.training import devices, hosts, progress
from openset_jax.training.checkpoints import Checkpoints


def main(out, *distributed, workdir=None):
    import jax
    from few_steps import make, make_step
    from small_run import small_spec

    if distributed:
        process, processes, port = map(int, distributed)
        hosts.connect(f"localhost:{port}", process, processes)
    spec = small_spec(**{"model.norm": "batch", "augment.flip": True, "optimizer.warmup_steps": 0, "batch_size": 32})
    assert spec.program.forward.network.dropout == 0.5
    assert spec.program.pad > 0
    model, _, optimizer, begin = make(spec)
    current = devices.replicate(begin)
    step = make_step(spec, model, optimizer)
    rng = np.random.default_rng(0)
    process, processes = hosts.host_part()
    size = spec.program.batch_size // processes
    mine = slice(process * size, (process + 1) * size)
    losses, first = [], None
    for _ in range(10):
        batch = {
            "example": rng.integers(0, 256, (32, 16, 16, 3), np.uint8),
            "label": rng.integers(0, 6, 32, np.int32),
            "position": np.arange(32, dtype=np.int32),
            "mask": np.ones(32, bool),
        }
        on_devices = devices.shard_steps([{k: v[mine] for k, v in batch.items()}])
        with jax.transfer_guard("disallow"):
            current, metrics = step(current, on_devices)
        jax.block_until_ready(current)
        losses.append(float(jax.device_get(metrics["loss"])[0]))
        first = first or jax.device_get(current.variables)
    if workdir is not None:
        saved = Checkpoints(workdir, writing=True)
        saved.save(10, current, {"progress": vars(progress.Progress())}, best=None)
        saved.close()
    if hosts.is_first_process():
        leaves = {jax.tree_util.keystr(p): x for p, x in jax.tree_util.tree_leaves_with_path(first)}
        last = {"last" + jax.tree_util.keystr(p): x for p, x in jax.tree_util.tree_leaves_with_path(jax.device_get(current))}
        np.savez(out, losses=losses, **leaves, **last)


if __name__ == "__main__":
    words = [a for a in sys.argv[1:] if not a.startswith("--workdir=")]
    folders = [pathlib.Path(a.partition("=")[2]) for a in sys.argv[1:] if a.startswith("--workdir=")]
    main(*words, workdir=folders[0] if folders else None)
