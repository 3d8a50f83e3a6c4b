"""Checks the program on this machine's accelerator, in 90 seconds or less.

    python -m benchmarks.correctness --json=FILE --seconds=90

Why: the test suite runs on CPUs, and XLA compiles other programs for other devices. If JAX finds no other device, the
CPU is compared with itself.

1. Ten training steps of four networks, in three precisions, have the gradients and losses of the CPU.
2. A run on the digits is killed, resumes from its checkpoint, and learns.
3. Evaluating the checkpoint of that run gives equal results on the CPU and on the accelerator.
4. Two equal runs leave equal files, with XLA's deterministic operations.
5. The tests marked `accelerator` pass.

Each check has processes of its own. Checks run at the same time if there are enough cores. A check that raises has
failed; a check that does not fit the time is left out. The exit code is 1 if a check failed.
"""

import concurrent.futures
import dataclasses
import functools
import importlib.util
import json
import os
import pathlib
import shutil
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from absl import flags

from benchmarks import correctness_limits, correctness_runs, hardware, outputs, timing
from benchmarks.children import ROOT, Children, NotDone, ProcessFailed, last_line
from benchmarks.correctness_runs import Finding
from benchmarks.processes import Processes
from openset_jax import cli, unattended
from openset_jax.errors import Stopped

CORES_PER_CHECK = 3  # checks run at the same time, except on TPUs, which belong to one process at a time
UNFINISHED = "not finished when this was written"


def define_flags() -> None:
    """Defines the command's flags."""
    flags.DEFINE_float("seconds", 90, "Time limit for all checks together, from the start of this process.", lower_bound=1)
    flags.DEFINE_string("keep", "", "Folder for a copy of the digits run, and of the output of all processes.")
    flags.DEFINE_string("only", "", "Only checks whose name contains this.")
    flags.DEFINE_string("json", "", "File to write the result to, after each check.")


def main() -> None:
    """Runs the command."""
    args, file, limit = flags.FLAGS, outputs.json_file(flags.FLAGS.json), timing.Limit(flags.FLAGS.seconds)
    keep = cli.make_workdir(args.keep) if args.keep else None
    machine = hardware.describe()
    hardware.print_description(machine)
    chosen = [job for job in jobs() if any(args.only in name for name in job.checks)]
    report = Report(file, machine, [name for job in chosen for name in job.checks])
    scratch = pathlib.Path(tempfile.mkdtemp(prefix="openset_jax_correctness_"))
    workers = 1 if importlib.util.find_spec("libtpu") else max(1, hardware.cores() // CORES_PER_CHECK)
    with (
        unattended.stop_on_signal() as stop_requested,
        Processes(scratch, environment={}),  # its guard removes the folder
        concurrent.futures.ThreadPoolExecutor(workers) as pool,
    ):
        children = Children(scratch, limit, stop_requested, parallel=workers > 1)
        for job in [pool.submit(job.run, children, report) for job in chosen]:
            job.result()
        report.end(_devices(scratch))
        for folder in filter(pathlib.Path.exists, (scratch / "digits", children.logs) if keep else ()):
            shutil.copytree(folder, keep / folder.name, dirs_exist_ok=True)
    if reason := stop_requested():
        raise Stopped(f"Stopped by {reason}; the checks so far are above" + (f" and in {file}." if file else "."))
    sys.exit(1 if report.failed else 0)


class Report:
    """The checks so far: printed as lines of a table, and written to the JSON file after each.

    Args:
      names: of all checks.
    """

    def __init__(self, file: pathlib.Path | None, machine: Mapping[str, Any], names: Iterable[str]):
        self._file, self._machine, self._lock = file, dict(machine), threading.Lock()
        self._checks: list[dict[str, Any]] = []
        self._left_out = dict.fromkeys(names, UNFINISHED)
        self._width = max(map(len, self._left_out), default=0)
        self._write()

    @property
    def failed(self) -> list[str]:
        """Names of the checks that failed."""
        return [check["name"] for check in self._checks if not check["passed"]]

    def add(self, name: str, finding: Finding) -> None:
        """Adds a finished check."""
        with self._lock:
            self._checks.append({"name": name} | finding._asdict())
            del self._left_out[name]
            self._print(name, "passed" if finding.passed else "FAILED", f"{finding.seconds:.1f} s", finding.detail)
            self._write()

    def leave_out(self, names: Iterable[str], reason: str) -> None:
        """Records the reason why checks were left out."""
        with self._lock:
            for name in names:
                self._left_out[name] = reason
                self._print(name, "left out", "", reason)
            self._write()

    def end(self, devices: Sequence[str]) -> None:
        """Adds the devices of the machine, if there are any, and prints the numbers of checks."""
        self._machine |= {"devices": list(devices)} if devices else {}
        self._write()
        passed = len(self._checks) - len(self.failed)
        print(f"{passed} passed, {len(self.failed)} failed, {len(self._left_out)} left out", flush=True)

    def _print(self, name: str, outcome: str, seconds: str, detail: str) -> None:
        print(f"{name.ljust(self._width)}  {outcome:8}  {seconds:>7}  {detail}", flush=True)

    def _write(self) -> None:
        result = {
            "passed": bool(self._checks) and not self.failed,
            "checks": self._checks,
            "left_out": self._left_out,
            "machine": self._machine,
        }
        outputs.write_json(self._file, result)


@dataclasses.dataclass(frozen=True)
class Job:
    """Checks that depend on the same processes.

    Attributes:
      checks: names of the checks.
      find: yields a `Finding` for each check, in this order.
    """

    checks: Sequence[str]
    find: Callable[[Children], Iterator[Finding]]

    def run(self, children: Children, report: Report) -> None:
        """Runs the checks, and reports each as passed, failed, or left out."""
        left, start = list(self.checks), time.monotonic()

        def add(finding):
            seconds = time.monotonic() - start if finding.seconds is None else finding.seconds
            report.add(left.pop(0), finding._replace(seconds=round(seconds, 1)))

        try:
            for finding in self.find(children):
                add(finding)
                start = time.monotonic()
        except NotDone as error:
            report.leave_out(left, str(error))
        except Exception as error:  # a defect of the program or of the check; the other checks continue
            detail, reason = str(error), f"it needs {left[0]!r}, which failed"
            if not isinstance(error, ProcessFailed):
                detail = f"{type(error).__name__}: {error}"
                traceback.print_exc()
            add(Finding(False, detail))
            report.leave_out(left, reason)


def jobs() -> list[Job]:
    """All checks, in the order in which they start: the longest first."""
    words = correctness_limits.MODES.values()
    compared = [
        Job([f"ten steps, {network}, {text}" for text in words], functools.partial(steps, network))
        for network in correctness_limits.NETWORKS
    ]
    return [
        Job(["digits: killed, resumed", "digits: evaluated on the CPU"], correctness_runs.digits),
        *compared,
        Job(["digits: two runs leave equal files"], correctness_runs.repeated),
        Job(["tests marked accelerator"], tests),
    ]


def steps(network: str, children: Children) -> Iterator[Finding]:
    """Checks in each mode that steps on the default device of this process equal those on the CPU."""
    highest, bfloat16 = correctness_limits.HIGHEST, correctness_limits.BFLOAT16
    folder, problem = children.folder("steps"), None
    commands: dict[str, tuple[list[str], dict[str, str]]] = {}
    for side, modes, variables in (
        ("device", tuple(correctness_limits.LIMITS), {}),
        ("cpu", (highest, bfloat16), {"JAX_PLATFORMS": "cpu"}),
    ):
        (folder / side).mkdir()
        command = [sys.executable, "-m", "benchmarks.correctness_steps", str(folder / side), network, *modes]
        commands[f"{network}, {side}"] = (command, variables)
    try:
        children.together(commands)
    except (NotDone, ProcessFailed) as error:
        problem = error  # the modes that are finished are compared
    read = lambda side, mode: correctness_limits.read(folder / side, mode)
    for mode in correctness_limits.MODES:
        try:
            found, reference, rounded = read("device", mode), read("cpu", highest), read("cpu", bfloat16)
        except FileNotFoundError:
            if problem is None:
                raise
            raise problem from None
        except correctness_limits.StepFailed as error:
            yield Finding(False, str(error))
            continue
        passed, detail = correctness_limits.compare(found, reference, rounded, correctness_limits.LIMITS[mode])
        yield Finding(passed, detail, float(found["seconds"]))


def tests(children: Children) -> Iterator[Finding]:
    """Runs the tests marked `accelerator` on the default device of this process."""
    if missing := [name for name in ("chex", "hypothesis", "pytest") if importlib.util.find_spec(name) is None]:
        raise NotDone(f"it needs {', '.join(missing)}, which this Python does not have")
    folders = [str(ROOT / "tests" / name) for name in ("model", "training")]
    # addopts needs pytest-xdist; warnings of a driver or of another version of JAX are not errors here
    options = ["-m", "accelerator", "-q", "-o", "addopts=", "-W", "default", "-p", "no:cacheprovider"]
    platforms = os.environ.get("JAX_PLATFORMS", "")  # if it is not set at all, tests run on the CPU
    try:
        output = children.run("tests", [sys.executable, "-m", "pytest", *options, *folders], JAX_PLATFORMS=platforms)
    except ProcessFailed as error:
        failed = [line.split(" - ")[0] for line in error.output.splitlines() if line.startswith(("FAILED ", "ERROR "))]
        yield Finding(False, "; ".join([str(error), *failed]))
    else:
        yield Finding(True, last_line(output))


def _devices(scratch: pathlib.Path) -> list[str]:
    """The kinds of the devices, from a process of `steps`; [] if there was none."""
    found = next(iter(scratch.glob("steps_*/device/machine.json")), None)
    return json.loads(found.read_text())["devices"] if found else []


if __name__ == "__main__":
    cli.run(main, define_flags)
