"""model.dtype=auto: the dtype of the platform, or the one that the run started with."""

import contextlib
import json
import pathlib

import jax
import pytest
from small_run import small_config, train

from openset_jax import config as configs
from openset_jax import config_json
from openset_jax.errors import Stopped, UserError
from openset_jax.training import checkpoints, run_setup
from openset_jax.training.input_choice import InputChoice

DTYPE = {"model.dtype": "auto"}


@pytest.mark.parametrize(("platform", "dtype"), [("cpu", "float32"), ("gpu", "bfloat16"), ("tpu", "bfloat16")])
def test_the_dtype_is_that_of_the_platform_unless_one_is_asked_for(monkeypatch, platform, dtype):
    monkeypatch.setattr(jax, "default_backend", lambda: platform)
    config = small_config(**DTYPE)
    assert configs.with_dtype(config).model.dtype == dtype
    assert config.model.dtype == "auto", "the config that was given is left alone"
    for asked in ("float32", "bfloat16"):
        config.model.dtype = asked
        assert configs.with_dtype(config, "float32").model.dtype == asked


def test_the_shipped_defaults_are_auto():
    from configs import default, folder

    for config in (default.get_config(), folder.get_config()):
        assert (config.model.dtype, config.input) == ("auto", "auto")


@pytest.mark.parametrize(
    ("platform", "asked", "dtype", "says"),
    [
        ("gpu", "auto", "bfloat16", "bfloat16 (model.dtype=auto on a GPU)"),
        ("cpu", "auto", "float32", "float32 (model.dtype=auto on a CPU)"),
        ("cpu", "auto", "bfloat16", "bfloat16, as at the start of the run (model.dtype=auto would be float32 on a CPU)"),
        ("tpu", "float32", "float32", "float32"),
    ],
)
def test_the_line_says_the_dtype_and_why(monkeypatch, platform, asked, dtype, says):
    monkeypatch.setattr(jax, "default_backend", lambda: platform)
    (spec,) = configs.resolve(small_config(**{"model.dtype": asked}), pathlib.Path("/nowhere"), dtype=dtype)
    assert run_setup.computation_line(spec, InputChoice("stream", "as it is")) == f"Computing in {says}, as it is."


def start(workdir, step, **changes):
    """Trains up to a step with the dtype of a CPU, float32."""
    asked = iter(range(10**6))
    with pytest.raises(Stopped):
        train(small_config(**DTYPE, **changes), workdir, lambda: "it" if next(asked) >= step else "")


@pytest.fixture
def on_a_gpu(monkeypatch):
    """A function after whose call model.dtype=auto means the dtype of a GPU."""
    return lambda: monkeypatch.setattr(configs, "device_dtype", lambda: "bfloat16")


def dtype_of(workdir):
    return json.loads((workdir / "config.json").read_text())["model"]["dtype"]


def test_a_run_keeps_the_dtype_that_it_started_with_and_another_is_refused(tmp_path, capsys, on_a_gpu):
    start(tmp_path, 2)
    on_a_gpu()
    with pytest.raises(UserError, match="model.dtype: the run in .* has 'float32', but this config 'bfloat16'"):
        train(small_config(**{"model.dtype": "bfloat16"}), tmp_path)
    capsys.readouterr()
    train(small_config(**DTYPE), tmp_path)
    text = "Computing in float32, as at the start of the run (model.dtype=auto would be bfloat16 on a "
    assert text in capsys.readouterr().out
    assert dtype_of(tmp_path) == "float32"
    with contextlib.closing(checkpoints.open_checkpoints(tmp_path)) as saved:
        last = saved.record(saved.latest_step())["config"]
    assert (last["steps"], last["model"]["dtype"]) == (12, "float32")
    assert checkpoints.saved_dtype(tmp_path) == "float32"


def test_two_phases_have_one_dtype(tmp_path, on_a_gpu):
    two = {"sampling.policy": "two_phase", "trainable": "head"}
    start(tmp_path, 2, **two)
    assert checkpoints.latest_step(tmp_path) is None, "stopped too late to show anything"
    on_a_gpu()
    train(small_config(**DTYPE, **two), tmp_path)
    assert [dtype_of(folder) for folder in (tmp_path / "first_phase", tmp_path)] == ["float32", "float32"]


def test_a_folder_without_a_checkpoint_starts_with_the_dtype_of_the_devices(tmp_path):
    assert checkpoints.saved_dtype(tmp_path) is None
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "config.json").write_text(json.dumps(config_json.to_json(small_config(**{"model.dtype": "bfloat16"}))))
    assert configs.with_dtype(small_config(**DTYPE), checkpoints.saved_dtype(tmp_path)).model.dtype == "float32"
