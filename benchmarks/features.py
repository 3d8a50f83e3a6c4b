"""A network for vectors beside logistic regression on the same split: known accuracy, both AUROCs, and seconds.

    python -m benchmarks.features --config=configs/features.py --config.data.root=ROOT

Why: scikit-learn's logistic regression is the first thing to try on vectors, and a head that is worse than it has a
fault. Each seed is a process of `openset_jax.train`, timed from the command to the report. The regression (C=1) is
fitted twice: on the K known classes, where the score is the energy, and with the negatives as one more class, where it
is the log-odds of "none". It has no seed. Prints a table. The intervals, of 95 %, are Student's t over seeds for our means;
over test images for the regressions; and bootstrapped over test images, the same ones for both, for the differences.
"""

import os
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from absl import flags

from benchmarks import hardware, outputs, runs
from openset_jax import cli
from openset_jax.data.pools import NEGATIVE, TEST, TRAIN, UNKNOWN, Pool
from openset_jax.errors import UserError
from openset_jax.openset.metrics import intervals, ranking
from openset_jax.openset.metrics.intervals import Interval
from openset_jax.openset.scored import Scored

OURS, K_CLASSES, WITH_NONE = "openset_jax", "regression, K classes", "regression, K + 1 classes"
LABELS = {"AUROC, seen": NEGATIVE, "AUROC, unseen": UNKNOWN}
ITERATIONS = 2_000  # most of a regression


def define_flags() -> None:
    """Defines the command's flags."""
    cli.define_config()
    flags.DEFINE_integer("seeds", 3, "Number of seeds: 0, 1, ...", lower_bound=1)
    flags.DEFINE_integer("resamples", 1_000, "Bootstrap resamples of the differences.", lower_bound=10)
    flags.DEFINE_string("json", "", "File to write the result to.")


def main() -> None:
    """Runs the command."""
    args, file = flags.FLAGS, outputs.json_file(flags.FLAGS.json)
    config = [word for word in sys.argv[1:] if word.startswith("--config")]
    machine = hardware.describe()
    hardware.print_description(machine)
    with tempfile.TemporaryDirectory() as scratch:
        workdirs = [pathlib.Path(scratch, str(seed)) for seed in range(args.seeds)]
        costs = {OURS: [train([*config, f"--config.seed={seed}"], workdir) for seed, workdir in enumerate(workdirs)]}
        pool, ours = answers(workdirs)
    models = {OURS: ours}
    for name, with_none in ((K_CLASSES, False), (WITH_NONE, True)):
        start = time.perf_counter()
        models[name] = [regression(pool, with_none=with_none)]
        costs[name] = [{"seconds": time.perf_counter() - start}]
    compared = compare(models, resamples=args.resamples)
    text = report(compared, costs)
    print(text)
    outputs.write_json(file, {"models": compared, "costs": costs, "config": config, "machine": machine})


def train(config: Sequence[str], workdir: pathlib.Path) -> dict[str, float]:
    """Runs the train command; returns its "seconds" to the report and the "peak_bytes" of its resident memory.

    Raises:
      UserError: it failed; the message has its last line.
    """
    start, log = time.perf_counter(), workdir.with_suffix(".log")
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "openset_jax.train", f"--workdir={workdir}", *config],
            stdout=output, stderr=subprocess.STDOUT,
        )  # fmt: skip
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise UserError(f"openset_jax.train ended with exit code {process.returncode}: {log.read_text().splitlines()[-1:]}")
    unit = 1 if sys.platform == "darwin" else 1024
    return {"seconds": time.perf_counter() - start, "peak_bytes": unit * usage.ru_maxrss}


def answers(workdirs: Sequence[pathlib.Path]) -> tuple[Pool, list[Scored]]:
    """The pool of runs of one config, and the predictions of each run for its test images."""
    from openset_jax import evaluate
    from openset_jax.openset.decision import classifier
    from openset_jax.training.restore import restore
    from openset_jax.training.run_cache import RunCache

    cache, found = RunCache(), []
    for workdir in workdirs:
        network = evaluate.with_images(restore(workdir), cache)
        rows, logits = network.inference.logits(network.variables, network.pool.rows(TEST))
        label, groups = network.pool.label[rows], network.pool.group_names(rows)
        found.append(classifier.interpret(network.spec.objective, logits, label, groups))
    return network.pool, found


def regression(pool: Pool, *, with_none: bool) -> Scored:
    """The predictions for the test images of a logistic regression on the training images (scikit-learn, C=1).

    Args:
      pool: of vectors.
      with_none: whether the negatives are class K; otherwise they are left out.
    """
    from sklearn.linear_model import LogisticRegression

    from openset_jax.data import packed
    from openset_jax.openset.decision import classifier
    from openset_jax.openset.losses import objectives
    from openset_jax.openset.scores import logit_scores

    k, rows, test = pool.num_classes, pool.rows(TRAIN), pool.rows(TEST)
    label = np.where(pool.label < 0, k, pool.label)
    if with_none and not (label[rows] == k).any():
        raise UserError("--config: there are no negatives to train on, which the regression on K + 1 classes needs")
    rows = rows if with_none else rows[label[rows] < k]
    vectors = lambda chosen: packed.read(pool, chosen).astype(np.float32)
    fitted = LogisticRegression(max_iter=ITERATIONS).fit(vectors(rows), label[rows])
    logits = np.asarray(fitted.decision_function(vectors(test)), np.float64)
    if logits.ndim == 1:  # of two classes: the log-odds of the second
        logits = np.stack([np.zeros_like(logits), logits], axis=1)
    objective = objectives.get("background" if with_none else "softmax")
    if not with_none:
        objective = objective._replace(score=logit_scores.energy)
    return classifier.interpret(objective, logits, pool.label[test], pool.group_names(test))


def compare(models: Mapping[str, Sequence[Scored]], *, resamples: int) -> dict[str, dict[str, Any]]:
    """The figures of all models, and how much ours exceed those of the others.

    Args:
      models: name -> the predictions of each seed, of the same images. OURS is one of them.

    Returns:
      name -> "seeds": the figures of each seed, and for other models "difference": figure -> the interval of OURS less this
      model, means over seeds, bootstrapped over test images: knowns and each kind of others separately.
    """
    label, rng = models[OURS][0].label, np.random.default_rng(0)
    strata = [np.flatnonzero(label == kind) if kind < 0 else np.flatnonzero(label >= 0) for kind in (0, *LABELS.values())]
    draws = [np.arange(len(label))]  # first the images themselves
    draws += [np.concatenate([rng.choice(rows, len(rows)) for rows in strata if len(rows)]) for _ in range(resamples)]
    result = {name: {"seeds": [figures(one) for one in seeds]} for name, seeds in models.items()}
    means = {
        name: np.array([[[v.value for v in figures(one[rows]).values()] for one in seeds] for rows in draws]).mean(1)
        for name, seeds in models.items()
    }
    for name in models.keys() - {OURS}:
        value, *resampled = means[OURS] - means[name]
        low, high = np.quantile(resampled, [0.025, 0.975], axis=0)
        names = result[name]["seeds"][0]
        result[name]["difference"] = {n: Interval(*map(float, v)) for n, *v in zip(names, value, low, high, strict=True)}
    return result


def figures(scored: Scored) -> dict[str, Interval]:
    """The accuracy among the knowns, and the AUROC of each kind of others that has images."""
    known = scored[scored.label >= 0]
    found = {"known accuracy": intervals.proportion(int((known.known_class == known.label).sum()), len(known.label))}
    for name, label in LABELS.items():
        if (chosen := scored.label == label).any():
            found[name] = intervals.auroc(ranking.rank(known.score, scored.score[chosen]))
    return found


def report(compared: Mapping[str, Mapping[str, Any]], costs: Mapping[str, Sequence[Mapping[str, float]]]) -> str:
    """A table in Markdown of the results of `compare`, and the costs of each process or fit."""
    names, ours = list(compared[OURS]["seeds"][0]), compared[OURS]["seeds"]
    text = lambda v, sign="": f"{v.value:{sign}.3f} ({v.low:{sign}.3f} to {v.high:{sign}.3f})"
    span = lambda values, digits: " to ".join(dict.fromkeys(f"{v:,.{digits}f}" for v in (min(values), max(values))))
    seconds = {name: span([cost["seconds"] for cost in of_model], 1) for name, of_model in costs.items()}
    rows = [["", *names, "seconds"]]
    rows.append(
        [f"{OURS}, {len(ours)} seeds", *(runs.mean_text([s[n].value for s in ours], 1.0) for n in names), seconds[OURS]]
    )
    for name, found in compared.items():
        if name != OURS:
            rows.append([name, *(text(found["seeds"][0][n]) for n in names), seconds[name]])
            rows.append([f"{OURS} less {name}", *(text(found["difference"][n], "+") for n in names), ""])
    memory = span([cost["peak_bytes"] / 2**20 for cost in costs[OURS]], 0)
    return f"{runs.markdown(rows)}\n\n{OURS}: seconds from the command to the report, {memory} MiB of memory at its peak."


if __name__ == "__main__":
    cli.run(main, define_flags)
