"""Runs processes one at a time, each within a time limit, so that none outlives the process that started them.

A process gets a process group of its own, which ends with it. A guard process, which this file also is, waits for the end of
the process that started all others, whatever ends it (SIGKILL too). Then it kills the group that is running, and removes the
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
      code: its exit code; None if it was ended at its limit, or because of `stop`.
      seconds: wall time.
    """

    code: int | None
    seconds: float


class Processes:
    """Starts processes, and ends them.

    Args:
      scratch: a folder that is removed at the end.
      environment: variables of all processes.
      stop: asked while a process runs: why to end it, "" to go on.
      seconds: the guard kills this process after so many; None for never.
    """

    def __init__(
        self,
        scratch: pathlib.Path,
        *,
        environment: Mapping[str, str],
        stop: Callable[[], str] = str,
        seconds: float | None = None,
    ):
        self._scratch, self._environment, self._stop = scratch, dict(environment), stop
        arguments = [str(scratch), str(os.getpid()), *([] if seconds is None else [str(seconds)])]
        self._guard = subprocess.Popen(
            [sys.executable, "-E", "-S", __file__, *arguments], stdin=subprocess.PIPE, start_new_session=True
        )

    def __enter__(self) -> "Processes":
        return self

    def __exit__(self, *_) -> None:
        """Removes the scratch folder."""
        self._guard.stdin.close()
        self._guard.wait()
        shutil.rmtree(self._scratch, ignore_errors=True)  # if somebody killed the guard

    def run(self, command: Sequence[str], log: pathlib.Path, *, limit: float = float("inf")) -> Outcome:
        """Runs a command to its end, or to its limit in seconds; its output goes to `log`.

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
            while (left := end - time.monotonic()) > 0 and not self._stop():
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(min(0.2, left))
                    break
            return Outcome(process.returncode, time.monotonic() - start)
        finally:
            _end(process)
            self._tell(0)

    def _tell(self, group):
        with contextlib.suppress(BrokenPipeError):
            self._guard.stdin.write(f"{group}\n".encode())
            self._guard.stdin.flush()


def _end(process):
    """Ends the group of the process: with SIGTERM if the process is still running, and with SIGKILL."""
    if process.poll() is None:
        _kill(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(GRACE_SECONDS)
    _kill(process.pid, signal.SIGKILL)
    process.wait()


def _kill(group, number):
    with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS: the latter for a process that has ended
        os.killpg(group, number)


def _guard(scratch, parent, seconds=None):
    """Reads the number of the group that is running, 0 for none, until its input ends or the time is over."""
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
    if pathlib.Path(scratch).exists():  # a process that is being killed wrote once more
        time.sleep(1)
        shutil.rmtree(scratch, ignore_errors=True)


if __name__ == "__main__":
    _guard(*sys.argv[1:])
