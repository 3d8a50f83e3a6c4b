"""Runs on vectors: from the command's functions to the report, and the errors of what does not fit."""

import csv
import json

import numpy as np
import pytest
import vectors
from PIL import Image
from small_run import restore_and_evaluate, shared_cache, small_config, train

from benchmarks import inputs
from openset_jax import experiment
from openset_jax.errors import Stopped, UserError
from openset_jax.predict import Predictor
from openset_jax.prepare import prepare
from openset_jax.training import checkpoints
from openset_jax.training.restore import restore


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A folder of vectors, some with an image."""
    root = tmp_path_factory.mktemp("vectors")
    Image.new("RGB", (9, 7), "red").save(root / "red.png")
    array, rows = vectors.vectors()
    return vectors.write(root, array, [{**row, "image": "red.png"} for row in rows])


@pytest.fixture(scope="module")
def run(source, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("of_vectors")
    return train(vectors.config(source), workdir), workdir


def test_a_run_on_vectors_learns_and_writes_what_other_runs_write(run, source):
    metrics, workdir = run
    assert metrics["known"]["accuracy"]["value"] == 1
    assert metrics["open_set"]["seen_negatives"]["auroc"]["value"] > 0.99
    assert metrics["scores_left_out"]["odin"] == "it changes the pixels of an image, and this network takes vectors"
    assert {"knn", "vim", "energy", "mahalanobis"} <= metrics["scores"].keys()
    assert {"report.html", "scores.csv", "decision.json"} <= {path.name for path in workdir.iterdir()}
    assert json.loads((workdir / "config.json").read_text())["data"]["vector_size"] == vectors.SIZE
    statistics = restore(workdir).variables["batch_stats"]["standardise"]
    assert np.asarray(statistics["mean"]).std() > 0, "standardised by the training vectors"


def test_evaluating_again_changes_nothing(run):
    metrics, workdir = run
    assert restore_and_evaluate(workdir) == metrics


def test_a_stopped_run_resumes_and_ends_as_if_it_had_not_been_stopped(run, source, tmp_path):
    signals = iter([""] * 7)
    with pytest.raises(Stopped):
        train(vectors.config(source), tmp_path, lambda: next(signals, "a signal"))
    assert 0 < checkpoints.latest_step(tmp_path) < 20
    assert train(vectors.config(source), tmp_path) == run[0]


def test_networks_with_hidden_layers_train_and_freeze(source, run, tmp_path):
    train(vectors.config(source, **{"model.name": "mlp2", "model.width": 0.05}), tmp_path / "all")
    again = vectors.config(source, **{"model.name": "mlp2", "model.width": 0.05, "trainable": "head"})
    again.init_from = str(tmp_path / "all")
    train(again, tmp_path / "head")
    before, after = restore(tmp_path / "all").variables, restore(tmp_path / "head").variables
    np.testing.assert_array_equal(before["params"]["hidden1"]["kernel"], after["params"]["hidden1"]["kernel"])
    assert not np.array_equal(before["params"]["head"]["kernel"], after["params"]["head"]["kernel"])
    np.testing.assert_array_equal(before["batch_stats"]["standardise"]["mean"], after["batch_stats"]["standardise"]["mean"])


def test_images_of_the_index_are_in_the_gallery(source, tmp_path):
    array, rows = vectors.vectors()
    noise = vectors.write(tmp_path / "noise", np.random.default_rng(0).normal(size=array.shape).astype(np.float32), rows)
    train(vectors.config(noise), tmp_path / "without")
    assert "The worst mistakes" not in (tmp_path / "without/report.html").read_text()
    Image.new("RGB", (9, 7), "red").save(noise / "red.png")
    vectors.write(noise, np.load(noise / "features.npy"), [{**row, "image": "red.png"} for row in rows])
    train(vectors.config(noise), tmp_path / "with")
    assert "data:image/png;base64," in (tmp_path / "with/report.html").read_text()


def test_files_and_arrays_of_vectors_are_classified_alike(run, source, tmp_path):
    _, workdir = run
    predict = Predictor(workdir, batch_size=32)
    of_folder = list(predict(source))
    array = np.load(source / "features.npy")
    assert [row["id"] for row in of_folder[:2]] == ["a/0.jpg", "a/1.jpg"]
    assert [row["decision"] for row in of_folder[:40]].count("a") >= 36
    np.save(tmp_path / "alone.npy", array[:50])
    of_file, of_memory = list(predict([tmp_path / "alone.npy"])), list(predict(array[:50]))
    assert [row["id"] for row in of_file[:2]] == [f"{tmp_path}/alone.npy#0", f"{tmp_path}/alone.npy#1"]
    assert [row["id"] for row in of_memory[:2]] == [0, 1]
    for one, two, three in zip(of_folder, of_file, of_memory, strict=False):
        assert {**one, "id": 0} == {**two, "id": 0} == {**three, "id": 0}
    assert [row["decision"] for row in predict(array[0].astype(np.float64))] == [of_folder[0]["decision"]]


def test_a_vector_that_is_not_finite_is_an_error_in_its_row(run, source):
    array = np.load(source / "features.npy")[:6]
    array[2, 3] = np.nan
    rows = list(Predictor(run[1])(array))
    assert [row["error"] for row in rows] == [None, None, "the vector has numbers that are not finite", None, None, None]


def test_inputs_of_another_kind_are_refused(run, source, tmp_path):
    predict = Predictor(run[1])
    Image.new("RGB", (9, 7)).save(tmp_path / "image.png")
    with pytest.raises(UserError, match=r"this run takes vectors; give \.npy or \.parquet files"):
        predict(tmp_path / "image.png")  # before the first row
    with pytest.raises(UserError, match="the vectors have 5 features, but the run was trained on vectors of 12"):
        predict(np.zeros((2, 5), np.float32))
    np.save(tmp_path / "five.npy", np.zeros((2, 5), np.float32))
    with pytest.raises(UserError, match=r"the same number of features, but .*/five\.npy has 5, .* has 12$"):
        predict([tmp_path / "five.npy", source])
    with pytest.raises(TypeError, match=r"vectors are an array int64 \[2, 12\]"):
        list(predict(np.zeros((2, 12), np.int64)))
    with pytest.raises(UserError, match="has vectors, but model.name is a network for images"):
        train(vectors.config(source, **{"model.name": "alexnet"}), tmp_path / "a")
    with pytest.raises(UserError, match="has images, but model.name is a network for vectors"):
        train(small_config(**{"model.name": "linear", "model.stem": "", "model.width": 1.0}), tmp_path / "b")
    with pytest.raises(UserError, match="data.vector_size: 9, but the vectors have 12 features"):
        train(vectors.config(source, **{"data.vector_size": 9}), tmp_path / "c")


def test_commands_for_images_refuse_vectors(run, source, tmp_path):
    with pytest.raises(UserError, match="^model.name: linear takes vectors, which need no preparation"):
        prepare(vectors.config(source), tmp_path)
    with pytest.raises(UserError, match="^model.name: linear takes vectors; this benchmark needs a network for images"):
        inputs.resolve(vectors.config(source))
    with pytest.raises(UserError, match="takes other inputs; give a config for vectors, as configs/features.py"):
        restore_and_evaluate(run[1], data_config=small_config())
    with pytest.raises(
        UserError, match="^init_from: model.name=linear has no layout of PyTorch; start from the folder of a run, not"
    ):
        train(vectors.config(source, init_from=str(_touched(tmp_path / "alexnet.pth"))), tmp_path / "run")
    with pytest.raises(UserError, match="^init_from: .*efficientnet_lite0"):
        train(vectors.config(source, init_from="pretrained"), tmp_path / "run")


def _touched(path):
    path.touch()
    return path


def test_vectors_of_another_network_under_the_same_ids_are_refused(source, tmp_path):
    array, rows = vectors.vectors()
    here = vectors.write(tmp_path / "here", array, rows)
    train(vectors.config(here, steps=10), tmp_path / "run")
    vectors.write(here, array[:, ::-1], rows)
    with pytest.raises(UserError, match="other files"):
        shared_cache()._kept["pool"].clear()
        train(vectors.config(here, steps=20), tmp_path / "run")


def test_streamed_vectors_train_as_resident_ones(run, source, tmp_path):
    metrics, workdir = run
    assert train(vectors.config(source, input="stream"), tmp_path) == metrics
    assert (tmp_path / "scores.csv").read_bytes() == (workdir / "scores.csv").read_bytes()


def test_an_experiment_on_vectors_answers(source, tmp_path):
    from configs import imbalance

    config = imbalance.get_config("features,0.5x")
    config.run.update_from_flattened_dict(
        {"data.root": str(source), "epochs": None, "steps": 20, "batch_size": 16, "eval.batch_size": 64, "log_every": 20}
    )
    config.blocks, config.seeds = ("amounts",), (0,)
    experiment.experiment(config, tmp_path, cache=shared_cache())
    with (tmp_path / "results.csv").open() as file:
        assert "0.5x" in {row["sampling.negatives"] for row in csv.DictReader(file)}
