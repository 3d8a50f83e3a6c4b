"""Runs all benchmarks on this machine, the most important first, and writes one table, one JSON file and one figure.

    python -m benchmarks.suite --minutes=5 --out=DIR
    python -m benchmarks.suite --out=DIR --photos=PHOTOS --peer_python=ENV/bin/python

Why: one command measures a machine. Each benchmark is a process of its own and has the accelerator for itself; inside
it, PyTorch's rounds alternate with ours. A benchmark that cannot run (without PyTorch, TensorFlow or photographs) is
left out, with the reason. A benchmark that fails is reported, and the others continue. The exit code is 1 if a benchmark
or a check of correctness failed. Without photographs, packed images are random.

With --minutes each benchmark has a share of the time (`benchmarks/jobs.py`). Time that it does not use goes to the
later ones. A benchmark that reaches its limit is ended, and one for which too little time is left is not started. The
results name both.

Writes DIR/results.json (everything), DIR/results.md (the tables), DIR/throughput.png and DIR/logs.tar.gz (the output of each
benchmark) after each benchmark. Scratch files are in a temporary folder (in TMPDIR) that is removed at the end.
"""

import contextlib
import dataclasses
import importlib.util
import json
import os
import pathlib
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from absl import flags

from benchmarks import hardware, jobs, tables, timing
from benchmarks import results as texts
from benchmarks.clock import Clock
from benchmarks.job_rows import Row
from benchmarks.jobs import Job
from benchmarks.peer import peer_python
from benchmarks.processes import Processes
from benchmarks.result_files import FILES, ResultFiles
from openset_jax import cli, unattended
from openset_jax.errors import Stopped

GUARD_SECONDS = 12.0  # the guard process ends the suite this long after the time is up
MARGIN_SECONDS = 2.0  # a benchmark that adapts is asked to end this long before its limit


def define_flags() -> None:
    """Defines the command's flags."""
    flags.DEFINE_string("out", None, "Folder for the results; created if necessary.", required=True)
    flags.DEFINE_float("minutes", 0, "Time for all benchmarks together; 0 for no limit.", lower_bound=0)
    cli.define_config(required=False, help="The full-size config; by default configs/folder.py. Its images are not opened.")
    flags.DEFINE_string("photos", "", "Folder with known/CLASS/*.jpg and negatives/CLASS/*.jpg; empty: none are streamed.")
    flags.DEFINE_string("peer_python", "", "Python with torch; empty for this one, if it has torch.")
    flags.DEFINE_integer("images", 0, "Packed images, if there are no photographs; 0: by platform.", lower_bound=0)
    flags.DEFINE_integer("size", 0, "Side of packed images; 0 for the config's data.stored_size.", lower_bound=0)
    flags.DEFINE_string("only", "", "Only benchmarks whose name contains this text.")
    flags.DEFINE_bool("quick", False, "Fewer and shorter rounds, as with --minutes.")


def main() -> None:
    """Runs the command."""
    args, out = flags.FLAGS, cli.make_workdir(flags.FLAGS.out)
    scratch = pathlib.Path(tempfile.mkdtemp(prefix="openset_jax_suite_"))
    for name in ("logs", "tmp"):
        (scratch / name).mkdir()
    setting = jobs.Setting(
        platform="",
        config=jobs.config_words(sys.argv[1:]),
        scratch=scratch,
        size=args.size or (args.config.data.stored_size if args.config else 256),
        images=args.images,
        photos=args.photos,
        tensorflow=importlib.util.find_spec("tensorflow") is not None,
        quick=args.quick,
        timed=bool(args.minutes),
    )
    limit = 60 * args.minutes + GUARD_SECONDS if args.minutes else None
    with (
        unattended.stop_on_signal() as stop_requested,
        Processes(scratch, environment=environment(scratch), stop_requested=stop_requested, seconds=limit) as processes,
    ):
        suite = Suite(setting, Clock(args.minutes), processes, out, stop_requested)
        suite.run_all(args.only, args.peer_python)
    print(f"{', '.join(name for name in FILES if (out / name).exists())}: in {out}")
    if reason := stop_requested():
        raise Stopped(f"Stopped by {reason}; {out} has the results so far.")
    sys.exit(0 if suite.passed else 1)


def environment(scratch: pathlib.Path) -> dict[str, str]:
    """The environment of all benchmarks: they share compiled programs, and write only to the scratch folder."""
    folders = {
        "TMPDIR": "tmp",
        "JAX_COMPILATION_CACHE_DIR": "xla",
        "TORCHINDUCTOR_CACHE_DIR": "torch",
        "TRITON_CACHE_DIR": "triton",
    }
    thresholds = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1"}
    return os.environ | {name: str(scratch / folder) for name, folder in folders.items()} | thresholds


class Suite:
    """Runs the jobs of a setting, and writes the results after each.

    Args:
      out: folder of the results; those of an earlier suite are removed.
      stop_requested: returns the reason to stop, or "".
    """

    def __init__(
        self,
        setting: jobs.Setting,
        clock: Clock,
        processes: Processes,
        out: pathlib.Path,
        stop_requested: Callable[[], str] = lambda: "",
    ):
        self._setting, self._clock, self._processes, self._stop_requested = setting, clock, processes, stop_requested
        self._machine, self._files = hardware.describe(), ResultFiles(out, setting.scratch, ("logs", jobs.CORRECTNESS))
        self._roofline: dict[str, Any] | None = None
        self._ran: list[dict[str, Any]] = []
        self._results: dict[str, dict[str, Any]] = {}
        self._rows: list[Row] = []
        self._left_out: dict[str, str] = {}
        self._failed: dict[str, str] = {}

    @property
    def passed(self) -> bool:
        """True unless a job or a check of correctness failed."""
        return not self._failed and not any(map(_failed_checks, self._results.values()))

    def run_all(self, only: str, python: str) -> None:
        """Runs the jobs whose name contains the text `only`.

        Args:
          python: the Python of PyTorch; empty for this one.
        """
        hardware.print_description(self._machine)
        opening = jobs.jobs(self._setting)[: jobs.OPENING]
        self.run(jobs.chosen(opening, only), later=jobs.TOTAL_SHARE - sum(job.share for job in opening))
        if not self._stop_requested() and self._find_platform():
            self._find_torch(only, peer_python(python))
            self.run(jobs.chosen(jobs.jobs(self._setting)[jobs.OPENING :], only))
        self._write([], complete=not self._stop_requested())
        if self._rows:
            tables.print_table(texts.table(self._rows))
        for outcome, reasons in (("left out", self._left_out), ("failed", self._failed)):
            for name, reason in reasons.items():
                print(f"{outcome}: {name}: {reason}")
        for check in _failed_checks(self._results.get(jobs.CORRECTNESS, {})):
            print(f"FAILED check of correctness: {texts.check_text(check)}")

    def run(self, chosen: Sequence[Job], later: float = 0.0) -> None:
        """Runs jobs in this order.

        Args:
          later: the sum of the shares of the jobs that follow these.
        """
        for i, job in enumerate(chosen):
            self._write(chosen[i:])
            after = later + sum(other.share for other in chosen[i + 1 :] if not other.left_out)
            limit = self._clock.limit(job, after)
            if reason := self._reason_to_leave_out(job, limit):
                self._left_out[job.name] = reason
            else:
                print(f"{job.name} ...", end=" ", flush=True)
                print(self._run_one(job, limit), flush=True)
        self._write([])

    def _reason_to_leave_out(self, job: Job, limit: float) -> str:
        if job.left_out:
            return job.left_out
        if reason := self._stop_requested():
            return f"stopped by {reason}"
        if job.needs and job.needs not in self._results:
            return f"it needs {job.needs}"
        return "" if limit else f"it needs {job.least:g} s, and {self._clock.left():.0f} s were left"

    def _run_one(self, job: Job, limit: float) -> str:
        """Runs one job, and keeps its result. Returns its outcome as text."""
        path, log = self._path(job.name), self._log(job.name)
        command = [sys.executable, *job.command, *([] if job.read else [f"--json={path}.json"])]
        if job.adapts and self._clock.minutes:
            command.append(f"--seconds={max(limit - MARGIN_SECONDS, 1):.1f}")
        code, seconds = self._processes.run(command, log, limit=limit)
        result, text = _read(job, path), f"{seconds:.0f} s"
        if code is None:
            reason = self._stop_requested()
            text = f"stopped by {reason} after {text}" if reason else f"not done after {text}"
            text += "; a part of it was measured" if result else ""
            self._left_out[job.name] = text
        elif code and not (code == 1 and job.may_fail and result and _failed_checks(result)):
            text = self._failed[job.name] = f"FAILED with exit code {code}: {_last_line(log)} (logs/{log.name})"
        elif result is None:
            text = self._failed[job.name] = f"FAILED: it wrote no result (logs/{log.name})"
        if result is not None:
            self._keep(job, result)
        self._ran.append({"name": job.name, "seconds": round(seconds, 1), "limit": round(limit, 1), "outcome": text})
        return text

    def _keep(self, job: Job, result: dict[str, Any]) -> None:
        try:
            rows = job.rows(result, self._results)
        except KeyError:  # it ended before it had measured the values of a row
            rows = []
        self._results[job.name] = result
        self._left_out |= {f"{job.name}: {name}": reason for name, reason in result.get("left_out", {}).items()}
        self._rows += [row | {"name": ": ".join(filter(None, (job.name, row["name"])))} for row in rows]

    def _find_platform(self) -> bool:
        """Finds platform and devices, from the result of the rates or by a process. Returns False if that fails."""
        found = self._results.get(jobs.RATES)
        if found is None:
            path, log = self._path("devices"), self._log("devices")
            command = [sys.executable, "-m", "benchmarks.roofline", "--norates", f"--json={path}.json"]
            self._processes.run(command, log, limit=min(self._clock.left(), 120))
            try:
                found = json.loads(path.with_suffix(".json").read_text())
            except (OSError, ValueError):
                self._failed["devices"] = f"FAILED: {_last_line(log)} (logs/{log.name})"
                return False
        self._machine["devices"] = found["machine"]["devices"]
        self._roofline = {k: v for k, v in found.items() if k != "machine"}
        self._setting = dataclasses.replace(self._setting, platform=found["platform"])
        return True

    def _find_torch(self, only: str, python: str) -> None:
        """Uses `python` for the peer, if a chosen job needs one and it can import PyTorch; else records the reason."""
        assert self._roofline is not None
        asked = dataclasses.replace(self._setting, peer_python=python or "python")
        run = [job for job in jobs.chosen(jobs.jobs(asked), only) if not job.left_out]
        if not any("--peer_python" in word for job in run for word in job.command):
            return
        platform, count, log = self._roofline["platform"], self._roofline["count"], self._log("torch")
        if platform not in ("cpu", "gpu") or count > 1:
            reason = f"it would use one CPU or GPU, and there are {count} {platform}s"
        elif not python:
            reason = "this Python has no torch; --peer_python=PATH names one that has"
        else:
            try:
                code, _ = self._processes.run([python, "-c", "import torch"], log, limit=min(self._clock.left(), 120))
                reason = "" if code == 0 else f"{python}: {_last_line(log) or 'it cannot import torch'}"
            except OSError as error:
                reason = f"{python}: {error.strerror}"
        if reason:
            self._left_out[timing.PEER] = reason
        else:
            self._setting = asked

    def _path(self, name: str) -> pathlib.Path:
        return self._setting.scratch / jobs.file_name(name)

    def _log(self, name: str) -> pathlib.Path:
        return self._setting.scratch / "logs" / f"{jobs.file_name(name)}.log"

    def _write(self, pending: Sequence[Job], *, complete: bool = False) -> None:
        everything = {
            "machine": self._machine,
            "roofline": self._roofline,
            "peer": next((r["peer"] for r in self._results.values() if r.get("peer")), None),
            "minutes": self._clock.minutes,
            "seconds": round(self._clock.seconds(), 1),
            "complete": complete,
            "pending": [job.name for job in pending],
            "jobs": self._ran,
            "table": self._rows,
            "left_out": self._left_out,
            "failed": self._failed,
            "results": self._results,
        }
        self._files.write(everything)


def _read(job: Job, path: pathlib.Path) -> dict[str, Any] | None:
    """The result of a job; None if it wrote none."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        return job.read(path) if job.read else json.loads(path.with_name(path.name + ".json").read_text())
    return None


def _failed_checks(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [check for check in result.get("checks", []) if not check["passed"]]


def _last_line(log: pathlib.Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1][:200] if lines else ""


if __name__ == "__main__":
    cli.run(main, define_flags)
