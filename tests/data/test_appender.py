"""Appending past the page cache: bytes are kept on every file system, and errors are raised."""

import contextlib
import errno
import os

import numpy as np
import pytest

from openset_jax.data import appender as appender_module
from openset_jax.data.appender import BLOCK, Appender

BUFFERED = "a file system without O_DIRECT", "one that refuses the first block"


@pytest.fixture(params=["as it is", *BUFFERED])
def system(request, monkeypatch):
    """Simulates file systems without unbuffered writes, too."""
    direct, real_open, real_write = os.O_DIRECT, os.open, os.pwrite
    refused = []

    def refuse(here, *arguments):
        refused.append(here)
        raise OSError(errno.EINVAL, "Invalid argument")

    def open_(path, flags, *rest):
        return refuse("open") if flags & direct else real_open(path, flags, *rest)

    def write(*arguments):
        return refuse("write") if not refused else real_write(*arguments)

    if request.param == BUFFERED[0]:
        monkeypatch.setattr(appender_module.os, "open", open_)
    if request.param == BUFFERED[1]:
        monkeypatch.setattr(appender_module.os, "pwrite", write)
    yield
    assert refused == {BUFFERED[0]: ["open"], BUFFERED[1]: ["write"]}.get(request.param, [])


@pytest.mark.parametrize("start", [0, 1, 128, BLOCK - 1, BLOCK, 3 * BLOCK + 7])
def test_what_is_appended_is_there_after_each_sync_and_what_was_there_stays(tmp_path, monkeypatch, system, start):
    monkeypatch.setattr(appender_module, "_ROOM", 4 * BLOCK)
    rng, path = np.random.default_rng(start), tmp_path / "file"
    content = rng.integers(0, 256, start, np.uint8).tobytes()
    path.write_bytes(content + b"overwritten" * 100)
    appender = Appender(path, start)
    for count in (5, 0, BLOCK, 1, 9 * BLOCK + 3, 4 * BLOCK, 2):
        more = rng.integers(0, 256, count, np.uint8)
        appender.write(more)
        appender.sync()
        content += more.tobytes()
        there = path.read_bytes()
        assert there[: len(content)] == content
    appender.close()
    appender.close()
    assert path.stat().st_size < len(content) + BLOCK


def test_a_full_disk_is_an_error_and_not_a_reason_to_write_otherwise(tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "file").touch()
    appender = Appender(tmp_path / "file", 0)
    appender.write(np.zeros(10, np.uint8))
    monkeypatch.setattr(appender_module.os, "pwrite", full)
    with pytest.raises(OSError, match="No space"), contextlib.closing(appender):
        appender.sync()


def test_no_images_at_all_can_be_appended(tmp_path):
    (tmp_path / "file").write_bytes(b"there")
    with contextlib.closing(Appender(tmp_path / "file", 5)) as appender:
        appender.write(np.zeros((0, 4, 4, 3), np.uint8))
        appender.sync()
    assert (tmp_path / "file").read_bytes()[:5] == b"there"
