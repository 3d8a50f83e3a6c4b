"""What a run writes as it goes: metrics.jsonl, TensorBoard events where TensorFlow is loaded, and lines for the person."""

import json
import math
import pathlib
import sys
import time

import jax

from openset_jax.files import write_whole


def say(text: str) -> None:
    """Prints to the person, once for all processes; nothing for no text."""
    if text and jax.process_index() == 0:
        print(text, flush=True)


class RunLog:
    """Writes one line per logging step.

    Args:
      workdir: where metrics.jsonl and the TensorBoard events go.
      step: the step that the run starts at: metrics.jsonl is cut back to it.
      steps: the step that the run ends at.
      batch_size: of the global batch, for images per second.
      lines_after: whether the line of `step` itself is still to come: its checkpoint was saved before it was written.
    """

    def __init__(self, workdir: pathlib.Path, *, step: int, steps: int, batch_size: int, lines_after: bool = False):
        self._steps, self._batch_size = steps, batch_size
        self._file = None
        if jax.process_index() == 0:
            path = workdir / "metrics.jsonl"
            cut_back(path, step - lines_after)
            self._file = path.open("a")
            self._writer = None
            if "tensorflow" in sys.modules:  # which the writer imports; not worth seconds for a copy of metrics.jsonl
                from clu import metric_writers

                self._writer = metric_writers.AsyncWriter(metric_writers.SummaryWriter(str(workdir)))
            else:
                say("No TensorBoard events: they need TensorFlow, which this run does not load. metrics.jsonl has it all.")
        self.start_clock(step)

    def start_clock(self, step: int) -> None:
        """Training goes on from `step`."""
        self._from, self._since, self._stopped = step, time.monotonic(), None

    def stop_clock(self, step: int) -> None:
        """Training pauses at `step`: evaluating and saving do not count in images per second."""
        self._stopped = self._rate(step)

    def _rate(self, step):
        return (step - self._from) * self._batch_size / max(time.monotonic() - self._since, 1e-9)

    def line(self, step: int, values: dict[str, float]) -> None:
        """Writes the line of one logging step; images per second are those since the last line or pause."""
        rate = self._rate(step) if self._stopped is None else self._stopped
        self.start_clock(step)
        if self._file is None:
            return
        row = {"step": step, **{k: v if math.isfinite(v) else None for k, v in values.items() if v is not None}}
        row["images_per_second"] = round(rate, 1) if rate else None  # an evaluation that a stop put off: no step yet
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()
        if self._writer is not None:
            self._writer.write_scalars(step, {k: v for k, v in row.items() if k != "step" and v is not None})
        text = [f"step {step:>{len(str(self._steps))}}/{self._steps}"]
        text += [f"{name} {values[name]:.4f}" for name in ("loss", "accuracy", "none_rate")]
        if rate:
            text += [f"{rate:,.0f} images/s", f"{_clock((self._steps - step) * self._batch_size / rate)} left"]
        checked = {k.removeprefix("validation_"): v for k, v in values.items() if k.startswith("validation_")}
        if checked:
            text.append("| validation:")
            text += [f"{name} {value:.4f}" for name, value in checked.items() if value is not None]
        say("  ".join(text))

    def close(self) -> None:
        """Flushes and closes the files."""
        if self._file is not None:
            self._file.close()
            if self._writer is not None:
                self._writer.close()


def cut_back(path: pathlib.Path, step: int) -> None:
    """Removes the lines after `step`, and a last line that was cut off, from a metrics.jsonl."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text().splitlines():
        try:
            if json.loads(line)["step"] > step:
                break
        except (ValueError, KeyError, TypeError):
            break
        kept.append(line + "\n")
    with write_whole(path) as file:
        file.write("".join(kept))


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
