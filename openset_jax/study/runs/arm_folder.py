"""The outputs of finished arms, in the folders of the arms."""

import json
import pathlib
import zipfile
import zlib

import numpy as np

from openset_jax import config_json
from openset_jax.config import EXPERIMENT
from openset_jax.data import training_set
from openset_jax.data.pools import TEST
from openset_jax.errors import UserError
from openset_jax.files import write_whole
from openset_jax.spec import DecisionSpec
from openset_jax.study.runs import step_cost
from openset_jax.study.runs.grid import Arm, arms_of
from openset_jax.study.runs.outcome import checked, outcome
from openset_jax.study.stats.arm_outcome import Outcome
from openset_jax.training import saved_decision
from openset_jax.training.run_cache import RunCache
from openset_jax.training.trained_network import TrainedNetwork

OUTCOME = "outcome.npz"  # exists if the arm is finished


def save_outcome(network: TrainedNetwork, cache: RunCache) -> None:
    """Saves the outputs of a finished arm on validation and test images, instead of an evaluation as of a single run.

    Args:
      cache: the one that the arm was trained with.
    """
    pool, spec = network.pool, network.spec
    uses_negatives = spec.objective.uses_negatives
    rows_by_class = training_set.training_rows(pool, spec.sampling, seed=spec.seed, uses_negatives=uses_negatives)
    negatives = rows_by_class[pool.num_classes :]
    rows, logits = network.inference.logits(network.variables, pool.rows(TEST))
    validation_logits, validation_label = saved_decision.read_outputs(spec.workdir, network.step, pool.num_classes)
    about = {
        "objective": spec.objective.name,
        "classes": list(pool.classes),
        "kinds": pool.kinds({"seen_negatives": "negatives", "unseen_unknowns": "unknown"}),
        "groups": list(pool.groups),
        "training": step_cost.training(spec, cache, network.inference.examples)._asdict(),
        "training_prior": list(map(float, network.training_prior)),
        "negatives": sum(map(len, negatives)),
        "class_sizes": [len(rows) for rows in rows_by_class[: pool.num_classes]],
        "negative_groups": len({int(g) for rows in negatives for g in np.unique(pool.group[rows])}),
    }
    with write_whole(spec.workdir / OUTCOME, "wb") as file:
        np.savez(
            file, logits=logits, label=pool.label[rows], group=pool.group[rows], key=pool.key[rows],
            validation_logits=validation_logits, validation_label=validation_label, about=np.array(json.dumps(about)),
        )  # fmt: skip


def read_outcome(folder: pathlib.Path, arm: Arm, decision: DecisionSpec) -> Outcome:
    """Reads the outcome of a finished arm, with all `DECISIONS` that its outputs allow.

    Args:
      decision: prior, costs and rule of the deployment. Without a prior, all classes and "none" are equally frequent.

    Raises:
      UserError: the file cannot be read, or the decision does not fit the classes.
    """
    try:
        with np.load(folder / OUTCOME) as saved:
            arrays = {name: saved[name] for name in saved.files}
        about = checked(arrays, json.loads(str(arrays["about"])))
    except (OSError, ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile, zlib.error, UserError) as error:
        raise UserError(
            f"--workdir: {folder / OUTCOME} is damaged ({type(error).__name__}: {error}); remove the file, and start "
            "the experiment again"
        ) from error
    return outcome(arm, arrays, about, decision)


def read_outcomes(workdir: pathlib.Path) -> tuple[list[Outcome], list[Arm]]:
    """Returns (outcomes of the finished arms, unfinished arms) of an experiment; reads only its folder.

    Raises:
      UserError: the folder has no experiment, or an arm cannot be read.
    """
    path = workdir / EXPERIMENT
    try:
        config = config_json.from_json(json.loads(path.read_text()))
        arms, decision = arms_of(config), DecisionSpec(**config.run.decision.to_dict())
    except (OSError, ValueError, AttributeError, TypeError, KeyError) as error:
        raise UserError(
            f"--workdir: {path} is missing or damaged ({type(error).__name__}: {error}); run the experiment's "
            "command again, which keeps finished arms"
        ) from error
    folder = {arm: workdir / "arms" / arm.name for arm in arms}
    done = [arm for arm in arms if (folder[arm] / OUTCOME).exists()]
    return [read_outcome(folder[arm], arm, decision) for arm in done], [arm for arm in arms if arm not in done]
