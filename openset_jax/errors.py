"""The exceptions that commands turn into one line and an exit code."""

import contextlib
from collections.abc import Iterator


class UserError(Exception):
    """Bad configuration, data or workdir: the message says what is wrong, where, and what to do.

    Commands print the message alone, without a traceback, and exit with code 2.
    """


class Stopped(Exception):
    """The run was stopped by a signal after everything was saved: exit code 3."""


@contextlib.contextmanager
def needing_tensorflow(what: str) -> Iterator[None]:
    """Around an import of TensorFlow or TFDS: where they are not installed, a UserError says what needs them."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name not in ("tensorflow", "tensorflow_datasets"):
            raise
        raise UserError(
            f"{what} needs {error.name}, which is not installed; pip install it, or run openset_jax.prepare where it is, "
            "and use --config.data.packed=PACKED --config.input=resident here"
        ) from error
