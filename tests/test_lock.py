"""One process at a time writes a folder."""

import errno
import fcntl
import os
import subprocess
import sys
import threading

import pytest
from small_run import ROOT, restore_and_evaluate, small_config, train

from openset_jax.lock import FolderInUse, claimed
from openset_jax.prepare import prepare


def test_the_second_is_refused_and_told_who_is_first_and_nothing_is_left(tmp_path):
    for _ in range(2):
        with claimed(tmp_path):
            with pytest.raises(FolderInUse, match=f"in use by process {os.getpid()} on "), claimed(tmp_path):
                pass
            with pytest.raises(FolderInUse, match=f"in use by process {os.getpid()} on "), claimed(tmp_path):
                pass
        assert not list(tmp_path.iterdir())


def test_those_who_wait_come_one_after_the_other(tmp_path):
    inside, most = [], []

    def work():
        with claimed(tmp_path, wait=True):
            inside.append(1)
            most.append(len(inside))
            inside.pop()

    with claimed(tmp_path):
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
    for thread in threads:
        thread.join(timeout=20)
    assert most == [1] * 4


def test_a_killed_process_leaves_no_lock(tmp_path):
    script = f"import pathlib, os\nfrom openset_jax.lock import claimed\nwith claimed(pathlib.Path({str(tmp_path)!r})):\n"
    killed = subprocess.run([sys.executable, "-c", script + "  os.kill(os.getpid(), 9)"], cwd=ROOT, check=False)
    assert killed.returncode == -9
    assert (tmp_path / "lock").exists()
    with claimed(tmp_path):
        assert (tmp_path / "lock").read_text().startswith(f"process {os.getpid()} on ")


def test_a_file_system_without_locks_is_a_warning(tmp_path, monkeypatch, capsys):
    def refuse(file, operation):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with claimed(tmp_path):
        assert "cannot be locked (No locks available)" in capsys.readouterr().out


@pytest.mark.parametrize("command", [lambda folder: train(small_config(), folder), restore_and_evaluate,
                                     lambda folder: prepare(small_config(), folder)])  # fmt: skip
def test_commands_that_write_a_folder_lock_it(tmp_path, command):
    checkpoint = tmp_path / "checkpoints/1/_CHECKPOINT_METADATA"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.touch()
    with claimed(tmp_path), pytest.raises(FolderInUse, match=f"process {os.getpid()}"):
        command(tmp_path)
