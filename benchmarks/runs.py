"""Runs that a study compares: the same config with some fields changed, several seeds of each, none trained twice."""

import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from openset_jax.openset.intervals import Interval


def trained(config: Any, changes: Mapping[str, Any], *, seed: int, workdir: pathlib.Path) -> dict[str, Any]:
    """`metrics.json` of the config with these fields changed; trains, or resumes, unless the run is there to its end.

    Args:
      changes: names of fields with dots -> values.
      workdir: an absolute path, of this run alone.

    Raises:
      UserError: what `openset_jax.train.train` does; among it, that the folder has a run of another config.
    """
    from openset_jax import config as configs
    from openset_jax.train import train

    config = config.copy_and_resolve_references()
    with config.unlocked():
        config.update_from_flattened_dict({**changes, "seed": seed})
    done, saved = workdir / "metrics.json", workdir / "config.json"
    if done.exists() and saved.exists() and json.loads(saved.read_text()) == configs.to_json(config):
        return json.loads(done.read_text())
    workdir.mkdir(parents=True, exist_ok=True)
    return train(config, workdir)


def over_seeds(values: Sequence[float], within: Callable[[Interval], Interval] = lambda interval: interval) -> Interval:
    """The mean over seeds, and its 95 % interval by Student's t: between networks, on the same test images.

    One seed tells nothing of another: its interval is (-inf, inf).

    Args:
      within: what the interval is cut to.
    """
    from scipy import stats

    mean, n = float(np.mean(values)), len(values)
    half = stats.t.ppf(0.975, n - 1) * np.std(values, ddof=1) / np.sqrt(n) if n > 1 else np.inf
    return within(Interval(mean, float(mean - half), float(mean + half)))


def share(interval: Interval) -> Interval:
    """An interval cut to [0, 1]."""
    return Interval(interval.value, max(interval.low, 0.0), min(interval.high, 1.0))


def text(interval: Interval, *, digits: int = 3, sign: bool = False) -> str:
    """0.912 (0.905 to 0.919)."""
    value, low, high = (f"{x:{'+' if sign else ''}.{digits}f}" for x in interval)
    return f"{value} ({low} to {high})"


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A table, the first row its head."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])
