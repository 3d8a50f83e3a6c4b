"""Lines on how far a long pass over images, or the training of many arms, is."""

import time

from openset_jax.text import rounded
from openset_jax.training.run_log import say

_EVERY = 30.0  # seconds


class Pace:
    """Prints a line every half minute: the examples or steps that are done, their rate, and the seconds left.

    Args:
      what: the beginning of the line, as "features of the images:".
      count: the number of all of them.
    """

    def __init__(self, what: str, count: int):
        self._what, self._count = what, count
        self._started = self._said = time.monotonic()

    def at(self, done: int) -> None:
        """Prints the line if it is due, after `done` of them."""
        now = time.monotonic()
        if not 0 < done < self._count or now < self._said + _EVERY:
            return
        self._said, rate = now, done / (now - self._started)
        left = rounded((self._count - done) / rate)
        say(f"{self._what} {done:,}/{self._count:,}  {rounded(rate)}/s  {left} seconds left")
