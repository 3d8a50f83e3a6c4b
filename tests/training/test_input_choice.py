"""The choice between streamed and resident images, by packing and free memory."""

import contextlib
import json
import sys

import jax
import numpy as np
import pytest
from small_run import (
    PACKED,
    assert_same_run,
    not_packed,
    open_small_pool,
    restore_and_evaluate,
    small_config,
    small_spec,
    train,
)  # fmt: skip

import openset_jax.data
from openset_jax.data import batches, packed
from openset_jax.data.unreadable import Unreadable
from openset_jax.errors import UserError
from openset_jax.training import checkpoints, device_memory, hosts, input_choice

ON_PACKED = {"data.packed": str(PACKED), "input": "auto"}
NEEDED = 1797 * 16 * 16 * 3


@pytest.fixture(scope="module")
def packed_pool():
    return open_small_pool()


def choose(pool, **changes):
    spec = small_spec(**ON_PACKED | changes)
    return input_choice.choose(spec.input, pool)


def chosen(pool, monkeypatch, *, free, device_count=1, **changes):
    class Device:
        def memory_stats(self):
            return {"bytes_limit": free + 7, "bytes_in_use": 7}

    with monkeypatch.context() as patched:
        patched.setattr(jax, "local_devices", lambda: [Device()])
        patched.setattr(jax, "device_count", lambda: device_count)
        return choose(pool, **changes)


def test_packed_images_are_resident_where_they_leave_a_quarter_of_the_free_memory(monkeypatch, packed_pool):
    assert len(packed_pool) * 16 * 16 * 3 == NEEDED
    enough = -(-NEEDED * 4 // 3)
    assert chosen(packed_pool, monkeypatch, free=enough) == ("resident", "images resident on the devices: 1.4 MB packed")
    streamed = chosen(packed_pool, monkeypatch, free=enough - 2)
    assert streamed == (
        "stream", "images streamed: resident images would need 1.4 MB, more than 75% of the 1.8 MB that a device has free"
    )  # fmt: skip


def test_sharded_images_are_compared_with_the_memory_of_one_device(monkeypatch, packed_pool):
    small = {"free": NEEDED // 2, "device_count": 4}
    name, text = chosen(packed_pool, monkeypatch, **small)
    assert name == "stream"
    assert "(--config.shard_resident=True spreads them over the devices)" in text
    name, text = chosen(packed_pool, monkeypatch, shard_resident=True, **small)
    assert (name, text) == ("resident", "images resident on the devices: 1.4 MB packed, spread over 4 devices")
    assert chosen(packed_pool, monkeypatch, shard_resident=True, free=NEEDED // 4, device_count=4).name == "stream"


def test_an_explicit_input_is_used_whether_or_not_images_fit(monkeypatch, packed_pool):
    assert chosen(packed_pool, monkeypatch, free=0, input="resident").name == "resident"
    assert chosen(packed_pool, monkeypatch, free=10**12, input="stream").name == "stream"


def test_images_that_are_not_packed_are_streamed_however_few(monkeypatch, packed_pool):
    files = not_packed(packed_pool)
    assert chosen(files, monkeypatch, free=10**12) == ("stream", "images streamed: they are not packed")
    held = chosen(files, monkeypatch, free=10**12, input="resident")
    assert held == ("resident", "images resident on the devices: 1.4 MB decoded at the start")


def test_the_digits_need_no_decoder_and_are_resident(monkeypatch):
    digits = open_small_pool(input="auto")
    monkeypatch.setitem(sys.modules, "openset_jax.data.pipeline", None)  # where TensorFlow is not installed
    assert chosen(digits, monkeypatch, free=10**12, **{"data.packed": ""}).name == "resident"
    loaded = input_choice.make_image_input("resident", digits, unreadable=Unreadable(digits))
    assert np.asarray(loaded.store)[: len(digits)].std() > 0


def test_devices_without_memory_of_their_own_use_that_of_the_host(monkeypatch, packed_pool):
    monkeypatch.setattr(device_memory, "free_host_memory", lambda: 2 * NEEDED)
    assert choose(packed_pool).name == "resident"
    monkeypatch.setattr(jax, "local_device_count", lambda: 4)  # each holds a copy
    assert "need 5.5 MB, more than 75% of the 2.8 MB that this machine has free" in choose(packed_pool).text
    monkeypatch.setattr(device_memory, "free_host_memory", lambda: None)
    assert "the free memory of this system is unknown" in choose(packed_pool).text


def test_all_processes_stream_if_the_images_do_not_fit_one_of_them(monkeypatch, packed_pool):
    monkeypatch.setattr(hosts, "any_process", lambda flag, communicate: communicate)
    assert choose(packed_pool).name == "stream"


def test_packed_images_that_do_not_fit_are_streamed_without_tensorflow(monkeypatch, packed_pool):
    monkeypatch.setitem(sys.modules, "openset_jax.data.pipeline", None)  # where TensorFlow is not installed
    assert chosen(packed_pool, monkeypatch, free=NEEDED, device_count=2).text == (
        "images streamed: resident images would need 1.4 MB, more than 75% of the 1.4 MB that a device has free "
        "(--config.shard_resident=True spreads them over the devices)"
    )
    made = input_choice.make_image_input("stream", packed_pool, unreadable=Unreadable(packed_pool))
    plan = batches.evaluation(packed_pool, np.arange(70), batch_size=32, unreadable=Unreadable(packed_pool))
    read = np.concatenate([batch["example"][batch["mask"]] for batch in made.read(plan)])
    np.testing.assert_array_equal(read, packed.read(packed_pool, np.arange(70)))


def test_images_that_must_be_decoded_need_tensorflow(monkeypatch, packed_pool):
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    for name in ("pipeline", "tensorflow_cpu", "decode"):
        monkeypatch.delitem(sys.modules, f"openset_jax.data.{name}", raising=False)
        monkeypatch.delattr(openset_jax.data, name, raising=False)
    files = not_packed(packed_pool)
    with pytest.raises(UserError, match="^input: stream needs tensorflow, which is not installed"):
        input_choice.make_image_input("stream", files, unreadable=Unreadable(files))


@pytest.fixture(scope="module")
def of_defaults(tmp_path_factory):
    """The workdir of a run of packed images with model.dtype and input "auto"."""
    workdir = tmp_path_factory.mktemp("of_defaults")
    train(small_config(**{"model.dtype": "auto"}, **ON_PACKED), workdir)
    return workdir


def test_a_run_of_packed_images_on_a_cpu_is_resident_and_equals_the_streamed_one(tmp_path, of_defaults, capsys):
    train(small_config(**ON_PACKED | {"input": "stream"}), tmp_path)
    assert "Computing in float32, images streamed (input=stream).\n" in capsys.readouterr().out
    assert_same_run(tmp_path, of_defaults)
    train(small_config(**{"model.dtype": "auto"}, **ON_PACKED), of_defaults)
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Computing")]
    assert said == ["Computing in float32 (model.dtype=auto on a CPU), images resident on the devices: 1.4 MB packed."]


def test_a_run_saves_the_resolved_dtype_and_the_input_auto(of_defaults):
    with contextlib.closing(checkpoints.open_checkpoints(of_defaults)) as saved:
        in_checkpoint = saved.record(saved.latest_step())["config"]
    for config in (json.loads((of_defaults / "config.json").read_text()), in_checkpoint):
        assert (config["model"]["dtype"], config["input"]) == ("float32", "auto")
    before = (of_defaults / "metrics.json").read_bytes()
    restore_and_evaluate(of_defaults)
    assert (of_defaults / "metrics.json").read_bytes() == before
