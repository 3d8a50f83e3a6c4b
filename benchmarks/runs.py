"""Runs that a study compares: the same config with some fields changed, several seeds of each, none trained twice."""

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from openset_jax.openset.metrics.intervals import Interval


def trained(config: Any, changes: Mapping[str, Any], *, seed: int, workdir: pathlib.Path) -> dict[str, Any]:
    """`metrics.json` of the config with these fields changed; trains, or resumes, unless the run is there to its end.

    Args:
      changes: names of fields with dots -> values.
      workdir: an absolute path, of this run alone.

    Raises:
      UserError: what `openset_jax.train.train` does; among it, that the folder has a run of another config.
    """
    import jax

    from openset_jax import auto
    from openset_jax import config as configs
    from openset_jax.train import train

    config = config.copy_and_resolve_references()
    with config.unlocked():
        config.update_from_flattened_dict({**changes, "seed": seed})
    config = auto.with_dtype_of_run(config, workdir)
    done, saved = workdir / "metrics.json", workdir / "config.json"
    if done.exists() and saved.exists() and json.loads(saved.read_text()) == configs.to_json(config):
        return json.loads(done.read_text())
    workdir.mkdir(parents=True, exist_ok=True)
    done.unlink(missing_ok=True)  # of another config: were this start interrupted, it would pass for its result
    result = train(config, workdir)
    jax.clear_caches()  # the programs of one run are of no use to the next, and hold its images
    return result


def over_seeds(values: Sequence[float]) -> Interval:
    """The mean over seeds, and its 95 % interval by Student's t: between networks, on the same test images.

    One seed tells nothing of another: its interval is (-inf, inf).
    """
    from scipy import stats

    mean, n = float(np.mean(values)), len(values)
    half = stats.t.ppf(0.975, n - 1) * np.std(values, ddof=1) / np.sqrt(n) if n > 1 else np.inf
    return Interval(mean, float(mean - half), float(mean + half))


def mean_text(values: Sequence[float | None], most: float = np.inf) -> str:
    """0.912 (0.905 to 0.919) of numbers from 0 to `most`; "-" where there are none."""
    if None in values:
        return "-"
    mean = over_seeds(values)
    return f"{mean.value:.3f} ({max(mean.low, 0):.3f} to {min(mean.high, most):.3f})"


def difference_text(values: Sequence[float | None], reference: Sequence[float | None]) -> str:
    """+0.012 (+0.002 to +0.022), of differences paired by seed."""
    if None in (*values, *reference):
        return "-"
    difference = over_seeds([a - b for a, b in zip(values, reference, strict=True)])
    return f"{difference.value:+.3f} ({difference.low:+.3f} to {difference.high:+.3f})"


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A table, the first row its head."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])
