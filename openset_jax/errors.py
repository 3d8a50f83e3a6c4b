"""The exceptions that commands report in one line, with an exit code."""

import contextlib
import unicodedata
from collections.abc import Iterable, Iterator


class UserError(Exception):
    """An error in the config, data or workdir that the user can correct. The message states problem, place and remedy.

    Commands print the message without a traceback, and exit with code 2.
    """


class Stopped(Exception):
    """The run was stopped by a signal, after everything was saved. Commands exit with code 3."""


def normalisation_note(one: Iterable[str], other: Iterable[str]) -> str:
    """Returns a note for a message, beginning with a space, if names look the same but are not; else "".

    "é" is one character or two, for example after copying files from a Mac (Unicode normalisation forms C and D).
    """
    form_c = lambda name: unicodedata.normalize("NFC", name)
    there = {form_c(name): name for name in other}
    for name in one:
        twin = there.get(form_c(name), name)
        if twin != name:
            return f" ({name!a} and {twin!a} look the same, but differ in Unicode normalisation)"
    return ""


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
