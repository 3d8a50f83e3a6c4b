"""The kernels of an accelerator in which a function spends its time, from JAX's profiler."""

import collections
import pathlib
import tempfile
from collections.abc import Callable, Iterable
from typing import Any


def slowest(run: Callable[[], Any], *, steps: int = 1, calls: int = 3, count: int = 25) -> list[dict[str, Any]]:
    """The kernels that take longest, summed by name: [{"name", "ms", "launches"}] of one step on one device.

    The list is empty on a CPU, and if the profiler sees no kernels.

    Args:
      run: returns when the devices are idle.
      steps: number of steps in one call of `run`.
      calls: number of calls under the profiler.
      count: the most kernels to return.
    """
    import jax

    if jax.default_backend() == "cpu":
        return []
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(calls):
                run()
        files = pathlib.Path(folder).rglob("*.xplane.pb")
        found = launches(jax.profiler.ProfileData.from_file(str(file)) for file in files)
    runs = calls * steps * jax.local_device_count()
    total: list[dict[str, Any]] = [
        {"name": name[:120], "ms": sum(ns) / 1e6 / runs, "launches": len(ns) / runs} for name, ns in found.items()
    ]
    return sorted(total, key=lambda kernel: -kernel["ms"])[:count]


def launches(profiles: Iterable[Any]) -> dict[str, list[float]]:
    """Name of a kernel -> nanoseconds of each launch, on the streams of all devices.

    Args:
      profiles: `jax.profiler.ProfileData`.
    """
    found: dict[str, list[float]] = collections.defaultdict(list)
    for plane in (plane for profile in profiles for plane in profile.planes if "/device:" in plane.name):
        for line in (line for line in plane.lines if line.name.startswith("Stream")):
            for event in line.events:
                op = dict(event.stats).get("hlo_op", "")
                found[f"{op}: {event.name}" if op and op != event.name else event.name].append(event.duration_ns)
    return dict(found)
