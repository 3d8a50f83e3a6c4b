"""Evaluates a trained network on the test split: the content of `metrics.json`, and the arrays for the report."""

from typing import Any, NamedTuple

import numpy as np

from openset_jax.data import training_set
from openset_jax.data.pools import TEST, VALIDATION
from openset_jax.openset.decision import classifier as classifiers
from openset_jax.openset.metrics import evaluation
from openset_jax.openset.scored import Scored
from openset_jax.training.scoring import Scorers, Scores, logits_only
from openset_jax.training.trained_network import TrainedNetwork


class Measurement(NamedTuple):
    """The results of a network on the test split."""

    metrics: dict[str, Any]  # the content of metrics.json
    kinds: dict[str, list[str]]  # "seen_negatives", "unseen_unknowns" -> their groups
    scores: Scores  # of the n readable images
    scored: Scored  # with decisions
    posterior: np.ndarray | None  # float64 [n, K + 1], for the prior of the deployment; see `Classifier.has_posterior`


def measure(network: TrainedNetwork) -> Measurement:
    """Scores every test image, and computes all metrics."""
    spec, pool, classifier = network.spec, network.pool, network.classifier
    kinds, resamples = pool.kinds({"seen_negatives": "negatives", "unseen_unknowns": "unknown"}), spec.evaluation.resamples
    if spec.evaluation.compare_scores:
        known = training_set.training_rows(pool, spec.sampling, seed=spec.seed, uses_negatives=False)
        scores = Scorers(network.inference, network.variables, known, pool.label).score(pool.rows(TEST))
    else:
        scores = logits_only(network.inference, network.variables, pool.rows(TEST))
    rows, classes = scores.rows, pool.classes
    scored, posterior = classifier.classify(scores.logits, pool.label[rows], pool.group_names(rows))
    metrics: dict[str, Any] = {"step": network.step, "objective": classifier.objective.name}
    metrics |= evaluation.evaluate_split(scored, classes=classes, kinds=kinds, resamples=resamples)
    metrics["counts"]["skipped"] = len(pool.rows(TEST)) - len(rows)
    # The rule promises a share of test negatives only if validation has the same groups of negatives.
    promised = classifier.rule.name == "keep_knowns" or not len(pool.rows(VALIDATION, "held_out_negatives"))
    metrics |= evaluation.operating_point(scored, classes=classes, kinds=kinds, classifier=classifier, promised=promised)
    before = classifiers.own_posterior(classifier.objective, scores.logits), network.training_prior
    posteriors = {"before": before, "after": (posterior, classifier.prior)}
    metrics["calibration"] = evaluation.calibration(scored, posteriors, kinds=kinds, resamples=resamples)
    own = metrics["open_set"]
    metrics["scores"] = evaluation.compare_scores(scored, scores.values, kinds=kinds, own=own, resamples=resamples)
    metrics["scores_left_out"] = scores.left_out
    return Measurement(metrics, kinds, scores, scored, posterior)
