"""Correcting the prior, compared with training in the mix of the deployment, and with doing nothing, on real images.

    python -m benchmarks.deployment --config=configs/fashion_open.py --config.data.tfds_data_dir=TFDS --out=DIR

Why: in a deployment "none of these" is more or less frequent than in training. Each seed trains the config once, and
once more in each mix (sampling.policy=negative_fraction). Then the test images of the knowns and of one kind of "none"
are weighted to the mix; the known classes keep their relative frequencies of the first training. Three classifiers
decide about them, each with the threshold of least expected cost on validation images, and with the costs of the
config:

    as trained          assumes the prior of training
    corrected           the same network, with posterior and threshold corrected to the mix
    trained in the mix  another network

Prints a table: expected cost (seen negatives; unseen unknowns), ECE, NLL, means over seeds with 95 % intervals (Student's
t), and differences from the third classifier, paired by seed. Writes it to DIR/deployment.md, and the numbers to
DIR/deployment.json.
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from absl import flags

from benchmarks import runs
from openset_jax import cli
from openset_jax.errors import UserError

if TYPE_CHECKING:  # imported where they are used, so that --help answers at once
    import ml_collections
    from numpy.typing import ArrayLike

WAYS = ("as trained", "corrected", "trained in the mix")
COLUMNS = {
    "cost_seen": "expected cost, seen",
    "cost_unseen": "expected cost, unseen",
    "expected_calibration_error": "ECE",
    "negative_log_likelihood": "NLL, nats",
}


def define_flags() -> None:
    """Defines the command's flags."""
    cli.define_config()
    flags.DEFINE_string("out", None, "Folder of the runs; finished runs are not trained again.", required=True)
    flags.DEFINE_integer("seeds", 3, "Number of seeds: 0, 1, ...", lower_bound=1)
    flags.DEFINE_list("none", ["0.05", "0.9"], 'Shares of "none" in the deployment.')


def main() -> None:
    """Runs the command."""
    from openset_jax.openset.losses import objectives

    config, out = flags.FLAGS.config, cli.make_workdir(flags.FLAGS.out)
    mixes = [_share(text) for text in flags.FLAGS.none]
    if not objectives.get(config.objective.name).uses_negatives:
        raise UserError(f"objective.name: {config.objective.name} does not train on negatives")
    found: dict[float, dict[str, list[dict[str, Any]]]] = {mix: {way: [] for way in WAYS} for mix in mixes}
    for seed in range(flags.FLAGS.seeds):
        natural = _train(config, {}, seed, out / f"{config.objective.name}-{seed}")
        for mix in mixes:
            changes = {"sampling.policy": "negative_fraction", "sampling.negative_fraction": mix}
            there = _train(config, changes, seed, out / f"{config.objective.name}_none_{mix:g}-{seed}")
            for way, (network, assumed) in zip(WAYS, ((natural, None), (natural, mix), (there, mix)), strict=True):
                found[mix][way].append(network.deployed(assumed=assumed, mix=mix, shares=natural.prior))
    write(out, found)


def _share(text: str) -> float:
    try:
        if 0 < float(text) < 1:
            return float(text)
    except ValueError:
        pass
    raise UserError(f"--none: {text!r} is not a share between 0 and 1")


def _train(config: ml_collections.ConfigDict, changes: Mapping[str, Any], seed: int, workdir: pathlib.Path) -> Network:
    runs.trained(config, changes, seed=seed, workdir=workdir)
    return Network(workdir)


class Network:
    """The outputs of a trained run on its validation and test images.

    Args:
      workdir: of the run.

    Attributes:
      prior: float64 [K + 1], the effective prior of training.
    """

    def __init__(self, workdir: pathlib.Path):
        from openset_jax import evaluate
        from openset_jax.data.pools import TEST
        from openset_jax.training import validation
        from openset_jax.training.restore import restore

        network = evaluate.with_images(restore(workdir))
        self._pool, self._spec, self.prior = network.pool, network.spec, network.training_prior
        outputs = validation.compute_outputs(self._pool, network.inference, network.variables)
        self._validation = validation.decision_data(self._pool, outputs)
        self._rows, self._test = network.inference.logits(network.variables, self._pool.rows(TEST))

    def deployed(self, *, assumed: float | None, mix: float, shares: ArrayLike) -> dict[str, Any]:
        """Expected costs and calibration in a deployment.

        Args:
          assumed: the share of "none" that the classifier is fitted for; None for the prior of training.
          mix: the true share of "none".
          shares: float [K + 1], a prior whose proportions between known classes the deployment has, too.
        """
        from openset_jax.openset.decision import calibration, classifier, prior_and_costs, thresholds
        from openset_jax.openset.metrics import calibration_error, intervals

        spec, classes, k = self._spec, self._pool.classes, self._pool.num_classes
        prior = lambda none: prior_and_costs.deployment_prior({"none": none}, classes, shares)
        asked = spec.decision.resolve(classes, self.prior)._asdict() | {"rule": thresholds.Rule("least_cost", None)}
        asked["prior"] = self.prior if assumed is None else prior(assumed)
        fitted = classifier.fit(spec.objective, classes, *self._validation, training_prior=self.prior, **asked)
        label = self._pool.label[self._rows]
        scored, posterior = fitted.classify(self._test, label, self._pool.group_names(self._rows))
        assert scored.decision is not None and posterior is not None  # there are negatives
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
        measures = calibration_error.measures(posterior[seen], truth)
        return {name: None if cost is None else cost.value for name, cost in costs.items()} | {
            name: measures[name](weight) for name in COLUMNS if name in measures
        }


def write(out: pathlib.Path, found: Mapping[float, Mapping[str, Sequence[Mapping[str, float]]]]) -> None:
    """Prints and writes the tables.

    Args:
      found: mix -> way -> the results of `Network.deployed`, one for each seed.
    """
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
