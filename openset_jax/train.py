"""Trains a classifier that can also answer "none of these", evaluates it at the end, and resumes when called again.

python -m openset_jax.train --config=configs/digits.py --workdir=runs/digits
"""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from absl import flags

from openset_jax import cli, unattended

if TYPE_CHECKING:  # imported where they are used, so that --help answers at once
    from ml_collections import ConfigDict

    from openset_jax.spec import RunSpec
    from openset_jax.training.run_cache import RunCache
    from openset_jax.training.trained_network import TrainedNetwork

StopRequested = Callable[[], str]  # returns the reason to save and stop now, "" to continue


def define_flags() -> None:
    """Defines the command's flags."""
    cli.define_config()
    flags.DEFINE_string("workdir", None, "Folder of the run; if it has a checkpoint, the run is resumed.", required=True)
    flags.DEFINE_string("coordinator", "", 'For several processes: HOST:PORT of process 0, or "auto".')
    flags.DEFINE_integer("process_id", None, "For several processes: the index of this process, from 0.")
    flags.DEFINE_integer("num_processes", None, "For several processes: their number.")


def main() -> None:
    """Runs the command."""
    from openset_jax.platforms import xla
    from openset_jax.training import hosts

    workdir = cli.make_workdir(flags.FLAGS.workdir)
    xla.cache_compilations()
    hosts.connect(flags.FLAGS.coordinator, flags.FLAGS.process_id, flags.FLAGS.num_processes)
    xla.check_platform()
    with unattended.stop_on_signal() as stop_requested:
        train(flags.FLAGS.config, workdir, stop_requested)


def train(
    config: ConfigDict, workdir: pathlib.Path, stop_requested: StopRequested = lambda: "", cache: RunCache | None = None
) -> dict[str, Any]:
    """Trains and evaluates a run, or resumes it in its workdir, an absolute path; returns its `metrics.json`.

    Raises UserError if the config, data or workdir must be changed, or another process writes the workdir; Stopped after a
    signal, when the state is saved.
    """
    from openset_jax import config as configs
    from openset_jax import evaluate
    from openset_jax.training import checkpoints, hosts, run_cache, run_length, run_setup, vector_size

    with hosts.claimed(workdir):
        dtype = checkpoints.saved_dtype(workdir, workdir / configs.FIRST_PHASE)
        cache = cache or run_cache.RunCache()
        config = run_length.with_steps(vector_size.with_vector_size(config, cache), cache)
        phases = configs.resolve(config, workdir, dtype=dtype)
        run_setup.check_workdir(workdir, phases)
        return evaluate.evaluate(fit(phases, stop_requested, cache))


def fit(phases: Sequence[RunSpec], stop_requested: StopRequested, cache: RunCache) -> TrainedNetwork:
    """Trains the phases of a run that are not finished; returns the network of the last one."""
    from openset_jax.training import checkpoints
    from openset_jax.training.run_log import say
    from openset_jax.training.training_loop import train_alone

    *earlier, last = phases
    for spec in earlier:
        if checkpoints.latest_step(last.workdir) is None and checkpoints.latest_step(spec.workdir) != spec.program.steps:
            say(f"First of two phases: {spec.program.steps} steps, policy {spec.sampling.policy}, trainable=all.")
            train_alone(spec, stop_requested, cache)
        say(f"Second of two phases: {last.program.steps} steps, policy natural, trainable={last.program.trainable}.")
    return train_alone(last, stop_requested, cache)


if __name__ == "__main__":
    cli.run(main, define_flags)
