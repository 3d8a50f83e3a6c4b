"""Evaluates a trained network on the test split: the content of `metrics.json`, and the arrays for the report."""

from typing import Any, NamedTuple

import numpy as np

from openset_jax.data import training_set
from openset_jax.data.pools import TEST, VALIDATION
from openset_jax.openset.decision import classifier as classifiers
from openset_jax.openset.metrics import evaluation
from openset_jax.openset.scored import Scored
from openset_jax.training import scoring
from openset_jax.training.scoring import Scores
from openset_jax.training.trained_network import TrainedNetwork


class Measurement(NamedTuple):
    """The results of a network on the test split.

    Attributes:
      metrics: the content of `metrics.json`.
      kinds: "seen_negatives", "unseen_unknowns" -> their groups.
      scores: the readable rows [n], their logits and scores.
      scored: predictions and decisions.
      posterior: float64 [n, K + 1] under the prior of the deployment; None unless `Classifier.has_posterior`.
    """

    metrics: dict[str, Any]
    kinds: dict[str, list[str]]
    scores: Scores
    scored: Scored
    posterior: np.ndarray | None


def measure(network: TrainedNetwork) -> Measurement:
    """Scores every test image, and computes all metrics."""
    pool, classifier, resamples = network.pool, network.classifier, network.spec.evaluation.resamples
    kinds = pool.kinds({"seen_negatives": "negatives", "unseen_unknowns": "unknown"})
    scores = _scores(network, pool.rows(TEST))
    rows = scores.rows
    scored, posterior = classifier.classify(scores.logits, pool.label[rows], pool.group_names(rows))
    metrics: dict[str, Any] = {"step": network.step, "objective": classifier.objective.name}
    metrics |= evaluation.evaluate_split(scored, classes=pool.classes, kinds=kinds, resamples=resamples)
    metrics["counts"]["skipped"] = len(pool.rows(TEST)) - len(rows)
    # The rule promises a share of test negatives only if validation has the same groups of negatives.
    promised = classifier.rule.name == "keep_knowns" or not len(pool.rows(VALIDATION, "held_out_negatives"))
    metrics |= evaluation.operating_point(
        scored, classes=pool.classes, kinds=kinds, classifier=classifier, promised=promised
    )
    before = classifiers.uncalibrated_posterior(classifier.objective, scores.logits), network.training_prior
    posteriors = {"before": before, "after": (posterior, classifier.prior)}
    metrics["calibration"] = evaluation.calibration(scored, posteriors, kinds=kinds, resamples=resamples)
    metrics["scores"] = evaluation.compare_scores(
        scored, scores.values, kinds=kinds, own=metrics["open_set"], resamples=resamples
    )
    metrics["scores_left_out"] = scores.left_out
    return Measurement(metrics, kinds, scores, scored, posterior)


def _scores(network: TrainedNetwork, rows: np.ndarray) -> Scores:
    pool, spec = network.pool, network.spec
    if not spec.evaluation.compare_scores:
        return scoring.logits_only(network.inference, network.variables, rows)
    known = training_set.training_rows(pool, spec.sampling, seed=spec.seed, uses_negatives=False)
    return scoring.Scorers(network.inference, network.variables, known, pool.label).score(rows)
