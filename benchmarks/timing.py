"""Rounds that alternate between contenders, their summaries, and the time limit of a benchmark.

Only the standard library is imported here, so that `--help` answers at once.
"""

import math
import statistics
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

STARTED = time.monotonic()
OURS, PEER = "openset_jax", "PyTorch"

Summary = dict[str, Any]  # {"median", "min", "max", "rounds"}; a benchmark may add others
Name = TypeVar("Name", bound=Hashable)


class Limit:
    """The time limit of a benchmark (its flag --seconds), counted from the start of its process.

    Args:
      seconds: 0 for no limit.
    """

    def __init__(self, seconds: float):
        self._end = STARTED + seconds if seconds else math.inf

    def left(self) -> float:
        """Seconds left; infinite without a limit."""
        return self._end - time.monotonic()

    def __bool__(self) -> bool:
        """True if there is a limit."""
        return math.isfinite(self._end)


def alternate(
    rounds: int, contenders: Mapping[Name, Callable[[], float]], *, warm: bool = True, limit: Limit | None = None
) -> dict[Name, list[float]]:
    """Runs every contender once in each round, in reverse order in every other round, so that drift favours none.

    Args:
      contenders: name -> a function that returns its measurement.
      warm: run one round before, whose results are not kept.
      limit: later rounds are left out if they would exceed it; the first is always run.

    Returns:
      The measurements of each contender: entry i of all of them is from the same round.
    """
    values: dict[Name, list[float]] = {name: [] for name in contenders}
    longest = 0.0
    for i in range(-int(warm), rounds):
        if i > 0 and limit and limit.left() < longest:
            break
        start = time.monotonic()
        for name in list(contenders)[:: -1 if i % 2 else 1]:
            value = contenders[name]()
            if i >= 0:
                values[name].append(value)
        longest = max(longest, time.monotonic() - start)
    return values


def missing_rounds(asked: int, values: Mapping[Any, Sequence[float]]) -> dict[str, str]:
    """{the rounds that were left out: the reason}; empty if all were measured."""
    done = len(next(iter(values.values())))
    return {f"{asked - done} of {asked} rounds": "there was no time for them"} if done < asked else {}


def stream_rate(batches: Iterator[Any], batch_size: int, *, warmup: float, seconds: float) -> float:
    """Images per second of an endless generator in its steady state. Closes it, so that its threads stop.

    Args:
      warmup: seconds before the measurement, in which buffers fill.
      seconds: the length of the measurement, which ends with a batch.
    """
    start = time.perf_counter()
    while time.perf_counter() - start < warmup:
        next(batches)
    start, count = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - start) < seconds:
        next(batches)
        count += 1
    batches.close()  # type: ignore[attr-defined]  # a generator
    return count * batch_size / elapsed


def summary(values: Sequence[float]) -> Summary:
    """{"median", "min", "max", "rounds"} of the measurements of all rounds."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "rounds": list(values)}


def ratios(above: Sequence[float], below: Sequence[float]) -> Summary:
    """Summary of above / below, round by round."""
    return summary([a / b for a, b in zip(above, below, strict=True)])


def scaled(values: Summary, factor: float) -> Summary:
    """A summary in another unit."""
    return summary([factor * value for value in values["rounds"]])


def beside_peer(rounds: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """The comparison of our images per second with the peer's, in the same rounds.

    Returns:
      "peer_images_per_second" (the median), "ratio" (of the medians, ours over the peer's) and "paired_ratio" (a
      summary, round by round).
    """
    medians = {name: statistics.median(values) for name, values in rounds.items()}
    return {
        "peer_images_per_second": medians[PEER],
        "ratio": medians[OURS] / medians[PEER],
        "paired_ratio": ratios(rounds[OURS], rounds[PEER]),
    }
