"""Writes files completely or not at all."""

import contextlib
import pathlib
from collections.abc import Iterator
from typing import IO, Any


@contextlib.contextmanager
def write_whole(path: pathlib.Path, mode: str = "w", *, newline: str | None = None) -> Iterator[IO[Any]]:
    """Opens a temporary file, with `mode` and `newline` as in `open`, that replaces `path` when the block ends.

    After an error or an interrupt, `path` is unchanged and the temporary file is removed. Text is UTF-8; surrogate
    escapes, which represent undecodable bytes of file names, are written as the original bytes.
    """
    temporary = path.with_name(path.name + ".tmp")
    encoding, errors = (None, None) if "b" in mode else ("utf-8", "surrogateescape")
    try:
        with temporary.open(mode, encoding=encoding, errors=errors, newline=newline) as file:
            yield file
        temporary.replace(path)
    except BaseException:  # including KeyboardInterrupt
        temporary.unlink(missing_ok=True)
        raise
