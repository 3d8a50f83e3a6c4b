"""Appends to a file without filling the system's page cache.

Packed arrays are larger than memory and are not read soon. Caching them would cost processor time that decoding needs, and
would evict the cached files of other processes.
"""

import errno
import fcntl
import mmap
import os
import pathlib

import numpy as np

BLOCK = 4096  # unbuffered writes are multiples of this: length, offset in the file, and address in memory
_ROOM = 8 << 20
_DIRECT = getattr(os, "O_DIRECT", 0)


class Appender:
    """Appends to an existing file in whole blocks, unbuffered if the system and the file system support it.

    Up to one block of arbitrary bytes may follow the appended bytes, until the caller truncates the file.

    Args:
      size: the number of bytes at its beginning that are kept; appended bytes follow them.
    """

    def __init__(self, path: pathlib.Path, size: int):
        self._buffer, self._filled = mmap.mmap(-1, _ROOM), size % BLOCK  # aligned, because it consists of pages
        self._at = size - self._filled  # offset of the buffer's content in the file
        with path.open("rb") as there:
            there.seek(self._at)
            self._buffer[: self._filled] = there.read(self._filled)
        try:
            descriptor = os.open(path, os.O_WRONLY | _DIRECT)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            descriptor = os.open(path, os.O_WRONLY)  # a file system without unbuffered files
        self._file = os.fdopen(descriptor, "wb", buffering=0)

    def write(self, data: np.ndarray) -> None:
        """Appends the bytes of a uint8 array. They are on the disk after the next `sync`."""
        content = data.reshape(-1).data
        while content:
            count = min(len(content), _ROOM - self._filled)
            self._buffer[self._filled : self._filled + count] = content[:count]
            self._filled, content = self._filled + count, content[count:]
            if self._filled == _ROOM:
                self._write_blocks()

    def sync(self) -> None:
        """Writes all appended bytes to the disk, and returns when they are there."""
        self._write_blocks()
        os.fsync(self._file)

    def close(self) -> None:
        """Closes the file; bytes that were appended after the last `sync` may be lost."""
        self._file.close()

    def _write_blocks(self):
        """Writes all blocks of the buffer. An incomplete last block also stays in the buffer, and is written again later."""
        whole = self._filled - self._filled % BLOCK
        stop, done = whole + BLOCK * (self._filled > whole), 0
        with memoryview(self._buffer) as content:
            while done < stop:
                done += self._write_at(content[done:stop], self._at + done)
        rest = self._filled - whole
        self._buffer[:rest] = self._buffer[whole : self._filled]
        self._at, self._filled = self._at + whole, rest

    def _write_at(self, content, at):
        try:
            return os.pwrite(self._file.fileno(), content, at)
        except OSError as error:  # the file could be opened unbuffered, but blocks cannot be written
            flags = fcntl.fcntl(self._file, fcntl.F_GETFL)
            if error.errno != errno.EINVAL or not flags & _DIRECT:
                raise
            fcntl.fcntl(self._file, fcntl.F_SETFL, flags & ~_DIRECT)
            return os.pwrite(self._file.fileno(), content, at)
