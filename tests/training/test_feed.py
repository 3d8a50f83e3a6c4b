"""Streamed and resident: the same images in the same order, and the same run; with and without TensorFlow."""

import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest
from PIL import Image
from small_run import PACKED, ROOT, assert_same_run, command, environment, lines, run, small_config

from openset_jax import build
from openset_jax.data import batches, pools, resident
from openset_jax.data.unreadable import Skipped
from openset_jax.errors import Stopped, UserError
from openset_jax.train import train
from openset_jax.training import devices, feed

SCRIPT = pathlib.Path(__file__).with_name("fed_steps.py")


@pytest.fixture
def pool():
    return build.open_pool(small_config())


def feeds(pool):
    skipped = Skipped(pool)
    make = lambda input, sharded=False: feed.make_feed(input, pool, stored_size=16, skipped=skipped, sharded=sharded)
    return skipped, make("stream"), make("resident")


def test_both_feeds_give_the_same_images_in_the_same_order(pool):
    skipped, stream, held = feeds(pool)
    members = pool.training_members()
    sampler = build.make_sampler(small_config(), members)
    validation = pool.rows(pools.VALIDATION)
    for plan in (
        batches.training(pool, members, sampler, start=7, stop=11, skipped=skipped, part=(1, 2)),
        batches.evaluation(pool, validation, batch_size=64, skipped=skipped),
    ):
        count = 0
        for streamed, rows in zip(stream.read(plan), held.read(plan), strict=True):
            loaded = held.load(held.store, rows)
            mask = streamed["mask"]
            np.testing.assert_array_equal(np.asarray(loaded["image"])[mask], streamed["image"][mask])
            ids = [pool.ids(r) for r in (rows["row"][mask], plan.rows(plan.start + count)[mask])]
            assert ids[0] == ids[1]
            for name in ("label", "position", "mask"):
                np.testing.assert_array_equal(rows[name], streamed[name])
            count += 1
        assert count == plan.stop - plan.start > 1


@pytest.mark.accelerator
def test_a_pool_is_copied_in_chunks_that_need_not_divide_it(monkeypatch, pool):
    whole = resident.read(pool, 0, len(pool), 16)
    np.testing.assert_array_equal(whole[5], pool.sources[0].fetch(pool.record[5:6])[0])
    assert not resident.read(pool, len(pool) - 1, len(pool) + 2, 16)[1:].any()
    read = lambda start, stop: resident.read(pool, start, stop, 16)
    for chunk in (1, 100 * 768, 10**9):
        monkeypatch.setattr(devices, "_CHUNK_BYTES", max(chunk, len(pool) * 768 // 7))
        np.testing.assert_array_equal(devices.hold(read, len(pool), (16, 16, 3), sharded=False), whole)


def test_any_number_of_devices_may_share_a_pool(tmp_path):
    """Replicated or sharded, on 1 and 4 devices, one step or two a call: the same losses as streamed."""
    expected = None
    for count in (1, 4):
        env = environment(count) | {"PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "tests")))}
        out = tmp_path / f"{count}.npz"
        done = subprocess.run(
            [sys.executable, SCRIPT, out, PACKED],
            cwd=ROOT,
            env=env,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        losses = dict(np.load(out))
        assert set(losses) == {"stream", "resident", "sharded", "two_a_call"}
        expected = losses["stream"] if expected is None else expected
        assert expected[0] != expected[-1]
        for name, values in losses.items():
            np.testing.assert_allclose(values, expected, rtol=1e-4, err_msg=f"{name}, {count} devices")


def test_a_resident_run_is_the_streamed_run_and_either_may_go_on_as_the_other(tmp_path, uninterrupted):
    whole, mixed = tmp_path / "whole", tmp_path / "mixed"
    for folder in (whole, mixed):
        folder.mkdir()
    train(small_config(input="stream"), whole)
    assert_same_run(whole, uninterrupted)
    assert any(whole.glob("events.out.tfevents.*"))
    asked = iter(range(10**6))
    with pytest.raises(Stopped):
        train(small_config(input="stream"), mixed, lambda: "the test" if next(asked) >= 3 else "")
    train(small_config(), mixed)
    assert_same_run(mixed, uninterrupted)


FOLDER = {
    "data.known.source": "folder:{0}", "data.known.classes": tuple("abcde"), "data.negatives.source": "folder:{0}",
    "data.negatives.classes": ("m", "n"), "data.held_out_negatives": None, "data.unknown": None, "trainable": "head",
    "data.max_bad_fraction": 0.1,
}  # fmt: skip


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder of classes, of other sizes than they are stored in, with one to train and one to test on that is no image."""
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for role, names in (("known", "abcde"), ("negatives", "mn")):
        for cls in names:
            (folder / role / cls).mkdir(parents=True)
            for i in range(40):
                image = Image.fromarray(rng.integers(0, 256, (20 + i % 3, 24, 3), np.uint8))
                image.save(folder / role / cls / f"{i}.{('png', 'jpg')[i % 2]}")
    pool = build.open_pool(in_folder(folder))
    for split, role in ((pools.TRAIN, "negatives"), (pools.TEST, "known")):
        (bad,) = pool.ids(pool.rows(split, role)[1:2])
        (folder / bad).write_bytes(b"no image")
    return folder


def in_folder(folder, **changes):
    return small_config(**{k: v.format(folder) if k.endswith("source") else v for k, v in (FOLDER | changes).items()})


def test_images_that_cannot_be_read_are_never_among_resident_ones(capsys, photos):
    config = in_folder(photos)
    pool = build.open_pool(config)
    every, members = np.arange(len(pool)), pool.training_members()
    skipped = {input: Skipped(pool, 0.1) for input in ("stream", "resident")}
    make = lambda input: feed.make_feed(input, pool, stored_size=16, skipped=skipped[input])
    held, stream = make("resident"), make("stream")
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("skipped: ")]
    evaluation = lambda input: batches.evaluation(pool, every, batch_size=64, skipped=skipped[input])
    streamed, resident_ = list(stream.read(evaluation("stream"))), list(held.read(evaluation("resident")))
    assert [line for line in capsys.readouterr().out.splitlines() if line.startswith("skipped: ")] == said
    assert skipped["stream"].rows == skipped["resident"].rows
    assert len(said) == len(skipped["resident"].rows) == 2
    for one, other in zip(streamed, resident_, strict=True):
        mask = one["mask"]
        np.testing.assert_array_equal(other["mask"], mask)
        image = np.asarray(held.load(held.store, other)["image"])
        np.testing.assert_array_equal(image[mask], one["image"][mask])
    sampler = build.make_sampler(config, members)
    plan = batches.training(pool, members, sampler, start=0, stop=20, skipped=skipped["resident"])
    drawn = np.concatenate([batch["row"] for batch in held.read(plan)])
    readable = set(np.concatenate(members)) - set(skipped["resident"].rows)
    assert set(drawn) == readable


def test_a_resident_run_with_images_that_cannot_be_read_is_the_streamed_one(tmp_path, photos):
    for input in ("stream", "resident"):
        (tmp_path / input).mkdir()
        result = train(in_folder(photos, input=input), tmp_path / input)
        assert result["counts"]["skipped"] == 1
    assert_same_run(tmp_path / "stream", tmp_path / "resident")


def test_too_many_images_that_cannot_be_read_end_a_resident_run_before_it_begins(tmp_path, photos):
    with pytest.raises(UserError, match="images could not be read, more than data.max_bad_fraction=0.001"):
        train(in_folder(photos, input="resident", **{"data.max_bad_fraction": 0.001}), tmp_path)
    assert not (tmp_path / "metrics.jsonl").exists()


WITHOUT_TENSORFLOW = """
import importlib.machinery, runpy, sys
find = importlib.machinery.PathFinder.find_spec
absent = ("tensorflow", "tensorflow_datasets", "tensorboard")
importlib.machinery.PathFinder.find_spec = lambda name, path=None, target=None: (
    None if name.split(".")[0] in absent else find(name, path, target))
sys.argv = sys.argv[1:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=False)
"""


def without_tensorflow(arguments):
    """`python -m MODULE ...` where TensorFlow is not installed."""
    python, _, *rest = arguments
    return run([python, "-c", WITHOUT_TENSORFLOW, *rest])


def test_a_resident_run_trains_evaluates_and_resumes_where_tensorflow_is_not_installed(tmp_path, uninterrupted):
    several = {"steps_per_call": 2, "checkpoint.every": 4}
    arguments = command("train", f"--workdir={tmp_path}", **several)
    done = without_tensorflow(arguments)
    assert done.returncode == 0, done.stderr
    assert "No TensorBoard events" in done.stdout
    assert [row["step"] for row in lines(tmp_path)] == [2, 4, 6, 8, 10, 12]
    np.testing.assert_allclose([r["loss"] for r in lines(tmp_path)], [r["loss"] for r in lines(uninterrupted)], rtol=1e-4)
    assert not list(tmp_path.glob("events.out.*"))
    before = (tmp_path / "metrics.json").read_bytes()
    (tmp_path / "metrics.json").unlink()
    done = without_tensorflow([sys.executable, "-m", "openset_jax.evaluate", f"--workdir={tmp_path}"])
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "metrics.json").read_bytes() == before
    done = without_tensorflow(command("train", f"--workdir={tmp_path}", **several | {"steps": 14}))
    assert done.returncode == 0, done.stderr
    assert "Resuming at step 12." in done.stdout
    streamed = {"data.packed": PACKED, "input": "stream"}
    done = without_tensorflow(command("train", f"--workdir={tmp_path / 'other'}", **streamed))
    assert done.returncode == 2
    assert "input: stream needs tensorflow, which is not installed" in done.stderr


def test_a_resident_run_does_not_load_tensorflow_where_it_is(tmp_path):
    script = (
        "import pathlib, sys\n"
        "from small_run import small_config\n"
        "from openset_jax.train import train\n"
        "train(small_config(), pathlib.Path(sys.argv[1]))\n"
        "assert 'tensorflow' not in sys.modules\n"
    )
    env = environment() | {"PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "tests")))}
    subprocess.run([sys.executable, "-c", script, tmp_path], cwd=ROOT, env=env, check=True, timeout=240)


def test_what_cannot_be_resident_is_refused(tmp_path, monkeypatch, pool):
    with monkeypatch.context() as several:
        several.setattr(devices, "host_part", lambda: (1, 2))
        digits = build.open_pool(small_config(input="resident"))
        with pytest.raises(UserError, match="digits is none; run python -m openset_jax.prepare"):
            feed.make_feed("resident", digits, stored_size=16, skipped=Skipped(digits))
    with pytest.raises(UserError, match="packed at 16x16, but data.stored_size is 20"):
        train(small_config(**{"input": "resident", "data.packed": str(PACKED), "data.stored_size": 20}), tmp_path)
    free = 1 << 20

    class Small:
        def memory_stats(self):
            return {"bytes_limit": free + 10, "bytes_in_use": 10}

    monkeypatch.setattr(jax, "local_devices", lambda: [Small()])
    says = "needs 1.1 MiB for the images, and a device has 1.0 MiB free: .*shard_resident=True; 2 or more.*input=stream"
    with pytest.raises(UserError, match=says):
        devices.hold(None, 1500, (16, 16, 3), sharded=False)
