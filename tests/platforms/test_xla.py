"""Workarounds for XLA: they do not change results."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_run import ROOT, environment

from openset_jax.errors import UserError
from openset_jax.platforms import xla


def test_an_isolated_function_is_the_function_whatever_the_numbers():
    for value in (0.0, -0.0, 1.5, np.inf, np.nan, np.float32(np.uint32(0x7FC00001).view(np.float32))):
        x = jnp.full((2, 3), value, jnp.float32)
        np.testing.assert_array_equal(jax.jit(lambda x: xla.isolated(jnp.add, x, jnp.ones_like(x)))(x), x + 1)


@pytest.mark.parametrize(("platform", "error"), [("cuda", AssertionError()), ("gpu", RuntimeError("no rocm.\nmore"))])
def test_a_platform_without_devices_is_one_line(platform, error, monkeypatch):
    def devices():
        raise error

    monkeypatch.setenv("JAX_PLATFORMS", platform)
    monkeypatch.setattr(jax, "devices", devices)
    says = f"JAX_PLATFORMS={platform}: JAX cannot use this platform here: .*{error.args[0][:7] if error.args else 'missing'}"
    with pytest.raises(UserError, match=says) as raised:
        xla.check_platform()
    assert "\n" not in str(raised.value)


@pytest.mark.slow
@pytest.mark.parametrize("module", ["train", "evaluate", "predict", "prepare", "experiment"])
def test_every_command_says_that_the_platform_is_missing(module, tmp_path):
    arguments = {
        "train": ["--config=configs/digits.py", f"--workdir={tmp_path}"],
        "evaluate": [f"--workdir={tmp_path}"],
        "predict": [f"--workdir={tmp_path}", "README.md", f"--out={tmp_path / 'rows.csv'}"],
        "prepare": ["--config=configs/digits.py", f"--out={tmp_path}"],
        "experiment": ["--config=configs/imbalance_digits.py", f"--workdir={tmp_path}"],
    }[module]
    done = subprocess.run(
        [sys.executable, "-m", f"openset_jax.{module}", *arguments], cwd=ROOT, env=environment() | {"JAX_PLATFORMS": "none"},
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith("error: JAX_PLATFORMS=none: JAX cannot use this platform here: ")
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())
