"""Training in two phases: all layers on resampled data, then the last on the data as they are. Each phase is a run."""

import contextlib
import pathlib
from collections.abc import Callable
from typing import Any

import ml_collections

from openset_jax import build
from openset_jax.errors import UserError

FIRST = "first_phase"  # the folder of the first phase, in that of the run


def after_first(config: ml_collections.ConfigDict, workdir: pathlib.Path, train: Callable[..., Any]) -> Any:
    """The config of the second phase; the first is trained, in workdir/first_phase, unless that is done.

    Args:
      train: `train.train` of a config and a folder.
    """
    from openset_jax.training.checkpoints import Checkpoints
    from openset_jax.training.run_log import say

    folder = workdir / FIRST
    first, second = two_phases(config, folder)

    def latest(place):
        with contextlib.closing(Checkpoints(place, writing=True)) as checkpoints:
            return checkpoints.latest()

    if latest(workdir) is None and latest(folder) != first.steps:
        say(f"The first of two phases: {first.steps} steps, {first.sampling.policy}, all layers.")
        train(first, folder, finish=lambda network: None)
    say(f"The second of two phases: {second.steps} steps, natural, trainable={second.trainable}.")
    return second


def two_phases(config: ml_collections.ConfigDict, first_workdir: Any) -> tuple[Any, Any]:
    """The configs of the runs that sampling.policy=two_phase is: all layers on resampled data, then the last on natural.

    Buda, Maki and Mazurowski 2018 (arXiv 1710.05381, section 2.2.2) pre-train so, and fine-tune with a tenth of the learning
    rate. Both phases together have as many steps as any other run.

    Args:
      first_workdir: where the second begins.

    Raises:
      UserError: either phase could not be trained: said before the first is.
    """
    from openset_jax.data import sampler

    if (policy := config.sampling.first_policy) not in sampler.POLICIES:
        raise UserError(f"sampling.first_policy: {policy!r} is not one of {', '.join(sampler.POLICIES)}")
    build.make_model(config, 2)  # the first phase has another `trainable`, and would not see that this one cannot be
    if config.trainable == "all":
        raise UserError("trainable: with sampling.policy=two_phase the second phase trains the last layers: head or fc")
    calls = config.steps // config.steps_per_call
    if calls < 2:
        raise UserError(f"steps: {config.steps} are one call of steps_per_call, and sampling.policy=two_phase needs two")
    steps = min(max(round(config.sampling.first_share * calls), 1), calls - 1) * config.steps_per_call
    first, second = config.copy_and_resolve_references(), config.copy_and_resolve_references()
    first.trainable, first.sampling.policy, first.steps = "all", config.sampling.first_policy, steps
    second.sampling.policy, second.steps, second.init_from = "natural", config.steps - steps, str(first_workdir)
    second.optimizer.learning_rate = config.optimizer.learning_rate / 10
    return first, second
