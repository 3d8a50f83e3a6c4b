"""Files of PyTorch: those that are read, and those that are refused; none is executed or needs more memory than its size."""

import collections
import pathlib
import pickle
import sys
import tracemalloc
import zipfile

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from model.torch_writer import Call, Global, Storage, tensor, write

from openset_jax.errors import UserError
from openset_jax.model import torch_file

STATE = {
    "a.weight": np.arange(12, dtype=np.float32).reshape(3, 4),
    "a.bias": np.arange(12, dtype=np.float32).reshape(3, 4).T[1:, ::2],  # a view, not contiguous
    "double": np.array([[0.1]], np.float64),
    "half": np.array([1, 2.5], np.float16),
    "brain": np.array([1, -2.5, 3.140625], ml_dtypes.bfloat16),
    "count": np.array(7),
    "flags": np.array([True, False]),
    "empty": np.zeros((0, 3), np.float32),
}
REMEDY = r'torch\.save\(model\.state_dict\(\), "FILE\.pth"\)$'


@pytest.mark.parametrize("legacy", [False, True])
def test_all_tensors_of_a_state_dict_are_read(tmp_path, legacy):
    found = torch_file.read(write(tmp_path / "x.pth", collections.OrderedDict(STATE), legacy=legacy))
    assert found.keys() == STATE.keys()
    for name, values in STATE.items():
        np.testing.assert_array_equal(found[name], values.astype(np.float32) if name == "brain" else values)
        assert found[name].dtype == (np.float32 if name == "brain" else values.dtype)
        assert not found[name].flags.writeable


def parameter(function, *rest, state=None):
    inner = Call(Global("torch._utils", "_rebuild_tensor"), (Storage("FloatStorage", "0", 2), 0, (2,), (1,)))
    return Call(function, () if state else (inner, *rest), (inner, *rest) if state else None)


@pytest.mark.parametrize(
    "value",
    [
        parameter(Global("torch._utils", "_rebuild_parameter"), True, collections.OrderedDict()),
        parameter(Global("torch._utils", "_rebuild_parameter_with_state"), True, {}, {"tag": 1}),
        parameter(Global("torch.nn.parameter", "Parameter"), None, {}, True, False, state=True),  # of PyTorch 0.1
    ],
)
def test_parameters_are_read_as_their_tensors(tmp_path, value):
    path = write(tmp_path / "x.pth", {"w": value}, storages={"0": np.array([1, 2], np.float32)}, legacy=True)
    np.testing.assert_array_equal(torch_file.read(path)["w"], [1, 2])


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(
    ("module", "name"),
    [("os", "system"), ("builtins", "eval"), ("torch.nn.modules.linear", "Linear"), ("torch", "load"), ("a\x1b[31m", "b")],
)
def test_any_other_global_is_refused_by_name_and_not_called(tmp_path, monkeypatch, legacy, module, name):
    called = []
    monkeypatch.setattr("os.system", called.append)
    path = write(tmp_path / "x.pth", {"w": Call(Global(module, name), ("echo",))}, legacy=legacy)
    shown = module.replace("\x1b[", r"\\x1b\[")
    with pytest.raises(UserError, match=rf"^{path}: its pickle asks for {shown}\.{name}, .*{REMEDY}"):
        torch_file.read(path)
    assert not called


@pytest.mark.parametrize("protocol", range(6))
def test_a_plain_pickle_is_not_executed_in_any_protocol(tmp_path, protocol):
    class Harmful:
        def __reduce__(self):
            return exec, ("import sys; sys.harmed = True",)

    (tmp_path / "x.pt").write_bytes(pickle.dumps(Harmful(), protocol))
    with pytest.raises(UserError, match="asks for (builtins|__builtin__).exec"):
        torch_file.read(tmp_path / "x.pt")
    assert not hasattr(sys, "harmed")


@pytest.mark.parametrize("target", [target for target in torch_file._GLOBALS if target[0] != "torch"])
@pytest.mark.parametrize("state", [{"evil": 1}, (None, {"__init__": 1, "__setstate__": 1})])
def test_a_pickle_cannot_change_the_reader(tmp_path, target, state):
    before = {name: dict(vars(name)) for name in (torch_file._Tensor, torch_file._Parameter, torch_file._OrderedDict)}
    stream = pickle.GLOBAL + "{}\n{}\n".format(*target).encode() + pickle.dumps(state, 2)[2:-1] + pickle.BUILD + pickle.STOP
    (tmp_path / "x.pth").write_bytes(b"\x80\x02" + stream)
    with pytest.raises(UserError, match="is damaged, or was not written by torch.save"):
        torch_file.read(tmp_path / "x.pth")
    assert before == {name: dict(vars(name)) for name in before}


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(
    ("content", "says"),
    [
        (
            {"state_dict": STATE, "epoch": 3},
            f"not a plain state dict: the value of state_dict is of type dict; its keys are state_dict, epoch; .*{REMEDY}",
        ),
        (STATE | {"epoch": 3}, "the value of epoch is of type int; its keys are a.weight, "),
        ({3: STATE["double"]}, "the value of a int is of type Tensor"),
        ([STATE["double"]], f"holds a list, not a dict of tensors by name; .*{REMEDY}"),
        (STATE["double"], "holds a Tensor, not a dict"),
    ],
)
def test_what_is_not_a_plain_state_dict_is_refused(tmp_path, legacy, content, says):
    path = write(tmp_path / "x.pth", content, legacy=legacy)
    with pytest.raises(UserError, match=f"^{path}: it .*{says}"):
        torch_file.read(path)


def one(storage=("FloatStorage", "0", 4), size=(2, 2), stride=(2, 1), offset=0):
    return {"w": tensor(Storage(*storage), size, stride, offset)}


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(
    ("content", "says"),
    [
        (one(offset=1), "w is not within its storage"),
        (one(offset=-1), "a size, a stride or an offset is not 0 or more"),
        (one(size=(3, 2)), "w is not within its storage"),
        (one(size=(-1, 2)), "is not 0 or more"),
        (one(stride=(2, 2)), "w is not within its storage"),
        (one(stride=(-2, 1)), "is not 0 or more"),
        (one(stride=(2, 1.5)), "is not 0 or more"),
        (one(stride=(2,)), "damaged"),
        (one(size=5), "damaged"),
        (one(size=(10**6, 10**6), stride=(0, 0)), "its tensors are larger than the file"),
        (one(("FloatStorage", "0", 10**15)), "its tensors are larger than the file|another size than its tensors"),
        (one(("FloatStorage", "0", 5)), "16 bytes instead of 20|another size than its tensors"),
        (one(("FloatStorage", "1", 4)), "KeyError"),
        (one(("NoStorage", "0", 4)), "its pickle asks for torch.NoStorage"),
        (one(("FloatStorage", 0, 4)), "unknown kind of storage"),
    ],
)
def test_impossible_tensors_are_refused_before_anything_is_allocated(tmp_path, legacy, content, says):
    path = write(tmp_path / "x.pth", content, storages={"0": np.arange(4, dtype=np.float32)}, legacy=legacy)
    tracemalloc.start()
    with pytest.raises(UserError, match=f"^{path}: .*{says}"):
        torch_file.read(path)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 2**22


@pytest.mark.parametrize(
    "text",
    [
        pickle.LONG_BINPUT + b"\x00\x00\x00\x01",  # the unpickler would allocate 2^25 places of its memo
        pickle.BYTEARRAY8 + (2**40).to_bytes(8, "little"),
        pickle.BINUNICODE8 + (2**40).to_bytes(8, "little"),
        pickle.FRAME + (2**40).to_bytes(8, "little"),
    ],
)
def test_a_pickle_that_declares_huge_values_is_refused(tmp_path, text):
    (tmp_path / "x.pth").write_bytes(b"\x80\x05N" + text + b".")
    tracemalloc.start()
    with pytest.raises(UserError, match="is damaged"):
        torch_file.read(tmp_path / "x.pth")
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 2**22


def test_other_files_are_refused(tmp_path):
    script = write(tmp_path / "script.pt", STATE, extra=["constants.pkl", "code/__torch__.py"])
    with pytest.raises(UserError, match=f"^{script}: it is a TorchScript archive; .*{REMEDY}"):
        torch_file.read(script)
    np.savez(tmp_path / "x.npz", **STATE)
    compressed = tmp_path / "compressed.pth"
    with zipfile.ZipFile(compressed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}, 2))
    files = {"empty.pth": b"", "text.pth": b"hello", "other.pth": pickle.dumps(1001, 2)}
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    for name, says in [
        ("x.npz", "without ROOT/data.pkl, so not a file of torch.save"),
        ("compressed.pth", "is compressed"),
        ("empty.pth", "it is empty"),
        ("text.pth", "it is damaged, or was not written by torch.save"),
        ("other.pth", "was not written by torch.save"),
        ("none.pth", r"cannot be read \(No such file"),
        ("", r"cannot be read \(Is a directory"),
    ]:
        with pytest.raises(UserError, match=f"^{tmp_path / name}: .*{says}"):
            torch_file.read(tmp_path / name)


@pytest.mark.parametrize("legacy", [False, True])
def test_big_endian_numbers_are_refused(tmp_path, legacy):
    path = write(tmp_path / "x.pth", STATE, legacy=legacy)
    data = path.read_bytes()
    if legacy:
        path.write_bytes(data.replace(b"little_endianq\x01\x88", b"little_endianq\x01\x89").replace(b"\x88", b"\x89", 1))
    else:
        with zipfile.ZipFile(path, "w") as archive:
            for name, text in (("archive/data.pkl", pickle.dumps({}, 2)), ("archive/byteorder", b"big")):
                archive.writestr(name, text)
    with pytest.raises(UserError, match="its numbers are big-endian"):
        torch_file.read(path)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """(a path to write to, the bytes of a file in each format)."""
    path = tmp_path_factory.mktemp("damaged") / "x.pth"
    return path, [write(path, STATE, legacy=legacy).read_bytes() for legacy in (False, True)]


@settings(max_examples=200)
@given(st.data())
def test_damaged_files_are_read_or_refused(written, data):
    path, files = written
    changed = bytearray(data.draw(st.sampled_from(files)))
    for _ in range(data.draw(st.integers(0, 4))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(changed[: data.draw(st.integers(0, len(changed)) | st.just(len(changed)))])
    try:
        found = torch_file.read(path)
    except UserError as error:
        assert str(path) in str(error)
    else:
        assert all(isinstance(values.sum(), np.generic) for values in found.values())


def test_a_truncated_file_is_refused(written):
    path, files = written
    for data in files:
        for end in (5, len(data) // 2, len(data) - 1):
            path.write_bytes(data[:end])
            with pytest.raises(UserError, match=f"^{path}: it is damaged"):
                torch_file.read(pathlib.Path(path))
