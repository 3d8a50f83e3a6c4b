"""A process of another library, which works only while its own round is measured.

The scripts in `benchmarks/peers/` each run under a Python of their own and import nothing of this package. They communicate
in JSON lines: a script reads a job, answers with its versions, and then answers each request with {"images", "seconds"}, or
with {"error"} if it cannot run.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from openset_jax.errors import UserError

if TYPE_CHECKING:  # importing it takes a second, which --help would need
    from openset_jax.spec import RunSpec

# networks of PyTorch's side -> the kinds of normalisation that they have
NETWORKS = {"alexnet": ("none", "batch"), "efficientnet_lite0": ("batch",)}
PEERS = pathlib.Path(__file__).parent / "peers"


class Peer:
    """A running peer.

    Attributes:
      versions: its first answer: versions of its libraries, and how it runs.
    """

    def __init__(self, process: subprocess.Popen[str], job: dict[str, Any]):
        self._process = process
        self.versions = self.ask(job)

    def rate(self, **request: Any) -> float:
        """Images per second of one round."""
        answer = self.ask(request)
        return answer["images"] / answer["seconds"]

    def ask(self, message: dict[str, Any]) -> dict[str, Any]:
        """The answer to one message.

        Raises:
          UserError: the process ended, or answers that it cannot run.
        """
        process, command = self._process, " ".join(self._process.args)  # type: ignore[arg-type]  # a list of str
        assert process.stdin and process.stdout
        with contextlib.suppress(BrokenPipeError):  # then there is no answer
            process.stdin.write(json.dumps(message) + "\n")
            process.stdin.flush()
        if not (line := process.stdout.readline()):
            raise UserError(f"--peer_python: `{command}` ended; its own message is above")
        answer = json.loads(line)
        if "error" in answer:
            raise UserError(f"--peer_python: `{command}` cannot run: {answer['error']}")
        return answer


@contextlib.contextmanager
def open_peer(python: str, script: str, job: dict[str, Any]) -> Iterator[Peer]:
    """Starts `benchmarks/peers/SCRIPT`, and ends it.

    Raises:
      UserError: it cannot be started, or answers that it cannot do the job.
    """
    try:
        process = subprocess.Popen([python, str(PEERS / script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    except OSError as error:
        raise UserError(f"--peer_python: {python!r} cannot be run: {error.strerror}") from error
    assert process.stdin and process.stdout
    try:
        yield Peer(process, job)
    finally:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()  # the process ends at the end of its input
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
        process.stdout.close()


def peer_python(asked: str) -> str:
    """The Python of the peer: `asked`; if that is "", this one if it has torch; else ""."""
    return asked or (sys.executable if importlib.util.find_spec("torch") else "")


def network_job(spec: RunSpec, num_outputs: int, mode: str) -> dict[str, Any]:
    """The job of `peers/torch_step.py` that equals the work of a spec's step on one device.

    Args:
      mode: "train" or "eval".

    Raises:
      UserError: the peer does not have this network, or does not run on these devices.
    """
    import jax

    program, network, images = spec.program, spec.program.forward.network, spec.images
    norm = network.norm
    if norm not in NETWORKS.get(network.name, ()):
        known = "; ".join(f"{name} with {' or '.join(norms)}" for name, norms in NETWORKS.items())
        raise UserError(f"--peer: PyTorch's side has no {network.name} with norm {norm!r}; only {known}")
    if jax.default_backend() not in ("cpu", "gpu") or jax.device_count() > 1:
        raise UserError(
            f"--peer: compares one CPU or GPU, and there are {jax.device_count()} x {jax.devices()[0].device_kind}; on a "
            "machine of several GPUs set CUDA_VISIBLE_DEVICES=0"
        )
    options = ("b1", "b2", "eps", "weight_decay", "grad_clip")
    return {
        "mode": mode,
        "device": "cuda" if jax.default_backend() == "gpu" else "cpu",
        "dtype": network.dtype,
        "batch_size": program.batch_size if mode == "train" else spec.evaluation.batch_size,
        "stored_size": images.stored_size,
        "image_size": images.image_size,
        "mean": list(images.mean),
        "std": list(images.std),
        "grey": images.grey,
        "pad": program.pad,
        "flip": program.flip,
        "network": network.name,
        "model": {
            "num_outputs": num_outputs,
            "width": network.width,
            "stem": network.stem,
            "norm": norm,
            "dropout": network.dropout,
            "image_size": images.image_size,
        },
        "optimizer": {"learning_rate": spec.learning_rate, **{name: getattr(program.optimizer, name) for name in options}},
    }


@contextlib.contextmanager
def network_peer(asked: bool, python: str, job: dict[str, Any]) -> Iterator[Peer | None]:
    """Starts the PyTorch process of a network, and prints its versions; yields None unless `asked`.

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
    """Makes JAX allocate memory as it needs it, so that another process can use the GPU. To be called before importing JAX.

    Args:
      asked: False to do nothing.
    """
    if asked and "XLA_PYTHON_CLIENT_PREALLOCATE" not in os.environ:
        os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
        print("XLA_PYTHON_CLIENT_PREALLOCATE=false: on a GPU both processes hold memory at once")
