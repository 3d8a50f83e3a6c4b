"""The log of a run: metrics.jsonl, TensorBoard events if TensorFlow is loaded, and printed lines."""

import json
import math
import pathlib
import sys
import time
from collections.abc import Mapping
from typing import IO, Any

import jax

from openset_jax.files import write_whole
from openset_jax.spec import RunSpec
from openset_jax.text import show
from openset_jax.training import event_files


def say(text: str) -> None:
    """Prints lines in the first process; prints nothing for ""."""
    if text and jax.process_index() == 0:
        show(text)


class RunLog:
    """Writes one line per logging step.

    Args:
      start: the step that the run starts at; later lines of metrics.jsonl and later events are removed.
      step_unlogged: True if the checkpoint was saved before `start` was logged.
      at_once: number of runs that train at once; if there are others, it is in every line.
    """

    def __init__(self, spec: RunSpec, start: int, *, step_unlogged: bool = False, at_once: int = 1):
        self._at_once = {"runs_at_once": at_once} if at_once > 1 else {}
        self._steps, self._batch_size = spec.program.steps, spec.program.batch_size
        self._file: IO[str] | None = None
        self._writer: Any = None  # clu has no types
        if jax.process_index() == 0:
            path = spec.workdir / "metrics.jsonl"
            cut_back(path, start - step_unlogged)
            event_files.cut_back(spec.workdir, start - step_unlogged)
            self._file = path.open("a")
            if "tensorflow" in sys.modules:  # the writer imports it, which takes seconds
                from clu import metric_writers

                self._writer = metric_writers.AsyncWriter(metric_writers.SummaryWriter(str(spec.workdir)))
            else:
                no_events = "No TensorBoard events: they need TensorFlow, which this run does not load."
                say(f"{no_events} metrics.jsonl has all numbers.")
        self.start_clock(start)

    def start_clock(self, step: int) -> None:
        """Restarts the clock of images per second at `step`."""
        self._from, self._since, self._stopped = step, time.monotonic(), None

    def stop_clock(self, step: int) -> None:
        """Stops the clock at `step`: time of evaluation and saving does not count in images per second."""
        self._stopped = self._rate(step)

    def _rate(self, step):
        return (step - self._from) * self._batch_size / max(time.monotonic() - self._since, 1e-9)

    def line(self, step: int, values: Mapping[str, float | None]) -> None:
        """Writes the line of one logging step; images per second count from the last line or pause."""
        rate = self._rate(step) if self._stopped is None else self._stopped
        self.start_clock(step)
        if self._file is None:
            return
        given = {name: value for name, value in values.items() if value is not None}
        row = {"step": step, **{k: v if math.isfinite(v) else None for k, v in given.items()}}
        # no step yet: the line of an evaluation that the previous process postponed when it was stopped
        row |= {"images_per_second": round(rate, 1) if rate else None, **self._at_once}
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()
        if self._writer is not None:
            self._writer.write_scalars(step, {k: v for k, v in row.items() if k != "step" and v is not None})
        text = [f"step {step:>{len(str(self._steps))}}/{self._steps}"]
        text += [f"{name} {given[name]:.4f}" for name in ("loss", "accuracy", "none_rate")]
        if rate:
            text += [f"{rate:,.0f} images/s", f"{clock((self._steps - step) * self._batch_size / rate)} left"]
        checked = {k.removeprefix("validation_"): v for k, v in values.items() if k.startswith("validation_")}
        if checked:
            text += ["| validation:", *(f"{name} {value:.4f}" for name, value in checked.items() if value is not None)]
        say("  ".join(text))

    def close(self) -> None:
        """Flushes and closes the files."""
        if self._file is not None:
            self._file.close()
            if self._writer is not None:
                self._writer.close()


def cut_back(path: pathlib.Path, step: int) -> None:
    """Removes the lines after `step` from a metrics.jsonl, an incomplete last line, and unreadable lines, which it names."""
    if not path.exists():
        return
    kept, unreadable = [], []
    lines = path.read_text(encoding="utf-8", errors="surrogateescape").split("\n")[:-1]
    for number, line in enumerate(lines, 1):
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
        except (ValueError, KeyError, TypeError):
            unreadable.append(number)
    if unreadable:
        say(f"Warning: removed unreadable lines from {path}: {', '.join(map(str, unreadable))}.")
    with write_whole(path) as file:
        file.write("".join(kept))


def clock(seconds: float) -> str:
    """A duration as 2:05 or 1:02:05."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
