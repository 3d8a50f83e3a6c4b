"""A process of somebody else's library, which works only while a round of its own is measured.

The scripts are in `benchmarks/peers/`; each runs under a Python of its own choice, imports nothing of ours, and speaks JSON
lines: it reads a job, answers with its versions, and then answers each request with {"images", "seconds"}. Where it cannot
run it answers {"error"}.
"""

import contextlib
import importlib.util
import json
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
        self.versions = self._ask(job)

    def rate(self, **request: Any) -> float:
        """Images per second of one round."""
        answer = self._ask(request)
        return answer["images"] / answer["seconds"]

    def _ask(self, message: dict[str, Any]) -> dict[str, Any]:
        with contextlib.suppress(BrokenPipeError):  # the missing answer says it
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()
        if not (line := self._process.stdout.readline()):
            raise UserError("--peer_python: the PyTorch process ended; its own message is above")
        answer = json.loads(line)
        if "error" in answer:
            raise UserError(f"--peer_python: the peer cannot run: {answer['error']}")
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
