"""Appends to a file past the system's page cache.

Packed arrays are larger than memory and are not read soon: to fill the cache with them costs processor time that decoding
needs, and pushes out what others use.
"""

import errno
import fcntl
import mmap
import os
import pathlib

import numpy as np

BLOCK = 4096  # what unbuffered writes are a multiple of: in length, in the file and in memory
_ROOM = 8 << 20


class Appender:
    """Appends to an existing file, in whole blocks, unbuffered where the system and the file system can.

    Until it is truncated, the file may be longer than what was appended by less than a block, of any content.

    Args:
      path: the file.
      size: its first bytes that stay; appending starts behind them.
    """

    def __init__(self, path: pathlib.Path, size: int):
        self._buffer, self._filled = mmap.mmap(-1, _ROOM), size % BLOCK  # aligned, as it is made of pages
        self._at = size - self._filled  # where the buffer's content belongs in the file
        with path.open("rb") as there:
            there.seek(self._at)
            self._buffer[: self._filled] = there.read(self._filled)
        try:
            self._file = os.open(path, os.O_WRONLY | getattr(os, "O_DIRECT", 0))
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            self._file = os.open(path, os.O_WRONLY)  # a file system that only knows buffered files

    def write(self, data: np.ndarray) -> None:
        """Appends a contiguous uint8 array; it need not be on the disk before `sync`."""
        data = memoryview(data).cast("B")
        while data:
            count = min(len(data), _ROOM - self._filled)
            self._buffer[self._filled : self._filled + count] = data[:count]
            self._filled, data = self._filled + count, data[count:]
            if self._filled == _ROOM:
                self._write_blocks()

    def sync(self) -> None:
        """Returns when all is on the disk."""
        self._write_blocks()
        os.fsync(self._file)

    def close(self) -> None:
        """Closes the file, if it is open; what was not synced may be lost."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _write_blocks(self):
        """Writes the buffer, its last block as it is; a block that is not full stays, to be written again when it is."""
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
            return os.pwrite(self._file, content, at)
        except OSError as error:  # it took the file and does not take the blocks
            flags = fcntl.fcntl(self._file, fcntl.F_GETFL)
            direct = getattr(os, "O_DIRECT", 0)
            if error.errno != errno.EINVAL or not flags & direct:
                raise
            fcntl.fcntl(self._file, fcntl.F_SETFL, flags & ~direct)
            return os.pwrite(self._file, content, at)
