"""Imports TensorFlow without its messages and without GPUs. It is optional: import this module inside functions."""

import contextlib
import os
from collections.abc import Iterator


@contextlib.contextmanager
def _silent_stderr() -> Iterator[None]:
    """Discards what C++ code writes to standard error; Python's exceptions pass."""
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)


with _silent_stderr():  # TensorFlow announces oneDNN at every start, whatever its log level
    import tensorflow as tf

try:
    tf.config.set_visible_devices([], "GPU")  # the accelerators belong to JAX
except RuntimeError as error:  # TensorFlow has already run an operation
    raise RuntimeError("import openset_jax.data.tensorflow_cpu before TensorFlow runs its first operation") from error
