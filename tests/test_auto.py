"""What "auto" stands for: the dtype by platform and by what a run began with; the input by packing and free memory."""

import json

import jax
import pytest
from small_run import PACKED, assert_same_run, small_config

from openset_jax import auto, build
from openset_jax import config as configs
from openset_jax.errors import Stopped, UserError
from openset_jax.evaluate import restore_and_evaluate
from openset_jax.train import train
from openset_jax.training import checkpoints, devices

DTYPE = {"model.dtype": "auto"}
ON_PACKED = {"data.packed": str(PACKED), "input": "auto"}
NEEDED = 1797 * 16 * 16 * 3


@pytest.fixture(autouse=True)
def tensorflow(monkeypatch):
    """As where TensorFlow is installed."""
    monkeypatch.setattr(auto, "_can_stream", lambda: True)


@pytest.mark.parametrize(("platform", "dtype"), [("cpu", "float32"), ("gpu", "bfloat16"), ("tpu", "bfloat16")])
def test_the_dtype_is_that_of_the_platform_unless_one_is_asked_for(monkeypatch, platform, dtype):
    monkeypatch.setattr(jax, "default_backend", lambda: platform)
    config = small_config(**DTYPE)
    assert auto.with_dtype(config).model.dtype == dtype
    assert config.model.dtype == "auto", "the config that was given is left alone"
    for asked in ("float32", "bfloat16"):
        config.model.dtype = asked
        assert auto.with_dtype(config, "float32").model.dtype == asked


def test_the_shipped_defaults_are_auto():
    from configs import default, folder

    for config in (default.get_config(), folder.get_config()):
        assert (config.model.dtype, config.input) == ("auto", "auto")


@pytest.fixture(scope="module")
def packed_pool():
    return build.open_pool(small_config())


def chosen(pool, monkeypatch, *, free, device_count=1, **changes):
    class Device:
        def memory_stats(self):
            return {"bytes_limit": free + 7, "bytes_in_use": 7}

    with monkeypatch.context() as patched:
        patched.setattr(jax, "local_devices", lambda: [Device()])
        patched.setattr(jax, "device_count", lambda: device_count)
        return auto.choose_input(small_config(**ON_PACKED | changes), pool)


def test_packed_images_are_resident_where_they_leave_a_quarter_of_the_free_memory(monkeypatch, packed_pool):
    assert len(packed_pool) * 16 * 16 * 3 == NEEDED
    enough = -(-NEEDED * 4 // 3)
    assert chosen(packed_pool, monkeypatch, free=enough) == ("resident", "images resident on the devices: 1.4 MB packed")
    streamed = chosen(packed_pool, monkeypatch, free=enough - 2)
    assert streamed == (
        "stream", "images streamed: resident, they need 1.4 MB, more than 75% of the 1.8 MB that a device has free"
    )  # fmt: skip


def test_spread_images_are_judged_by_the_share_of_a_device(monkeypatch, packed_pool):
    small = {"free": NEEDED // 2, "device_count": 4}
    name, text = chosen(packed_pool, monkeypatch, **small)
    assert name == "stream"
    assert "(--config.shard_resident=True spreads them over the devices)" in text
    name, text = chosen(packed_pool, monkeypatch, shard_resident=True, **small)
    assert (name, text) == ("resident", "images resident on the devices: 1.4 MB packed, spread over 4 devices")
    assert chosen(packed_pool, monkeypatch, shard_resident=True, free=NEEDED // 4, device_count=4).name == "stream"


def test_what_is_asked_for_is_taken_whatever_fits(monkeypatch, packed_pool):
    assert chosen(packed_pool, monkeypatch, free=0, input="resident").name == "resident"
    assert chosen(packed_pool, monkeypatch, free=10**12, input="stream").name == "stream"


def test_images_that_are_not_packed_are_streamed_however_few(monkeypatch):
    digits = build.open_pool(small_config(input="auto"))
    unpacked = {"data.packed": ""}
    assert chosen(digits, monkeypatch, free=10**12, **unpacked) == ("stream", "images streamed: they are not packed")
    held = chosen(digits, monkeypatch, free=10**12, input="resident", **unpacked)
    assert held == ("resident", "images resident on the devices: 1.4 MB decoded at the start")


def test_devices_without_memory_of_their_own_are_judged_by_the_hosts(monkeypatch, packed_pool):
    config = small_config(**ON_PACKED)
    monkeypatch.setattr(devices, "_host_memory", lambda: 2 * NEEDED)
    assert auto.choose_input(config, packed_pool).name == "resident"
    monkeypatch.setattr(jax, "local_device_count", lambda: 4)  # each holds a copy
    assert (
        "need 5.5 MB, more than 75% of the 2.8 MB that this machine has free" in auto.choose_input(config, packed_pool).text
    )
    monkeypatch.setattr(devices, "_host_memory", lambda: None)
    assert "does not say how much memory is free" in auto.choose_input(config, packed_pool).text


def test_all_processes_stream_if_the_images_do_not_fit_one_of_them(monkeypatch, packed_pool):
    monkeypatch.setattr(devices, "any_process", lambda flag, due: due)
    assert auto.choose_input(small_config(**ON_PACKED), packed_pool).name == "stream"


def test_what_neither_fits_nor_can_be_streamed_is_refused_with_what_to_do(monkeypatch, packed_pool):
    monkeypatch.setattr(auto, "_can_stream", lambda: False)
    assert chosen(packed_pool, monkeypatch, free=2 * NEEDED).name == "resident"
    says = "^input: resident, they need 1.4 MB, .*; install TensorFlow.*, .*smaller data.stored_size, or try --config.input="
    with pytest.raises(UserError, match=says) as error:
        chosen(packed_pool, monkeypatch, free=NEEDED)
    assert "shard_resident" not in str(error.value)
    with pytest.raises(UserError, match="shard_resident=True"):
        chosen(packed_pool, monkeypatch, free=NEEDED, device_count=2)


@pytest.mark.parametrize(
    ("platform", "asked", "dtype", "says"),
    [
        ("gpu", "auto", "bfloat16", "bfloat16 (model.dtype=auto on a GPU)"),
        ("cpu", "auto", "float32", "float32 (model.dtype=auto on a CPU)"),
        ("cpu", "auto", "bfloat16", "bfloat16, as at the first start (model.dtype=auto is float32 on a CPU)"),
        ("tpu", "float32", "float32", "float32"),
    ],
)
def test_the_line_says_the_dtype_and_why(monkeypatch, platform, asked, dtype, says):
    monkeypatch.setattr(jax, "default_backend", lambda: platform)
    config = small_config(**{"model.dtype": dtype})
    assert auto.line(config, auto.Input("stream", "as it is"), asked_dtype=asked) == f"Computing in {says}, as it is."


@pytest.fixture(scope="module")
def of_defaults(tmp_path_factory, packed_pool):
    """The workdir of a run of packed images with both fields "auto"."""
    workdir = tmp_path_factory.mktemp("of_defaults")
    train(small_config(**DTYPE, **ON_PACKED), workdir)
    return workdir


def test_a_run_of_packed_images_on_a_cpu_is_resident_and_equals_the_streamed_one(tmp_path, of_defaults, capsys):
    train(small_config(**ON_PACKED | {"input": "stream"}), tmp_path)
    assert "Computing in float32, images streamed (input=stream).\n" in capsys.readouterr().out
    assert_same_run(tmp_path, of_defaults)
    assert any(tmp_path.glob("events.out.tfevents.*"))
    train(small_config(**DTYPE, **ON_PACKED), of_defaults)
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Computing")]
    assert said == ["Computing in float32 (model.dtype=auto on a CPU), images resident on the devices: 1.4 MB packed."]


def test_a_run_saves_the_dtype_that_auto_stood_for_and_the_input_as_asked(of_defaults):
    for config in (json.loads((of_defaults / "config.json").read_text()), checkpoints.latest_config(of_defaults)):
        assert (config["model"]["dtype"], config["input"]) == ("float32", "auto")
    before = (of_defaults / "metrics.json").read_bytes()
    restore_and_evaluate(of_defaults)
    assert (of_defaults / "metrics.json").read_bytes() == before


def begun(workdir, step, **changes):
    """Trains up to a step, in float32 as a CPU does by default."""
    asked = iter(range(10**6))
    with pytest.raises(Stopped):
        train(small_config(**DTYPE, **changes), workdir, lambda: "it" if next(asked) >= step else "")


@pytest.fixture
def on_a_gpu(monkeypatch):
    """A function: from its call on, "auto" stands for what it is on a GPU."""
    return lambda: monkeypatch.setattr(auto, "_device_dtype", lambda: "bfloat16")


def dtype_of(workdir):
    return json.loads((workdir / "config.json").read_text())["model"]["dtype"]


def test_a_run_goes_on_in_the_dtype_that_it_began_with_and_another_is_refused(tmp_path, capsys, on_a_gpu):
    begun(tmp_path, 2)
    on_a_gpu()
    with pytest.raises(UserError, match="model.dtype: the run in .* has 'float32', this start 'bfloat16'"):
        train(small_config(**{"model.dtype": "bfloat16"}), tmp_path)
    capsys.readouterr()
    train(small_config(**DTYPE), tmp_path)
    assert "Computing in float32, as at the first start (model.dtype=auto is bfloat16 on a " in capsys.readouterr().out
    assert dtype_of(tmp_path) == "float32"
    last = checkpoints.latest_config(tmp_path)
    assert (last["steps"], last["model"]["dtype"]) == (12, "float32")


def test_two_phases_have_one_dtype(tmp_path, on_a_gpu):
    two = {"sampling.policy": "two_phase", "trainable": "head"}
    begun(tmp_path, 2, **two)
    assert checkpoints.latest_config(tmp_path) is None, "stopped too late to show anything"
    on_a_gpu()
    train(small_config(**DTYPE, **two), tmp_path)
    assert [dtype_of(folder) for folder in (tmp_path / "first_phase", tmp_path)] == ["float32", "float32"]


def test_a_folder_without_a_checkpoint_begins_with_the_dtype_of_the_devices(tmp_path):
    assert checkpoints.latest_config(tmp_path) is None
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "config.json").write_text(json.dumps(configs.to_json(small_config(**{"model.dtype": "bfloat16"}))))
    assert auto.with_dtype_of_run(small_config(**DTYPE), tmp_path).model.dtype == "float32"


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
    assert devices._host_memory(tmp_path) == free
