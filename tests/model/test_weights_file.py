"""Files of weights: read by their suffix, as float32, and refused in one message."""

import sys

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from model.torch_writer import write
from safetensors.numpy import save, save_file

from openset_jax.errors import UserError
from openset_jax.model import weights_file

VALUES = np.array([[1, -2.5], [3.140625, 0]])
STATE = {
    name: VALUES.astype(name) if name != "bfloat16" else VALUES.astype(ml_dtypes.bfloat16)
    for name in ("float32", "float64", "float16", "bfloat16", "int64")
}


@pytest.mark.parametrize("name", ["x.pth", "x.pt", "x.PTH", "x.safetensors"])
def test_floating_point_numbers_become_float32(tmp_path, name):
    path = tmp_path / name
    save_file(STATE, path) if path.suffix == ".safetensors" else write(path, STATE)
    found = weights_file.read(path)
    assert found.keys() == STATE.keys()
    for kind, values in found.items():
        np.testing.assert_array_equal(values, VALUES.astype(np.int64) if kind == "int64" else VALUES)
        assert values.dtype == (np.int64 if kind == "int64" else np.float32)


def test_the_prefix_of_data_parallel_is_removed_if_all_names_have_it(tmp_path):
    for names, expected in [(("module.a", "module.b"), {"a", "b"}), (("module.a", "b"), {"module.a", "b"})]:
        assert weights_file.read(write(tmp_path / "x.pth", dict.fromkeys(names, VALUES))).keys() == expected


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_values_that_are_not_finite_are_refused_by_name(tmp_path, value):
    path = write(tmp_path / "x.pth", STATE | {"w": np.array([1, value])})
    with pytest.raises(UserError, match=f"^{path}: w has values that are not finite"):
        weights_file.read(path)


def test_other_numbers_are_refused(tmp_path):
    save_file({"w": np.ones(2, np.complex64)}, tmp_path / "x.safetensors")
    with pytest.raises(UserError, match=f"^{tmp_path}/x.safetensors: w has numbers of type complex64"):
        weights_file.read(tmp_path / "x.safetensors")


def test_safetensors_that_cannot_be_read_are_refused(tmp_path, monkeypatch):
    (tmp_path / "folder.safetensors").mkdir()
    for name, why in (("none", "No such file"), ("folder", "Is a directory")):
        with pytest.raises(UserError, match=rf"^{tmp_path}/{name}.safetensors: cannot be read \({why}"):
            weights_file.read(tmp_path / f"{name}.safetensors")
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(UserError, match="install the package that reads it: python -m pip install safetensors$"):
        weights_file.read(tmp_path / "x.safetensors")


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("damaged") / "x.safetensors"


@given(st.data())
def test_damaged_safetensors_are_read_or_refused(path, data):
    changed = bytearray(save(STATE))
    for _ in range(data.draw(st.integers(0, 3))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(changed[: data.draw(st.integers(0, len(changed)) | st.just(len(changed)))])
    try:
        weights_file.read(path)
    except UserError as error:
        assert str(path) in str(error)
