"""Runs all benchmarks of this machine, the most important first, into one table, one JSON file and one figure.

    python -m benchmarks.suite --minutes=5 --out=DIR
    python -m benchmarks.suite --out=DIR --photos=PHOTOS --peer_python=ENV/bin/python

Why: whoever wants to know whether this is fast on their machine should have to give one command. Each benchmark is a process
of its own, so that each has the accelerator to itself, and what PyTorch does beside it alternates with ours inside it. What
cannot run here (PyTorch, TensorFlow or photographs are missing) is left out, with the reason; what fails is reported, the
rest goes on, and the exit code is 1, also if a check of correctness fails. Without photographs, packed images are random.

With --minutes each benchmark has a share of the time (`benchmarks/jobs.py`). What it does not use goes to the later ones. A
benchmark that reaches its limit is ended, and one for which too little time is left is not begun. Both are named.

Writes DIR/results.json (everything), DIR/results.md (the tables), DIR/throughput.png and DIR/logs.tar.gz (the output of each
benchmark), anew after each benchmark. Scratch files are in a temporary folder, removed at the end; TMPDIR says where.
"""

import contextlib
import dataclasses
import importlib.util
import io
import json
import os
import pathlib
import sys
import tarfile
import tempfile
from collections.abc import Callable, Sequence

from absl import flags

from benchmarks import common, jobs
from benchmarks import results as texts
from benchmarks.clock import Clock
from benchmarks.peer import peer_python
from benchmarks.processes import Processes
from openset_jax import cli
from openset_jax.errors import Stopped, UserError
from openset_jax.files import write_whole

GUARD_SECONDS = 12.0  # after the time is over, the guard process ends the suite
MARGIN_SECONDS = 2.0  # a benchmark that adapts is told to be done so much before its limit
MOST_KEPT = 8 << 20  # bytes of a file in the archive
FILES = ("results.json", "results.md", "throughput.png", "logs.tar.gz")


def define_flags() -> None:
    flags.DEFINE_string("out", None, "Folder for the results; made if need be.", required=True)
    flags.DEFINE_float("minutes", 0, "Time for all benchmarks together; 0 for no limit.", lower_bound=0)
    cli.define_config(required=False, help="The full-size config, configs/folder.py if not given; its data are not opened.")
    flags.DEFINE_string("photos", "", "Folder with known/CLASS/*.jpg and negatives/CLASS/*.jpg; empty: none are streamed.")
    flags.DEFINE_string("peer_python", "", "Python with torch; empty for this one, if it has torch.")
    flags.DEFINE_integer("images", 0, "Packed images to make where there are no photographs; 0 by platform.", lower_bound=0)
    flags.DEFINE_integer("size", 0, "Side of packed images; 0 for the config's data.stored_size.", lower_bound=0)
    flags.DEFINE_string("only", "", "Only benchmarks whose name contains this.")
    flags.DEFINE_bool("quick", False, "Fewer and shorter rounds, as --minutes has them.")


def main() -> None:
    args, out = flags.FLAGS, cli.make_workdir(flags.FLAGS.out)
    scratch = pathlib.Path(tempfile.mkdtemp(prefix="openset_jax_suite_"))
    for name in ("logs", "tmp"):
        (scratch / name).mkdir()
    setting = jobs.Setting(
        platform="",
        config=config_words(sys.argv[1:]),
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
        cli.stop_on_signal() as stop,
        Processes(scratch, environment=environment(scratch), stop=stop, seconds=limit) as processes,
    ):
        suite = Suite(setting, Clock(args.minutes), processes, out, stop)
        suite.run_all(args.only, args.peer_python)
    print(f"{', '.join(name for name in FILES if (out / name).exists())}: in {out}")
    if stop():
        raise Stopped(f"Stopped by {stop()}; {out} has the results so far.")
    sys.exit(0 if suite.passed else 1)


def config_words(words: Sequence[str]) -> tuple[str, ...]:
    """The words of a command line about the config: its file first, configs/folder.py if none is named, then fields.

    Raises:
      UserError: one of them has no "=": which word is its value is not known here.
    """
    found = [word for word in words if word.startswith("--config")]
    if without := [word for word in found if "=" not in word]:
        raise UserError(f"{without[0]}: write {without[0]}=VALUE")
    files = [word for word in found if word.startswith("--config=")] or ["--config=configs/folder.py"]
    return (*files, *(word for word in found if not word.startswith("--config=")))


def environment(scratch: pathlib.Path) -> dict[str, str]:
    """Of all benchmarks: they share compiled programs, and leave nothing outside the scratch folder."""
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
      stop: says why to stop, "" to go on.
    """

    def __init__(
        self, setting: jobs.Setting, clock: Clock, processes: Processes, out: pathlib.Path, stop: Callable[[], str] = str
    ):
        self._setting, self._clock, self._processes, self._out, self._stop = setting, clock, processes, out, stop
        self._machine, self._roofline, self._ran = common.machine(), None, []
        self._results, self._rows, self._left_out, self._failed, self._drawn = {}, [], {}, {}, 0
        for name in FILES:
            (out / name).unlink(missing_ok=True)

    @property
    def passed(self) -> bool:
        """True unless a job failed, or one of the checks of correctness."""
        return not self._failed and not any(map(_failed_checks, self._results.values()))

    def run_all(self, only: str, python: str) -> None:
        """Runs the jobs whose name contains `only`.

        Args:
          python: where PyTorch may be; empty for this Python.
        """
        common.print_machine(self._machine)
        opening = jobs.jobs(self._setting)[: jobs.OPENING]
        self.run(jobs.chosen(opening, only), later=jobs.TOTAL_SHARE - sum(job.share for job in opening))
        if not self._stop() and self._find_platform():
            self._find_torch(only, peer_python(python))
            self.run(jobs.chosen(jobs.jobs(self._setting)[jobs.OPENING :], only))
        self._write([], complete=not self._stop())
        if self._rows:
            common.print_table(texts.table(self._rows))
        for name, reasons in (("left out", self._left_out), ("failed", self._failed)):
            for what, why in reasons.items():
                print(f"{name}: {what}: {why}")
        for check in _failed_checks(self._results.get(jobs.CORRECTNESS, {})):
            print(f"FAILED check of correctness: {texts.check_text(check)}")

    def run(self, chosen: Sequence[jobs.Job], later: float = 0.0) -> None:
        """Runs jobs in this order.

        Args:
          later: the shares of jobs that follow these.
        """
        for i, job in enumerate(chosen):
            self._write(chosen[i:])
            after = later + sum(other.share for other in chosen[i + 1 :] if not other.left_out)
            limit = self._clock.limit(job, after)
            if why := self._why_not(job, limit):
                self._left_out[job.name] = why
            else:
                print(f"{job.name} ...", end=" ", flush=True)
                print(self._run_one(job, limit), flush=True)
        self._write([])

    def _why_not(self, job, limit):
        if job.left_out:
            return job.left_out
        if self._stop():
            return f"stopped by {self._stop()}"
        if job.needs and job.needs not in self._results:
            return f"it needs {job.needs}"
        return "" if limit else f"it needs {job.least:g} s, and {self._clock.left():.0f} s were left"

    def _run_one(self, job, limit):
        """Runs one job, and keeps what it measured. Returns what became of it, in words."""
        path, log = self._path(job.name), self._log(job.name)
        command = [sys.executable, *job.command, *([] if job.read else [f"--json={path}.json"])]
        if job.adapts and self._clock.minutes:
            command.append(f"--seconds={max(limit - MARGIN_SECONDS, 1):.1f}")
        code, seconds = self._processes.run(command, log, limit=limit)
        result, text = _read(job, path), f"{seconds:.0f} s"
        if code is None:
            text = f"stopped by {self._stop()} after {text}" if self._stop() else f"not done after {text}"
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

    def _keep(self, job, result):
        try:
            rows = job.rows(result, self._results)
        except KeyError:  # it ended before it had measured what a row needs
            rows = []
        self._results[job.name] = result
        self._left_out |= {f"{job.name}: {what}": why for what, why in result.get("left_out", {}).items()}
        self._rows += [line | {"name": ": ".join(filter(None, (job.name, line["name"])))} for line in rows]

    def _find_platform(self):
        """Takes platform and devices from the result of the rates, else asks a process. False if there is no answer."""
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

    def _find_torch(self, only, python):
        """Takes `python` for the peer, if a chosen job uses one and it can import PyTorch; else says why not."""
        asked = dataclasses.replace(self._setting, peer_python=python or "python")
        run = [job for job in jobs.chosen(jobs.jobs(asked), only) if not job.left_out]
        if not any("--peer_python" in word for job in run for word in job.command):
            return
        platform, count, log = self._roofline["platform"], self._roofline["count"], self._log("torch")
        if platform not in ("cpu", "gpu") or count > 1:
            why = f"it would use one CPU or GPU, and there are {count} {platform}s"
        elif not python:
            why = "this Python has no torch; --peer_python=PATH names one that has"
        else:
            try:
                code, _ = self._processes.run([python, "-c", "import torch"], log, limit=min(self._clock.left(), 120))
                why = "" if code == 0 else f"{python}: {_last_line(log) or 'it cannot import torch'}"
            except OSError as error:
                why = f"{python}: {error.strerror}"
        if why:
            self._left_out[common.PEER] = why
        else:
            self._setting = asked

    def _path(self, name):
        return self._setting.scratch / jobs.file_name(name)

    def _log(self, name):
        return self._setting.scratch / "logs" / f"{jobs.file_name(name)}.log"

    def _write(self, pending, *, complete=False):
        """Writes all files anew, each of them whole."""
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
        contents = [
            json.dumps(everything, indent=2).encode() + b"\n",
            texts.section(everything).encode(),
            self._figure(),
            _archive(self._setting.scratch, ("logs", jobs.CORRECTNESS)),
        ]
        for name, content in zip(FILES, contents, strict=True):
            if content:
                with write_whole(self._out / name, "wb") as file:
                    file.write(content)

    def _figure(self):
        """The content of the figure, b"" if there is nothing new to draw."""
        lines = [line for line in self._rows if line.get("figure", True)]
        if len(lines) == self._drawn:
            return b""
        from benchmarks import figure

        path, self._drawn = self._setting.scratch / "throughput.png", len(lines)
        figure.draw(path, lines, f"{texts.device(self._machine)}, {self._machine['cores']} cores, {self._machine['date']}")
        return path.read_bytes()


def _read(job, path):
    """What a job wrote, None if that is nothing."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        return job.read(path) if job.read else json.loads(path.with_name(path.name + ".json").read_text())
    return None


def _failed_checks(result):
    return [check for check in result.get("checks", []) if not check["passed"]]


def _last_line(log):
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1][:200] if lines else ""


def _archive(root, names):
    """The folders `names` of `root` as a .tar.gz, without files of more than `MOST_KEPT` bytes."""
    small = lambda entry: entry if not entry.isfile() or entry.size <= MOST_KEPT else None
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        for name in names:
            if (root / name).exists():
                archive.add(root / name, arcname=name, filter=small)
    return content.getvalue()


if __name__ == "__main__":
    cli.run(main, define_flags)
