"""Four steps of the small network from a packed pool, fed in every way, on whatever devices there are.

    python fed_steps.py OUT.npz PACKED

Writes the losses by the way of feeding. A process of its own, because the number of devices is fixed when JAX starts.
"""

import sys

import jax
import numpy as np
from small_run import small_config

from openset_jax import build, programs
from openset_jax.data import batches
from openset_jax.data.unreadable import Skipped
from openset_jax.training import devices, state

WAYS = {
    "stream": {"input": "stream"},
    "resident": {"input": "resident"},
    "sharded": {"input": "resident", "shard_resident": True},
    "two_a_call": {"input": "resident", "shard_resident": True, "steps_per_call": 2},
}


def losses_of(packed, **changes):
    config = small_config(**{"data.packed": packed, "optimizer.warmup_steps": 0} | changes)
    pool = build.open_pool(config)
    members, skipped = pool.training_members(), Skipped(pool)
    model = build.make_model(config, pool.num_classes)
    _, optimizer = build.make_optimizer(config)
    current = devices.replicate(state.create_state(model, optimizer, seed=0, image_size=config.data.image_size))
    feed = build.make_feed(config, pool, skipped)
    step = programs.make_train_step(config, model, optimizer, feed, build.make_weights(config, pool.num_classes))
    plan = batches.training(pool, members, build.make_sampler(config, members), start=0, stop=4, skipped=skipped)
    losses = []
    for batch in devices.prefetch_steps(feed.read(plan), config.steps_per_call):
        with jax.transfer_guard("disallow"):
            current, metrics = step(current, batch)
        losses.extend(jax.device_get(metrics["loss"]))
    return losses


if __name__ == "__main__":
    np.savez(sys.argv[1], **{name: losses_of(sys.argv[2], **changes) for name, changes in WAYS.items()})
