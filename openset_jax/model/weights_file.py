"""Reads the parameters of a network from a file of PyTorch or safetensors."""

import pathlib

import numpy as np

from openset_jax.errors import UserError
from openset_jax.model import torch_file
from openset_jax.text import shortened

TORCH_SUFFIXES = (".pth", ".pt")
SUFFIXES = (".safetensors", *TORCH_SUFFIXES)


def read(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Returns the state dict of a file by its suffix, one of `SUFFIXES`. Floating-point numbers become float32.

    The prefix "module." of PyTorch's DataParallel is removed if all names have it.

    Raises:
      UserError: the file cannot be read, is not a state dict of tensors, or has values that are not finite; names it.
    """
    found = torch_file.read(path) if path.suffix.lower() in TORCH_SUFFIXES else _read_safetensors(path)
    for name, values in found.items():
        if values.dtype.name in ("float16", "bfloat16", "float64"):
            with np.errstate(over="ignore"):  # infinity is refused below
                found[name] = values.astype(np.float32)
        elif values.dtype.kind not in "iubf":
            raise UserError(f"{path}: {shortened(name)} has numbers of type {values.dtype}; save it as float32")
        if not np.isfinite(found[name]).all():
            raise UserError(
                f"{path}: {shortened(name)} has values that are not finite; use weights without NaN and infinity"
            )
    prefix = "module." if all(name.startswith("module.") for name in found) else ""
    return {name.removeprefix(prefix): values for name, values in found.items()}


def _read_safetensors(path: pathlib.Path) -> dict[str, np.ndarray]:
    try:
        import ml_dtypes  # noqa: F401, for bfloat16
        from safetensors import numpy
    except ModuleNotFoundError as error:
        raise UserError(f"{path}: install the package that reads it: python -m pip install safetensors") from error
    try:
        with path.open("rb"):  # the library has other messages for a folder, or if there is no such file
            return numpy.load_file(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
    except Exception as error:  # SafetensorError, or any other of the library for types that NumPy does not have
        why = f"{type(error).__name__}: {shortened(str(error), 100)}"
        raise UserError(f"{path}: it is damaged, or not a safetensors file ({why})") from error
