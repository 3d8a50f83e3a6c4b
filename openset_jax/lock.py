"""A lock on a folder: one process at a time writes its files. Readers need no lock."""

import contextlib
import errno
import fcntl
import os
import pathlib
import platform
from collections.abc import Iterator
from typing import IO

from openset_jax.errors import UserError
from openset_jax.text import show

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # errors of file systems, often network ones, without locks


class FolderInUse(UserError):
    """Another process writes the folder."""


@contextlib.contextmanager
def claimed(folder: pathlib.Path, *, wait: bool = False) -> Iterator[None]:
    """Locks a folder, which is created if necessary, by the file `lock` in it, which names this process.

    A process that ends, or is killed, releases its locks. On a file system without locks, prints a warning and goes on.

    Args:
      wait: whether to wait while another process has the lock.

    Raises:
      FolderInUse: another process has the lock (not `wait`); the message names it.
    """
    with _locked_file(folder / "lock", wait) as file:
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()}\n")
        file.flush()
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # the folder may be gone, or read-only by now
                os.unlink(file.name)


def _locked_file(path: pathlib.Path, wait: bool) -> IO[str]:
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+")
        try:
            _lock(file, wait)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                    return file
        except BaseException:
            file.close()
            raise
        file.close()  # the process that had the lock has removed the file


def _lock(file: IO[str], wait: bool) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        file.seek(0)
        folder, owner = os.path.dirname(file.name), file.read().strip() or "another process"
        raise FolderInUse(
            f"{folder!r} is in use by {owner}: wait until it ends, stop it, or choose another folder"
        ) from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        show(f"Warning: {file.name} cannot be locked ({error.strerror}); let only one command at a time write this folder.")
