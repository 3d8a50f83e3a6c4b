"""Is correcting the prior as good as training in the mix of the deployment? Both, beside doing nothing, on real images.

    python -m benchmarks.deployment --config=configs/fashion_open.py --config.data.tfds_data_dir=TFDS --out=DIR

Why: where a classifier is used, "none of these" comes more or less often than in training. Each seed trains the config once,
and once more in each mix (sampling.policy=negative_fraction). Then the test images of the knowns and of one kind of "none"
are weighted to the mix, knowns among themselves as in the first training, and three classifiers answer them, each with its
threshold chosen on validation images for the least expected cost, with the costs of the config:

    as trained          believes that the mix is that of training
    corrected           the same network, its posterior and its threshold corrected to the mix
    trained in the mix  another network

Prints a table: expected cost (seen negatives; unseen unknowns), ECE, NLL, means over seeds with 95 % intervals (Student's
t), and differences to the third, paired by seed; writes it to DIR/deployment.md, and the numbers to DIR/deployment.json.
"""

import json
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
from absl import flags

from benchmarks import runs
from openset_jax import cli
from openset_jax.errors import UserError

WAYS = ("as trained", "corrected", "trained in the mix")
COLUMNS = {
    "cost_seen": "expected cost, seen",
    "cost_unseen": "expected cost, unseen",
    "expected_calibration_error": "ECE",
    "negative_log_likelihood": "NLL, nats",
}


def define_flags() -> None:
    cli.define_config()
    flags.DEFINE_string("out", None, "Folder of the runs; those that are there are not trained again.", required=True)
    flags.DEFINE_integer("seeds", 3, "Seeds of each: 0, 1, ...", lower_bound=1)
    flags.DEFINE_list("none", ["0.05", "0.9"], 'Shares of "none" in the deployment.')


def main() -> None:
    from openset_jax.openset.losses import objectives

    config, out = flags.FLAGS.config, cli.make_workdir(flags.FLAGS.out)
    mixes = [_share(text) for text in flags.FLAGS.none]
    if not objectives.get(config.objective.name).uses_negatives:
        raise UserError(f"objective.name: {config.objective.name} trains on no negatives, in whatever mix")
    found = {mix: {way: [] for way in WAYS} for mix in mixes}
    for seed in range(flags.FLAGS.seeds):
        natural = _train(config, {}, seed, out / f"{config.objective.name}-{seed}")
        for mix in mixes:
            changes = {"sampling.policy": "negative_fraction", "sampling.negative_fraction": mix}
            there = _train(config, changes, seed, out / f"{config.objective.name}_none_{mix:g}-{seed}")
            for way, (network, believed) in zip(WAYS, ((natural, None), (natural, mix), (there, mix)), strict=True):
                found[mix][way].append(network.deployed(believed=believed, mix=mix, shares=natural.prior))
    write(out, found)


def _share(text):
    try:
        if 0 < float(text) < 1:
            return float(text)
    except ValueError:
        pass
    raise UserError(f"--none: {text!r} is not a share between 0 and 1")


def _train(config, changes, seed, workdir):
    runs.trained(config, changes, seed=seed, workdir=workdir)
    return Network(workdir)


class Network:
    """A trained run's outputs on its validation and test images.

    Args:
      workdir: of the run.
    """

    def __init__(self, workdir: pathlib.Path):
        from openset_jax import evaluate
        from openset_jax.data.pools import TEST
        from openset_jax.training import validation
        from openset_jax.training.restore import restore

        self._run = restore(workdir)
        self._pool, inference = evaluate.open_images(self._run)
        self._validation = validation.outputs(self._pool, validation.look(self._pool, inference, self._run.variables))
        self._rows, self._test = inference.logits(self._run.variables, self._pool.rows(TEST))

    @property
    def prior(self) -> list[float]:
        """[K + 1], the effective prior of training."""
        return self._run.meta["prior"]

    def deployed(self, *, believed: float | None, mix: float, shares: Sequence[float]) -> dict[str, float]:
        """Expected costs and calibration in a deployment.

        Args:
          believed: the share of "none" that the classifier is fitted for; None for that of training.
          mix: the share that there is.
          shares: [K + 1]; known classes come in proportion to these.
        """
        from openset_jax import build
        from openset_jax.openset.decision import calibration, classifier, thresholds
        from openset_jax.openset.metrics import calibration_error, intervals

        run, k = self._run, self._pool.num_classes
        prior = lambda none: thresholds.deployment_prior({"none": none}, run.classes, shares)
        asked = build.make_decision(run.config, run.classes, self.prior) | {"rule": thresholds.Rule("least_cost", None)}
        asked["prior"] = np.asarray(self.prior) if believed is None else prior(believed)
        fitted = classifier.fit(
            run.config.objective.name, run.classes, *self._validation, training_prior=self.prior, **asked
        )
        label = self._pool.label[self._rows]
        scored, posterior = fitted.classify(self._test, label, self._pool.group_names(self._rows))
        confusion = lambda none: np.array(
            [np.bincount(scored.decision[label == truth], minlength=k + 1) for truth in [*range(k), none]]
        )
        costs = {
            name: intervals.expected_cost(confusion(none), fitted.costs, prior(mix))
            for name, none in (("cost_seen", -1), ("cost_unseen", -2))
        }
        seen = label > -2
        truth = np.where(label < 0, k, label)[seen]
        weight = calibration.mix_weights(truth, prior(mix))
        measures = {name: getattr(calibration_error, name) for name in COLUMNS if not name.startswith("cost")}
        return {name: None if cost is None else cost.value for name, cost in costs.items()} | {
            name: measure(posterior[seen], truth, weight=weight) for name, measure in measures.items()
        }


def write(out: pathlib.Path, found: Mapping[float, Mapping[str, Sequence[Mapping[str, float]]]]) -> None:
    """Prints and writes the tables of all seeds of all ways of all mixes."""
    (out / "deployment.json").write_text(json.dumps(found, indent=2) + "\n")
    rows = [["none in the deployment", "classifier", *COLUMNS.values()]]
    differences = [["none in the deployment", f"less `{WAYS[-1]}`", *COLUMNS.values()]]
    for mix, ways in found.items():
        column = lambda way, name, ways=ways: [result[name] for result in ways[way]]
        for way in WAYS:
            rows.append([f"{mix:.0%}", way, *(runs.mean_text(column(way, name)) for name in COLUMNS)])
        for way in WAYS[:-1]:
            pairs = (runs.difference_text(column(way, name), column(WAYS[-1], name)) for name in COLUMNS)
            differences.append([f"{mix:.0%}", way, *pairs])
    text = runs.markdown(rows) + "\n\n" + runs.markdown(differences) + "\n"
    (out / "deployment.md").write_text(text)
    print(text)


if __name__ == "__main__":
    cli.run(main, define_flags)
