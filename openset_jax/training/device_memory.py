"""Resident images: free memory, and copying rows to the memory of the devices."""

import pathlib
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from openset_jax.data.pools import ArrayType
from openset_jax.errors import UserError
from openset_jax.training.devices import local_sharding

_CHUNK_BYTES = 1 << 28
_CONTAINER = (  # memory limit and use of a container
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


def memory_for(count: int, array: ArrayType, *, sharded: bool) -> tuple[int, int | None, str]:
    """(bytes that `count` examples need, free bytes or None if unknown, "a device" or "this machine").

    They are the bytes of one device; on CPUs, of all devices of this process together. `sharded`: see `copy_to_devices`.
    """
    needed = (-(-count // jax.device_count()) if sharded else count) * array.nbytes
    free = _free_on_device()
    if free is not None:
        return needed, free, "a device"
    return needed * jax.local_device_count(), free_host_memory(), "this machine"


def free_for_each_device() -> int | None:
    """Free bytes of a device; on CPUs, of the machine for each device of this process; None if unknown."""
    free = _free_on_device()
    if free is None and (here := free_host_memory()) is not None:
        return here // jax.local_device_count()
    return free


def _free_on_device() -> int | None:
    """Free bytes of a device that has its own memory; otherwise None."""
    stats = jax.local_devices()[0].memory_stats()
    return stats["bytes_limit"] - stats["bytes_in_use"] if stats and "bytes_limit" in stats else None


def free_host_memory(root: pathlib.Path = pathlib.Path("/")) -> int | None:
    """Free bytes of the machine, or of the container that this process runs in; None if unknown."""

    def text(path):
        file = root / path.lstrip("/")
        return file.read_text() if file.exists() else ""

    lines = [line.split() for line in text("/proc/meminfo").splitlines()]
    free = [int(words[1]) * 1024 for words in lines if words[0] == "MemAvailable:"]
    for limit, used in _CONTAINER:
        if text(limit).strip().isdigit() and text(used).strip().isdigit():  # "max" is no limit
            free.append(max(int(text(limit)) - int(text(used)), 0))
    return min(free, default=None)


def check_batch(field: str, batch_size: int, array: ArrayType) -> None:
    """Raises UserError if the stored examples of one batch alone do not fit the free memory of this machine.

    A batch that fits may still be too large for the activations of the network, which nobody knows before it is compiled.
    """
    needed, free = batch_size // jax.process_count() * array.nbytes, free_host_memory()
    if free is not None and needed > free:
        raise UserError(
            f"{field}: the {array.noun} of a batch of {batch_size:,} need {_size(needed)}, and this machine has only "
            f"{_size(free)} free; use a smaller number"
        )


def copy_to_devices(read: Callable[[int, int], np.ndarray], count: int, array: ArrayType, *, sharded: bool) -> jax.Array:
    """Copies rows into device memory in chunks, of which the host never holds more than two.

    Args:
      read: (start, stop) -> [stop - start, *shape]; zeros beyond `count`.
      sharded: True: device d of D holds rows d m to (d + 1) m, m = ceil(count / D). False: every device holds all.

    Returns:
      [count, *shape], or, sharded, [local devices, m, *shape].

    Raises UserError if the rows do not fit; it says how much memory is missing, and what to do.
    """
    _check_fits(count, array, sharded)
    shape = array.shape
    here, sharding = jax.local_device_count(), local_sharding(sharded=sharded)
    first, each = (jax.process_index() * here, -(-count // jax.device_count())) if sharded else (0, count)
    parts, axis, whole = (here, 1, (here, each, *shape)) if sharded else (1, 0, (each, *shape))
    store = jax.jit(lambda: jnp.zeros(whole, array.dtype), out_shardings=sharding)()
    update = lambda store, chunk, at: jax.lax.dynamic_update_slice_in_dim(store, chunk, at, axis)
    write = jax.jit(update, donate_argnums=0)
    step = max(1, min(each, _CHUNK_BYTES // (array.nbytes * parts)))
    for at in range(0, each, step):
        at = min(at, each - step)  # all chunks have one size: the last may overlap the one before
        chunk = [read((first + d) * each + at, (first + d) * each + at + step) for d in range(parts)]
        store = write(store, jax.device_put(np.stack(chunk) if sharded else chunk[0], sharding), at)
        store.block_until_ready()
    return store


def _check_fits(count: int, array: ArrayType, sharded: bool) -> None:
    needed, free, where = memory_for(count, array, sharded=sharded)
    if free is None or needed <= free:
        return
    enough = -(-count * array.nbytes // free)
    shard_it = "" if sharded else f"spread them over {enough} or more devices (--config.shard_resident=True), "
    raise UserError(
        f"input: resident {array.noun} need {_size(needed)}, and {where} has only {_size(free)} free "
        f"({_size(needed - free)} less); {shard_it}stream them "
        f"(--config.input=stream){'' if array.is_vector else ', or prepare them with a smaller data.stored_size'}"
    )


def _size(count: int) -> str:
    return f"{count / 2**30:,.1f} GiB" if count >= 2**30 else f"{count / 2**20:,.1f} MiB"
