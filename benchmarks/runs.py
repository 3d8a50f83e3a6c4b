"""The runs of a study: one config with some fields changed, several seeds each; finished runs are not trained again."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from openset_jax.openset.metrics.intervals import Interval

if TYPE_CHECKING:  # the commands that import this answer --help at once
    import ml_collections


def trained(
    config: ml_collections.ConfigDict, changes: Mapping[str, Any], *, seed: int, workdir: pathlib.Path
) -> dict[str, Any]:
    """Trains the config with some fields changed, unless the run is finished; returns its `metrics.json`.

    Args:
      changes: names of fields with dots -> values.
      workdir: absolute path of the run's folder.

    Raises:
      UserError: see `openset_jax.train.train`; for example, the folder has a run of another config.
    """
    import jax

    from openset_jax import config as configs
    from openset_jax.train import train
    from openset_jax.training import checkpoints, run_cache, run_length

    config = config.copy_and_resolve_references()
    with config.unlocked():
        config.update_from_flattened_dict({**changes, "seed": seed})
    config = run_length.with_steps(config, run_cache.RunCache())
    dtype = checkpoints.saved_dtype(workdir, workdir / configs.FIRST_PHASE)
    spec = configs.resolve(config, workdir, dtype=dtype)[-1]
    metrics, saved = workdir / "metrics.json", workdir / "config.json"
    if metrics.exists() and saved.exists() and json.loads(saved.read_text()) == spec.record:
        return json.loads(metrics.read_text())
    workdir.mkdir(parents=True, exist_ok=True)
    metrics.unlink(missing_ok=True)  # of another config; it must not remain if this start is interrupted
    result = train(config, workdir)
    jax.clear_caches()  # the programs of this run hold its images, and the next run does not use them
    return result


def over_seeds(values: Sequence[float]) -> Interval:
    """The mean over seeds, and its 95 % interval (Student's t) for other seeds on the same test images.

    With one seed the interval is (-inf, inf).
    """
    from scipy import stats

    mean, n = float(np.mean(values)), len(values)
    half = stats.t.ppf(0.975, n - 1) * np.std(values, ddof=1) / np.sqrt(n) if n > 1 else np.inf
    return Interval(mean, float(mean - half), float(mean + half))


def mean_text(values: Sequence[float | None], most: float = np.inf) -> str:
    """The mean as text: 0.912 (0.905 to 0.919); "-" if a value is None.

    Args:
      values: numbers from 0 to `most`, to which the interval is clipped.
    """
    if None in values:
        return "-"
    mean = over_seeds([value for value in values if value is not None])
    return f"{mean.value:.3f} ({max(mean.low, 0):.3f} to {min(mean.high, most):.3f})"


def difference_text(values: Sequence[float | None], reference: Sequence[float | None]) -> str:
    """The mean difference, paired by seed, as text: +0.012 (+0.002 to +0.022); "-" if a value is None."""
    pairs = [(a, b) for a, b in zip(values, reference, strict=True) if a is not None and b is not None]
    if len(pairs) < len(values):
        return "-"
    difference = over_seeds([a - b for a, b in pairs])
    return f"{difference.value:+.3f} ({difference.low:+.3f} to {difference.high:+.3f})"


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown: the first row is the header."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])
