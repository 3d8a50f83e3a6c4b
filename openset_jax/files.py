"""Writes files completely or not at all, and puts them on the disk."""

import contextlib
import errno
import os
import pathlib
import secrets
import shutil
from collections.abc import Iterator
from typing import IO, Any


@contextlib.contextmanager
def write_whole(path: pathlib.Path, mode: str = "w", *, newline: str | None = None) -> Iterator[IO[Any]]:
    """Opens a new file, with `mode` and `newline` as in `open`, that replaces `path` when the block ends.

    The new file has a unique name in the same folder until then: of several processes that write one path, the last one
    wins. At the end it is on the disk, under its name, with the permissions of the old file. A symbolic link stays one.

    After an error or an interrupt, `path` is unchanged and the new file is removed. Text is UTF-8; surrogate escapes, which
    represent undecodable bytes of file names, are written as the original bytes.
    """
    path = pathlib.Path(os.path.realpath(path))
    temporary = path.with_name(f".{path.name[:32]}.{secrets.token_hex(8)}.tmp")
    encoding, errors = (None, None) if "b" in mode else ("utf-8", "surrogateescape")
    try:
        with temporary.open(mode.replace("w", "x"), encoding=encoding, errors=errors, newline=newline) as file:
            yield file
        with contextlib.suppress(OSError):  # there is no old file, or the file system has no permissions
            shutil.copymode(path, temporary)
        sync(temporary)
        temporary.replace(path)
        sync(path.parent)
    except BaseException as error:  # including KeyboardInterrupt
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            error.filename = str(path)  # errors of writing do not name the file
        raise


def sync(path: pathlib.Path) -> None:
    """Returns when the content of a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system that cannot do this for folders
            raise
    finally:
        os.close(descriptor)


def sync_tree(folder: pathlib.Path) -> None:
    """Returns when a folder, its files and its subfolders are on the disk."""
    for top, _, names in os.walk(folder):
        for name in names:
            sync(pathlib.Path(top, name))
        sync(pathlib.Path(top))
