"""The decision of a run on disk: the classifier in decision.json, and the validation outputs that it was fitted on."""

import dataclasses
import json
import pathlib
import zipfile
import zlib
from typing import NamedTuple

import numpy as np

from openset_jax.data.pools import Pool
from openset_jax.errors import UserError
from openset_jax.files import write_whole
from openset_jax.json_text import json_text
from openset_jax.openset import checks
from openset_jax.openset.decision import thresholds
from openset_jax.openset.decision.classifier import Classifier, fit
from openset_jax.spec import DecisionSpec, RunSpec
from openset_jax.training import hosts, validation
from openset_jax.training.run_log import say

DECISION, OUTPUTS = "decision.json", "validation.npz"  # in the workdir


class SavedDecision(NamedTuple):
    """A classifier, the step whose network it was fitted for, and the config's `decision` that it was fitted with."""

    step: int
    classifier: Classifier
    asked: DecisionSpec


def fit_and_save(
    spec: RunSpec, pool: Pool, outputs: validation.Outputs, *, training_prior: np.ndarray, step: int, save: bool = True
) -> Classifier:
    """Fits calibration and threshold on a network's outputs on the validation split.

    Args:
      training_prior: float [K + 1], the effective prior of training.
      save: whether to write the classifier and the validation outputs to the workdir.
    """
    logits, label = validation.decision_data(pool, outputs)
    options = spec.decision.resolve(pool.classes, training_prior)._asdict()
    options["resamples"] = min(thresholds.RESAMPLES, spec.evaluation.resamples)
    classifier = fit(spec.objective, pool.classes, logits, label, training_prior=training_prior, **options)
    if save and hosts.is_first_process():
        write(SavedDecision(step, classifier, spec.decision), logits, label, spec.workdir)
    return classifier


def write(decision: SavedDecision, logits: np.ndarray, label: np.ndarray, workdir: pathlib.Path) -> None:
    """Writes the files that `read` and `read_outputs` read."""
    step, classifier, asked = decision
    with write_whole(workdir / OUTPUTS, "wb") as file:
        np.savez(file, logits=logits, label=label, step=step)
    saved = {"step": step, "asked": dataclasses.asdict(asked), "classifier": classifier.to_json()}
    with write_whole(workdir / DECISION) as file:
        file.write(json_text(saved))


def read_if_current(spec: RunSpec, step: int) -> Classifier | None:
    """Returns the saved classifier; None if it is missing, or was fitted for another step or `decision`.

    None, too, if it is damaged, which is printed: `fit_and_save` then makes the same classifier again.
    """
    if not (spec.workdir / DECISION).exists():
        return None
    try:
        saved = read(spec.workdir)
    except UserError as error:
        say(f"Fitting the decision again: {str(error).removeprefix('--workdir: ')}")
        return None
    return saved.classifier if saved.step == step and saved.asked == spec.decision else None


def read(workdir: pathlib.Path) -> SavedDecision:
    """The saved decision of a run; raises UserError if decision.json is missing or damaged."""
    again = f"run python -m openset_jax.evaluate --workdir={workdir}"
    try:
        saved = json.loads((workdir / DECISION).read_text())
        return SavedDecision(
            checks.count(saved["step"], "step"), Classifier.from_json(saved["classifier"]), DecisionSpec(**saved["asked"])
        )
    except FileNotFoundError as error:
        raise UserError(f"--workdir: {workdir} has no {DECISION}, which training writes at its end; {again}") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, UserError) as error:
        raise UserError(
            f"--workdir: {workdir / DECISION} is damaged ({type(error).__name__}: {error}); to write it anew, {again}"
        ) from error


def read_outputs(workdir: pathlib.Path, step: int, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """(logits float32 [n, outputs], label int32 [n] in [0, K]) that the decision of this step was fitted on.

    Raises UserError if validation.npz is missing, damaged, or of another step.
    """
    try:
        with np.load(workdir / OUTPUTS) as saved:
            if (found := int(saved["step"])) != step:
                raise ValueError(f"it is of step {found}")
            logits, label = saved["logits"], saved["label"]
        checks.finite(logits, "logits", 2)
        checks.labels(label, len(logits), num_classes + 1)
        return logits, label
    except (OSError, ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(
            f"--workdir: {OUTPUTS} of step {step} is missing or damaged in {workdir} ({error}); delete {DECISION} in this "
            f"folder and run python -m openset_jax.evaluate --workdir={workdir}"
        ) from error
