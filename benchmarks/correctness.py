"""Checks that the program is right on this machine's accelerator, in 90 seconds or less.

    python -m benchmarks.correctness --json=FILE --seconds=90

Why: the test suite runs on CPUs, and other devices get other programs. Where JAX finds no other device, this compares the
CPU with itself.

1. Ten training steps of four networks, in three precisions: gradients and losses are those of the CPU.
2. A run on the digits is killed, resumes from its checkpoint, and learns.
3. The CPU evaluates the checkpoint of that run as the accelerator does.
4. Two equal runs leave equal files, with XLA's deterministic operations.
5. The tests marked `accelerator` pass.

Each check is a few processes of its own. Checks run at the same time where there are cores for it. A check that raises has
failed; one that does not fit in the time is left out. The exit code is 1 if a check failed.
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

from benchmarks import common, correctness_runs
from benchmarks import correctness_steps as of_steps
from benchmarks.children import ROOT, Children, NotDone, ProcessFailed, last_line
from benchmarks.correctness_runs import Finding
from benchmarks.processes import Processes
from openset_jax import cli
from openset_jax.errors import Stopped

CORES_PER_CHECK = 3  # checks run at the same time, except on TPUs, which belong to one process at a time
UNFINISHED = "not finished when this was written"


def define_flags() -> None:
    flags.DEFINE_float("seconds", 90, "Time for all checks together, from the start of this process.", lower_bound=1)
    flags.DEFINE_string("keep", "", "Folder to copy the digits run and the output of all processes to.")
    flags.DEFINE_string("only", "", "Only checks whose name contains this.")
    flags.DEFINE_string("json", "", "File to write the result to, anew after each check.")


def main() -> None:
    args, file, limit = flags.FLAGS, common.json_file(flags.FLAGS.json), common.Limit(flags.FLAGS.seconds)
    keep = cli.make_workdir(args.keep) if args.keep else None
    machine = common.machine()
    common.print_machine(machine)
    chosen = [job for job in jobs() if any(args.only in name for name in job.checks)]
    report = Report(file, machine, [name for job in chosen for name in job.checks])
    scratch = pathlib.Path(tempfile.mkdtemp(prefix="openset_jax_correctness_"))
    workers = 1 if importlib.util.find_spec("libtpu") else max(1, common.cores() // CORES_PER_CHECK)
    with (
        cli.stop_on_signal() as stop,
        Processes(scratch, environment={}),  # whose guard removes the folder
        concurrent.futures.ThreadPoolExecutor(workers) as pool,
    ):
        children = Children(scratch, limit, stop, parallel=workers > 1)
        for job in [pool.submit(job.run, children, report) for job in chosen]:
            job.result()
        report.end(_devices(scratch))
        for folder in filter(pathlib.Path.exists, (scratch / "digits", children.logs) if keep else ()):
            shutil.copytree(folder, keep / folder.name, dirs_exist_ok=True)
    if stop():
        raise Stopped(f"Stopped by {stop()}; the checks so far are above" + (f" and in {file}." if file else "."))
    sys.exit(1 if report.failed else 0)


class Report:
    """The checks so far: printed as lines of a table, and written to the JSON file after each.

    Args:
      names: of all checks.
    """

    def __init__(self, file: pathlib.Path | None, machine: Mapping[str, Any], names: Iterable[str]):
        self._file, self._machine, self._checks, self._lock = file, dict(machine), [], threading.Lock()
        self._left_out = dict.fromkeys(names, UNFINISHED)
        self._width = max(map(len, self._left_out), default=0)
        self._write()

    @property
    def failed(self) -> list[str]:
        """Names of the checks that failed."""
        return [check["name"] for check in self._checks if not check["passed"]]

    def add(self, name: str, finding: Finding) -> None:
        """Adds a check that is done."""
        with self._lock:
            self._checks.append({"name": name} | finding._asdict())
            del self._left_out[name]
            self._print(name, "passed" if finding.passed else "FAILED", f"{finding.seconds:.1f} s", finding.detail)
            self._write()

    def leave_out(self, names: Iterable[str], why: str) -> None:
        """Notes why checks were not done."""
        with self._lock:
            for name in names:
                self._left_out[name] = why
                self._print(name, "left out", "", why)
            self._write()

    def end(self, devices: Sequence[str]) -> None:
        """Adds the devices of the machine, if they are known by now, and prints the sum."""
        self._machine |= {"devices": list(devices)} if devices else {}
        self._write()
        passed = len(self._checks) - len(self.failed)
        print(f"{passed} passed, {len(self.failed)} failed, {len(self._left_out)} left out", flush=True)

    def _print(self, name, outcome, seconds, detail):
        print(f"{name.ljust(self._width)}  {outcome:8}  {seconds:>7}  {detail}", flush=True)

    def _write(self):
        result = {
            "passed": bool(self._checks) and not self.failed,
            "checks": self._checks,
            "left_out": self._left_out,
            "machine": self._machine,
        }
        common.write_json(self._file, result)


@dataclasses.dataclass(frozen=True)
class Job:
    """Checks that depend on the same processes.

    Attributes:
      checks: their names.
      find: yields a `Finding` for each, in this order.
    """

    checks: Sequence[str]
    find: Callable[[Children], Iterator[Finding]]

    def run(self, children: Children, report: Report) -> None:
        """Reports all checks: done, failed, or left out."""
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
        except Exception as error:  # a defect of the program or of the check: the other checks go on
            detail, why = str(error), f"it needs {left[0]!r}, which failed"
            if not isinstance(error, ProcessFailed):
                detail = f"{type(error).__name__}: {error}"
                traceback.print_exc()
            add(Finding(False, detail))
            report.leave_out(left, why)


def jobs() -> list[Job]:
    """All checks, in the order in which they begin: the one that takes longest first."""
    words = of_steps.MODES.values()
    compared = [
        Job([f"ten steps, {network}, {text}" for text in words], functools.partial(steps, network))
        for network in of_steps.NETWORKS
    ]
    return [
        Job(["digits: killed, resumed", "digits: evaluated on the CPU"], correctness_runs.digits),
        *compared,
        Job(["digits: two runs leave equal files"], correctness_runs.repeated),
        Job(["tests marked accelerator"], tests),
    ]


def steps(network: str, children: Children) -> Iterator[Finding]:
    """A check for each mode: steps of this process's default device are those of the CPU."""
    folder, problem = children.folder("steps"), None
    sides = {"device": (of_steps.LIMITS, {}), "cpu": ((of_steps.HIGHEST, of_steps.BFLOAT16), {"JAX_PLATFORMS": "cpu"})}
    commands = {}
    for side, (modes, variables) in sides.items():
        (folder / side).mkdir()
        command = [sys.executable, "-m", "benchmarks.correctness_steps", str(folder / side), network, *modes]
        commands[f"{network}, {side}"] = (command, variables)
    try:
        children.together(commands)
    except (NotDone, ProcessFailed) as error:
        problem = error  # what was written before is compared
    read = lambda side, mode: of_steps.read(folder / side, mode)
    for mode in of_steps.MODES:
        try:
            found, reference, rounded = read("device", mode), read("cpu", of_steps.HIGHEST), read("cpu", of_steps.BFLOAT16)
        except FileNotFoundError:
            if problem is None:
                raise
            raise problem from None
        except of_steps.StepFailed as error:
            yield Finding(False, str(error))
            continue
        yield Finding(*of_steps.compare(found, reference, rounded, of_steps.LIMITS[mode]), float(found["seconds"]))


def tests(children: Children) -> Iterator[Finding]:
    """The tests marked `accelerator`, on this process's default device."""
    if missing := [name for name in ("chex", "hypothesis", "pytest") if importlib.util.find_spec(name) is None]:
        raise NotDone(f"it needs {', '.join(missing)}, which this Python does not have")
    folders = [str(ROOT / "tests" / name) for name in ("model", "training")]
    # addopts needs pytest-xdist; a warning of a driver or of another version of JAX is no wrong number
    options = ["-m", "accelerator", "-q", "-o", "addopts=", "-W", "default", "-p", "no:cacheprovider"]
    platforms = os.environ.get("JAX_PLATFORMS", "")  # without it, tests run on the CPU
    try:
        said = children.run("tests", [sys.executable, "-m", "pytest", *options, *folders], JAX_PLATFORMS=platforms)
    except ProcessFailed as error:
        failed = [line.split(" - ")[0] for line in error.output.splitlines() if line.startswith(("FAILED ", "ERROR "))]
        yield Finding(False, "; ".join([str(error), *failed]))
    else:
        yield Finding(True, last_line(said))


def _devices(scratch):
    """The kinds of the devices, as a process of `steps` saw them; [] if none did."""
    found = next(iter(scratch.glob("steps_*/device/machine.json")), None)
    return json.loads(found.read_text())["devices"] if found else []


if __name__ == "__main__":
    cli.run(main, define_flags)
