"""Free memory, and copying images to the devices in chunks."""

import jax
import numpy as np
import pytest
from small_run import open_small_pool

from openset_jax.data import resident
from openset_jax.data.pools import image_type
from openset_jax.errors import UserError
from openset_jax.training import device_memory

MACHINE, LIMIT, USED = "proc/meminfo", "sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory.current"


@pytest.mark.parametrize(
    ("files", "free"),
    [
        ({MACHINE: "MemTotal: 9 kB\nMemAvailable: 8 kB\n"}, 8 * 1024),
        ({MACHINE: "MemAvailable: 8 kB\n", LIMIT: "max", USED: "1"}, 8 * 1024),
        ({MACHINE: "MemAvailable: 8 kB\n", LIMIT: "5000", USED: "1000"}, 4000),
        ({}, None),
    ],
    ids=["machine", "container without limit", "container", "unknown"],
)
def test_free_memory_is_that_of_the_container(tmp_path, files, free):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert device_memory.free_host_memory(tmp_path) == free


@pytest.mark.accelerator
def test_a_pool_is_copied_in_chunks_that_need_not_divide_it(monkeypatch):
    pool = open_small_pool()
    whole = resident.read(pool, 0, len(pool))
    np.testing.assert_array_equal(whole[5], pool.sources[0].fetch(pool.record[5:6])[0])
    assert not resident.read(pool, len(pool) - 1, len(pool) + 2)[1:].any()
    read = lambda start, stop: resident.read(pool, start, stop)
    for chunk in (1, 100 * 768, 10**9):
        monkeypatch.setattr(device_memory, "_CHUNK_BYTES", max(chunk, len(pool) * 768 // 7))
        np.testing.assert_array_equal(device_memory.copy_to_devices(read, len(pool), pool.array, sharded=False), whole)


def test_images_that_do_not_fit_are_refused_with_the_missing_memory_and_what_to_do(monkeypatch):
    free = 1 << 20

    class Small:
        def memory_stats(self):
            return {"bytes_limit": free + 10, "bytes_in_use": 10}

    monkeypatch.setattr(jax, "local_devices", lambda: [Small()])
    says = (
        "resident images need 1.1 MiB, and a device has only 1.0 MiB free .* less.; spread them over 2 or more "
        r"devices \(--config.shard_resident=True\).*--config.input=stream"
    )
    with pytest.raises(UserError, match=says):
        device_memory.copy_to_devices(None, 1500, image_type(16), sharded=False)


def test_a_batch_larger_than_the_memory_is_refused(monkeypatch):
    monkeypatch.setattr(device_memory, "free_host_memory", lambda: 3 << 30)
    device_memory.check_batch("batch_size", 1024, image_type(1024))
    with pytest.raises(
        UserError, match="^eval.batch_size: the images of a batch of 2,048 need 6.0 GiB, .* only 3.0 GiB free"
    ):
        device_memory.check_batch("eval.batch_size", 2048, image_type(1024))
