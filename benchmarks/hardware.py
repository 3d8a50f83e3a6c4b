"""The machine that a benchmark runs on: processor, load, memory, versions, devices."""

import datetime
import importlib.metadata
import os
import pathlib
import platform
import sys
import time
from collections.abc import Mapping
from typing import Any

PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "tensorflow", "tensorflow-cpu", "pillow")
_BUSY = 0.3  # cores used by other processes, above which a warning is printed


def describe(*, devices: bool = False) -> dict[str, Any]:
    """The processor, its cores, the cores that other processes use, memory, versions, date and devices.

    Args:
      devices: list JAX's devices, which starts JAX. If False, they are listed only if JAX was started before.
    """
    found: dict[str, Any] = {
        "cpu": _cpu(),
        "cores": cores(),
        "system": platform.platform(),
        "load_1min": round(os.getloadavg()[0], 2),
        "busy_cores": _busy_cores(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }
    if hasattr(os, "sysconf"):
        found["memory_gib"] = round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    found["versions"] = {"python": platform.python_version(), **_versions()}
    if devices or "openset_jax.training.devices" in sys.modules:  # benchmarks of the input alone do not need devices
        import jax

        from openset_jax.platforms import xla

        xla.check_platform()
        found["devices"] = [device.device_kind for device in jax.local_devices()]
    return found


def print_description(machine: Mapping[str, Any]) -> None:
    """Prints the result of `describe` on three lines, and a warning if other processes use the cores."""
    memory = f", {machine['memory_gib']} GiB" if "memory_gib" in machine else ""
    print(f"{machine['cpu']}, {machine['cores']} cores{memory}, load {machine['load_1min']}, {machine['system']}")
    print(", ".join(f"{name} {version}" for name, version in machine["versions"].items()))
    if devices := machine.get("devices"):
        print(f"{len(devices)} x {devices[0]}")
    if (busy := machine.get("busy_cores") or 0) > _BUSY:
        print(f"WARNING: other processes use {busy:.1f} cores; rates on a shared CPU mislead, the peer's most of all")


def cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def peak_memory() -> dict[str, int]:
    """Peak memory so far, in bytes: of this process on the host, and of one device if JAX reports it."""
    import resource

    import jax

    unit = 1 if sys.platform == "darwin" else 1024
    found: dict[str, int] = {"host_peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit}
    peaks = [(device.memory_stats() or {}).get("peak_bytes_in_use", 0) for device in jax.local_devices()]
    return found | ({"device_peak_bytes": max(peaks)} if all(peaks) else {})


def _versions() -> dict[str, str]:
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def _busy_cores(sample_seconds: float = 0.2) -> float | None:
    """The number of cores that other processes use while this process sleeps; None if the system does not report it.

    A load average would still count the benchmark that ran before this one.
    """
    try:
        used = lambda: sum(map(int, pathlib.Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:4]))
        start, before = time.perf_counter(), used()
        time.sleep(sample_seconds)
        ticks = (used() - before) / (time.perf_counter() - start)
    except (OSError, ValueError):
        return None
    return round(ticks / os.sysconf("SC_CLK_TCK"), 1)


def _cpu() -> str:
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
