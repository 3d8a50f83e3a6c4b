"""Reads files that `torch.save` wrote, with NumPy alone, and without executing anything in them.

Such a file has a pickle, a program that may call any function. Here it may only build plain containers and descriptions of
tensors; anything else that it asks for is refused by name. The numbers of the tensors are outside the pickle, in storages:
in records of a zip file (since PyTorch 1.6), or one after the other behind the pickles.
"""

import io
import math
import pathlib
import pickle
import pickletools
import zipfile
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from openset_jax.errors import UserError
from openset_jax.text import abridged, shortened

REMEDY = 'save the parameters alone: torch.save(model.state_dict(), "FILE.pth")'
_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # the first two pickles of a file that is not a zip file
_BIG_ENDIAN = "its numbers are big-endian; save it on another machine"
_DTYPES = {
    "FloatStorage": "<f4", "DoubleStorage": "<f8", "HalfStorage": "<f2", "BFloat16Storage": "<u2", "BoolStorage": "?",
    "LongStorage": "<i8", "IntStorage": "<i4", "ShortStorage": "<i2", "CharStorage": "<i1", "ByteStorage": "<u1",
}  # fmt: skip


class _Storage(NamedTuple):
    kind: str  # a key of `_DTYPES`
    key: str
    elements: int

    @property
    def nbytes(self):
        return self.elements * np.dtype(_DTYPES[self.kind]).itemsize


# The pickle can set no attribute of an object with a `__setstate__`, nor of its class.


class _Tensor:
    """A description of a tensor. As in PyTorch, offset and strides count elements."""

    __slots__ = ("offset", "size", "storage", "stride")

    def __init__(self, storage, offset, size, stride, *_):
        self.storage, self.offset, self.size, self.stride = storage, offset, size, stride

    def __setstate__(self, state):
        raise pickle.UnpicklingError("a tensor with a state")


class _Parameter:
    """A parameter; PyTorch 0.1 pickled an empty one, and its tensor as its state."""

    __slots__ = ("tensor",)

    def __init__(self, tensor, *_):
        self.tensor = tensor

    def __setstate__(self, state):
        self.tensor = state[0]


class _OrderedDict(dict):
    """Ignores the attribute `_metadata` of a state dict."""

    __slots__ = ()

    def __setstate__(self, state):
        pass


_GLOBALS = {
    ("collections", "OrderedDict"): _OrderedDict,
    ("torch._utils", "_rebuild_tensor"): _Tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _Tensor,
    ("torch._utils", "_rebuild_parameter"): _Parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): _Parameter,
    ("torch.nn.parameter", "Parameter"): _Parameter,
    **{("torch", name): name for name in _DTYPES},
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """Returns what stands for a global; raises UserError for all that are not in the table."""
        if (module, name) not in _GLOBALS:
            asked = shortened(f"{module}.{name}", 80)
            raise UserError(f"its pickle asks for {asked}, and only tensors in plain containers are read; {REMEDY}")
        return _GLOBALS[module, name]

    def persistent_load(self, pid: Any) -> _Storage:
        """Returns a storage; `pid` is ("storage", type, key, device, number of elements[, None])."""
        tag, kind, key, _, count, *view = pid
        if tag != "storage" or kind not in _DTYPES or type(key) is not str or type(count) is not int or any(view):
            raise pickle.UnpicklingError("an unknown kind of storage")
        return _Storage(kind, key, count)


def read(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Returns the tensors of a state dict by name, read-only. Numbers of type bfloat16 become float32.

    The arrays have at most as many elements as the file has bytes.

    Raises:
      UserError: the file is not a state dict of tensors, is damaged, or asks for anything else; names the file.
    """
    try:
        with path.open("rb") as file:
            size, start = path.stat().st_size, file.read(4)
            file.seek(0)
            if not start:
                raise UserError("it is empty")
            return _read_zip(file, size) if start == b"PK\x03\x04" else _read_legacy(file.read())
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
    except Exception as error:  # a damaged pickle or zip file raises nearly any exception
        why = f"{type(error).__name__}: {shortened(str(error), 100)}"
        raise UserError(f"{path}: it is damaged, or was not written by torch.save ({why})") from error


def _read_zip(file: BinaryIO, size: int) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        roots = [name.removesuffix("data.pkl") for name in names if name.count("/") == 1 and name.endswith("/data.pkl")]
        if any(f"{root}constants.pkl" in names for root in roots):
            raise UserError(f"it is a TorchScript archive; load it with torch.jit.load, and {REMEDY}")
        if len(roots) != 1:
            raise UserError(f"it is a zip file without ROOT/data.pkl, so not a file of torch.save; {REMEDY}")

        def record(name):
            info = archive.getinfo(roots[0] + name)
            if info.compress_type != zipfile.ZIP_STORED or info.file_size > size:
                raise zipfile.BadZipFile(f"the record {info.filename} is compressed, or larger than the file")
            return archive.read(info)

        if f"{roots[0]}byteorder" in names and record("byteorder") != b"little":
            raise UserError(_BIG_ENDIAN)
        tensors = _tensors(_unpickle(io.BytesIO(record("data.pkl"))))
        return _arrays(tensors, size, lambda storage: record(f"data/{storage.key}"))


def _read_legacy(data: bytes) -> dict[str, np.ndarray]:
    stream = io.BytesIO(data)
    if _unpickle(stream) != _MAGIC or _unpickle(stream) != _PROTOCOL:
        raise UserError(f"it was not written by torch.save; {REMEDY}")
    if not _unpickle(stream)["little_endian"]:
        raise UserError(_BIG_ENDIAN)
    tensors = _tensors(_unpickle(stream))
    storages = {tensor.storage.key: tensor.storage for tensor in tensors.values()}
    keys, parts = _unpickle(stream), {}
    for key in keys:  # the number of elements, int64, and the elements
        start, storage = stream.tell() + 8, storages[key]
        if data[start - 8 : start] != storage.elements.to_bytes(8, "little"):
            raise ValueError(f"the storage {shortened(key)} has another size than its tensors")
        parts[key] = memoryview(data)[start : start + storage.nbytes]
        stream.seek(start + storage.nbytes)
    return _arrays(tensors, len(data), lambda storage: parts[storage.key])


def _unpickle(stream: BinaryIO) -> Any:
    """Returns the content of the pickle at the position of a stream, and moves behind it."""
    start = stream.tell()
    # Fails where a text is longer than the stream. The unpickler would allocate all places up to an index of its memo.
    puts = [int(argument or 0) for code, argument, _ in pickletools.genops(stream) if code.name.endswith("PUT")]
    length = stream.tell() - start
    if max(puts, default=0) > length:
        raise pickle.UnpicklingError("an index of the memo is larger than the pickle")
    stream.seek(start)
    return _Unpickler(io.BytesIO(stream.read(length))).load()


def _tensors(content: Any) -> dict[str, _Tensor]:
    """Checks that an unpickled value is a dict of tensors by name, and returns it without parameters."""
    kind = lambda value: type(value).__name__.strip("_")
    if not isinstance(content, dict):
        raise UserError(f"it holds a {kind(content)}, not a dict of tensors by name; {REMEDY}")
    tensors = {name: value.tensor if isinstance(value, _Parameter) else value for name, value in content.items()}
    names = [name if isinstance(name, str) else f"a {kind(name)}" for name in tensors]
    for name, (key, value) in zip(names, tensors.items(), strict=True):
        if name is not key or not isinstance(value, _Tensor):
            raise UserError(
                f"it is not a plain state dict: the value of {shortened(name)} is of type {kind(value)}; its keys are "
                f"{abridged(names, 10)}; {REMEDY}"
            )
    return tensors


def _arrays(
    tensors: Mapping[str, _Tensor], size: int, load: Callable[[_Storage], bytes | memoryview]
) -> dict[str, np.ndarray]:
    """Reads the storages, with `load`, and returns the tensors as views of them; `size`: of the file, in bytes."""
    numbers = lambda tensor: (tensor.offset, *tensor.size, *tensor.stride)
    if any(type(n) is not int or n < 0 for tensor in tensors.values() for n in numbers(tensor)):
        raise ValueError("a size, a stride or an offset is not 0 or more")
    storages = {tensor.storage for tensor in tensors.values()}
    elements = sum(math.prod(tensor.size) for tensor in tensors.values())
    if elements > size or sum(storage.nbytes for storage in storages) > size:
        raise ValueError(f"its tensors are larger than the file of {size:,} bytes")
    loaded = {}
    for storage in storages:
        if len(data := load(storage)) != storage.nbytes:
            raise ValueError(f"the storage {storage.key} has {len(data):,} bytes instead of {storage.nbytes:,}")
        loaded[storage] = np.frombuffer(data, _DTYPES[storage.kind])
        if storage.kind == "BFloat16Storage":  # the upper half of the bits of a float32
            loaded[storage] = (loaded[storage].astype(np.uint32) << 16).view(np.float32)
    found = {}
    for name, tensor in tensors.items():
        last = tensor.offset + sum((n - 1) * stride for n, stride in zip(tensor.size, tensor.stride, strict=True))
        if math.prod(tensor.size) and last >= tensor.storage.elements:
            raise ValueError(f"{shortened(name)} is not within its storage")
        flat = loaded[tensor.storage][tensor.offset :]
        strides = [stride * flat.itemsize for stride in tensor.stride]
        found[name] = np.lib.stride_tricks.as_strided(flat, tensor.size, strides, writeable=False)
    return found
