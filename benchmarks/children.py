"""Runs the processes of `benchmarks.correctness` within its time, from several threads at once.

Each has a log. None outlives the process that started them: see `benchmarks.processes`.
"""

import concurrent.futures
import os
import pathlib
import tempfile
from collections.abc import Callable, Mapping, Sequence

from benchmarks import common, jobs
from benchmarks.processes import GRACE_SECONDS, Processes

ROOT = pathlib.Path(__file__).parents[1]
RESERVE_SECONDS = GRACE_SECONDS + 2.0  # before the end of the time, processes are ended
LEAST_SECONDS = 5.0  # with less, no process is started: Python and JAX alone take longer on a GPU


class NotDone(Exception):
    """A process was not started, or was ended, because the time was up, or a signal came."""


class ProcessFailed(Exception):
    """A process ended with another exit code than 0.

    Attributes:
      output: what it printed.
    """

    def __init__(self, message: str, output: str):
        super().__init__(message)
        self.output = output


class Children:
    """Runs the processes of all checks; any thread may start one.

    Attributes:
      scratch: a folder for what they write.
      logs: the folder of what they print.
      environment: of all processes.

    Args:
      limit: the time for all checks.
      stop: says why to stop, "" to go on.
      parallel: whether `together` runs processes at the same time.
    """

    def __init__(self, scratch: pathlib.Path, limit: common.Limit, stop: Callable[[], str] = str, *, parallel: bool = True):
        self.scratch, self._limit, self._stop, self._parallel = scratch, limit, stop, parallel
        self.logs = scratch / "logs"
        self.logs.mkdir()
        cache = {"JAX_COMPILATION_CACHE_DIR": str(scratch / "xla"), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1"}
        self.environment = {
            **cache,
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))),
            "PYTHONUNBUFFERED": "1",  # what a process said is in its log when it is killed
            "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # several processes share an accelerator
        }

    def run(self, name: str, command: Sequence[str], **variables: str) -> str:
        """Runs a process to its end, and returns its output.

        Args:
          name: names its log.
          variables: of its environment, beside those of all processes.

        Raises:
          NotDone: there is no time for it.
          ProcessFailed: its exit code is not 0.
        """
        log, left = self.logs / f"{jobs.file_name(name)}.log", self._limit.left() - RESERVE_SECONDS
        if self._stop():
            raise NotDone(f"stopped by {self._stop()}")
        if left < LEAST_SECONDS:
            raise NotDone(f"{max(left, 0):.0f} s were left before {name}")
        # one guard for each: it ends one process
        guarded = Processes(self.folder("guard"), environment=self.environment | variables, stop=self._stop)
        with guarded as processes:
            code, seconds = processes.run(command, log, limit=left)
        output = log.read_text(errors="replace")
        if code is None:
            raise NotDone(f"stopped by {self._stop()}" if self._stop() else f"{name} was not done after {seconds:.0f} s")
        if code:
            raise ProcessFailed(f"{name}: exit code {code}: {last_line(output)}", output)
        return output

    def together(self, commands: Mapping[str, tuple[Sequence[str], Mapping[str, str]]]) -> None:
        """Runs processes to their ends, at the same time or one after another; then raises what `run` raised first.

        Args:
          commands: name -> (command, variables).
        """
        with concurrent.futures.ThreadPoolExecutor(len(commands) if self._parallel else 1) as pool:
            started = [pool.submit(self.run, name, command, **more) for name, (command, more) in commands.items()]
        for process in started:
            process.result()

    def folder(self, name: str) -> pathlib.Path:
        """A new folder in `scratch`, whose name begins with this one."""
        return pathlib.Path(tempfile.mkdtemp(prefix=f"{name}_", dir=self.scratch))


def last_line(text: str) -> str:
    """The last line that is not empty, shortened."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "no output"
