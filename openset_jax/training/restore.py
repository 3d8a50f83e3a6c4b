"""Restores the network of a run from its checkpoint."""

import contextlib
import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from openset_jax import config as configs
from openset_jax import config_json
from openset_jax.errors import UserError
from openset_jax.model.network import Network
from openset_jax.spec import RunSpec
from openset_jax.training import checkpoints, devices, run_record, state
from openset_jax.training.run_log import say


class RestoredNetwork(NamedTuple):
    """A network read from a checkpoint, without its images."""

    spec: RunSpec  # of the last start; its evaluation batch size is rounded up to a multiple of the devices
    step: int
    is_best: bool  # whether `step` is the best step (the last if no evaluation had a value), which decision.json is for
    record: Mapping[str, Any]  # see `run_record`
    model: Network
    variables: state.Variables  # replicated

    @property
    def classes(self) -> tuple[str, ...]:
        """The K known classes."""
        return tuple(self.record["classes"])

    @property
    def training_prior(self) -> np.ndarray:
        """float64 [K + 1], the effective prior of training."""
        return np.asarray(self.record["prior"], np.float64)


def restore(workdir: str | pathlib.Path, *, step: int | None = None, best: bool = True) -> RestoredNetwork:
    """Reads the checkpoint of a step; None is the best step (`best`) or the last one (not `best`).

    If the last checkpoint is damaged, prints a warning, and takes the one before as the last.

    Raises UserError if the run has no checkpoint, no checkpoint of this step, or only damaged ones.
    """
    workdir = pathlib.Path(workdir).expanduser().resolve()
    with contextlib.closing(checkpoints.open_checkpoints(workdir)) as saved:
        try:
            _, network, warning = saved.newest(lambda last: _restore(workdir, saved, last, step, best))
        except checkpoints.Damaged as error:
            if saved.steps() == [error.step] or (step is None and not best):
                raise
            evaluate = f"python -m openset_jax.evaluate --workdir={workdir}"
            if error.step != saved.steps()[-1]:
                evaluate += " --checkpoint=last"
            raise UserError(f"--workdir: {error.args[0]}; to evaluate another step, run {evaluate}") from error
    say(warning)
    return network


def _restore(workdir, saved, last, step, best):
    record = saved.record(last)
    deployed = last if record["progress"]["best_step"] is None else record["progress"]["best_step"]
    step = step if step is not None else deployed if best else last
    if step not in saved.steps():
        there = ", ".join(map(str, saved.steps()))
        raise UserError(f"--workdir: {workdir} has no checkpoint of step {step}; it has {there}")
    config = config_json.from_json(run_record.config_as_last_started(record["config"], workdir))
    (spec,) = configs.resolve(config, workdir)
    batch_size = devices.padded_batch_size(spec.evaluation.batch_size)
    spec = dataclasses.replace(spec, evaluation=dataclasses.replace(spec.evaluation, batch_size=batch_size))
    model = spec.program.forward.network.make(len(record["classes"]) + spec.objective.none_output, axis_name=devices.AXIS)
    like = state.variables_shape(model, spec.inputs.shape)
    variables = devices.replicate(saved.restore_model(step, like))
    return RestoredNetwork(spec, step, step == deployed, record, model, variables)
