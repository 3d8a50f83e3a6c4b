"""Which kernels of an accelerator a function spends its time in, from the profiler of JAX."""

import collections
import pathlib
import tempfile
from collections.abc import Callable
from typing import Any


def slowest(run: Callable[[], Any], *, calls: int = 3, count: int = 25) -> list[dict[str, Any]]:
    """The kernels that take longest, summed by name: [{"name", "ms", "launches"}] of one call; [] on a CPU.

    Args:
      run: returns when the devices are done.
      calls: how often it is called under the profiler.
      count: at most so many kernels.
    """
    import jax

    if jax.default_backend() == "cpu":
        return []
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(calls):
                run()
        file = next(pathlib.Path(folder).rglob("*.xplane.pb"))
        found = _kernels(jax.profiler.ProfileData.from_file(str(file)))
    total = [{"name": name[:120], "ms": sum(ns) / 1e6 / calls, "launches": len(ns) / calls} for name, ns in found.items()]
    return sorted(total, key=lambda kernel: -kernel["ms"])[:count]


def _kernels(profile: Any) -> dict[str, list[float]]:
    """name -> nanoseconds of each launch, on the streams of all devices."""
    found = collections.defaultdict(list)
    for plane in profile.planes:
        if "/device:" not in plane.name:
            continue
        for line in plane.lines:
            if not line.name.startswith("Stream"):
                continue
            for event in line.events:
                op = dict(event.stats).get("hlo_op", "")
                found[f"{op}: {event.name}" if op and op != event.name else event.name].append(event.duration_ns)
    return found
