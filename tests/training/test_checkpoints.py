"""Checkpoints are complete or absent, and the last and the best are kept."""

import errno
import gc
import shutil

import jax
import numpy as np
import pytest
from small_run import shared_cache, small_spec

from openset_jax import files
from openset_jax.errors import UserError
from openset_jax.training import devices, state
from openset_jax.training.checkpoints import Checkpoints, Damaged, open_checkpoints


def make_state(seed=0, **changes):
    model, _, optimizer = shared_cache().network(small_spec(**changes).program, 5)
    return state.create_state(model, optimizer, seed=seed, shape=(16, 16, 3))


def steps_in(workdir):
    return sorted(int(p.name) for p in (workdir / "checkpoints").iterdir() if p.name.isdigit())


def test_last_and_best_are_kept_and_the_rest_removed(tmp_path):
    saved, current = Checkpoints(tmp_path, writing=True), devices.replicate(make_state())
    assert saved.latest_step() is None
    for step, best in [(1, 1), (2, 2), (3, 2), (4, 2), (5, 5), (6, 5)]:
        saved.save(step, current, {"n": step}, best=best)
        saved.wait()
        assert steps_in(tmp_path) == sorted({step, best})
        assert saved.latest_step() == step
    assert saved.record(5) == {"n": 5}
    saved.close()


def test_a_workdir_whose_name_is_not_utf8_is_refused_before_the_first_step(tmp_path):
    with pytest.raises(UserError, match=r"^--workdir: '.*caf\\udce9' is not valid UTF-8"):
        Checkpoints(tmp_path / "caf\udce9", writing=True)
    assert not list(tmp_path.iterdir())
    Checkpoints(tmp_path / "béret \x1b", writing=True).close()


@pytest.mark.accelerator
def test_a_state_is_restored_bit_by_bit_with_its_batch_statistics(tmp_path):
    original = make_state(**{"model.norm": "batch"})
    saved = Checkpoints(tmp_path, writing=True)
    saved.save(3, devices.replicate(original), {}, best=None)
    saved.wait()
    restored = saved.restore(3, make_state(seed=1, **{"model.norm": "batch"}))
    assert jax.tree.structure(restored) == jax.tree.structure(original)
    jax.tree.map(np.testing.assert_array_equal, restored, original)
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(restored))
    jax.tree.map(np.testing.assert_array_equal, saved.restore_model(3, original.variables), original.variables)
    saved.close()


@pytest.mark.parametrize("name", ["7", "7.orbax-checkpoint-tmp"])
def test_leftovers_of_a_killed_save_are_never_chosen_and_are_removed(tmp_path, name):
    saved = Checkpoints(tmp_path, writing=True)
    saved.save(5, devices.replicate(make_state()), {}, best=None)
    saved.close()
    leftover = tmp_path / "checkpoints" / name
    (leftover / "model").mkdir(parents=True)
    reader = open_checkpoints(tmp_path)
    assert reader.latest_step() == 5
    reader.close()
    writer = Checkpoints(tmp_path, writing=True)
    assert writer.latest_step() == 5
    assert not leftover.exists()
    writer.save(7, devices.replicate(make_state()), {}, best=None)
    writer.close()
    assert steps_in(tmp_path) == [7]


def test_a_workdir_without_checkpoints_is_refused_for_reading(tmp_path):
    with pytest.raises(UserError, match="train first"):
        open_checkpoints(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(UserError, match="no complete checkpoint"):
        open_checkpoints(tmp_path)


def test_a_record_is_copied_before_save_returns(tmp_path):
    saved, current, progress = Checkpoints(tmp_path, writing=True), devices.replicate(make_state()), {"n": 0}
    for step in range(1, 11):
        progress["n"] = step
        saved.save(step, current, {"progress": progress}, best=None)
        progress["n"] = -1  # while a thread writes it
        saved.wait()
        assert saved.record(step) == {"progress": {"n": step}}
    saved.close()


def test_folders_of_others_are_left_alone(tmp_path):
    (tmp_path / "checkpoints/backup").mkdir(parents=True)
    Checkpoints(tmp_path, writing=True).close()
    (tmp_path / "checkpoints/1000").mkdir()
    (tmp_path / "checkpoints/1000/weights.pt").write_text("somebody's")
    with pytest.raises(UserError, match="1000.*not a checkpoint of this program"):
        Checkpoints(tmp_path, writing=True)
    assert (tmp_path / "checkpoints/backup").exists()
    assert (tmp_path / "checkpoints/1000/weights.pt").exists()


def test_a_checkpoint_is_on_the_disk_before_it_has_its_name_and_before_the_older_one_goes(tmp_path, monkeypatch):
    saved, current = Checkpoints(tmp_path, writing=True), devices.replicate(make_state())
    saved.save(1, current, {}, best=None)
    saved.wait()
    synced = []
    monkeypatch.setattr(files, "sync", lambda path: synced.append((path, steps_in(tmp_path))))
    saved.save(2, current, {}, best=None)
    saved.close()
    unfinished, final = tmp_path / "checkpoints/2.orbax-checkpoint-tmp", tmp_path / "checkpoints/2"
    content = {final, *final.rglob("*")} - {final / "commit_success.txt"}  # an empty mark, written later and never read
    assert {path for path, _ in synced} == {unfinished / path.relative_to(final) for path in content}
    assert {tuple(steps) for _, steps in synced} == {(1,)}
    assert steps_in(tmp_path) == [2]


def empty(checkpoint):
    for file in filter(lambda path: path.is_file(), checkpoint.rglob("*")):
        file.write_bytes(b"")


def zeros(checkpoint):
    for file in filter(lambda path: path.is_file(), checkpoint.rglob("*")):
        file.write_bytes(bytes(file.stat().st_size))


DAMAGES = {
    "an empty _METADATA": lambda checkpoint: (checkpoint / "model/_METADATA").write_bytes(b""),
    "no meta/metadata": lambda checkpoint: (checkpoint / "meta/metadata").unlink(),
    "no optimizer": lambda checkpoint: shutil.rmtree(checkpoint / "optimizer"),
    "no arrays": lambda checkpoint: shutil.rmtree(checkpoint / "model/d"),
    "half a manifest": lambda checkpoint: (checkpoint / "model/manifest.ocdbt").write_bytes(b"half"),
    "empty files": empty,
    "zeros": zeros,
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Orbax leaves tasks behind if reading fails
def test_of_checkpoints_the_newest_that_can_be_read_is_taken_and_the_run_goes_on_from_it(tmp_path):
    saved, current, like = Checkpoints(tmp_path / "whole", writing=True), devices.replicate(make_state()), make_state()
    for step in (3, 6):
        saved.save(step, current, {"n": step}, best=3)
    saved.close()
    for what, damage in DAMAGES.items():
        workdir = tmp_path / what
        shutil.copytree(tmp_path / "whole", workdir)
        damage(workdir / "checkpoints/6")
        saved = Checkpoints(workdir, writing=True)
        read = lambda step, saved=saved: (saved.record(step), saved.restore(step, like))
        step, (record, _), warning = saved.newest(read)
        assert (step, record) == (3, {"n": 3}), what
        assert "Warning: the checkpoint of step 6" in warning
        assert "is damaged" in warning
        assert "Using that of step 3." in warning
        saved.continue_from(step)
        saved.save(6, current, {"n": 6}, best=3)
        saved.wait()
        assert saved.newest(read)[0] == 6
        assert (workdir / "checkpoints/6.damaged").exists()
        saved.close()
    shutil.rmtree(workdir / "checkpoints/3")
    empty(workdir / "checkpoints/6")
    reader = open_checkpoints(workdir)
    with pytest.raises(Damaged, match="step 6 in .* is damaged .*; restore the folder from a copy"):
        reader.newest(reader.record)
    reader.close()
    gc.collect()  # these tasks


def test_a_checkpoint_without_permission_is_not_taken_for_a_damaged_one(tmp_path, monkeypatch):
    saved = Checkpoints(tmp_path, writing=True)
    for step in (3, 6):
        saved.save(step, devices.replicate(make_state()), {}, best=3)
    saved.wait()

    def refuse(step, args):
        raise ValueError("PERMISSION_DENIED: Error opening local file: Permission denied [os_error_code='13']")

    monkeypatch.setattr(saved._manager, "restore", refuse)
    with pytest.raises(UserError, match="step 6 .* cannot be read .*; change the permissions"):
        saved.newest(saved.record)
    saved.close()


def test_a_full_disk_is_an_error_of_the_system(tmp_path, monkeypatch):
    saved = Checkpoints(tmp_path, writing=True)

    def refuse(*_, **__):
        raise ValueError("RESOURCE_EXHAUSTED: Error writing file 7: No space left on device [os_error_code='28']")

    monkeypatch.setattr(saved._manager, "save", refuse)
    monkeypatch.setattr(saved._manager, "wait_until_finished", refuse)
    for write in (lambda: saved.save(1, devices.replicate(make_state()), {}, best=None), saved.wait):
        with pytest.raises(OSError, match="No space left") as caught:
            write()
        assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(tmp_path / "checkpoints"))
    monkeypatch.undo()
    saved.close()
