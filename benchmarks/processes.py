"""Runs processes one at a time, each with a time limit, and leaves none of them running.

Each process has a process group of its own, which ends with it. A guard process, which also runs this file, waits for
the end of the process that started all others, even by SIGKILL. Then the guard kills the running group, and removes the
scratch folder. Only the standard library is imported here, so that the guard is small.
"""

import contextlib
import os
import pathlib
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

GRACE_SECONDS = 2.0  # between SIGTERM and SIGKILL


class Outcome(NamedTuple):
    """How a process ended.

    Attributes:
      code: its exit code; None if it was ended at its limit, or because of `stop_requested`.
      seconds: wall time.
    """

    code: int | None
    seconds: float


class Processes:
    """Starts processes, and ends them.

    Args:
      scratch: a folder that is removed at the end.
      environment: variables of all processes.
      stop_requested: called while a process runs; returns the reason to end it, or "".
      seconds: after this time the guard kills the process that runs this; None for never.
    """

    def __init__(
        self,
        scratch: pathlib.Path,
        *,
        environment: Mapping[str, str],
        stop_requested: Callable[[], str] = lambda: "",
        seconds: float | None = None,
    ):
        self._scratch, self._environment, self._stop_requested = scratch, dict(environment), stop_requested
        arguments = [str(scratch), str(os.getpid()), *([] if seconds is None else [str(seconds)])]
        self._guard = subprocess.Popen(
            [sys.executable, "-E", "-S", __file__, *arguments], stdin=subprocess.PIPE, start_new_session=True
        )

    def __enter__(self) -> "Processes":
        return self

    def __exit__(self, *_: object) -> None:
        """Removes the scratch folder."""
        assert self._guard.stdin
        self._guard.stdin.close()
        self._guard.wait()
        shutil.rmtree(self._scratch, ignore_errors=True)  # if the guard was killed

    def run(self, command: Sequence[str], log: pathlib.Path, *, limit: float = float("inf")) -> Outcome:
        """Runs a command to its end, or to its limit.

        Args:
          log: file for its output.
          limit: in seconds.

        Raises:
          OSError: it cannot be started.
        """
        start, end = time.monotonic(), time.monotonic() + limit
        with log.open("w") as output:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self._environment,
                start_new_session=True,
            )
        self._tell(process.pid)
        try:
            while (left := end - time.monotonic()) > 0 and not self._stop_requested():
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(min(0.2, left))
                    break
            return Outcome(process.returncode, time.monotonic() - start)
        finally:
            _end(process)
            self._tell(0)

    def _tell(self, group: int) -> None:
        assert self._guard.stdin
        with contextlib.suppress(BrokenPipeError):
            self._guard.stdin.write(f"{group}\n".encode())
            self._guard.stdin.flush()


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends the group of a process: first with SIGTERM if the process still runs, then with SIGKILL."""
    if process.poll() is None:
        _kill(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(GRACE_SECONDS)
    _kill(process.pid, signal.SIGKILL)
    process.wait()


def _kill(group: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):  # on macOS PermissionError, if the process has ended
        os.killpg(group, number)


def _guard(scratch: str, parent: str, seconds: str | None = None) -> None:
    """Reads the number of the running group, 0 for none, until the input ends or the time is up; then cleans up."""
    end, group = None if seconds is None else time.monotonic() + float(seconds), 0
    while True:
        ready, _, _ = select.select([sys.stdin], [], [], None if end is None else max(0.0, end - time.monotonic()))
        if not ready:
            os.kill(int(parent), signal.SIGKILL)
        if not ready or not (text := os.read(sys.stdin.fileno(), 4096)):
            break
        group = int(text.split()[-1])
    if group:
        _kill(group, signal.SIGKILL)
    shutil.rmtree(scratch, ignore_errors=True)
    if pathlib.Path(scratch).exists():  # a process wrote a file while it was killed
        time.sleep(1)
        shutil.rmtree(scratch, ignore_errors=True)


if __name__ == "__main__":
    _guard(*sys.argv[1:])
