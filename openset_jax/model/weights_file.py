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
    found = {name: _float32(values) for name, values in found.items()}
    if strange := [name for name, values in found.items() if not np.isfinite(values).all()]:
        raise UserError(f"{path}: {shortened(strange[0])} has values that are not finite; use weights of a run that learned")
    return {name.removeprefix("module."): v for name, v in found.items()} if all(n[:7] == "module." for n in found) else found


def _float32(values: np.ndarray) -> np.ndarray:
    if values.dtype.kind in "iub":
        return values
    with np.errstate(over="ignore"):  # to infinity, which is refused
        return values.astype(np.float32, copy=False)


def _read_safetensors(path: pathlib.Path) -> dict[str, np.ndarray]:
    try:
        import ml_dtypes  # noqa: F401, for bfloat16
        import safetensors
        from safetensors import numpy
    except ModuleNotFoundError as error:
        raise UserError(f"{path}: install the package that reads it: python -m pip install safetensors") from error
    try:
        with path.open("rb"):  # the library's own message is that a file does not exist, also if it is a folder
            return numpy.load_file(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (safetensors.SafetensorError, ValueError, TypeError, KeyError, AttributeError) as error:
        why = f"{type(error).__name__}: {shortened(str(error), 100)}"
        raise UserError(f"{path}: it is damaged, or not a safetensors file ({why})") from error
