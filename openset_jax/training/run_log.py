"""What a run writes as it goes: metrics.jsonl, TensorBoard events, and lines for the person."""

import json
import math
import pathlib
import time

import jax
from clu import metric_writers


def say(text: str) -> None:
    """Prints to the person, once for all processes."""
    if jax.process_index() == 0:
        print(text, flush=True)


class RunLog:
    """Writes one line per logging step.

    Args:
      workdir: where metrics.jsonl and the TensorBoard events go.
      step: the step that the run starts at: metrics.jsonl is cut back to it.
      steps: the step that the run ends at.
      batch_size: of the global batch, for images per second.
    """

    def __init__(self, workdir: pathlib.Path, *, step: int, steps: int, batch_size: int):
        self._steps, self._batch_size = steps, batch_size
        self._file = None
        if jax.process_index() == 0:
            path = workdir / "metrics.jsonl"
            cut_back(path, step)
            self._file = path.open("a")
            self._writer = metric_writers.AsyncWriter(metric_writers.SummaryWriter(str(workdir)))
        self.restart_clock(step)

    def restart_clock(self, step: int) -> None:
        """Leaves what was done since the last line (evaluating, saving) out of images per second."""
        self._clock, self._from = time.monotonic(), step

    def line(self, step: int, values: dict[str, float]) -> None:
        """Writes the line of one logging step; images per second are measured since the last line."""
        seconds = max(time.monotonic() - self._clock, 1e-9)
        rate = (step - self._from) * self._batch_size / seconds
        self.restart_clock(step)
        if self._file is None:
            return
        if not math.isfinite(values["loss"]):
            values = {k: v for k, v in values.items() if math.isfinite(v)} | {"loss": None}
        row = {"step": step, **values, "images_per_second": round(rate, 1)}
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()
        self._writer.write_scalars(step, {k: v for k, v in row.items() if k != "step" and v is not None})
        left = (self._steps - step) * self._batch_size / rate if rate else 0.0
        parts = [f"step {step:>{len(str(self._steps))}}/{self._steps}"]
        parts += [f"{name} {values[name]:.4f}" for name in ("loss", "accuracy", "none_rate") if values.get(name) is not None]
        parts += [f"{name[11:]} on validation {values[name]:.4f}" for name in values if name.startswith("validation_")]
        say("  ".join([*parts, f"{rate:,.0f} images/s", f"{_clock(left)} left"]))

    def close(self) -> None:
        """Flushes and closes the files."""
        if self._file is not None:
            self._file.close()
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
    temporary = path.with_suffix(".tmp")
    temporary.write_text("".join(kept))
    temporary.replace(path)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
