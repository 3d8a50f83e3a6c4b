"""Restores a checkpoint, scores every test image, and measures how well knowns are classified and unknowns rejected.

python -m openset_jax.evaluate --workdir=runs/digits
"""

from __future__ import annotations

import dataclasses
import pathlib
from typing import TYPE_CHECKING, Any

from absl import flags

from openset_jax import cli
from openset_jax.errors import UserError

if TYPE_CHECKING:  # imported where they are used, so that --help answers at once
    from ml_collections import ConfigDict

    from openset_jax.training.restore import RestoredNetwork
    from openset_jax.training.run_cache import RunCache
    from openset_jax.training.trained_network import TrainedNetwork


def define_flags() -> None:
    """Defines the command's flags."""
    flags.DEFINE_string("workdir", None, "Folder of a training run.", required=True)
    flags.DEFINE_enum("checkpoint", "best", ["best", "last"], "Which checkpoint to evaluate.")
    fields = "`data`, `input` and `eval.compare_scores`"
    text = f"Config file, only needed if the images have moved since training: its {fields} replace those of the run."
    cli.define_config(required=False, help=text)


def main() -> None:
    """Runs the command."""
    from openset_jax.platforms import xla

    xla.check_platform()
    xla.cache_compilations()
    restore_and_evaluate(flags.FLAGS.workdir, best=flags.FLAGS.checkpoint == "best", data_config=flags.FLAGS.config)


def restore_and_evaluate(
    workdir: str | pathlib.Path, *, best: bool = True, data_config: ConfigDict | None = None, cache: RunCache | None = None
) -> dict[str, Any]:
    """Evaluates the best or the last checkpoint of a run on the devices of this process; returns `metrics.json`.

    Args:
      data_config: its `data`, `input` and `eval.compare_scores` replace those of the run; None to use the run's own.

    Raises:
      UserError: there is no checkpoint, the images differ from those of the run, or another process writes the workdir.
    """
    from openset_jax.training import checkpoints, hosts

    workdir = pathlib.Path(workdir).expanduser().resolve()
    checkpoints.check_there(workdir)
    with hosts.claimed(workdir):
        return _restore_and_evaluate(workdir, best, data_config, cache)


def _restore_and_evaluate(workdir, best, data_config, cache):
    from openset_jax import config as configs
    from openset_jax.report import console
    from openset_jax.training.restore import restore
    from openset_jax.training.run_log import say

    network = restore(workdir, best=best)
    if data_config is not None:
        spec, size = network.spec, network.spec.stored_size
        given = configs.resolve(data_config, spec.workdir)[-1]
        if (given.stored_size is None) != (size is None):
            kind = "vectors, as configs/features.py" if size is None else "images"
            raise UserError(f"--config: the run in {spec.workdir} takes other inputs; give a config for {kind}")
        if given.stored_size != size:
            raise UserError(f"data.stored_size: the run in {spec.workdir} has {size}; set it to {size} in --config")
        evaluation = dataclasses.replace(spec.evaluation, compare_scores=given.evaluation.compare_scores)
        spec = dataclasses.replace(spec, data=given.data, input=given.input, evaluation=evaluation)
        network = network._replace(spec=spec)
    trained = with_images(network, cache)
    say(console.pool_table(trained.pool))
    return evaluate(trained)


def with_images(network: RestoredNetwork, cache: RunCache | None = None) -> TrainedNetwork:
    """Opens the images of a restored run and reads its saved classifier.

    If that classifier belongs to another step or another `decision`, fits a new one; saves it if `network.is_best`.

    Raises:
      UserError: the images differ from those of the run.
    """
    import jax

    from openset_jax.training import divergence, run_record, saved_decision, validation
    from openset_jax.training.run_cache import RunCache
    from openset_jax.training.trained_network import TrainedNetwork

    spec, step, prior, cache = network.spec, network.step, network.training_prior, cache or RunCache()
    pool = cache.pool(spec)
    run_record.check_same_data(network.record, run_record.data_record(pool), spec.workdir)
    examples = cache.examples(spec, pool, jax.device_get(network.variables))
    inference = cache.inference(spec, pool, examples)
    classifier = saved_decision.read_if_current(spec, step)
    if classifier is None:
        with divergence.explained(spec, lambda: (step, network.variables)):
            outputs = validation.compute_outputs(pool, inference, network.variables)
        classifier = saved_decision.fit_and_save(spec, pool, outputs, training_prior=prior, step=step, save=network.is_best)
    return TrainedNetwork(spec, step, pool, inference, network.variables, classifier, prior)


def evaluate(network: TrainedNetwork) -> dict[str, Any]:
    """Tests a network, prints a table, and writes report.html, scores.csv and metrics.json, whose content it returns."""
    from openset_jax.report import console, run_files
    from openset_jax.training import divergence, measurement
    from openset_jax.training.run_log import say

    with divergence.explained(network.spec, lambda: (network.step, network.variables)):
        measured = measurement.measure(network)
    run_files.write(network, measured)
    say(console.result_table(measured.metrics))
    say(
        f"Written to {network.spec.workdir}: report.html (open it in a browser), metrics.json, scores.csv (one row per test "
        "image), decision.json (the threshold and how it was chosen), metrics.jsonl, config.json, checkpoints/"
    )
    return measured.metrics


if __name__ == "__main__":
    cli.run(main, define_flags)
