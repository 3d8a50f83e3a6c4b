"""Counts the programs that XLA compiles, and those that JAX reads from its compilation cache."""

from typing import ClassVar

import jax


class Compilations:
    """Compilations since the creation of this object."""

    _requests, _hits, _saved = "compile_requests_use_cache", "cache_hits", "compile_time_saved_sec"
    _seen: ClassVar[dict[str, float]] = {}  # since the first object of this process

    def __init__(self) -> None:
        if not self._seen:
            self._seen.update({self._requests: 0, self._hits: 0, self._saved: 0.0})
            count = lambda event, **_: self._add(event, 1)
            jax.monitoring.register_event_listener(count)
            jax.monitoring.register_event_duration_secs_listener(lambda event, seconds, **_: self._add(event, seconds))
        self._before = dict(self._seen)

    @property
    def cold(self) -> bool:
        """False if all programs came from the cache."""
        return self._since(self._requests) > self._since(self._hits) or not self._since(self._requests)

    @property
    def seconds_saved(self) -> float:
        """Seconds that the programs from the cache took to compile, minus the seconds of reading them."""
        return self._since(self._saved)

    def _since(self, name: str) -> float:
        return self._seen[name] - self._before[name]

    @classmethod
    def _add(cls, event: str, amount: float) -> None:
        name = event.rpartition("/")[2]
        if name in cls._seen:
            cls._seen[name] += amount
