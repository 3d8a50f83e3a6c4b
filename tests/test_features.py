"""The command that writes features as vectors."""

import csv

import numpy as np
import pytest
import vectors
from small_run import small_config, train

from openset_jax.errors import Stopped, UserError
from openset_jax.features import write_features
from openset_jax.training.restore import restore


@pytest.fixture(scope="module")
def below(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("below")
    return train(small_config(), workdir), workdir


def config(below, **changes):
    return small_config(**{"init_from": str(below[1]), "trainable": "head"} | changes)


@pytest.fixture(scope="module")
def written(below, tmp_path_factory):
    out = tmp_path_factory.mktemp("written")
    assert write_features(config(below), out) == 1797
    return out


def test_a_run_on_the_written_vectors_is_as_good_as_the_network_that_made_them(below, written, tmp_path):
    array = np.load(written / "features.npy")
    assert array.shape == (1797, restore(below[1]).model.feature_size)
    with (written / "index.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["role"] for row in rows} == {"known", "negatives", "held_out_negatives", "unknown"}
    assert rows[0].keys() == {"id", "class", "role", "split"}
    found = train(vectors.config(written, steps=60, **{"objective.name": "background", "batch_size": 64}), tmp_path)
    assert found["counts"] == below[0]["counts"], "the same split"
    assert found["open_set"]["seen_negatives"]["auroc"]["value"] > 0.9


def test_what_cannot_be_written_is_refused(below, written, tmp_path):
    with pytest.raises(UserError, match="^--out: .* has vectors already; remove this folder"):
        write_features(config(below), written)
    with pytest.raises(UserError, match="^init_from: features of random parameters are useless"):
        write_features(config(below, init_from=""), tmp_path)
    with pytest.raises(UserError, match="^model.name: linear takes vectors; choose a network for images"):
        write_features(vectors.config(written), tmp_path)
    signals = iter(["", ""])
    with pytest.raises(Stopped, match="while features were computed"):
        write_features(config(below), tmp_path, lambda: next(signals, "a signal"))
    assert not list(tmp_path.iterdir())
