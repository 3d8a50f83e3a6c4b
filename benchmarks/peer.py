"""A process of somebody else's library, which works only while a round of its own is measured.

The scripts are in `benchmarks/peers/`; each runs under a Python of its own choice, imports nothing of ours, and speaks JSON
lines: it reads a job, answers with its versions, and then answers each request with {"images", "seconds"}. Where it cannot
run it answers {"error"}.
"""

import contextlib
import importlib.util
import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from openset_jax.errors import UserError

PEERS = pathlib.Path(__file__).parent / "peers"


class Peer:
    """A running peer.

    Attributes:
      versions: its first answer: versions of its libraries, and how it runs.
    """

    def __init__(self, process: subprocess.Popen, job: dict[str, Any]):
        self._process = process
        self.versions = self.ask(job)

    def rate(self, **request: Any) -> float:
        """Images per second of one round."""
        answer = self.ask(request)
        return answer["images"] / answer["seconds"]

    def ask(self, message: dict[str, Any]) -> dict[str, Any]:
        """The answer to one message.

        Raises:
          UserError: the process ended, or says that it cannot run.
        """
        with contextlib.suppress(BrokenPipeError):  # the missing answer says it
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()
        if not (line := self._process.stdout.readline()):
            raise UserError(f"--peer_python: `{' '.join(self._process.args)}` ended; its own message is above")
        answer = json.loads(line)
        if "error" in answer:
            raise UserError(f"--peer_python: `{' '.join(self._process.args)}` cannot run: {answer['error']}")
        return answer


@contextlib.contextmanager
def open_peer(python: str, script: str, job: dict[str, Any]) -> Iterator[Peer]:
    """Starts `benchmarks/peers/SCRIPT`, and ends it.

    Raises:
      UserError: it cannot be started, or says that it cannot do the job.
    """
    try:
        process = subprocess.Popen([python, str(PEERS / script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    except OSError as error:
        raise UserError(f"--peer_python: {python!r} cannot be run: {error.strerror}") from error
    try:
        yield Peer(process, job)
    finally:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()  # the end of its input is the end of it
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
        process.stdout.close()


def peer_python(asked: str) -> str:
    """The Python of the peer: the one asked for, else this one if it has torch, else ""."""
    return asked or (sys.executable if importlib.util.find_spec("torch") else "")


def network_job(config: Any, num_outputs: int, mode: str) -> dict[str, Any]:
    """The job of `peers/torch_step.py` that is the work of a config's step on one device.

    Args:
      mode: "train" or "eval".

    Raises:
      UserError: the peer has no such network, or does not run on such devices.
    """
    import jax

    from openset_jax.model import alexnet

    model, data = config.model, config.data
    norm = model.norm or alexnet.NETWORKS[model.name][2]
    if model.name != "alexnet" or norm not in ("none", "batch"):
        raise UserError(f"--peer: PyTorch's side has no {model.name} with norm {norm!r}; only alexnet with none or batch")
    if jax.default_backend() not in ("cpu", "gpu") or jax.device_count() > 1:
        raise UserError(
            f"--peer: compares one CPU or GPU, and there are {jax.device_count()} x {jax.devices()[0].device_kind}; on a "
            "machine of several GPUs set CUDA_VISIBLE_DEVICES=0"
        )
    optimizer = config.optimizer.to_dict()
    kept = ("learning_rate", "b1", "b2", "eps", "weight_decay", "grad_clip")
    return {
        "mode": mode,
        "device": "cuda" if jax.default_backend() == "gpu" else "cpu",
        "dtype": model.dtype,
        "batch_size": config.batch_size if mode == "train" else config.eval.batch_size,
        "stored_size": data.stored_size,
        "image_size": data.image_size,
        "mean": list(data.mean),
        "std": list(data.std),
        "grey": data.grey,
        "pad": config.augment.pad,
        "flip": config.augment.flip,
        "model": {
            "num_outputs": num_outputs,
            "width": model.width,
            "stem": model.stem,
            "norm": norm,
            "dropout": model.dropout,
            "image_size": data.image_size,
        },
        "optimizer": {name: optimizer[name] for name in kept},
    }


@contextlib.contextmanager
def network_peer(asked: bool, python: str, job: dict[str, Any]) -> Iterator[Peer | None]:
    """The PyTorch process of a network, which says how it runs; None if it is not asked for.

    Raises:
      UserError: it cannot run.
    """
    if not asked:
        yield None
        return
    if not (python := peer_python(python)):
        raise UserError("--peer: this Python has no torch; --peer_python=PATH names one that has")
    with open_peer(python, "torch_step.py", job) as peer:
        print("peer: " + ", ".join(f"{k} {v}" for k, v in peer.versions.items() if v is not None))
        yield peer


def share_the_gpu(asked: bool) -> None:
    """Two processes will hold memory of one GPU: JAX must not take most of it at its start. Before JAX is imported."""
    if asked and "XLA_PYTHON_CLIENT_PREALLOCATE" not in os.environ:
        os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
        print("XLA_PYTHON_CLIENT_PREALLOCATE=false: on a GPU both processes hold memory at once")
