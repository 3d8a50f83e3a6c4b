"""The metrics of `metrics.json` from predictions."""

import dataclasses

import numpy as np
import pytest

from openset_jax.openset.decision import calibration, classifier, prior_and_costs, thresholds
from openset_jax.openset.decision.classifier import Classifier
from openset_jax.openset.losses import objectives
from openset_jax.openset.metrics import evaluation
from openset_jax.openset.scored import Scored

KINDS = {"seen_negatives": ["n1", "n2"], "unseen_unknowns": ["u"]}
CLASSES = ("a", "b")
BACKGROUND = objectives.get("background")
BY_HAND = [
    ((3, 0, 0), 0, "a"),  # right
    ((0, 3, 0), 0, "a"),  # predicted as b
    ((0, 3, 4), 1, "b"),  # best known class correct, but rejected
    ((0, 0, 5), -1, "n1"),  # rejected
    ((5, 0, 0), -1, "n2"),  # accepted as a
]


def read(rows):
    """Predictions of rows (logits, label, group)."""
    logits, label, group = zip(*rows, strict=True)
    return classifier.interpret(BACKGROUND, np.array(logits, np.float32), np.array(label), np.array(group, object))


def evaluate(rows, **options):
    return evaluation.evaluate_split(read(rows), classes=CLASSES, kinds=KINDS, **options)


def values(tree):
    """The tree with each {"value", "low", "high"} replaced by its value, after a check of the interval."""
    if isinstance(tree, dict) and set(tree) == {"value", "low", "high"}:
        assert tree["low"] <= tree["value"] <= tree["high"]
        return tree["value"]
    return {k: values(v) for k, v in tree.items()} if isinstance(tree, dict) else tree


@pytest.mark.parametrize("with_intervals", [False, True])
def test_numbers_of_a_case_worked_by_hand(with_intervals):
    result = values(evaluate(BY_HAND, with_intervals=with_intervals))
    assert result["known"]["accuracy"] == 2 / 3
    assert result["known"]["balanced_accuracy"] == (1 / 2 + 1) / 2
    assert result["known"]["accuracy_with_none"] == 1 / 3
    assert result["known"]["rejected_at_argmax"] == 1 / 3
    assert result["known"]["recall"] == {"a": 0.5, "b": 1.0}
    first = result["open_set"]["by_group"]["n1"]
    assert (first["auroc"], first["rejected_at_argmax"]) == (1.0, 1.0)
    assert first["balanced_accuracy"] == pytest.approx((0.5 + 0 + 1) / 3)
    assert result["open_set"]["by_group"]["n2"]["auroc"] == 0.0
    assert result["open_set"]["seen_negatives"]["auroc"] == 0.5
    assert result["counts"] == {"known": {"a": 2, "b": 1}, "seen_negatives": {"n1": 1, "n2": 1}, "unseen_unknowns": {"u": 0}}
    if with_intervals:
        assert first["oscr"] == pytest.approx(2 / 3)
        assert first["ccr_at_fpr"] == {"0.001": None, "0.01": None, "0.1": None}
        assert result["open_set"]["seen_negatives"]["over_groups"]["groups"] == 2


def test_a_number_without_images_is_none_and_seen_and_unseen_stay_apart():
    result = values(evaluate([((3, 0, 0), 0, "a"), ((0, 3, 0), 1, "b"), ((0, 0, 9), -2, "u")]))
    nothing = result["open_set"]["seen_negatives"]
    assert nothing.keys() == result["open_set"]["unseen_unknowns"].keys(), "null, not absent"
    assert {name: value for name, value in nothing.items() if value is not None} == {"images": 0}
    assert result["open_set"]["unseen_unknowns"]["auroc"] == 1.0
    assert result["open_set"]["together"]["images"] == 1


def test_resamples_bound_the_bootstrap_and_nothing_else_changes():
    few, usual = evaluate(BY_HAND, resamples=7), evaluate(BY_HAND)
    assert values(few) == values(usual) | {"open_set": values(few)["open_set"]}
    assert few["open_set"]["seen_negatives"]["resamples"] == few["open_set"]["by_group"]["n1"]["resamples"] == 7
    assert usual["open_set"]["seen_negatives"]["resamples"] == 2_000
    assert usual["open_set"]["by_group"]["n1"]["resamples"] == 500
    assert evaluate(BY_HAND, resamples=2_000) == usual


def with_decision(rows, threshold):
    scored = read(rows)
    decided = thresholds.decide(scored.score, scored.known_class, threshold, len(CLASSES))
    return dataclasses.replace(scored, decision=decided)


def make_classifier(**changes):
    given = {
        "objective": BACKGROUND, "classes": CLASSES, "temperature": calibration.Calibrator(), "none": None,
        "training_prior": np.full(3, 1 / 3), "fitted_prior": np.full(3, 1 / 3), "prior": np.array([0.25, 0.25, 0.5]),
        "costs": prior_and_costs.cost_matrix(None, CLASSES),
        "rule": thresholds.Rule("keep_knowns", 0.6), "threshold": thresholds.Threshold(0.0, -1.0, 1.0, 10, 5, 6),
    }  # fmt: skip
    return Classifier(**given | changes)


def test_the_operating_point_by_hand():
    result = evaluation.operating_point(
        with_decision(BY_HAND, 0.0), classes=CLASSES, kinds=KINDS, classifier=make_classifier()
    )
    assert result["confusion"]["counts"] == [[1, 1, 0], [0, 0, 1], [1, 0, 1], [0, 0, 0]]
    point = values(result["operating_point"])
    assert (point["known_recall"], point["known_accuracy"]) == (2 / 3, 1 / 3)
    assert point["accuracy_of_accepted_knowns"] == 0.5
    assert point["rejected"] == {"seen_negatives": 0.5, "unseen_unknowns": None}
    # a: one half is confused; b: rejected; none: one half is accepted
    assert point["expected_cost"] == {"seen_negatives": 0.25 * 0.5 + 0.25 * 1 + 0.5 * 0.5, "unseen_unknowns": None}
    assert point["promised"] == pytest.approx(6 / 11)


def test_calibration_is_measured_under_the_prior_that_is_said():
    scored = read(BY_HAND)
    sure = np.eye(3)[[0, 1, 2, 2, 0]]
    result = evaluation.calibration(scored, {"sure": (sure, np.array([0.25, 0.25, 0.5])), "no": (None, None)}, kinds=KINDS)
    assert result["seen_negatives"]["no"] is None
    assert result["unseen_unknowns"]["sure"] is None, "there are none, and half of all should be"
    # correct for one half of a, no b, one half of none; confidence always 1
    assert result["seen_negatives"]["sure"]["expected_calibration_error"]["value"] == pytest.approx(
        1 - (0.25 * 0.5 + 0.5 * 0.5)
    )


def test_scores_are_compared_with_the_same_classes_and_each_kind_apart():
    scored = read(BY_HAND)
    perfect = np.where(scored.label < 0, 1.0, 0.0)
    own = evaluate(BY_HAND)["open_set"]
    result = evaluation.compare_scores(scored, {"perfect": perfect, "constant": np.zeros(5)}, kinds=KINDS, own=own)
    assert list(result) == ["own", "perfect", "constant"]
    assert all(kinds["unseen_unknowns"] is None for kinds in result.values())
    found = {name: values(kinds["seen_negatives"]) for name, kinds in result.items()}
    assert found["perfect"] == {"auroc": 1.0, "oscr": 2 / 3, "unknowns_accepted_at_95_known_recall": 0.0}
    assert found["constant"] == {"auroc": 0.5, "oscr": 1 / 3, "unknowns_accepted_at_95_known_recall": 1.0}
    assert found["own"] == {name: values(own["seen_negatives"])[name] for name in evaluation.COMPARED}


def test_a_calibration_error_that_may_be_chance_has_an_interval_from_0():
    rng = np.random.default_rng(0)
    p = rng.dirichlet((1.0, 1.0, 1.0), 600)
    label = (p.cumsum(1) > rng.random((600, 1))).argmax(1)
    label = np.where(label == 2, -1, label)
    group = np.where(label < 0, "n1", "a").astype(object)
    scored = Scored(label, group, p[:, 2], p[:, :2].argmax(1), p.argmax(1))
    mix = np.bincount(label % 3, minlength=3) / 600
    sure = p**3 / (p**3).sum(1, keepdims=True)
    result = evaluation.calibration(scored, {"right": (p, mix), "sure": (sure, mix)}, kinds=KINDS)["seen_negatives"]
    right, sure = (result[name]["expected_calibration_error"] for name in ("right", "sure"))
    assert right["low"] == 0.0 < right["value"]
    assert 0.0 < sure["low"] < sure["value"]


@pytest.mark.parametrize("with_intervals", [False, True])
def test_one_known_class_has_no_closed_set_metrics_and_its_oscr_is_its_auroc(with_intervals):
    rows = [((3, 0), 0, "a"), ((0, 1), 0, "a"), ((0, 4), -1, "n1"), ((2, 0), -1, "n2"), ((0, 5), -2, "u")]
    result = values(evaluation.evaluate_split(read(rows), classes=("a",), kinds=KINDS, with_intervals=with_intervals))
    known, seen = result["known"], result["open_set"]["seen_negatives"]
    assert (known["accuracy"], known["balanced_accuracy"], known["recall"]) == (None, None, {"a": None})
    assert known["accuracy_with_none"] == known["rejected_at_argmax"] == 0.5
    assert (seen["auroc"], seen["balanced_accuracy"]) == (0.75, 0.5)
    assert not with_intervals or seen["oscr"] == 0.75


def test_the_operating_point_of_one_known_class():
    rng = np.random.default_rng(0)
    label = np.repeat([0, 1], 100)
    logits = rng.normal(size=(200, 2)) + 3 * np.eye(2)[label]
    fitted = classifier.fit(
        BACKGROUND, ("a",), logits, label, training_prior=np.array([0.3, 0.7]), prior=np.array([0.5, 0.5]),
        costs=prior_and_costs.cost_matrix({"accept_none": 4.0, "confuse_knowns": 9.0}, ("a",)),
        rule=thresholds.Rule("keep_knowns", 0.9), resamples=0,
    )  # fmt: skip
    scored, posterior = fitted.classify(logits, np.where(label, -1, 0), np.where(label, "n1", "a").astype(object))
    found = values(evaluation.operating_point(scored, classes=("a",), kinds=KINDS, classifier=fitted))
    point = found["operating_point"]
    assert point["known_recall"] == point["known_accuracy"] == 0.9 and point["accuracy_of_accepted_knowns"] is None
    accepted = 1 - point["rejected"]["seen_negatives"]
    assert point["expected_cost"]["seen_negatives"] == pytest.approx(0.5 * 0.1 + 0.5 * 4 * accepted)
    assert found["confusion"]["columns"] == ["a", "none"] and found["confusion"]["rows"][:2] == ["a", "seen_negatives"]
    posteriors = {"before": (posterior, fitted.prior)}
    assert evaluation.calibration(scored, posteriors, kinds=KINDS)["seen_negatives"]["before"]["brier"]["value"] < 0.5
