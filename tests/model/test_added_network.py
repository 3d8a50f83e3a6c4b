"""A network that is added by one file and one line trains, resumes, freezes layers, warm-starts and predicts."""

import numpy as np
import pytest
from small_run import assert_same_run, saved_arrays, small_config, train
from tiny_network import Tiny

from openset_jax.errors import Stopped, UserError
from openset_jax.model import cost, networks
from openset_jax.predict import Predictor
from openset_jax.training.restore import restore

TINY = {"model.name": "tiny", "model.stem": "imagenet", "model.width": 1.0, "data.mean": None, "data.std": None}


@pytest.fixture(autouse=True)
def _added(monkeypatch):
    monkeypatch.setitem(networks.NETWORKS, "tiny", Tiny)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(networks.NETWORKS, "tiny", Tiny)
        train(small_config(**TINY, **{"eval.compare_scores": True}), folder)
    return folder


def test_it_trains_and_classifies_images_with_its_own_preprocessing(workdir):
    network = restore(workdir)
    assert network.spec.images.mean == (0.5, 0.5, 0.5) and network.model.dropout == 0.1
    (row,) = Predictor(workdir)(np.full((20, 20, 3), 128, np.uint8))
    assert row["error"] is None and row["best_class"] in network.classes


def test_a_run_that_was_stopped_resumes(workdir, tmp_path):
    asked = iter([""] * 5 + ["SIGTERM"] * 10)
    config = small_config(**TINY, **{"eval.compare_scores": True})
    with pytest.raises(Stopped):
        train(config, tmp_path, lambda: next(asked))
    train(config, tmp_path)
    assert_same_run(workdir, tmp_path)


@pytest.mark.parametrize(
    ("trainable", "moved"),
    [pytest.param("head", ["answer"], marks=pytest.mark.slow), ("second", ["answer", "second", "second_norm"])],
)
def test_it_starts_from_another_run_and_frozen_layers_stay_as_they_are(workdir, tmp_path, trainable, moved):
    train(small_config(**TINY, **{"init_from": str(workdir), "trainable": trainable}), tmp_path)
    saved = saved_arrays(tmp_path)
    before = {name: array for name, array in saved_arrays(workdir, restore(workdir).step).items() if "opt_state" not in name}
    for name, array in before.items():
        if "step" not in name:
            trained = any(f"['{layer}']" in name for layer in moved)
            assert np.array_equal(saved[name], array) != trained, name
    layers = {layer for layer in Tiny.layers_of("all") for name in saved if "opt_state" in name and f"['{layer}']" in name}
    assert layers == set(moved)


def test_each_group_costs_more_than_the_one_above():
    flops = [cost.flops_per_example(networks.make(3, name="tiny", trainable=group), (16, 16, 3)) for group in Tiny.groups]
    assert flops == sorted(set(flops))
    with pytest.raises(UserError, match="trainable: 'fc' is not one of head, second, first, all"):
        networks.make(3, name="tiny", trainable="fc")
