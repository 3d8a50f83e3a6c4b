"""A trained network with its images and its classifier: the result of training, and the input of evaluation."""

from typing import NamedTuple

import numpy as np

from openset_jax.data.pools import Pool
from openset_jax.openset.decision.classifier import Classifier
from openset_jax.spec import RunSpec
from openset_jax.training import devices, saved_decision, validation
from openset_jax.training.checkpoints import Checkpoints
from openset_jax.training.inference import Inference
from openset_jax.training.progress import Progress
from openset_jax.training.run_log import say
from openset_jax.training.run_setup import Run
from openset_jax.training.state import Variables


class TrainedNetwork(NamedTuple):
    """A trained network with its images and its classifier."""

    spec: RunSpec
    step: int  # of the checkpoint
    pool: Pool
    inference: Inference
    variables: Variables  # replicated
    classifier: Classifier  # fitted on validation images
    training_prior: np.ndarray  # float64 [K + 1], the effective prior of training


def best_network(
    run: Run,
    inference: Inference,
    checkpoints: Checkpoints,
    progress: Progress,
    step: int,
    variables: Variables,
    outputs: validation.Outputs | None,
) -> TrainedNetwork:
    """Returns the network of the best step; fits its classifier on validation images and saves it.

    Args:
      step: the last one of the run.
      variables: of that step.
      outputs: validation outputs of the last evaluation; None if this process has not evaluated.
    """
    spec, metric, prior = run.spec, run.spec.stopping.metric, run.weights.effective_prior
    best = step if progress.best_step is None else progress.best_step
    if step < spec.program.steps:
        patience = spec.stopping.patience
        say(f"Stopped early: {patience} evaluations without {metric} above {progress.best_value} on validation.")
    say(f"Evaluating step {best}, which has the best validation {metric}.")
    if unreadable := inference.unreadable.rows:
        say(f"{len(unreadable)} unreadable images were skipped.")
    if best != step or outputs is None:
        variables = devices.replicate(checkpoints.restore_model(best, variables))
        outputs = validation.compute_outputs(run.pool, inference, variables)
    classifier = saved_decision.fit_and_save(spec, run.pool, outputs, training_prior=prior, step=best)
    return TrainedNetwork(spec, best, run.pool, inference, variables, classifier, prior)
