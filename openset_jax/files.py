"""Files that are there whole or not at all."""

import contextlib
import pathlib
from collections.abc import Iterator
from typing import IO, Any


@contextlib.contextmanager
def write_whole(path: pathlib.Path, mode: str = "w", **options: Any) -> Iterator[IO[Any]]:
    """A file to write, which takes the place of `path` once it is finished; after an error, `path` is as it was, and nothing
    is left beside it.

    Text is UTF-8; file names that are not are kept as the bytes that they are.

    Args:
      mode: "w", or "wb".
      options: of `open`.
    """
    temporary = path.with_name(path.name + ".tmp")
    if "b" not in mode:
        options = {"encoding": "utf-8", "errors": "surrogateescape"} | options
    try:
        with temporary.open(mode, **options) as file:
            yield file
        temporary.replace(path)
    except BaseException:  # an interrupt, too
        temporary.unlink(missing_ok=True)
        raise
