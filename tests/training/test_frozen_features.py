"""The head is trained from the features of the frozen layers, which are computed once."""

import os

import jax
import numpy as np
import pytest
from small_run import open_small_pool, restore_and_evaluate, small_config, small_spec, train

from openset_jax.errors import Stopped
from openset_jax.training import checkpoints, frozen_features
from openset_jax.training.restore import restore
from openset_jax.training.run_cache import RunCache

SAME = {"augment.crop": False, "augment.pad": 0, "augment.flip": False}  # images are the same each time
COMPUTED = "computing the features of 1,797 images once."


@pytest.fixture(scope="module")
def below(tmp_path_factory):
    """The workdir of a run whose lower layers the runs below take over."""
    workdir = tmp_path_factory.mktemp("below")
    train(small_config(), workdir)
    return workdir


def head_config(below, **changes):
    return small_config(**{"init_from": str(below), "trainable": "head", "optimizer.learning_rate": 0.01} | SAME | changes)


@pytest.fixture(scope="module")
def run(below, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("head")
    return train(head_config(below), workdir), workdir


def file_in(workdir):
    (path,) = (workdir / frozen_features.FOLDER).glob("*.npy")
    return path


@pytest.mark.parametrize(
    ("changes", "suits"),
    [
        ({}, True),
        ({"trainable": "fc"}, False),
        ({"augment.flip": True}, False),
        ({"augment.pad": 1}, False),
        ({"augment.crop": True}, True),  # the stored images have the size of the crop
        ({"augment.crop": True, "data.image_size": 15}, False),
        ({"data.image_size": 15}, True),
    ],
)
def test_it_suits_runs_of_the_head_on_images_that_are_the_same_each_time(changes, suits):
    assert frozen_features.suits(small_spec(**{"trainable": "head"} | SAME | changes)) == suits


def test_features_are_those_of_the_whole_network_and_so_are_the_logits(run):
    network = restore(run[1])
    spec, cache = network.spec, RunCache()
    pool, variables = cache.pool(spec), network.variables
    whole = cache.inference(spec, pool, cache.images(spec, pool))
    rows = np.arange(len(pool))
    given, features = (
        whole.run_all("logits", variables, rows)[1],
        np.concatenate([out["features"] for _, out in whole.run("features", variables, rows)]),
    )
    kept = np.load(file_in(run[1]))
    assert kept.dtype == np.float16
    np.testing.assert_allclose(kept, features, rtol=1e-3, atol=1e-6)
    found = cache.inference(spec, pool, cache.examples(spec, pool, jax.device_get(variables)))
    np.testing.assert_array_equal(found.logits(variables, rows)[0], rows)
    head = jax.device_get(variables)["params"][network.model.head]
    expected = kept.astype(np.float32) @ head["kernel"] + head["bias"]
    np.testing.assert_allclose(found.logits(variables, rows)[1], expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(given, expected, rtol=2e-3, atol=2e-3)


def test_a_run_from_features_ends_as_the_same_run_from_images(run, below, tmp_path, monkeypatch):
    monkeypatch.setattr(frozen_features, "suits", lambda spec: False)
    train(head_config(below), tmp_path)
    from_images, from_features = (jax.device_get(restore(path).variables) for path in (tmp_path, run[1]))
    head = restore(tmp_path).model.head
    for name, values in from_images["params"].pop(head).items():
        np.testing.assert_allclose(from_features["params"][head][name], values, rtol=0, atol=2e-3)
    del from_features["params"][head]
    jax.tree.map(np.testing.assert_array_equal, from_features, from_images)
    assert not (tmp_path / frozen_features.FOLDER).exists()


def test_frozen_layers_stay_and_the_run_predicts_images(run, below):
    before, after = (jax.device_get(restore(path).variables["params"]) for path in (below, run[1]))
    for layer in before.keys() - {"fc8"}:
        jax.tree.map(np.testing.assert_array_equal, before[layer], after[layer])
    assert not np.array_equal(before["fc8"]["kernel"], after["fc8"]["kernel"])


def test_evaluating_and_resuming_read_the_file_and_change_nothing(run, below, tmp_path, capsys):
    metrics, workdir = run
    assert restore_and_evaluate(workdir) == metrics
    signals = iter([""] * 36)  # 29 batches of images, then steps
    with pytest.raises(Stopped):
        train(head_config(below), tmp_path, lambda: next(signals, "a signal"), RunCache())
    assert COMPUTED in capsys.readouterr().out
    assert 0 < checkpoints.latest_step(tmp_path) < 12
    assert train(head_config(below), tmp_path, cache=RunCache()) == metrics
    assert COMPUTED not in capsys.readouterr().out
    assert (tmp_path / "scores.csv").read_bytes() == (workdir / "scores.csv").read_bytes()


def test_a_damaged_file_is_computed_again(run, below, tmp_path, capsys):
    metrics, _ = run
    train(head_config(below), tmp_path, cache=RunCache())
    path = file_in(tmp_path)
    whole = path.read_bytes()
    for damage in (lambda: path.write_bytes(whole[:-1]), lambda: path.with_suffix(".json").write_text("{")):
        damage()
        capsys.readouterr()
        assert restore_and_evaluate(tmp_path) == metrics
        assert COMPUTED in capsys.readouterr().out
        assert path.read_bytes() == whole


def test_a_stop_while_features_are_computed_leaves_nothing_behind(below, tmp_path):
    signals = iter(["", ""])
    with pytest.raises(Stopped, match="Stopped by a signal while features were computed; run the same command again"):
        train(head_config(below), tmp_path, lambda: next(signals, "a signal"), RunCache())
    assert not list((tmp_path / frozen_features.FOLDER).iterdir())


@pytest.mark.slow
def test_scores_that_need_the_pixels_are_computed_from_the_images(below, tmp_path):
    found = train(
        head_config(below, **{"eval.compare_scores": True, "steps": 4, "eval.every": 4, "checkpoint.every": 4}), tmp_path
    )
    assert "odin" in found["scores"]
    assert "data:image/png" in (tmp_path / "report.html").read_text()


def test_other_weights_images_and_preprocessing_have_other_files():
    pool, spec = open_small_pool(), small_spec(trainable="head", **SAME)
    variables = {"params": {"conv1": {"kernel": np.ones(3, np.float32)}, "fc8": {"bias": np.ones(2)}}, "batch_stats": {}}
    name = lambda spec=spec, pool=pool, variables=variables: frozen_features._fingerprint(spec, pool, variables)
    assert name() == name()
    other_head = {**variables, "params": {**variables["params"], "fc8": {"bias": np.zeros(2)}}}
    assert name(variables=other_head) == name(), "the head does not matter"
    other = {**variables, "params": {**variables["params"], "conv1": {"kernel": np.full(3, 2, np.float32)}}}
    assert name(variables=other) != name()
    assert name(spec=small_spec(trainable="head", **SAME | {"data.image_size": 15})) != name()
    assert name(spec=small_spec(trainable="head", **SAME | {"data.grey": True})) != name()


def test_a_changed_image_is_noticed(tmp_path):
    path = tmp_path / "image.png"
    path.write_bytes(b"one")
    before = frozen_features._stamp(os.fsencode(path))
    path.write_bytes(b"other")
    assert frozen_features._stamp(os.fsencode(path)) != before
    assert frozen_features._stamp(os.fsencode(tmp_path / "nothing.png")) is None


class Made:
    """An inference whose rows 3 and 9 are unreadable."""

    class network:
        feature_size = 4

    def run(self, output, variables, rows):
        for start in range(0, 10, 4):
            here = np.array([row for row in range(start, min(start + 4, 10)) if row not in (3, 9)])
            yield here, {"features": np.repeat(here[:, None], 4, 1).astype(np.float32) * self.scale}


@pytest.mark.parametrize("blanks", [True, False])
def test_unreadable_images_are_blank_or_left_out(tmp_path, monkeypatch, blanks):
    monkeypatch.setattr(frozen_features.dataclasses, "replace", lambda inference, **_: inference)
    made = Made()
    made.scale = 1.0
    with (tmp_path / "features.npy").open("wb") as file:
        kept = frozen_features.write(file, made, {}, 10, lambda: "", blanks=blanks)
    readable = [0, 1, 2, 4, 5, 6, 7, 8]
    assert kept.tolist() == readable
    expected = np.zeros((10, 4))
    expected[readable] = np.array(readable)[:, None]
    np.testing.assert_array_equal(np.load(tmp_path / "features.npy"), expected if blanks else expected[readable])
    made.scale = 1e4
    with (tmp_path / "large.npy").open("wb") as file, pytest.raises(OverflowError, match="A feature of 7e.04 is too large"):
        frozen_features.write(file, made, {}, 10, lambda: "")


def test_features_too_large_for_their_file_are_not_used(below, tmp_path, monkeypatch, capsys):
    def overflow(*_, **__):
        raise OverflowError("A feature of 1e+05 is too large for float16.")

    monkeypatch.setattr(frozen_features, "write", overflow)
    train(head_config(below, steps=4, **{"eval.every": 4, "checkpoint.every": 4}), tmp_path, cache=RunCache())
    assert "is too large for float16. The head is trained from the images instead.\n" in capsys.readouterr().out
    assert not list((tmp_path / frozen_features.FOLDER).iterdir())
