"""What all benchmarks share: rounds that alternate, median and spread, a time limit, the machine, tables, JSON files.

No benchmark of its own. Only the standard library is imported here, so that `--help` answers at once.
"""

import datetime
import importlib.metadata
import json
import math
import os
import pathlib
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

from openset_jax.errors import UserError
from openset_jax.files import write_whole

STARTED = time.monotonic()
PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "tensorflow", "tensorflow-cpu", "pillow")
OURS, PEER = "openset_jax", "PyTorch"


def checked(config: Any) -> Any:
    """A copy of the config, with a `model.dtype` that suits the devices where it is "auto".

    Raises:
      UserError: a field is missing or out of range.
    """
    from openset_jax import auto
    from openset_jax import config as configs

    configs.check(config)
    return auto.with_dtype(config)


def alternate(
    rounds: int, contenders: Mapping[Any, Callable[[], float]], *, warm: bool = True, limit: "Limit | None" = None
) -> dict[Any, list[float]]:
    """Runs every contender once in each round, backwards in every other round, so that drift favours nobody.

    Args:
      contenders: what to run by name; each returns its measurement.
      warm: run each once before, and forget the result.
      limit: no round but the first is begun if it would not fit.

    Returns:
      The measurements of each contender: entry i of all of them is from the same round.
    """
    values, longest = {name: [] for name in contenders}, 0.0
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
    """{} if as many rounds were measured as asked for, else what was left out and why."""
    done = len(next(iter(values.values())))
    return {f"{asked - done} of {asked} rounds": "there was no time for them"} if done < asked else {}


def stream_rate(batches: Iterator[Any], batch_size: int, *, warmup: float, seconds: float) -> float:
    """Images per second of an endless generator in its steady state; closes it, so that it does no more work.

    Args:
      warmup: seconds that do not count: filling buffers.
      seconds: how long to measure, up to the end of a batch.
    """
    start = time.perf_counter()
    while time.perf_counter() - start < warmup:
        next(batches)
    start, count = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - start) < seconds:
        next(batches)
        count += 1
    batches.close()
    return count * batch_size / elapsed


class Limit:
    """The time that --seconds gives a benchmark, counted from the start of its process.

    Args:
      seconds: 0 for no limit.
    """

    def __init__(self, seconds: float):
        self._end = STARTED + seconds if seconds else math.inf

    def left(self) -> float:
        """Seconds left, infinite without a limit."""
        return self._end - time.monotonic()

    def __bool__(self) -> bool:
        """True if there is a limit."""
        return math.isfinite(self._end)


class Compilations:
    """Counts programs compiled since its creation, and programs read from JAX's compilation cache."""

    _requests, _hits, _saved = "compile_requests_use_cache", "cache_hits", "compile_time_saved_sec"
    _seen: ClassVar[dict[str, float]] = {}  # of this process

    def __init__(self):
        import jax

        if not self._seen:
            self._seen.update({self._requests: 0, self._hits: 0, self._saved: 0.0})
            count = lambda event, **_: self._add(event, 1)
            jax.monitoring.register_event_listener(count)
            jax.monitoring.register_event_duration_secs_listener(lambda event, seconds, **_: self._add(event, seconds))
        self._before = dict(self._seen)

    @property
    def cold(self) -> bool:
        """True unless all programs came from the cache."""
        return self._since(self._requests) > self._since(self._hits) or not self._since(self._requests)

    @property
    def seconds_saved(self) -> float:
        """Seconds that programs from the cache once took to compile, less those of reading them."""
        return self._since(self._saved)

    def _since(self, name):
        return self._seen[name] - self._before[name]

    @classmethod
    def _add(cls, event, amount):
        name = event.rpartition("/")[2]
        if name in cls._seen:
            cls._seen[name] += amount


def first_step_text(result: Mapping[str, Any]) -> str:
    """The seconds of the first step with its compilation, and whether that was cold."""
    return f"{result['compile_s']:.1f} s, {'compiled cold' if result['cold'] else 'compiled before, read from the cache'}"


def summary(values: Sequence[float]) -> dict[str, Any]:
    """{"median", "min", "max", "rounds"} of the rounds' measurements."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "rounds": list(values)}


def ratios(above: Sequence[float], below: Sequence[float]) -> dict[str, Any]:
    """Summary of above / below, round by round."""
    return summary([a / b for a, b in zip(above, below, strict=True)])


def scaled(values: Mapping[str, Any], factor: float) -> dict[str, Any]:
    """A summary in another unit."""
    return summary([factor * value for value in values["rounds"]])


def beside_peer(rounds: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """Our and the peer's images per second of the same rounds -> the fields that say how they compare."""
    medians = {name: statistics.median(values) for name, values in rounds.items()}
    return {
        "peer_images_per_second": medians[PEER],
        "ratio": medians[OURS] / medians[PEER],
        "paired_ratio": ratios(rounds[OURS], rounds[PEER]),
    }


def print_rates(result: Mapping[str, Any]) -> None:
    """The "rates" of a result, and how they compare if there is a peer."""
    print_table([["images/s", "median", "min", "max"], *(row(k, v) for k, v in result["rates"].items())])
    if "ratio" in result:
        print(f"ratio of the medians: {result['ratio']:.3f}")
        print_table([["ratio", "median", "min", "max"], row("round by round", result["paired_ratio"], 3)])


def row(name: str, values: Mapping[str, Any], digits: int = 1) -> list[str]:
    """A line of a table: name, median, min, max."""
    return [name, *(f"{values[key]:,.{digits}f}" for key in ("median", "min", "max"))]


def markdown_table(rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table in Markdown: the first row is the header."""
    first, *others = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return [first, "|" + "---|" * len(rows[0]), *others]


def number(value: float) -> str:
    """A rate as text: whole above 100, else with one digit."""
    return f"{value:,.0f}" if value >= 100 else f"{value:,.1f}"


def by_reason(reasons: Mapping[str, str]) -> list[tuple[str, str]]:
    """What was left out, by name -> (all names of the same reason, the reason)."""
    names = {}
    for what, why in reasons.items():
        names.setdefault(why, []).append(what)
    return [("; ".join(what), why) for why, what in names.items()]


def print_table(rows: Sequence[Sequence[str]]) -> None:
    """Prints rows of cells: the first row is the header, the first column is flush left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for name, *cells in rows:
        print("  ".join([name.ljust(widths[0]), *(c.rjust(w) for c, w in zip(cells, widths[1:], strict=True))]))


def verdict(what: str, value: float, target: float, *, at_most: bool = False) -> str:
    """One line: a value, its target, and whether it is met."""
    met = value <= target if at_most else value >= target
    return f"{what}: {value:.3f} (target {'<=' if at_most else '>='} {target}: {'met' if met else 'NOT met'})"


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def machine(*, devices: bool = False) -> dict[str, Any]:
    """Processor, cores that this process may use and that others use, memory, versions, date.

    Args:
      devices: JAX's as well, which starts them; else they are named only where they were started already.
    """
    found = {"cpu": _cpu(), "cores": cores(), "system": platform.platform(), "load_1min": round(os.getloadavg()[0], 2)}
    found["busy_cores"] = _busy_cores()
    found["date"] = datetime.datetime.now(datetime.UTC).date().isoformat()
    if hasattr(os, "sysconf"):
        found["memory_gib"] = round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    found["versions"] = versions
    if devices or "openset_jax.training.devices" in sys.modules:  # the input alone does not need them
        import jax

        found["devices"] = [device.device_kind for device in jax.local_devices()]
    return found


def print_machine(found: Mapping[str, Any]) -> None:
    """What `machine` found, on three lines."""
    memory = f", {found['memory_gib']} GiB" if "memory_gib" in found else ""
    print(f"{found['cpu']}, {found['cores']} cores{memory}, load {found['load_1min']}, {found['system']}")
    print(", ".join(f"{name} {version}" for name, version in found["versions"].items()))
    if devices := found.get("devices"):
        print(f"{len(devices)} x {devices[0]}")
    if (busy := found.get("busy_cores") or 0) > 0.3:
        print(f"WARNING: other processes keep {busy:.1f} cores busy; rates on a shared CPU mislead, the peer's above all")


def peak_memory() -> dict[str, int]:
    """Most bytes that one device has held so far, where JAX says; this process's largest resident size."""
    import resource

    import jax

    unit = 1 if sys.platform == "darwin" else 1024
    found = {"host_peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit}
    peaks = [(device.memory_stats() or {}).get("peak_bytes_in_use") for device in jax.local_devices()]
    return found | ({"device_peak_bytes": max(peaks)} if all(peaks) else {})


def json_file(path: str) -> pathlib.Path | None:
    """The file of --json, None if there is none to write. To be called before measuring.

    Raises:
      UserError: it cannot be written.
    """
    if not path:
        return None
    file = pathlib.Path(path).expanduser()
    if not file.parent.is_dir() or file.is_dir() or not os.access(file if file.exists() else file.parent, os.W_OK):
        raise UserError(f"--json: {path!r} cannot be written")
    return file


def write_json(file: pathlib.Path | None, result: Mapping[str, Any]) -> None:
    """Writes the result, if there is a file to write. A benchmark may call it several times with more each time."""
    if file is not None:
        with write_whole(file) as out:
            out.write(json.dumps(result, indent=2) + "\n")


def photo_pool(photos: str) -> Any:
    """The `Pool` of a folder FOLDER/{known,negatives[,unknown]}/CLASS/*.jpg, all classes of all roles.

    Raises:
      UserError: the folder has another layout, or too few images.
    """
    from openset_jax.data import sources
    from openset_jax.data.pool_builder import Selection, build_pool

    root = pathlib.Path(photos).expanduser()
    if not all((root / role).is_dir() for role in ("known", "negatives")):
        raise UserError(f"--photos: {photos!r} has no known/CLASS/ and negatives/CLASS/ folders of images")
    source = sources.open_source(f"folder:{root}")
    return build_pool({role: [Selection(source)] for role in ("known", "negatives")})


def _busy_cores(sample_seconds: float = 0.2) -> float | None:
    """Cores that others use while this process sleeps; None where the system does not say.

    A load average would still count the benchmark before this one.
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
