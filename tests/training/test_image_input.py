"""Streamed and resident images are the same, in the same order, and give the same run; with and without TensorFlow."""

import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from small_run import (
    PACKED,
    ROOT,
    SAVES_OFTEN,
    assert_same_run,
    command,
    environment,
    lines,
    make_small_run,
    not_packed,
    open_small_pool,
    run,
    small_config,
    train,
)

from openset_jax.data import batches, pools
from openset_jax.data.unreadable import Unreadable
from openset_jax.errors import Stopped, UserError
from openset_jax.training import hosts, input_choice

SCRIPT = pathlib.Path(__file__).with_name("fed_steps.py")


def test_both_inputs_give_the_same_images_in_the_same_order():
    small = make_small_run()
    pool, members, sampler = small.pool, small.rows_by_class, small.sampler
    unreadable = Unreadable(pool)
    make = lambda name: input_choice.make_image_input(name, pool, unreadable=unreadable)
    stream, held = make("stream"), make("resident")
    validation = pool.rows(pools.VALIDATION)
    for plan in (
        batches.training(pool, members, sampler, start=7, stop=11, unreadable=unreadable, part=(1, 2)),
        batches.evaluation(pool, validation, batch_size=64, unreadable=unreadable),
    ):
        count = 0
        for streamed, rows in zip(stream.read(plan), held.read(plan), strict=True):
            loaded = held.load(held.store, rows)
            mask = streamed["mask"]
            np.testing.assert_array_equal(np.asarray(loaded["example"])[mask], streamed["example"][mask])
            ids = [pool.ids(r) for r in (rows["row"][mask], plan.rows(plan.start + count)[mask])]
            assert ids[0] == ids[1]
            for name in ("label", "position", "mask"):
                np.testing.assert_array_equal(rows[name], streamed[name])
            count += 1
        assert count == plan.stop - plan.start > 1


@pytest.mark.slow
def test_any_number_of_devices_and_every_input_give_the_same_losses(tmp_path):
    """Streamed and resident, replicated and sharded, on 1 and 4 devices, with 1 and 2 steps per call."""
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


def test_a_resident_run_equals_the_streamed_run_and_a_streamed_run_may_resume_as_resident(tmp_path, uninterrupted):
    import tensorflow  # noqa: F401  where it is loaded, a run writes events

    whole, mixed = tmp_path / "whole", tmp_path / "mixed"
    for folder in (whole, mixed):
        folder.mkdir()
    train(small_config(input="stream", **SAVES_OFTEN), whole)
    assert_same_run(whole, uninterrupted)
    assert any(whole.glob("events.out.tfevents.*"))
    asked = iter(range(10**6))
    with pytest.raises(Stopped):
        train(small_config(input="stream", **SAVES_OFTEN), mixed, lambda: "the test" if next(asked) >= 3 else "")
    train(small_config(**SAVES_OFTEN), mixed)
    assert_same_run(mixed, uninterrupted)


FOLDER = {
    "data.known.source": "folder:{0}", "data.known.classes": tuple("abcde"), "data.negatives.source": "folder:{0}",
    "data.negatives.classes": ("m", "n"), "data.held_out_negatives": None, "data.unknown": None, "trainable": "head",
    "data.max_bad_fraction": 0.1,
}  # fmt: skip


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder of images larger than the stored size; one training file and one test file are no images."""
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for role, names in (("known", "abcde"), ("negatives", "mn")):
        for cls in names:
            (folder / role / cls).mkdir(parents=True)
            for i in range(40):
                image = Image.fromarray(rng.integers(0, 256, (20 + i % 3, 24, 3), np.uint8))
                image.save(folder / role / cls / f"{i}.{('png', 'jpg')[i % 2]}")
    pool = open_small_pool(**in_folder(folder))
    for split, role in ((pools.TRAIN, "negatives"), (pools.TEST, "known")):
        (bad,) = pool.ids(pool.rows(split, role)[1:2])
        (folder / bad).write_bytes(b"no image")
    return folder


def in_folder(folder, **changes):
    """Changes of the config for images in a folder."""
    return {k: v.format(folder) if k.endswith("source") else v for k, v in (FOLDER | changes).items()}


def test_unreadable_images_are_never_among_resident_ones(capsys, photos):
    small = make_small_run(**in_folder(photos))
    pool, members = small.pool, small.rows_by_class
    every = np.arange(len(pool))
    unreadable = {input: Unreadable(pool, 0.1) for input in ("stream", "resident")}
    make = lambda name: input_choice.make_image_input(name, pool, unreadable=unreadable[name])
    held, stream = make("resident"), make("stream")
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("skipped: ")]
    evaluation = lambda input: batches.evaluation(pool, every, batch_size=64, unreadable=unreadable[input])
    streamed, resident_ = list(stream.read(evaluation("stream"))), list(held.read(evaluation("resident")))
    assert [line for line in capsys.readouterr().out.splitlines() if line.startswith("skipped: ")] == said
    assert unreadable["stream"].rows == unreadable["resident"].rows
    assert len(said) == len(unreadable["resident"].rows) == 2
    for one, other in zip(streamed, resident_, strict=True):
        mask = one["mask"]
        np.testing.assert_array_equal(other["mask"], mask)
        image = np.asarray(held.load(held.store, other)["example"])
        np.testing.assert_array_equal(image[mask], one["example"][mask])
    plan = batches.training(pool, members, small.sampler, start=0, stop=20, unreadable=unreadable["resident"])
    drawn = np.concatenate([batch["row"] for batch in held.read(plan)])
    readable = set(np.concatenate(members)) - set(unreadable["resident"].rows)
    assert set(drawn) == readable


@pytest.mark.slow
def test_a_resident_run_with_unreadable_images_equals_the_streamed_one(tmp_path, photos):
    for input in ("stream", "resident"):
        (tmp_path / input).mkdir()
        result = train(small_config(**in_folder(photos, input=input)), tmp_path / input)
        assert result["counts"]["skipped"] == 1
    assert_same_run(tmp_path / "stream", tmp_path / "resident")


def test_too_many_unreadable_images_end_a_resident_run_before_its_first_step(tmp_path, photos):
    with pytest.raises(UserError, match="images could not be read, more than data.max_bad_fraction=0.001"):
        train(small_config(**in_folder(photos, input="resident", **{"data.max_bad_fraction": 0.001})), tmp_path)
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


@pytest.mark.slow
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
    digits = command("train", f"--workdir={tmp_path / 'digits'}", input="auto", steps=3)  # nothing has to be decoded
    done = without_tensorflow(digits)
    assert done.returncode == 0, done.stderr
    streamed = {"data.packed": PACKED, "input": "stream"}
    done = without_tensorflow(command("train", f"--workdir={tmp_path / 'other'}", **streamed))
    assert done.returncode == 0, done.stderr
    losses = [[row["loss"] for row in lines(path)] for path in (tmp_path / "other", uninterrupted)]
    np.testing.assert_allclose(*losses, rtol=1e-4)


@pytest.mark.slow
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


def test_images_that_cannot_be_resident_are_refused(tmp_path, monkeypatch):
    with monkeypatch.context() as several:
        several.setattr(hosts, "host_part", lambda: (1, 2))
        files = not_packed(open_small_pool())
        with pytest.raises(UserError, match="is not packed; run python -m openset_jax.prepare"):
            input_choice.make_image_input("resident", files, unreadable=Unreadable(files))
    with pytest.raises(UserError, match="packed at 16x16, but data.stored_size is 20"):
        train(small_config(**{"input": "resident", "data.packed": str(PACKED), "data.stored_size": 20}), tmp_path)
