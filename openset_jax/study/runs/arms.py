"""The folder of an arm: claimed by one process at a time, finished or not, and read for the analysis."""

import contextlib
import fcntl
import json
import pathlib
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from openset_jax import config as configs
from openset_jax.errors import UserError
from openset_jax.files import write_whole
from openset_jax.study.runs import grid
from openset_jax.study.runs.grid import Arm
from openset_jax.study.stats.outcomes import DECISIONS, Outcome

OUTCOME = "outcome.npz"  # there when the arm is finished
EXPERIMENT = "experiment.json"  # in the experiment's folder: its config, and the fingerprint of its images


@contextlib.contextmanager
def claimed(folder: pathlib.Path, *, wait: bool = False) -> Iterator[bool]:
    """Whether this process alone works in a folder, which is made if need be; a process that ends lets go of it.

    Args:
      wait: until it does.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        yield True


def save_outcome(network: Any) -> None:
    """What an arm ends with instead of an evaluation: the outputs on validation and test images, whole or not at all.

    Args:
      network: an `evaluate.Network`.
    """
    from openset_jax import build
    from openset_jax.training import validation
    from openset_jax.data.pools import TEST

    pool, config, workdir = network.pool, network.config, network.workdir
    members = build.training_members(config, pool)
    negatives = members[pool.num_classes :]
    rows, logits = network.inference.logits(network.variables, pool.rows(TEST))
    validation_logits, validation_label = validation.saved_outputs(workdir, network.step)
    about = {
        "objective": config.objective.name,
        "classes": list(pool.classes),
        "kinds": pool.kinds({"seen_negatives": "negatives", "unseen_unknowns": "unknown"}),
        "groups": list(pool.groups),
        "training_prior": list(map(float, network.training_prior)),
        "negatives": sum(map(len, negatives)),
        "class_sizes": [len(m) for m in members[: pool.num_classes]],
        "negative_groups": len({int(g) for m in negatives for g in np.unique(pool.group[m])}),
        "fingerprint": pool.fingerprint(),
    }
    with write_whole(workdir / OUTCOME, "wb") as file:
        np.savez(
            file, logits=logits, label=pool.label[rows], group=pool.group[rows], key=pool.key[rows],
            validation_logits=validation_logits, validation_label=validation_label, about=np.array(json.dumps(about)),
        )  # fmt: skip


def read_outcome(folder: pathlib.Path, arm: Arm, decision: Any) -> Outcome:
    """The outcome of a finished arm, with every answer that needs no training again.

    Args:
      decision: `config.decision`: the deployment's prior, costs and rule. Without a prior, all classes and "none" are
        alike.

    Raises:
      UserError: it cannot be read.
    """
    try:
        with np.load(folder / OUTCOME) as saved:
            arrays = {name: saved[name] for name in saved.files}
        return outcome(arm, arrays, json.loads(str(arrays["about"])), decision)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(
            f"--workdir: {folder / OUTCOME} is damaged, or of another version ({type(error).__name__}: {error}); remove it, "
            "and the arm is run again"
        ) from error


def read_outcomes(workdir: pathlib.Path) -> tuple[list[Outcome], list[Arm]]:
    """(the outcomes of all finished arms, the arms that are not) of an experiment, from its folder alone.

    Raises:
      UserError: the folder has no experiment, or an arm cannot be read.
    """
    path = workdir / EXPERIMENT
    try:
        config = configs.from_json(json.loads(path.read_text()))
        arms = grid.arms_of(config)
    except (OSError, ValueError, AttributeError, TypeError, KeyError) as error:
        raise UserError(
            f"--workdir: {path} does not say which arms there are ({type(error).__name__}: {error}); run the experiment's "
            "command again: finished arms are not run again"
        ) from error
    there = [arm for arm in arms if (workdir / "arms" / arm.name / OUTCOME).exists()]
    return [read_outcome(workdir / "arms" / arm.name, arm, config.run.decision) for arm in there], [
        arm for arm in arms if arm not in there
    ]


def outcome(arm: Arm, arrays: dict[str, np.ndarray], about: dict[str, Any], decision: Any) -> Outcome:
    """The outcome of outputs as `save_outcome` saves them."""
    from openset_jax.openset.decision import classifier, posterior
    from openset_jax.openset.losses import objectives
    from openset_jax.openset.scores import logit_scores
    from openset_jax.openset.decision import thresholds as decisions

    objective, classes = objectives.get(about["objective"]), tuple(about["classes"])
    k, logits, label = len(classes), arrays["logits"], arrays["label"]
    group = np.array(about["groups"], object)[arrays["group"]]
    training, everyone = np.array(about["training_prior"]), np.full(k + 1, 1 / (k + 1))
    deployment = decisions.deployment_prior(decisions.parse(decision.prior, "decision.prior"), classes, everyone)
    costs = decisions.cost_matrix(decisions.parse(decision.costs, "decision.costs"), classes)
    asked = {"training_prior": training, "prior": deployment, "costs": costs, "calibrate": decision.calibration}
    of_validation = arrays["validation_logits"], arrays["validation_label"]
    fit = lambda rule: classifier.fit(about["objective"], classes, *of_validation, rule=rule, **asked, resamples=0)
    rule = decisions.Rule(decision.rule, decision.get(decision.rule))
    scored = classifier.read(about["objective"], logits, label, group)
    own = scored.known_class if scored.answer is None else scored.answer
    answers = {"argmax": own, "rule": fit(rule).classify(logits, label, group)[0].decision}
    if (of_validation[1] == k).any():
        answers["least_cost"] = fit(decisions.Rule("least_cost", None)).classify(logits, label, group)[0].decision
    known = logits[:, :k].astype(np.float64)
    if objective.softmax:
        known = logit_scores.softmax(known)
        said, width = (logit_scores.softmax(logits.astype(np.float64)), k + 1) if objective.none_output else (known, k)
    else:
        said, width = posterior.from_sigmoids(logits), k + 1
        known = said[:, :k]
    mix = [prior[:width] / prior[:width].sum() for prior in (training, deployment)]
    if not ((mix[0] == 0) & (mix[1] > 0)).any():
        answers["prior"] = posterior.correct_prior(said, *mix).argmax(1)
    return Outcome(
        treatment=arm.treatment, seed=arm.seed, name=arm.name, objective=about["objective"], classes=classes,
        class_sizes=tuple(about["class_sizes"]),
        kinds=about["kinds"], negatives=about["negatives"], negative_groups=about["negative_groups"],
        deployment=deployment, costs=costs, key=arrays["key"], scored=scored,
        probabilities=known.astype(np.float32), decisions={name: answers[name] for name in DECISIONS if name in answers},
    )  # fmt: skip
