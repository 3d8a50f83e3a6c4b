"""Which devices there are, and how values get on and off them. The one home of `jax.pmap`.

The state has no device axis: it is replicated, goes in and comes out as it is, and is donated to the step. A batch has one
leading device axis. In a run of several processes each process holds its own devices' share of the batch and its own
copy of the state, which `jax.pmap` keeps equal.
"""

import collections
import itertools
import json
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from openset_jax.errors import UserError
from openset_jax.training.steps import AXIS


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


def prefetch(batches: Iterable[dict[str, np.ndarray]], size: int = 2) -> Iterator[dict[str, jax.Array]]:
    """Shards batches, and keeps `size` of them on their way to the devices while the current one is used."""
    batches, queue = iter(batches), collections.deque()
    while True:
        queue.extend(map(shard, itertools.islice(batches, size - len(queue))))
        if not queue:
            return
        yield queue.popleft()


def pmap_train(step: Callable[..., Any]) -> Callable[..., Any]:
    """(state, batch) -> (state, metrics), over all devices; the state given is consumed."""
    return jax.pmap(step, axis_name=AXIS, in_axes=(None, 0), out_axes=None, donate_argnums=0)


def pmap_eval(step: Callable[..., Any]) -> Callable[..., Any]:
    """(variables, batch) -> outputs that are equal on all devices."""
    return jax.pmap(step, axis_name=AXIS, in_axes=(None, 0), out_axes=None)


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
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        return float(function(*arguments))


def is_first_process() -> bool:
    """Whether this is the process that writes the files of the run."""
    return jax.process_index() == 0


def _mesh() -> Mesh:
    return Mesh(np.array(jax.local_devices()), (AXIS,))
