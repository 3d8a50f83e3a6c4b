"""All scores of a network over rows of a pool, and scores that are left out."""

import functools

import numpy as np
import pytest
from small_run import make_small_run

from openset_jax.data.pools import TEST, TRAIN
from openset_jax.openset.scores.feature_scores import SCORES
from openset_jax.openset.scores.training_features import Accumulator
from openset_jax.openset.scores.unavailable import ScoreUnavailable
from openset_jax.training import devices, scoring, state


def outputs(inference, variables, rows):
    """(features, logits)."""
    parts = [(out["features"], out["logits"]) for _, out in inference.run("features", variables, rows)]
    return [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]


@pytest.fixture(scope="module")
def network():
    """(pool, inference, variables, rows of each class) of a random network whose last layer is fitted by least squares."""
    run = make_small_run()
    spec, pool = run.spec, run.pool
    variables = state.initial_variables(run.network.model, seed=0, shape=spec.inputs.shape)
    inference = run.cache.inference(spec, pool, run.cache.images(spec, pool))
    rows_by_class = run.rows_by_class[:-1]
    rows = np.concatenate(rows_by_class)
    (features, _), label = outputs(inference, devices.replicate(variables), rows), pool.label[rows]
    design = np.column_stack([features, np.ones(len(features))])
    solution = np.linalg.lstsq(design, 8.0 * np.eye(pool.num_classes + 1)[label], rcond=1e-6)[0].astype(np.float32)
    variables["params"]["fc8"] = {"kernel": solution[:-1], "bias": solution[-1]}
    return pool, inference, devices.replicate(variables), rows_by_class


@pytest.fixture(scope="module")
def found(network):
    pool, inference, variables, rows_by_class = network
    return scoring.Scorers(inference, variables, rows_by_class, pool.label).score(pool.rows(TEST))


def test_every_score_has_a_number_for_every_image(network, found):
    pool, inference, variables, _ = network
    rows = pool.rows(TEST)
    np.testing.assert_array_equal(found.rows, rows)
    assert found.values.keys() | found.left_out.keys() == SCORES.keys()
    assert not found.left_out
    for name, values in found.values.items():
        assert values.shape == (len(rows),), name
        assert np.isfinite(values).all(), name
    np.testing.assert_allclose(found.logits, inference.logits(variables, rows)[1], rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(found.logits, scoring.logits_only(inference, variables, rows).logits[: len(rows)])


def test_scores_are_those_of_the_functions_on_the_features_of_known_training_images(network, found):
    """Neither the output for "none" nor negatives are used."""
    pool, inference, variables, rows_by_class = network
    rows = np.concatenate(rows_by_class)
    assert (pool.label[rows] >= 0).all()
    assert (pool.split[rows] == TRAIN).all()
    accumulator = Accumulator(pool.num_classes)
    features, logits = outputs(inference, variables, rows)
    accumulator.update(features, logits[:, :-1], pool.label[rows])
    test_features, test_logits = outputs(inference, variables, pool.rows(TEST))
    for name in ("mahalanobis", "kl_matching", "openmax"):
        expected = SCORES[name].make(accumulator.finish())(test_features, test_logits[:, :-1])
        np.testing.assert_allclose(found.values[name], expected, rtol=1e-3, err_msg=name)
    energy = -np.log(np.exp(test_logits[:, :-1].astype(np.float64)).sum(1))
    np.testing.assert_allclose(found.values["energy"], energy, rtol=1e-5)


def test_a_score_that_cannot_be_fitted_is_left_out_and_the_rest_go_on(network):
    pool, inference, variables, rows_by_class = network
    broken = [rows_by_class[0][:0], *rows_by_class[1:]]
    found = scoring.Scorers(inference, variables, broken, pool.label).score(pool.rows(TEST)[:5])
    assert found.left_out.keys() == {name for name, score in SCORES.items() if score.fitted}
    assert "no training features of class '0'" in found.left_out["mahalanobis"]
    assert found.values.keys() == {name for name, score in SCORES.items() if not score.fitted}


def test_a_score_that_fails_or_has_no_number_for_an_image_is_left_out(network, monkeypatch):
    pool, inference, variables, rows_by_class = network

    def fails(features, logits):
        raise ScoreUnavailable

    nan = lambda features, logits: np.full(len(logits), np.nan)
    make = {"energy": functools.partial(lambda scorer, *_, **__: scorer, nan), "ash": lambda *_: fails}
    for name, made in make.items():
        monkeypatch.setitem(SCORES, name, SCORES[name]._replace(make=made))
    found = scoring.Scorers(inference, variables, rows_by_class, pool.label).score(pool.rows(TEST)[:5])
    assert found.left_out == {"energy": "5 of 5 images have no score", "ash": ""}


@pytest.mark.parametrize("place", ["fit", "apply"])
def test_a_bug_in_a_score_is_not_left_out(network, monkeypatch, place):
    pool, inference, variables, rows_by_class = network
    apply = lambda features, logits: features @ logits  # shapes that do not fit
    make = {"fit": lambda training, head: training.mean @ head.bias, "apply": lambda *_: apply}[place]
    monkeypatch.setitem(SCORES, "ash", SCORES["ash"]._replace(make=make))
    with pytest.raises(ValueError, match="matmul"):
        scoring.Scorers(inference, variables, rows_by_class, pool.label).score(pool.rows(TEST)[:5])


def test_openmax_names_the_class_that_it_cannot_be_fitted_for(network):
    pool, inference, variables, rows_by_class = network
    wrong = (pool.label + 1) % pool.num_classes  # no training image is classified correctly
    found = scoring.Scorers(inference, variables, rows_by_class, wrong).score(pool.rows(TEST)[:5])
    assert found.left_out["openmax"].endswith(f"of each class; {pool.classes[0]!r} has 0")


def test_scores_that_one_known_class_cannot_have_are_left_out_with_the_reason(network, monkeypatch):
    pool, inference, variables, rows_by_class = network
    asked, run = [], inference.run
    monkeypatch.setattr(type(inference), "run", lambda self, name, *given: asked.append(name) or run(name, *given))
    found = scoring.Scorers(inference, variables, rows_by_class[:1], pool.label).score(pool.rows(TEST)[:20])
    assert found.left_out == {name: score.one_class for name, score in SCORES.items() if score.one_class}
    assert found.values.keys() == SCORES.keys() - found.left_out.keys()
    assert asked == ["features", "features"], "no image is perturbed for ODIN"
    np.testing.assert_allclose(found.values["energy"], -found.logits[:, 0], rtol=1e-6)
