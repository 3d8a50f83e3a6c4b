"""The exceptions that commands report in one line, with an exit code."""

import contextlib
from collections.abc import Iterator


class UserError(Exception):
    """An error in the config, data or workdir that the user can correct. The message states problem, place and remedy.

    Commands print the message without a traceback, and exit with code 2.
    """


class Stopped(Exception):
    """The run was stopped by a signal, after everything was saved. Commands exit with code 3."""


@contextlib.contextmanager
def needing_tensorflow(feature: str) -> Iterator[None]:
    """Wraps an import of TensorFlow, TFDS or array_record; raises UserError, naming `feature`, if it is not installed."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name not in ("tensorflow", "tensorflow_datasets", "array_record"):
            raise
        raise UserError(
            f"{feature} needs {error.name}, which is not installed; install it with pip, or run openset_jax.prepare on a "
            "machine with it, copy PACKED to this one, and use --config.data.packed=PACKED --config.input=resident"
        ) from error
