"""Runs the processes of `benchmarks.correctness` within its time limit, from several threads at once.

Each process has a log, and none is left running: see `benchmarks.processes`.
"""

import concurrent.futures
import os
import pathlib
import tempfile
from collections.abc import Callable, Mapping, Sequence

from benchmarks import jobs
from benchmarks.processes import GRACE_SECONDS, Processes
from benchmarks.timing import Limit

ROOT = pathlib.Path(__file__).parents[1]
RESERVE_SECONDS = GRACE_SECONDS + 2.0  # processes are ended this long before the time is up
LEAST_SECONDS = 5.0  # no process is started with less time: on a GPU, starting Python and JAX takes longer


class NotDone(Exception):
    """A process was not started, or was ended, because the time was up or a signal was received."""


class ProcessFailed(Exception):
    """A process ended with an exit code that is not 0.

    Attributes:
      output: of the process.
    """

    def __init__(self, message: str, output: str):
        super().__init__(message)
        self.output = output


class Children:
    """Runs the processes of all checks; any thread may start one.

    Args:
      scratch: a folder for the files of the processes.
      limit: for all checks.
      stop_requested: returns the reason to stop, or "".
      parallel: True if `together` runs processes at the same time.

    Attributes:
      logs: the folder of the outputs of the processes.
      environment: of all processes.
    """

    def __init__(
        self,
        scratch: pathlib.Path,
        limit: Limit,
        stop_requested: Callable[[], str] = lambda: "",
        *,
        parallel: bool = True,
    ):
        self.scratch, self._limit, self._stop_requested, self._parallel = scratch, limit, stop_requested, parallel
        self.logs = scratch / "logs"
        self.logs.mkdir()
        cache = {"JAX_COMPILATION_CACHE_DIR": str(scratch / "xla"), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1"}
        self.environment = {
            **cache,
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))),
            "PYTHONUNBUFFERED": "1",  # so that the log is complete if the process is killed
            "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # several processes share an accelerator
        }

    def run(self, name: str, command: Sequence[str], **variables: str) -> str:
        """Runs a process to its end, and returns its output.

        Args:
          name: of the process, and of its log.
          variables: of its environment, besides those of all processes.

        Raises:
          NotDone: the time is up, or a signal was received.
          ProcessFailed: its exit code is not 0.
        """
        log, left = self.logs / f"{jobs.file_name(name)}.log", self._limit.left() - RESERVE_SECONDS
        if reason := self._stop_requested():
            raise NotDone(f"stopped by {reason}")
        if left < LEAST_SECONDS:
            raise NotDone(f"{max(left, 0):.0f} s were left before {name}")
        environment = self.environment | variables
        # each process has a guard of its own
        with Processes(self.folder("guard"), environment=environment, stop_requested=self._stop_requested) as processes:
            code, seconds = processes.run(command, log, limit=left)
        output = log.read_text(errors="replace")
        if code is None:
            reason = self._stop_requested()
            raise NotDone(f"stopped by {reason}" if reason else f"{name} was not done after {seconds:.0f} s")
        if code:
            raise ProcessFailed(f"{name}: exit code {code}: {last_line(output)}", output)
        return output

    def together(self, commands: Mapping[str, tuple[Sequence[str], Mapping[str, str]]]) -> None:
        """Runs processes to their ends, at the same time or one after another; then raises the first error of `run`.

        Args:
          commands: name -> (command, variables).
        """
        with concurrent.futures.ThreadPoolExecutor(len(commands) if self._parallel else 1) as pool:
            started = [pool.submit(self.run, name, command, **more) for name, (command, more) in commands.items()]
        for process in started:
            process.result()

    def folder(self, name: str) -> pathlib.Path:
        """Makes a new folder in `scratch`, whose name starts with `name`."""
        return pathlib.Path(tempfile.mkdtemp(prefix=f"{name}_", dir=self.scratch))


def last_line(text: str) -> str:
    """The last line that is not empty, shortened to 300 characters; "no output" if there is none."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "no output"
