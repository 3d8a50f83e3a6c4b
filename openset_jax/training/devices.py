"""Which devices there are, and how values get on and off them. The one home of `jax.pmap`.

The state has no device axis: it is replicated, goes in and comes out as it is, and is donated to the step. A batch has one
leading device axis; for training, an axis of the steps of one call comes next. In a run of several processes each process
holds its own devices' share of the batch and its own copy of the state, which `jax.pmap` keeps equal.
"""

import collections
import functools
import itertools
import json
import os
import pathlib
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import lax
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from openset_jax.errors import UserError
from openset_jax.training.steps import AXIS


def cache_compilations() -> None:
    """Keeps compiled programs on disk for the next start, where JAX_COMPILATION_CACHE_DIR says, else in ~/.cache."""
    if jax.config.jax_compilation_cache_dir is None:
        cache = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
        jax.config.update("jax_compilation_cache_dir", str(pathlib.Path(cache, "openset_jax", "xla")))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def connect(coordinator: str, process_id: int | None = None, num_processes: int | None = None) -> None:
    """Joins this process to a run of several processes; must come before anything else uses JAX.

    Args:
      coordinator: "host:port" of process 0; "auto" where Slurm, Open MPI, Kubernetes or a TPU pod tells; "" for one process.
    """
    if coordinator == "auto":
        jax.distributed.initialize()
    elif coordinator:
        if process_id is None or num_processes is None:
            raise UserError("--coordinator=HOST:PORT also needs --process_id and --num_processes")
        jax.distributed.initialize(coordinator, num_processes, process_id)
    elif process_id is not None or num_processes is not None:
        raise UserError("--process_id and --num_processes also need --coordinator=HOST:PORT")


def check_batch_size(field: str, batch_size: int) -> None:
    """Raises UserError unless every device of the run gets the same number of examples."""
    if batch_size % jax.device_count():
        raise UserError(f"{field}: {batch_size} is not divisible by the {jax.device_count()} devices of this run")


def host_part() -> tuple[int, int]:
    """(this process, number of processes): which slice of every global batch to read."""
    return jax.process_index(), jax.process_count()


def replicate(tree: Any) -> Any:
    """Host arrays -> the same on every local device. The leaves must be NumPy arrays: JAX ones may be aliased."""
    return jax.device_put(tree, NamedSharding(_mesh(), P()))


def shard(batch: dict[str, np.ndarray]) -> dict[str, jax.Array]:
    """This host's batch [b, ...] -> [local devices, b / local devices, ...], one part on each device."""
    n = jax.local_device_count()
    split = {k: v.reshape(n, len(v) // n, *v.shape[1:]) for k, v in batch.items()}
    return jax.device_put(split, NamedSharding(_mesh(), P(AXIS)))


def shard_steps(batches: Sequence[dict[str, np.ndarray]]) -> dict[str, jax.Array]:
    """This host's batches of s steps, [b, ...] each -> [local devices, s, b / local devices, ...]."""
    n, s = jax.local_device_count(), len(batches)

    def split(*parts):
        whole = parts[0][None] if s == 1 else np.stack(parts)  # one step's images are not copied
        return whole.reshape(s, n, len(parts[0]) // n, *parts[0].shape[1:]).swapaxes(0, 1)

    return jax.device_put(jax.tree.map(split, *batches), NamedSharding(_mesh(), P(AXIS)))


def prefetch(batches: Iterable[Any], put: Callable[[Any], Any] = shard, size: int = 2) -> Iterator[Any]:
    """Puts batches on the devices, and keeps `size` of them on their way while the current one is used."""
    batches, queue = iter(batches), collections.deque()
    while True:
        queue.extend(map(put, itertools.islice(batches, size - len(queue))))
        if not queue:
            return
        yield queue.popleft()


def prefetch_steps(batches: Iterable[dict[str, np.ndarray]], steps: int) -> Iterator[dict[str, jax.Array]]:
    """The same for training calls of so many steps; a last group that is not whole is left out."""
    groups = zip(*[iter(batches)] * steps, strict=False)
    return prefetch(groups, shard_steps)


_CHUNK_BYTES = 1 << 28
# of a container: limit and use
_CONTAINER = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


class Room(NamedTuple):
    """Bytes that resident images need, and bytes that are free.

    Attributes:
      needed: on each device; where devices have no memory of their own, on all devices of this process.
      free: where the images would be; None if the system does not say.
      where: "a device" or "this machine".
    """

    needed: int
    free: int | None
    where: str


def room_for(count: int, shape: tuple[int, ...], *, sharded: bool) -> Room:
    """The room for `count` uint8 arrays that `hold` would copy to the devices."""
    needed = (-(-count // jax.device_count()) if sharded else count) * int(np.prod(shape))
    stats = jax.local_devices()[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return Room(needed, stats["bytes_limit"] - stats["bytes_in_use"], "a device")
    return Room(needed * jax.local_device_count(), _host_memory(), "this machine")


def _host_memory(root: pathlib.Path = pathlib.Path("/")) -> int | None:
    """Free bytes of the machine, or of the container that this process is in; None if the system does not say."""

    def text(path):
        file = root / path.lstrip("/")
        return file.read_text() if file.exists() else ""

    lines = [line.split() for line in text("/proc/meminfo").splitlines()]
    free = [int(words[1]) * 1024 for words in lines if words[0] == "MemAvailable:"]
    for limit, used in _CONTAINER:
        if text(limit).strip().isdigit() and text(used).strip().isdigit():  # "max" is no limit
            free.append(max(int(text(limit)) - int(text(used)), 0))
    return min(free, default=None)


def hold(read: Callable[[int, int], np.ndarray], count: int, shape: tuple[int, ...], *, sharded: bool) -> jax.Array:
    """Copies rows into device memory, chunk by chunk: the host never holds more than two.

    Args:
      read: (start, stop) -> uint8 [stop - start, *shape]; zeros beyond `count`.
      sharded: device d of D holds rows d m to (d + 1) m, m = ceil(count / D); else every device holds all.

    Returns:
      uint8 [count, *shape], or, sharded, [local devices, m, *shape].

    Raises:
      UserError: it does not fit; says by how much, and what to do.
    """
    here, everywhere = jax.local_device_count(), jax.device_count()
    first, each = (jax.process_index() * here, -(-count // everywhere)) if sharded else (0, count)
    size = int(np.prod(shape))
    _check_fits(count, shape, sharded)
    sharding = NamedSharding(_mesh(), P(AXIS) if sharded else P())
    parts, axis, whole = (here, 1, (here, each, *shape)) if sharded else (1, 0, (each, *shape))
    store = jax.jit(lambda: jax.numpy.zeros(whole, np.uint8), out_shardings=sharding)()
    write = jax.jit(lambda store, chunk, at: lax.dynamic_update_slice_in_dim(store, chunk, at, axis), donate_argnums=0)
    step = max(1, min(each, _CHUNK_BYTES // (size * parts)))
    for at in range(0, each, step):
        at = min(at, each - step)  # the last chunk has the size of all others: it may overlap
        chunk = [read((first + d) * each + at, (first + d) * each + at + step) for d in range(parts)]
        store = write(store, jax.device_put(np.stack(chunk) if sharded else chunk[0], sharding), at)
        store.block_until_ready()
    return store


def _check_fits(count: int, shape: tuple[int, ...], sharded: bool) -> None:
    needed, free, where = room_for(count, shape, sharded=sharded)
    if free is None or needed <= free:
        return
    size = lambda n: f"{n / 2**30:,.1f} GiB" if n >= 2**30 else f"{n / 2**20:,.1f} MiB"
    enough = -(-count * int(np.prod(shape)) // free)
    shard_it = "" if sharded else f"spread it over the devices (--config.shard_resident=True; {enough} or more are needed), "
    raise UserError(
        f"input: resident needs {size(needed)} for the images, and {where} has {size(free)} free: {size(needed - free)} too "
        f"little. {shard_it}stream it (--config.input=stream), or prepare it with a smaller data.stored_size"
    )


def pmap_train(step: Callable[..., Any], feed: Any) -> Callable[..., Any]:
    """(given, state, batches of the steps of one call) -> (state, their metrics [steps, ...]), over all devices.

    `given`, replicated, is the same for all steps; the state is consumed. `feed` is a `feed.Feed`. Steps of one call run on
    the device without the host.
    """

    def call(store, given, state, batches):
        one = lambda state, batch: step(given, state, feed.load(store, batch))
        if len(jax.tree.leaves(batches)[0]) > 1:
            return lax.scan(one, state, batches)
        state, metrics = one(state, jax.tree.map(lambda x: x[0], batches))
        return state, jax.tree.map(lambda x: x[None], metrics)

    run = jax.pmap(call, axis_name=AXIS, in_axes=(feed.store_axis, None, None, 0), out_axes=None, donate_argnums=2)
    return functools.partial(_Compiled(run), feed.store)  # an argument, no constant of the program: it may be tens of GB


def pmap_eval(step: Callable[..., Any], feed: Any) -> Callable[..., Any]:
    """(variables, batch) -> outputs that are equal on all devices."""
    evaluate = lambda store, variables, batch: step(variables, feed.load(store, batch))
    run = jax.pmap(evaluate, axis_name=AXIS, in_axes=(feed.store_axis, None, 0), out_axes=None)
    return functools.partial(_Compiled(run), feed.store)


# Products and sums are left to YNNPACK, but not convolutions: its gradients of kernels take 3 to 4 times as long as Eigen's
_CPU_OPTIONS = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_DOT,LIBRARY_FUSION_TYPE_REDUCE"}
# in jaxlib 0.11.2 its bfloat16 products read memory that nothing wrote
_CPU_OPTIONS_OF_BFLOAT16 = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_REDUCE"}
_BFLOAT16_PRODUCT = re.compile(r"stablehlo\.dot_general.*bf16")


class _Compiled:
    """A pmapped function; on the CPU of one process compiled with options that `jax.pmap` has no argument for."""

    def __init__(self, run: Any):
        self.run, self._program = run, None

    def __call__(self, *arguments: Any) -> Any:
        if jax.default_backend() != "cpu" or jax.process_count() > 1:
            return self.run(*arguments)
        if self._program is None:
            self._program = self.compile(*arguments)
        return self._program(*arguments)

    def compile(self, *arguments: Any) -> jax.stages.Compiled:
        """The program for arguments of these shapes."""
        return compile_lowered(self.run.lower(*arguments))


def compile_lowered(lowered: jax.stages.Lowered, options: Mapping[str, Any] | None = None) -> jax.stages.Compiled:
    """The program, with the options that suit the platform.

    Args:
      options: more of XLA's.
    """
    if jax.default_backend() != "cpu":
        return lowered.compile(dict(options or {}))
    suited = _CPU_OPTIONS_OF_BFLOAT16 if _BFLOAT16_PRODUCT.search(lowered.as_text()) else _CPU_OPTIONS
    try:
        return lowered.compile(suited | (options or {}))
    except jax.errors.JaxRuntimeError as error:
        if "No such compile option" not in str(error) or options:
            raise
        return lowered.compile()  # a version of XLA without YNNPACK


def to_global(tree: Any) -> Any:
    """A state of this process -> the same as arrays that span all processes, as checkpoints need them."""
    if jax.process_count() == 1:
        return tree
    sharding = NamedSharding(Mesh(np.array(jax.devices()), (AXIS,)), P())
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)), tree)


def any_process(flag: bool, due: bool) -> bool:
    """Whether the flag is set in any process. Several processes compare notes only where `due`, which must be equal."""
    if jax.process_count() == 1:
        return flag
    return due and bool(multihost_utils.process_allgather(np.array(flag)).any())


def check_agreement(meta: dict[str, Any], start: int) -> None:
    """Raises UserError in every process unless all have the same config, images and checkpoint: else they would deadlock.

    Where the images are may differ; which they are, `meta["fingerprint"]` says.
    """
    if jax.process_count() == 1:
        return
    compared = meta | {"config": {k: v for k, v in meta["config"].items() if k != "data"}, "start": start}
    mine = zlib.crc32(json.dumps(compared, sort_keys=True).encode())
    everyone = multihost_utils.process_allgather(np.array(mine, np.uint32))
    if (everyone != everyone[0]).any():
        raise UserError(
            f"the {jax.process_count()} processes disagree about the config, the images or the checkpoint (this one is at "
            f"step {start}); give all the same flags, the same images, and a --workdir that all of them see"
        )


def on_host(function: Callable[..., jax.Array], *arguments: Any) -> float:
    """A number that JAX computes, without queueing behind what the accelerators do."""
    try:
        device = jax.local_devices(backend="cpu")[0]
    except RuntimeError:  # JAX_PLATFORMS names an accelerator alone
        device = None
    with jax.default_device(device):
        return float(function(*arguments))


def is_first_process() -> bool:
    """Whether this is the process that writes the files of the run."""
    return jax.process_index() == 0


def _mesh() -> Mesh:
    return Mesh(np.array(jax.local_devices()), (AXIS,))
