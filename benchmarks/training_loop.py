"""The loop of `openset_jax.train` without evaluating, logging and saving."""

import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax

from benchmarks.bare_step import Step
from openset_jax.training.steps import Batch

Metrics = dict[str, jax.Array]
ENDLESS = 10**9  # more steps than are measured


def run_loop(step: Step, calls: Iterable[Batch], fetch: Callable[[Metrics], Any]) -> Iterator[float]:
    """Runs the step over batches. The metrics of a call are fetched when the next call has been dispatched.

    Args:
      calls: batches of each call, on the devices.
      fetch: waits for the metrics of a call.

    Yields:
      The time (`time.perf_counter`) at which the metrics of each call arrived on the host.
    """
    pending = None
    for batch in calls:
        with jax.transfer_guard("disallow"):
            step.state, metrics = step.function(step.state, batch)
        if pending is not None:
            fetch(pending)
            yield time.perf_counter()
        pending = metrics


def rate_of_calls(step: Step, calls: Iterable[Batch], fetch: Callable[[Metrics], Any], count: int) -> float:
    """Calls per second of `count` calls of `run_loop`, from the end of one call to the end of another."""
    ends = list(itertools.islice(run_loop(step, calls, fetch), count + 1))
    jax.block_until_ready(step.state)
    return count / (ends[-1] - ends[0])


def rate_of_window(
    step: Step, calls: Iterable[Batch], fetch: Callable[[Metrics], Any], *, warmup: float, seconds: float
) -> float:
    """Calls per second of `run_loop` in a window of time.

    Args:
      calls: endless.
      warmup: seconds before the window.
      seconds: length of the window, which ends with a call.
    """
    begin, start, count, now = time.perf_counter(), None, 0, 0.0
    for now in run_loop(step, calls, fetch):
        if start is not None:
            count += 1
            if now - start >= seconds:
                break
        elif now - begin >= warmup:
            start = now
    jax.block_until_ready(step.state)
    assert start is not None
    return count / (now - start)
