"""Runs of several processes: connects them and synchronises their decisions."""

import contextlib
import json
import pathlib
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from openset_jax import lock
from openset_jax.errors import UserError


def connect(coordinator: str, process_id: int | None = None, num_processes: int | None = None) -> None:
    """Joins this process to a run of several processes; must come before anything else uses JAX.

    Args:
      coordinator: "host:port" of process 0; "auto" if Slurm, Open MPI, Kubernetes or the TPU pod provides the three
        values; "" for a run of one process.
      process_id: the index of this process, from 0.

    Raises UserError if only some of the three arguments are given, or the coordinator is not as above.
    """
    given = (coordinator, num_processes, process_id)
    if coordinator not in ("", "auto") and None in given:
        raise UserError("--coordinator=HOST:PORT also needs --process_id and --num_processes")
    if not coordinator and given != ("", None, None):
        raise UserError("--process_id and --num_processes also need --coordinator=HOST:PORT")
    try:
        if coordinator:
            jax.distributed.initialize(*(given if coordinator != "auto" else ()))
    except (ValueError, IndexError) as error:
        raise UserError(
            f"--coordinator={coordinator}: neither HOST:PORT nor, on a cluster that JAX knows, auto ({error})"
        ) from error


ELSEWHERE = "a signal in another process"  # the reason to stop where `any_process` is True, but not for this process


def host_part() -> tuple[int, int]:
    """Returns (index of this process, number of processes): its slice of each global batch."""
    return jax.process_index(), jax.process_count()


def is_first_process() -> bool:
    """True in the process that writes the files of the run."""
    return jax.process_index() == 0


def any_process(flag: bool, communicate: bool) -> bool:
    """True if the flag is set in any process; several processes return False unless `communicate`, equal in all of them."""
    if jax.process_count() == 1:
        return flag
    return communicate and bool(multihost_utils.process_allgather(np.array(flag)).any())


@contextlib.contextmanager
def claimed(workdir: pathlib.Path) -> Iterator[None]:
    """Locks a workdir in the first process; raises UserError in every process if another run or command writes it."""
    with contextlib.ExitStack() as stack:
        refusal = None
        if is_first_process():
            try:
                stack.enter_context(lock.claimed(workdir))
            except UserError as error:
                refusal = error
        if any_process(refusal is not None, True):
            raise refusal or UserError(f"{str(workdir)!r} is in use; process 0 names the process that writes it")
        yield


def check_agreement(record: Mapping[str, Any], start: int) -> None:
    """Raises UserError in every process if their records (`run_record`) or `start` differ, which would cause a deadlock."""
    if jax.process_count() == 1:
        return
    # the place of the images may differ; the record has their fingerprint
    compared = {**record, "config": {k: v for k, v in record["config"].items() if k != "data"}, "start": start}
    mine = zlib.crc32(json.dumps(compared, sort_keys=True).encode())
    everyone = multihost_utils.process_allgather(np.array(mine, np.uint32))
    if (everyone != everyone[0]).any():
        raise UserError(
            f"the {jax.process_count()} processes disagree about the config, the images or the checkpoint (this one is at "
            f"step {start}); start all with the same config flags, the same images, and a --workdir on a shared file system"
        )
