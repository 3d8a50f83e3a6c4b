"""Packed arrays have the same images as their source, and give the same run."""

import contextlib
import pathlib
import shutil
import sys

import numpy as np
import pytest
from PIL import Image
from small_run import lines, open_small_pool, run, saved_arrays, small_config, train

from openset_jax import config as configs
from openset_jax import unattended
from openset_jax.data import pipeline
from openset_jax.data.pool_builder import Selection, build_pool
from openset_jax.data.pools import TEST, TRAIN, VALIDATION
from openset_jax.errors import Stopped, UserError
from openset_jax.prepare import _equal_images, prepare
from openset_jax.report import console
from openset_jax.training.run_cache import RunCache


def open_pool(config):
    """The images of a config, as a run opens them."""
    (spec,) = configs.resolve(config, pathlib.Path("/w"))
    return RunCache().pool(spec)


def test_arrays_without_negatives_are_enough_for_an_objective_that_uses_none(tmp_path):
    closed = small_config(**{"objective.name": "softmax", "input": "stream", "early_stopping.metric": "accuracy"})
    closed.data.negatives = closed.data.held_out_negatives = closed.data.unknown = None
    prepare(closed, tmp_path)

    def packed(objective):
        config = closed.copy_and_resolve_references()
        config.update_from_flattened_dict({"objective.name": objective, "data.packed": str(tmp_path)})
        return config

    assert open_pool(packed("softmax")).fingerprint() == open_pool(closed).fingerprint()
    with pytest.raises(UserError, match=r"data\.negatives: packed:.* has no negatives; it has "):
        open_pool(packed("background"))
    with pytest.raises(UserError, match=r"data\.negatives: this config has .*, but .* were prepared with nothing"):
        open_pool(small_config(**{"data.packed": str(tmp_path)}))


def test_of_an_experiment_the_images_of_its_run_are_packed(tmp_path):
    asked = ["--config=configs/imbalance_digits.py", "--config.run.data.stored_size=16", "--config.run.data.image_size=16"]
    done = run([sys.executable, "-m", "openset_jax.prepare", *asked, f"--out={tmp_path}"])
    assert done.returncode == 0, done.stderr
    assert f"Use them with --config.run.data.packed={tmp_path}" in done.stdout
    of_run, streamed = small_config(**{"data.packed": str(tmp_path)}), small_config(input="stream")
    assert len(open_pool(of_run)) == len(open_pool(streamed))


def test_training_from_packed_arrays_is_training_from_the_source(tmp_path):
    packed, streamed, from_packed = (tmp_path / name for name in ("packed", "streamed", "from_packed"))
    for folder in (packed, streamed, from_packed):
        folder.mkdir()
    result = prepare(small_config(input="stream"), packed)
    pool = open_small_pool(input="stream")
    assert result == {"images": len(pool), "unreadable": 0, "leaks": 0, "contradictions": 0}
    assert open_small_pool(**{"data.packed": str(packed)}).fingerprint() == pool.fingerprint()
    train(small_config(steps=5, input="stream"), streamed)
    train(small_config(**{"steps": 5, "data.packed": str(packed), "input": "auto"}), from_packed)
    one, other = saved_arrays(streamed), saved_arrays(from_packed)
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)
    assert lines(streamed) == lines(from_packed)
    assert (streamed / "metrics.json").read_bytes() == (from_packed / "metrics.json").read_bytes()
    with pytest.raises(UserError, match="packed at 16x16, but data.stored_size is 20"):
        train(small_config(**{"steps": 5, "data.packed": str(packed), "data.stored_size": 20}), tmp_path / "other")


@pytest.fixture
def photos(tmp_path):
    """A folder by role with an unreadable file, and one image that is both known and negative."""
    rng = np.random.default_rng(0)
    for group in ("known/cat", "known/dog", "negatives/car"):
        (tmp_path / "photos" / group).mkdir(parents=True)
        for i in range(40):
            pixels = rng.integers(0, 256, (20, 24, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / group / f"{i}.png")
    shutil.copy(tmp_path / "photos/known/cat/3.png", tmp_path / "photos/negatives/car/copy.png")
    (tmp_path / "photos/known/dog/broken.jpg").write_bytes(b"\xff\xd8\xff this is no image")
    return tmp_path / "photos"


def folder_config(root, **changes):
    from configs import folder

    config = folder.get_config()
    config.update_from_flattened_dict(
        {"data.root": str(root), "data.stored_size": 16, "data.image_size": 16, "model.stem": "small"} | changes
    )
    return config


def test_the_audit_names_what_is_broken_and_what_leaks(tmp_path, photos, capsys):
    out = tmp_path / "packed"
    out.mkdir()
    assert prepare(folder_config(photos), out) == {"images": 121, "unreadable": 1, "leaks": 1, "contradictions": 0}
    said = capsys.readouterr().out
    assert "known/dog/broken.jpg" in said
    assert "negatives/car/copy.png" in said
    assert "is the same image as 'known/cat/3.png'" in said
    images = np.load(out / "images.npy", mmap_mode="r")
    assert images.shape == (121, 16, 16, 3)
    pool = open_pool(folder_config(photos, **{"data.packed": str(out)}))
    assert len(pool) == 121
    assert "Warning: openset_jax.prepare found 1 leaks in these packed arrays: " in console.pool_table(pool)
    with pytest.raises(UserError, match="has packed arrays already"):
        prepare(folder_config(photos), out)


def test_every_copy_is_reported_by_role_split_and_class(make_source):
    """Each class has a train, a validation and a test image; all images are one of two pictures."""
    splits = {"a": [TRAIN, VALIDATION, TEST], "b": [TRAIN, VALIDATION, TEST], "car": [TRAIN], "bus": [TRAIN]}
    source = make_source({name: len(of) for name, of in splits.items()}, splits=lambda name, i: splits[name][i])
    pool = build_pool({"known": [Selection(source, ("a", "b"))], "negatives": [Selection(source, ("car", "bus"))]})
    picture = {"a/0": 1, "b/0": 1, "b/2": 1, "car/0": 1, "bus/0": 2, "a/1": 3, "a/2": 4, "b/1": 5}
    ids = pool.ids(np.arange(len(pool)))
    images = np.array([np.full((4, 4, 3), picture[id_], np.uint8) for id_ in ids])
    lines = list(_equal_images(pool, np.arange(len(pool)), [0] * len(pool), images))
    assert lines == [
        ("contradictions", "'b/0' (b, train) is the same image as 'a/0' (a, train)"),
        ("leaks", "'b/2' (b, test) is the same image as 'a/0' (a, train)"),
        ("leaks", "'car/0' (car, train) is the same image as 'a/0' (a, train)"),
    ]
    images[:] = 0
    kinds = [kind for kind, _ in _equal_images(pool, np.arange(len(pool)), [0] * len(pool), images)]
    assert kinds.count("leaks") == 7, "all but the first"
    assert kinds.count("contradictions") == 3, "those of b"


def test_too_many_broken_files_end_it_and_leave_nothing_that_looks_finished(tmp_path, photos):
    out = tmp_path / "packed"
    out.mkdir()
    with pytest.raises(UserError, match="max_bad_fraction"):
        prepare(folder_config(photos, **{"data.max_bad_fraction": 0.001}), out)
    assert not (out / "progress.jsonl").exists(), "the next call reads the images again"
    with pytest.raises(UserError, match="not a complete output of openset_jax.prepare"):
        open_pool(folder_config(photos, **{"data.packed": str(out)}))


KILL_AFTER = """
import os, pathlib, signal, sys
from configs import folder
from openset_jax import prepare
from openset_jax.data import packed

root, out, chunks, torn = sys.argv[1], pathlib.Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
prepare.CHUNK = 16
append, seen = packed.Writer.append, []

def append_and_die(self, images, good):
    seen.append(1)
    if len(seen) > chunks:
        if torn == "images":  # an incomplete chunk
            self._images.write(images[:5]); self._images.sync()
        if torn == "journal":
            self._images.write(images[good]); self._images.sync(); self._lines.write('{"good": [1, 1'); self._lines.flush()
        os.kill(os.getpid(), getattr(signal, sys.argv[5]))
    append(self, images, good)

packed.Writer.append = append_and_die
config = folder.get_config()
config.update_from_flattened_dict(
    {"data.root": root, "data.stored_size": 16, "data.image_size": 16, "model.stem": "small"}
)
from openset_jax.errors import Stopped
try:
    prepare.prepare(config, out)
except Stopped as stopped:
    print(stopped)
    sys.exit(3)
"""


def stopped_midway(photos, out, *, chunks=3, torn="", signal="SIGKILL"):
    out.mkdir(exist_ok=True)
    return run([sys.executable, "-c", KILL_AFTER, str(photos), str(out), str(chunks), torn, signal])


@pytest.mark.slow
@pytest.mark.parametrize("torn", ["images", "journal"])
def test_killed_at_any_moment_it_goes_on_and_ends_with_the_same_bytes(tmp_path, photos, torn, capsys):
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    whole.mkdir()
    expected = prepare(folder_config(photos), whole)
    assert stopped_midway(photos, resumed, torn=torn).returncode == -9
    assert not (resumed / "index.json").exists()
    capsys.readouterr()
    assert prepare(folder_config(photos), resumed) == expected
    said = capsys.readouterr()
    assert "known/dog/broken.jpg" in said.out
    assert "is the same image as 'known/cat/3.png'" in said.out
    assert "| 48/122" in said.err  # where the bar starts: three chunks were done
    assert {file.name for file in resumed.iterdir()} == {"images.npy", "index.json"}
    for name in ("images.npy", "index.json"):
        assert (resumed / name).read_bytes() == (whole / name).read_bytes(), name


@pytest.mark.slow
def test_a_signal_stops_it_at_a_chunk_and_says_so(tmp_path, photos):
    done = stopped_midway(photos, tmp_path / "out", signal="SIGTERM")
    assert done.returncode == 3, done.stderr
    assert "Stopped by SIGTERM after 64 of 122 images; to continue, run it again." in done.stdout


@pytest.mark.parametrize("change", ["another size", "more images"])
def test_the_beginning_of_something_else_is_refused(tmp_path, photos, change):
    out = tmp_path / "out"
    out.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("openset_jax.prepare.CHUNK", 16)
        patch.setattr(unattended, "stop_on_signal", lambda: contextlib.nullcontext(lambda: "SIGTERM"))
        with pytest.raises(Stopped, match="after 16 of 122 images"):
            prepare(folder_config(photos), out)
    before = (out / "images.npy").read_bytes()
    if change == "more images":
        shutil.copy(photos / "known/cat/3.png", photos / "known/cat/more.png")
    with pytest.raises(UserError, match="has an unfinished array of other images"):
        prepare(folder_config(photos, **({"data.stored_size": 20} if change == "another size" else {})), out)
    assert (out / "images.npy").read_bytes() == before


def test_packed_pixels_are_the_streamed_ones(tmp_path, photos):
    out = tmp_path / "out"
    out.mkdir()
    prepare(folder_config(photos, **{"data.max_bad_fraction": 0.5}), out)
    pool = open_pool(folder_config(photos))
    kept = np.array([row for row in range(len(pool)) if "broken" not in pool.ids([row])[0]])
    np.testing.assert_array_equal(np.load(out / "images.npy"), pipeline.read_images(pool, kept))
