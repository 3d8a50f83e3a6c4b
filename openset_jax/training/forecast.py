"""The forecast of a run's duration, from its first training calls."""

import time
from collections.abc import Callable

from openset_jax.spec import ProgramSpec
from openset_jax.text import rounded

CALLS, SECONDS = 20, 10.0  # either is enough to measure
LONG = 24 * 3600.0  # seconds


class Forecast:
    """Measures training calls from the times when their metrics arrive, and tells the duration of the run once.

    Args:
      start: the step that the run starts at, or resumes at.
      clock: returns the time in seconds.
    """

    def __init__(self, program: ProgramSpec, start: int, clock: Callable[[], float] = time.monotonic):
        self._steps, self._per_call, self._left = program.steps, program.steps_per_call, program.steps - start
        self._resumed, self._clock = start > 0, clock
        self._since: float | None = None  # when the call began whose metrics arrive next; None if it is not measured
        self._calls, self._seconds, self._told = 0, 0.0, False

    def begin(self, *, compiles: bool) -> None:
        """Marks a call that begins after a pause, as after an evaluation; it is not measured if it `compiles`."""
        self._since = None if compiles else self._clock()

    def end(self, step: int) -> str:
        """Marks the end of the call before `step`, and the beginning of the next; returns the forecast if due, else ""."""
        if self._told:
            return ""
        now = self._clock()
        if self._since is not None:
            self._calls, self._seconds = self._calls + 1, self._seconds + now - self._since
        self._since = now
        if step == self._steps or (self._calls < CALLS and self._seconds < SECONDS):
            return ""
        self._told = True
        measured = self._calls * self._per_call
        return text(self._seconds / measured * self._left, self._left, measured, resumed=self._resumed)


def text(seconds: float, steps: int, measured: int, *, resumed: bool = False) -> str:
    """Returns the forecast of `seconds` for `steps`, from `measured` steps; above 24 hours with a line that has remedies."""
    size, unit = next(((s, u) for s, u in ((3600, "hours"), (60, "minutes")) if seconds >= 2 * s), (1, "seconds"))
    line = (
        f"About {rounded(seconds / size)} {unit} for the {'remaining ' if resumed else ''}{steps:,} steps, measured on "
        f"{measured:,} of them; evaluation is not included."
    )
    if seconds > LONG:
        line += (
            "\nWarning: more than 24 hours; train fewer epochs (--config.epochs=30, for example), start from a trained "
            "network (--config=configs/folder_pretrained.py, or init_from), or use an accelerator."
        )
    return line
