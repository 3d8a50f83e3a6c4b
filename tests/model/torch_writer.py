"""Writes files in the two formats of `torch.save`, without PyTorch, with anything in their pickles."""

import collections
import io
import pickle
import zipfile
from typing import Any, ClassVar, NamedTuple

import numpy as np

KINDS = {
    "float32": "FloatStorage", "float64": "DoubleStorage", "float16": "HalfStorage", "bfloat16": "BFloat16Storage",
    "int64": "LongStorage", "bool": "BoolStorage",
}  # fmt: skip


class Global(NamedTuple):
    """Pickled as a reference to a global."""

    module: str
    name: str


class Call(NamedTuple):
    """Pickled as the result of a function, or as an empty object with a state."""

    function: Global
    arguments: tuple = ()
    state: Any = None


class Storage(NamedTuple):
    """Pickled as a reference to a storage."""

    kind: str
    key: str
    count: int


def tensor(storage, size, stride, offset=0):
    """Pickled as a tensor with these, possibly impossible, numbers."""
    rebuild, hooks = Global("torch._utils", "_rebuild_tensor_v2"), collections.OrderedDict()
    return Call(rebuild, (storage, offset, size, stride, False, hooks))


class Pickler(pickle._Pickler):
    """Pickles the classes above, and arrays as tensors, whose storages are in `storages` then."""

    dispatch: ClassVar = dict(pickle._Pickler.dispatch)

    def __init__(self, file, *, legacy=False):
        super().__init__(file, protocol=2)
        self.storages, self._end = {}, (None,) if legacy else ()

    def persistent_id(self, obj):
        if isinstance(obj, Storage):
            return ("storage", Global("torch", obj.kind), obj.key, "cpu", obj.count, *self._end)
        return None

    def _save_global(self, obj):
        self.write(pickle.GLOBAL + f"{obj.module}\n{obj.name}\n".encode())

    def _save_call(self, obj):
        self.save(obj.function)
        self.save(obj.arguments)
        self.write(pickle.REDUCE if obj.state is None else pickle.NEWOBJ)
        if obj.state is not None:
            self.save(obj.state)
            self.write(pickle.BUILD)

    def _save_array(self, array):
        key = str(len(self.storages))
        base = array if array.base is None else array.base
        self.storages[key] = base
        strides = tuple(stride // array.itemsize for stride in array.strides)
        offset = (array.ctypes.data - base.ctypes.data) // array.itemsize
        self.save(tensor(Storage(KINDS[array.dtype.name], key, base.size), array.shape, strides, offset))

    dispatch |= {Global: _save_global, Call: _save_call, np.ndarray: _save_array}


def write(path, content, *, legacy=False, storages=None, extra=()):
    """Writes `content`; `storages` (key -> array) replaces those of its arrays; `extra`: more records of a zip file."""
    stream = io.BytesIO()
    pickler = Pickler(stream, legacy=legacy)
    pickler.dump(content)
    storages = pickler.storages if storages is None else storages
    if legacy:
        head = [0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}]
        parts = [*(pickle.dumps(part, 2) for part in head), stream.getvalue(), pickle.dumps([*storages], 2)]
        path.write_bytes(b"".join([*parts, *(np.int64(x.size).tobytes() + x.tobytes() for x in storages.values())]))
        return path
    records = {"data.pkl": stream.getvalue(), "byteorder": b"little", "version": b"3\n", **dict.fromkeys(extra, b"x")}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in (records | {f"data/{key}": x.tobytes() for key, x in storages.items()}).items():
            archive.writestr(f"archive/{name}", data)
    return path
