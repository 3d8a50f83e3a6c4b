"""Saves and restores the last and the best step of a run, completely or not at all. Only this module uses Orbax.

A checkpoint has three items: "model" (parameters and batch statistics, all that evaluation needs), "optimizer" (step and
optimizer state), and "meta" (JSON: the record of `run_record`, and `Progress`).
"""

import contextlib
import json
import logging
import os
import pathlib
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import jax
import numpy as np
import orbax.checkpoint as ocp

from openset_jax.errors import UserError
from openset_jax.files import sync, sync_tree
from openset_jax.training import devices, hosts
from openset_jax.training.state import TrainState, Variables

ITEMS = ("model", "optimizer", "meta")
T = TypeVar("T")

# Orbax's threads also log the errors, with tracebacks, that Orbax raises in this module.
for _name in ("absl", "asyncio"):
    logging.getLogger(_name).addFilter(
        lambda record: record.levelno < logging.ERROR or "orbax" not in record.pathname + record.getMessage()
    )


class Damaged(UserError):
    """A file of the checkpoint of `step` is missing or damaged; `args` is the clause that says which, and why."""

    def __init__(self, clause: str, step: int):
        super().__init__(clause)
        self.step = step

    def __str__(self) -> str:
        return f"--workdir: {self.args[0]}; restore the folder from a copy, or train again in a new --workdir"


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
        self._directory, self._writing = workdir.resolve() / "checkpoints", writing
        try:
            str(self._directory).encode("utf-8")  # which TensorStore needs when it saves the first checkpoint
        except UnicodeEncodeError as error:
            what = "is not valid UTF-8 in this locale, but checkpoints need it"
            raise UserError(f"--workdir: {str(workdir)!r} {what}; use another folder") from error
        if writing and jax.process_index() == 0:
            _remove_leftovers(self._directory)
        self._policy, standard = _LastAndBest(), ocp.StandardCheckpointHandler
        handlers = {"model": standard(), "optimizer": standard(), "meta": ocp.JsonCheckpointHandler()}
        options = ocp.CheckpointManagerOptions(
            preservation_policy=self._policy, create=writing,
            async_options=ocp.AsyncOptions(post_finalization_callback=self._sync_unfinished),
        )  # fmt: skip
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
        with _disk_errors(self._directory):
            saved = self._manager.save(step, args=items)
        if not saved:
            raise RuntimeError(f"the checkpoint of step {step} was not written: {self._directory} has {self.latest_step()}")

    def _sync_unfinished(self):
        """Puts a new checkpoint on the disk, before Orbax renames it to its step and removes older ones."""
        if hosts.is_first_process():
            for folder in self._directory.glob("*.orbax-checkpoint-tmp"):
                sync_tree(folder)
            if (log := self._directory.with_name("metrics.jsonl")).exists():
                sync(log)  # a resumed run keeps its lines up to this checkpoint

    def newest(self, read: Callable[[int], T]) -> tuple[int, T, str]:
        """(step, read(step), a sentence on damaged checkpoints or "") for the newest step for which `read` succeeds.

        Raises:
          Damaged: by `read`, for all steps.
        """
        damaged: list[Damaged] = []
        for step in reversed(self.steps()):
            try:
                found = read(step)
            except Damaged as error:
                damaged.append(error)
            else:
                return step, found, f"Warning: {damaged[0].args[0]}. Using that of step {step}." if damaged else ""
        raise damaged[0]

    def continue_from(self, step: int) -> None:
        """Renames the folders of later, damaged checkpoints to N.damaged, so that their steps can be saved again."""
        if hosts.is_first_process():
            for later in self.steps():
                if later > step:
                    shutil.rmtree(self._directory / f"{later}.damaged", ignore_errors=True)
                    (self._directory / str(later)).rename(self._directory / f"{later}.damaged")
        hosts.any_process(False, True)  # the other processes wait for the first
        self._manager.reload()

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
        """Reads items of a checkpoint; raises Damaged if one of its files is missing or damaged."""
        try:
            return self._manager.restore(step, args=ocp.args.Composite(**items))
        except (OSError, ValueError, KeyError) as error:
            why = (str(error).splitlines() or [""])[0][:200]
            where, why = f"the checkpoint of step {step} in {str(self._directory)!r}", f"({type(error).__name__}: {why})"
            if "permission denied" in str(error).lower():
                raise UserError(f"--workdir: {where} cannot be read {why}; change the permissions of its files") from error
            raise Damaged(f"{where} is damaged {why}", step) from error

    def wait(self) -> None:
        """Waits until all checkpoints are on the disk; raises errors of the background thread."""
        with _disk_errors(self._directory):
            self._manager.wait_until_finished()
            if self._writing:
                sync(self._directory)  # their names

    def close(self) -> None:
        """Waits, and releases the folder."""
        with _disk_errors(self._directory):
            self._manager.close()


def check_there(workdir: pathlib.Path) -> None:
    """Raises UserError if a workdir has no checkpoints."""
    if not (workdir / "checkpoints").is_dir():
        raise UserError(f"--workdir: {str(workdir)!r} has no checkpoints; train first: python -m openset_jax.train")
    if latest_step(workdir) is None:
        raise UserError(f"--workdir: {str(workdir / 'checkpoints')!r} has no complete checkpoint")


def open_checkpoints(workdir: pathlib.Path) -> Checkpoints:
    """Opens the checkpoints of a run for reading; raises UserError if there are none."""
    check_there(workdir)
    return Checkpoints(workdir, writing=False)


def latest_step(workdir: pathlib.Path) -> int | None:
    """Returns the newest step of a workdir that has a complete checkpoint; None without checkpoints."""
    return max(_complete_steps(workdir / "checkpoints"), default=None)


def saved_dtype(*workdirs: pathlib.Path) -> str | None:
    """The dtype of the computation in the first of these workdirs that has a checkpoint; None if none has."""
    for workdir in workdirs:
        if latest_step(workdir) is not None:
            with contextlib.closing(open_checkpoints(workdir)) as checkpoints:
                return checkpoints.newest(checkpoints.record)[1]["config"]["model"]["dtype"]
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


@contextlib.contextmanager
def _disk_errors(directory: pathlib.Path) -> Iterator[None]:
    """Turns the errors of TensorStore that come from the system into OSErrors."""
    try:
        yield
    except ValueError as error:
        if not (number := re.search(r"os_error_code='(\d+)'", str(error))):
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(directory)) from error


def _on_host(like: Any) -> ocp.args.StandardRestore:
    """Restores a tree as NumPy arrays of these shapes and dtypes."""
    return ocp.args.StandardRestore(jax.tree.map(lambda x: np.empty(x.shape, x.dtype), like))
