"""Places arrays on the devices of this process and runs functions on all of them. Only this module uses `jax.pmap`.

The state has no device axis: it is replicated, enters and leaves the step in this form, and is donated to it. A batch has
one leading device axis; for training, the second axis is the step of the call. In a run of several processes each one holds
its own devices' share of the batch and its own copy of the state, which `jax.pmap` keeps equal.
"""

import collections
import functools
import itertools
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from openset_jax.errors import UserError
from openset_jax.platforms import xla
from openset_jax.training.image_input import ImageInput
from openset_jax.training.steps import AXIS


def check_batch_size(field: str, batch_size: int) -> None:
    """Raises UserError unless every device of the run gets the same number of examples."""
    if batch_size % jax.device_count():
        raise UserError(f"{field}: {batch_size} is not divisible by the {jax.device_count()} devices of this run")


def padded_batch_size(batch_size: int) -> int:
    """Returns the smallest multiple of the number of devices of the run that is at least `batch_size`."""
    return batch_size + -batch_size % jax.device_count()


def local_sharding(*, sharded: bool) -> NamedSharding:
    """Places arrays on the devices of this process: a part of the first axis on each, or a copy on each."""
    spec = PartitionSpec(AXIS) if sharded else PartitionSpec()
    return NamedSharding(Mesh(np.array(jax.local_devices()), (AXIS,)), spec)


def replicate(tree: Any) -> Any:
    """Copies a tree of NumPy arrays to every local device. (Copies of JAX arrays may alias buffers, which steps donate.)"""
    return jax.device_put(tree, local_sharding(sharded=False))


def shard(batch: dict[str, np.ndarray]) -> dict[str, jax.Array]:
    """Splits this host's batch [b, ...] into [local devices, b / local devices, ...], one part on each device."""
    n = jax.local_device_count()
    split = {k: v.reshape(n, len(v) // n, *v.shape[1:]) for k, v in batch.items()}
    return jax.device_put(split, local_sharding(sharded=True))


def shard_steps(batches: Sequence[dict[str, np.ndarray]]) -> dict[str, jax.Array]:
    """Stacks this host's batches [b, ...] of s steps and splits them into [local devices, s, b / local devices, ...]."""
    n, s = jax.local_device_count(), len(batches)

    def split(*parts):
        whole = parts[0][None] if s == 1 else np.stack(parts)  # a single step's images are not copied
        return whole.reshape(s, n, len(parts[0]) // n, *parts[0].shape[1:]).swapaxes(0, 1)

    return jax.device_put(jax.tree.map(split, *batches), local_sharding(sharded=True))


def prefetch(batches: Iterable[Any], put: Callable[[Any], Any] = shard) -> Generator[Any]:
    """Yields batches on the devices; the next one is transferred while the current one is used."""
    left, queue = iter(batches), collections.deque[Any]()
    while True:
        queue.extend(map(put, itertools.islice(left, 2 - len(queue))))
        if not queue:
            return
        yield queue.popleft()


def prefetch_steps(batches: Iterable[dict[str, np.ndarray]], steps: int) -> Generator[dict[str, jax.Array]]:
    """`prefetch` for training calls of `steps` steps each; an incomplete last call is dropped."""
    return prefetch(in_calls(batches, steps), shard_steps)


def in_calls(batches: Iterable[dict[str, np.ndarray]], steps: int) -> Iterator[tuple[dict[str, np.ndarray], ...]]:
    """Collects the batches of calls of `steps` steps each; an incomplete last call is dropped."""
    return zip(*[iter(batches)] * steps, strict=False)


def shard_runs(trees: Sequence[Any], slots: int) -> Any:
    """Stacks the trees of at most `slots` runs, and splits them into [local devices, slots / local devices, ...].

    The slots that are left over have copies of the first tree.
    """
    n = jax.local_device_count()
    whole = [*trees, *[trees[0]] * (slots - len(trees))]
    split = lambda *parts: np.stack(parts).reshape(n, slots // n, *np.shape(parts[0]))
    return jax.device_put(jax.tree.map(split, *whole), local_sharding(sharded=True))


def unshard_runs(tree: Any) -> Any:
    """Fetches a tree of `shard_runs`, or of the results of such runs: arrays [slots, ...] on the host."""
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), jax.device_get(tree))


def to_global(tree: Any) -> Any:
    """Turns a state of this process into arrays that span all processes, as checkpoints need them."""
    if jax.process_count() == 1:
        return tree
    sharding = NamedSharding(Mesh(np.array(jax.devices()), (AXIS,)), PartitionSpec())
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)), tree)


def on_host(function: Callable[..., jax.Array], *arguments: Any) -> float:
    """Computes a number with JAX on the host, without waiting for the queue of the accelerators."""
    try:
        device = jax.local_devices(backend="cpu")[0]
    except RuntimeError:  # JAX_PLATFORMS excludes the CPU
        device = None
    with jax.default_device(device):
        return float(function(*arguments))


def pmap_train(step: Callable[..., Any], image_input: ImageInput) -> Callable[..., Any]:
    """(constants, state, batches of the steps of one call) -> (state, their metrics [steps, ...]), over all devices.

    The constants are replicated, the state is donated, and the steps of one call run without the host. `step` maps
    (constants, state, one device's batch) to (state, metrics).
    """

    call = functools.partial(_call, step, image_input)
    run = jax.pmap(call, axis_name=AXIS, in_axes=(image_input.store_axis, None, None, 0), out_axes=None, donate_argnums=2)
    # the store is an argument, because as a constant it would be copied into the program
    return functools.partial(_Compiled(run), image_input.store)


def _call(step, image_input, store, constants, state, batches):
    """The steps of one call on one device."""
    one = lambda state, batch: step(constants, state, image_input.load(store, batch))
    if len(jax.tree.leaves(batches)[0]) > 1:
        return jax.lax.scan(one, state, batches)
    state, metrics = one(state, jax.tree.map(lambda x: x[0], batches))
    return state, jax.tree.map(lambda x: x[None], metrics)


def pmap_runs(step: Callable[..., Any], image_input: ImageInput) -> Callable[..., Any]:
    """As `pmap_train`, for many runs: constants, states, batches and metrics have the axes of `shard_runs`.

    Each run is on one device, with its whole batch.
    """

    def call(store, *runs):
        alone = lambda *run: _call(step, image_input, store, *run)
        of_size_1 = lambda *run: jax.tree.map(
            lambda x: x[0], jax.vmap(alone, axis_name=AXIS)(*jax.tree.map(lambda x: x[None], run))
        )
        return _over_runs(of_size_1)(*runs)

    run = jax.pmap(call, axis_name="runs", in_axes=(image_input.store_axis, 0, 0, 0), donate_argnums=2)
    return functools.partial(_Compiled(run), image_input.store)


def _over_runs(function):
    """Maps a function over the first axis of its arguments.

    On a CPU the runs follow one another, so that each stays in the cache for a call; accelerators compute them side by side.
    """
    if jax.default_backend() == "cpu":
        return lambda *runs: jax.lax.map(lambda run: function(*run), runs)
    return jax.vmap(function)


def pmap_eval(step: Callable[..., Any], image_input: ImageInput) -> Callable[..., Any]:
    """(variables, batch) -> outputs equal on all devices: `step` maps one device's batch to outputs gathered over `AXIS`."""
    evaluate = lambda store, variables, batch: step(variables, image_input.load(store, batch))
    run = jax.pmap(evaluate, axis_name=AXIS, in_axes=(image_input.store_axis, None, 0), out_axes=None)
    return functools.partial(_Compiled(run), image_input.store)


class _Compiled:
    """A pmapped function whose first argument is the store of images.

    In a single process on CPUs it is compiled with XLA options, which `jax.pmap` does not take.
    """

    def __init__(self, run: Any):
        self.run = run
        self._program: jax.stages.Compiled | None = None
        self._planned: int | None = None

    def __call__(self, *arguments: Any) -> Any:
        if jax.default_backend() != "cpu" or jax.process_count() > 1:
            return self.run(*arguments)
        if self._program is None:
            self._program = self.compile(*arguments)
        return self._program(*arguments)

    def compile(self, *arguments: Any) -> jax.stages.Compiled:
        """Compiles the function for the shapes and dtypes of these arguments."""
        return xla.compile_lowered(self.run.lower(*arguments))

    def planned_bytes(self, store: Any, arguments: Callable[[], tuple[Any, ...]]) -> int | None:
        """Returns the bytes on one device that XLA plans for a training step, without those of the store; None if unknown.

        `arguments` returns those after the store, or their shapes; it is called if the function is not compiled yet.
        """
        if self._planned is None:
            program = self._program or self.compile(store, *arguments())
            if program.memory_analysis() is None:
                return None
            self._planned = xla.planned_bytes(program)["peak"]
        return self._planned - sum(array.addressable_shards[0].data.nbytes for array in jax.tree.leaves(store))
