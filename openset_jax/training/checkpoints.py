"""Checkpoints: the last and the best step of a run, complete or absent. The one home of Orbax.

A checkpoint has three items: "model" (parameters and batch statistics: all that evaluation needs), "optimizer" (step and
optimizer state), and "meta" (JSON: config, class names, the pools' fingerprint, the effective prior, and `Progress`).
"""

import json
import pathlib
import re
import shutil
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from openset_jax.errors import UserError
from openset_jax.training import devices
from openset_jax.training.state import TrainState

ITEMS = ("model", "optimizer", "meta")


class _LastAndBest(ocp.checkpoint_managers.PreservationPolicy):
    """Keeps the newest checkpoint, and the one at `best`."""

    best: int | None = None

    def should_preserve(self, checkpoints, *, context):
        return [c.step == self.best or c is checkpoints[-1] for c in checkpoints]


class Checkpoints:
    """The checkpoints of one workdir.

    Args:
      workdir: of the run; checkpoints are in its folder `checkpoints`.
      writing: whether this process takes part in a training run, which alone may remove leftovers of a killed one.
    """

    def __init__(self, workdir: pathlib.Path, *, writing: bool):
        self._directory = workdir.resolve() / "checkpoints"
        if writing and jax.process_index() == 0:
            _remove_leftovers(self._directory)
        self._policy = _LastAndBest()
        self._manager = ocp.CheckpointManager(
            self._directory,
            item_names=ITEMS,
            item_handlers={
                "model": ocp.StandardCheckpointHandler(),
                "optimizer": ocp.StandardCheckpointHandler(),
                "meta": ocp.JsonCheckpointHandler(),
            },
            options=ocp.CheckpointManagerOptions(preservation_policy=self._policy, create=writing),
        )

    def steps(self) -> list[int]:
        """The complete steps, ascending."""
        return _complete_steps(self._directory)

    def latest(self) -> int | None:
        """The newest complete step, None without any."""
        return max(self.steps(), default=None)

    def save(self, step: int, state: TrainState, meta: dict[str, Any], *, best: int | None) -> None:
        """Saves in the background; what is neither the newest nor `best` is removed.

        The state is copied before this returns, so that the next step may consume it.
        """
        self._policy.best = best
        state = devices.to_global(state)
        saved = self._manager.save(
            step,
            args=ocp.args.Composite(
                model=ocp.args.StandardSave(state.variables),
                optimizer=ocp.args.StandardSave({"step": state.step, "opt_state": state.opt_state}),
                meta=ocp.args.JsonSave(json.loads(json.dumps(meta))),  # written later, in a thread: what it is now
            ),
        )
        if not saved:
            raise RuntimeError(f"the checkpoint of step {step} was not written: {self._directory} has {self.latest()}")

    def meta(self, step: int) -> dict[str, Any]:
        """The JSON part of a checkpoint."""
        return self._read(step, meta=ocp.args.JsonRestore())["meta"]

    def restore(self, step: int, like: TrainState) -> TrainState:
        """The whole state on the host, as NumPy arrays: whatever devices it was saved on, it can be put on any."""
        optimizer = {"step": like.step, "opt_state": like.opt_state}
        restored = self._read(
            step,
            model=ocp.args.StandardRestore(_on_host(like.variables)),
            optimizer=ocp.args.StandardRestore(_on_host(optimizer)),
        )
        return TrainState(**restored["model"], **restored["optimizer"])

    def restore_model(self, step: int, like: dict[str, Any]) -> dict[str, Any]:
        """Parameters and batch statistics on the host."""
        return self._read(step, model=ocp.args.StandardRestore(_on_host(like)))["model"]

    def _read(self, step, **items):
        """Items of a checkpoint.

        Raises:
          UserError: a file of it is missing, or is not what was written.
        """
        try:
            return self._manager.restore(step, args=ocp.args.Composite(**items))
        except (OSError, ValueError, KeyError) as error:
            why = (str(error).splitlines() or [""])[0][:200]
            raise UserError(
                f"--workdir: the checkpoint of step {step} in {str(self._directory)!r} is damaged, or of another version "
                f"({type(error).__name__}: {why}); copy it there again, or train again in another --workdir"
            ) from error

    def wait(self) -> None:
        """Returns when everything saved is on disk; raises what went wrong in the background."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits, and lets go of the folder."""
        self._manager.close()


def open_checkpoints(workdir: pathlib.Path) -> Checkpoints:
    """The checkpoints of a finished or running training, for reading.

    Raises:
      UserError: there are none.
    """
    if not (workdir / "checkpoints").is_dir():
        raise UserError(f"--workdir: {str(workdir)!r} has no checkpoints; train first: python -m openset_jax.train")
    checkpoints = Checkpoints(workdir, writing=False)
    if checkpoints.latest() is None:
        raise UserError(f"--workdir: {str(workdir / 'checkpoints')!r} has no complete checkpoint")
    return checkpoints


def latest_config(workdir: pathlib.Path) -> dict[str, Any] | None:
    """The config in the newest complete checkpoint of a workdir, None without any."""
    if not _complete_steps(workdir / "checkpoints"):
        return None
    checkpoints = open_checkpoints(workdir)
    config = checkpoints.meta(checkpoints.latest())["config"]
    checkpoints.close()
    return config


def _complete_steps(directory: pathlib.Path) -> list[int]:
    return sorted(s for s in map(_step_of, directory.glob("*")) if s is not None)


def _remove_leftovers(directory: pathlib.Path) -> None:
    """Removes what a killed save left; refuses a folder that would pass for a step, and is not ours to remove."""
    for folder in directory.glob("*"):
        if re.fullmatch(r"\d+\.orbax-checkpoint-tmp.*", folder.name):
            shutil.rmtree(folder)
        elif folder.name.isdigit() and _step_of(folder) is None:
            if not {entry.name for entry in folder.iterdir()} <= {*ITEMS, "commit_success.txt"}:
                raise UserError(f"--workdir: {str(folder)!r} is no checkpoint of this program; use another --workdir")
            shutil.rmtree(folder)


def _step_of(folder: pathlib.Path) -> int | None:
    """The step of a complete checkpoint: Orbax writes elsewhere and renames. Anything else is a leftover."""
    complete = folder.name.isdigit() and (folder / "_CHECKPOINT_METADATA").exists()
    return int(folder.name) if complete else None


def _on_host(tree: Any) -> Any:
    return jax.tree.map(lambda x: np.empty(x.shape, x.dtype), tree)
