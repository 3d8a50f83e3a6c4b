"""Divides the time of `benchmarks.suite` among its jobs."""

import math
import time
from collections.abc import Callable

from benchmarks.jobs import Job

JOB_SECONDS = 1800.0  # the limit of a job if the suite has no limit
END_SECONDS = 3.0  # reserved for writing the results


class Clock:
    """The time of a suite, from the creation of this object.

    Args:
      minutes: for all jobs together; 0 for no limit.
      now: returns the time in seconds.
    """

    def __init__(self, minutes: float, now: Callable[[], float] = time.monotonic):
        self._now, self.start, self.minutes = now, now(), minutes
        self._end = self.start + 60 * minutes - END_SECONDS if minutes else math.inf

    def seconds(self) -> float:
        """Seconds since the start."""
        return self._now() - self.start

    def left(self) -> float:
        """Seconds left for this job and all later ones."""
        return max(self._end - self._now(), 0.0)

    def limit(self, job: Job, later: float) -> float:
        """Seconds for a job: its share of the time left, and at least `job.least`; 0 if less than that is left.

        Args:
          later: the sum of the shares of all later jobs.
        """
        if not self.minutes:
            return JOB_SECONDS
        left, share = self.left(), job.share + later
        if left < job.least:
            return 0.0
        return min(left, max(job.least, left * job.share / share if share else left))
