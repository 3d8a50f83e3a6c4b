"""Saves and restores the last and the best step of a run, completely or not at all. Only this module uses Orbax.

A checkpoint has three items: "model" (parameters and batch statistics, all that evaluation needs), "optimizer" (step and
optimizer state), and "meta" (JSON: the record of `run_record`, and `Progress`).
"""

import contextlib
import json
import pathlib
import re
import shutil
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from openset_jax.errors import UserError
from openset_jax.training import devices
from openset_jax.training.state import TrainState, Variables

ITEMS = ("model", "optimizer", "meta")


class _LastAndBest(ocp.checkpoint_managers.PreservationPolicy):
    """Keeps the newest checkpoint, and the one at `best`."""

    best: int | None = None

    def should_preserve(self, checkpoints, *, context):
        return [c.step == self.best or c is checkpoints[-1] for c in checkpoints]


class Checkpoints:
    """The checkpoints of one workdir, in its folder `checkpoints`.

    Args:
      writing: True for a training run; then incomplete checkpoints of a killed process are removed.

    Raises:
      UserError: the path of the workdir is not valid UTF-8.
    """

    def __init__(self, workdir: pathlib.Path, *, writing: bool):
        self._directory = workdir.resolve() / "checkpoints"
        try:
            str(self._directory).encode("utf-8")  # which TensorStore needs when it saves the first checkpoint
        except UnicodeEncodeError as error:
            what = "is not valid UTF-8 in this locale, but checkpoints need it"
            raise UserError(f"--workdir: {str(workdir)!r} {what}; use another folder") from error
        if writing and jax.process_index() == 0:
            _remove_leftovers(self._directory)
        self._policy, standard = _LastAndBest(), ocp.StandardCheckpointHandler
        handlers = {"model": standard(), "optimizer": standard(), "meta": ocp.JsonCheckpointHandler()}
        options = ocp.CheckpointManagerOptions(preservation_policy=self._policy, create=writing)
        self._manager = ocp.CheckpointManager(self._directory, item_handlers=handlers, options=options)

    def steps(self) -> list[int]:
        """Returns the steps that have a complete checkpoint, ascending."""
        return _complete_steps(self._directory)

    def latest_step(self) -> int | None:
        """Returns the newest step that has a complete checkpoint; None without checkpoints."""
        return max(self.steps(), default=None)

    def save(self, step: int, state: TrainState, record: Mapping[str, Any], *, best: int | None) -> None:
        """Saves a copy of the state in the background, so that the next step may donate it; keeps only `step` and `best`."""
        self._policy.best = best
        state = devices.to_global(state)
        items = ocp.args.Composite(
            model=ocp.args.StandardSave(state.variables),
            optimizer=ocp.args.StandardSave({"step": state.step, "opt_state": state.opt_state}),
            meta=ocp.args.JsonSave(json.loads(json.dumps(record))),  # a copy: a thread writes it later
        )
        if not self._manager.save(step, args=items):
            raise RuntimeError(f"the checkpoint of step {step} was not written: {self._directory} has {self.latest_step()}")

    def record(self, step: int) -> dict[str, Any]:
        """The JSON part of a checkpoint: the record of `run_record`, and "progress"."""
        return self._read(step, meta=ocp.args.JsonRestore())["meta"]

    def restore(self, step: int, like: TrainState) -> TrainState:
        """The whole state on the host, as NumPy arrays; `like` is a state of the same shapes and dtypes."""
        optimizer = _on_host({"step": like.step, "opt_state": like.opt_state})
        restored = self._read(step, model=_on_host(like.variables), optimizer=optimizer)
        return TrainState(**restored["model"], **restored["optimizer"])

    def restore_model(self, step: int, like: Variables) -> Variables:
        """Parameters and batch statistics on the host."""
        return self._read(step, model=_on_host(like))["model"]

    def _read(self, step, **items):
        """Reads items of a checkpoint; raises UserError if one of its files is missing or damaged."""
        try:
            return self._manager.restore(step, args=ocp.args.Composite(**items))
        except (OSError, ValueError, KeyError) as error:
            why = (str(error).splitlines() or [""])[0][:200]
            raise UserError(
                f"--workdir: the checkpoint of step {step} in {str(self._directory)!r} is damaged "
                f"({type(error).__name__}: {why}); restore the folder from a copy, or train again in a new --workdir"
            ) from error

    def wait(self) -> None:
        """Waits until all checkpoints are written; raises errors of the background thread."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits, and releases the folder."""
        self._manager.close()


def open_checkpoints(workdir: pathlib.Path) -> Checkpoints:
    """Opens the checkpoints of a run for reading; raises UserError if there are none."""
    if not (workdir / "checkpoints").is_dir():
        raise UserError(f"--workdir: {str(workdir)!r} has no checkpoints; train first: python -m openset_jax.train")
    checkpoints = Checkpoints(workdir, writing=False)
    if not checkpoints.steps():
        raise UserError(f"--workdir: {str(workdir / 'checkpoints')!r} has no complete checkpoint")
    return checkpoints


def latest_step(workdir: pathlib.Path) -> int | None:
    """Returns the newest step of a workdir that has a complete checkpoint; None without checkpoints."""
    return max(_complete_steps(workdir / "checkpoints"), default=None)


def saved_dtype(*workdirs: pathlib.Path) -> str | None:
    """The dtype of the computation in the first of these workdirs that has a checkpoint; None if none has."""
    for workdir in workdirs:
        if (step := latest_step(workdir)) is not None:
            with contextlib.closing(open_checkpoints(workdir)) as checkpoints:
                return checkpoints.record(step)["config"]["model"]["dtype"]
    return None


def _complete_steps(directory: pathlib.Path) -> list[int]:
    return sorted(int(folder.name) for folder in directory.glob("*") if _is_complete(folder))


def _remove_leftovers(directory: pathlib.Path) -> None:
    """Removes incomplete checkpoints; raises UserError for other folders that have a number as their name."""
    for folder in directory.glob("*"):
        if re.fullmatch(r"\d+\.orbax-checkpoint-tmp.*", folder.name):
            shutil.rmtree(folder)
        elif folder.name.isdigit() and not _is_complete(folder):
            if not {entry.name for entry in folder.iterdir()} <= {*ITEMS, "commit_success.txt"}:
                raise UserError(f"--workdir: {str(folder)!r} is not a checkpoint of this program; use another --workdir")
            shutil.rmtree(folder)


def _is_complete(folder: pathlib.Path) -> bool:
    """True for a complete checkpoint, whose folder Orbax has renamed to its step."""
    return folder.name.isdigit() and (folder / "_CHECKPOINT_METADATA").exists()


def _on_host(like: Any) -> ocp.args.StandardRestore:
    """Restores a tree as NumPy arrays of these shapes and dtypes."""
    return ocp.args.StandardRestore(jax.tree.map(lambda x: np.empty(x.shape, x.dtype), like))
