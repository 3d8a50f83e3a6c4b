"""How long an experiment takes: before it starts, by a few steps of it, and while it runs, by what is done."""

import time
from collections.abc import Sequence
from typing import Any

# of a training step, by the layers that are trained: forwards is a third, backwards through all layers two
_SHARE = {"head": 0.35, "fc": 0.5, "all": 1.0}
_CALLS = 5


def work(config: Any) -> float:
    """How much work an arm is, in examples of training all layers."""
    return config.steps * config.batch_size * _SHARE[config.trainable]


def clock(seconds: float) -> str:
    """2:05, or 1:02:05."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


class Clock:
    """Time taken and time left, in units of work.

    Args:
      total: all work there is.
    """

    def __init__(self, total: float):
        self._left, self._done, self._began, self._last = total, 0.0, time.monotonic(), time.monotonic()

    def line(self, work: float) -> str:
        """What to say when so much more is done."""
        now = time.monotonic()
        took, self._last = now - self._last, now
        self._done, self._left = self._done + work, self._left - work
        return f"took {clock(took)}; about {clock((now - self._began) / self._done * self._left)} left"


def estimate(configs: Sequence[Any], workshop: Any) -> str:
    """How long these arms take here, by a few steps of the first: what to say."""
    if not configs:
        return "All arms are finished."
    first = configs[0]
    seconds = _seconds_per_example(first, workshop) * sum(map(work, configs)) / _SHARE[first.trainable]
    return f"{len(configs)} arms to run; about {clock(seconds)} of training, by {_CALLS} calls of the first, and evaluation."


def _seconds_per_example(config, workshop):
    import jax

    from openset_jax import build
    from openset_jax.data import batches
    from openset_jax.training import devices, state

    pool = workshop.pool(config)
    members = build.training_members(config, pool)
    sampler = build.make_sampler(config, members)
    model, _, optimizer = workshop.network(config, pool.num_classes)
    feed, skipped = workshop.feed(config, pool)
    step = workshop.train_step(config, model, optimizer, feed, build.make_weights(config, pool.num_classes, sampler))
    current = devices.replicate(state.create_state(model, optimizer, seed=config.seed, image_size=config.data.image_size))
    stop = (_CALLS + 1) * config.steps_per_call
    plan = batches.training(pool, members, sampler, start=0, stop=stop, skipped=skipped, part=devices.host_part())
    for i, batch in enumerate(devices.prefetch_steps(feed.read(plan), config.steps_per_call)):
        if i == 1:  # the first compiles
            jax.block_until_ready(current)
            began = time.monotonic()
        current, _ = step(current, batch)
    jax.block_until_ready(current)
    return (time.monotonic() - began) / (_CALLS * config.steps_per_call * config.batch_size)
