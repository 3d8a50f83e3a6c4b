"""Imports TensorFlow without its messages and without GPUs. It is optional: import this module inside functions."""

import os

# TensorFlow announces oneDNN at every start, whatever its log level: what C++ code writes to standard error is discarded.
_kept, _nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
try:
    os.dup2(_nothing, 2)
    import tensorflow as tf
finally:
    os.dup2(_kept, 2)
    os.close(_kept)
    os.close(_nothing)

try:
    tf.config.set_visible_devices([], "GPU")  # the accelerators belong to JAX
except RuntimeError as error:  # TensorFlow has already run an operation
    raise RuntimeError("import openset_jax.data.tensorflow_cpu before TensorFlow runs its first operation") from error
