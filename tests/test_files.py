"""Files are written completely or not at all, whatever interrupts the writing."""

import errno
import os

import pytest

from openset_jax import files
from openset_jax.files import sync_tree, write_whole


def test_a_file_takes_its_place_when_it_is_finished(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("before")
    with write_whole(path) as file:
        file.write("after \udcff")
        assert path.read_text() == "before"
    assert path.read_bytes() == b"after \xff"
    with pytest.raises(KeyError), write_whole(path, "wb") as file:
        file.write(b"half")
        raise KeyError
    assert path.read_bytes() == b"after \xff"


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt, GeneratorExit])
def test_what_ends_the_writing_leaves_the_old_file_and_nothing_beside_it(tmp_path, error):
    path = tmp_path / "rows.csv"
    with write_whole(path) as file:
        file.write("old")
    with pytest.raises(error), write_whole(path) as file:
        file.write("half of the n")
        raise error
    assert [entry.name for entry in tmp_path.iterdir()] == ["rows.csv"]
    assert path.read_text() == "old"


def test_of_two_writers_of_one_path_the_last_wins_and_files_of_others_stay(tmp_path):
    path, others = tmp_path / "rows.csv", tmp_path / "rows.csv.tmp"
    others.write_text("the user's")
    with write_whole(path) as first:
        first.write("first\n")
        with write_whole(path) as second:
            second.write("second\n")
        assert path.read_text() == "second\n"
        first.write("first\n")
    assert path.read_text() == "first\nfirst\n"
    assert others.read_text() == "the user's"
    assert set(tmp_path.iterdir()) == {path, others}


def test_permissions_are_those_of_open(tmp_path):
    path, usual = tmp_path / ("n" * 255), tmp_path / "usual"  # the longest possible name
    with write_whole(path), usual.open("w"):
        pass
    assert path.stat().st_mode == usual.stat().st_mode
    path.chmod(0o640)
    with write_whole(path):
        pass
    assert path.stat().st_mode & 0o777 == 0o640


def test_a_symbolic_link_stays_one(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "link.csv"
    link.symlink_to("elsewhere/target.csv")
    with write_whole(link) as file:
        file.write("rows")
    assert link.is_symlink()
    assert (tmp_path / "elsewhere/target.csv").read_text() == "rows"


def test_the_content_is_on_the_disk_before_the_name_and_the_name_at_the_end(tmp_path, monkeypatch):
    path, synced = tmp_path / "a", []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append((os.readlink(f"/proc/self/fd/{fd}"), path.exists())))
    with write_whole(path) as file:
        file.write("content")
    (temporary, before), last = synced
    assert os.path.dirname(temporary) == str(tmp_path)
    assert not before
    assert last == (str(tmp_path), True)


def test_a_tree_is_synced_with_all_its_files_and_folders(tmp_path, monkeypatch):
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/file").touch()
    synced = []
    monkeypatch.setattr(files, "sync", synced.append)
    sync_tree(tmp_path)
    assert set(synced) == {tmp_path, *tmp_path.rglob("*")}


def test_a_full_disk_names_the_file(tmp_path):
    with pytest.raises(OSError, match="No space left on device: .*rows.csv'"), write_whole(tmp_path / "rows.csv"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_file_names_that_are_no_text_keep_their_bytes(tmp_path):
    with write_whole(tmp_path / "rows.csv") as file:
        file.write("caf\udce9.jpg")
    assert (tmp_path / "rows.csv").read_bytes() == b"caf\xe9.jpg"
