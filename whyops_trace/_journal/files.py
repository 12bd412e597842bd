"""
Files that are held open and locked, and descriptors that prove before each use that they are still theirs.

A program may close descriptors that it did not open, as daemons do, and get the same numbers for files of its own.
What is written by number alone would then land in these. The same happens below a file system that only pretends
to be one, whose numbers mean nothing to the operating system.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Sequence
from io import FileIO
from pathlib import Path
from typing import Final

from whyops_trace._guard import attempt
from whyops_trace._journal.locks import lock

#: Open files whose numbers belong to the program by now: to close them would close the program's.
_abandoned: Final[list[object]] = []


def abandon(owner: object) -> None:
    """Keep the owner of a descriptor for good, so that nothing closes that descriptor in its name."""
    _abandoned.append(owner)
    with contextlib.suppress(ImportError):  # where there is no ctypes, the end of the process closes it
        import ctypes

        ctypes.pythonapi.Py_IncRef(ctypes.py_object(owner))


class HeldFile:
    """
    An open file of the journal.

    Reading and writing raise :class:`OSError`, also if the file cannot be reached any more.

    Args:
        path: Its path.
        mode: "x+" to make it, "r+" to open one that exists.

    Attributes:
        path: Its present path.

    Raises:
        OSError: if it cannot be opened.
    """

    __slots__ = ("_file", "_identity", "_lock", "path")

    def __init__(self, path: Path, mode: str) -> None:
        self.path = path
        self._lock = threading.RLock()  # no descriptor is closed while another thread uses it
        # It owns the descriptor from its first moment, whatever interrupts this.
        self._file = FileIO(path, mode)
        status = os.fstat(self._file.fileno())
        self._identity = (status.st_dev, status.st_ino)

    def __del__(self) -> None:
        attempt(self.let_go)  # in vain if it could not be opened

    def status(self) -> os.stat_result:
        """Return what the operating system says of the file; a descriptor that is not the file's is replaced."""
        with self._lock:
            status = self.own_status()
            if status is None:
                self._regain()
                status = self.own_status()
            if status is None:
                raise OSError(errno.EBADF, os.strerror(errno.EBADF))
            return status

    def own_status(self) -> os.stat_result | None:
        """Return the status of the file, None if its descriptor is closed or another file's; takes no lock."""
        try:
            status = os.fstat(self._file.fileno())
        except (OSError, ValueError):
            return None
        return status if (status.st_dev, status.st_ino) == self._identity else None

    def _regain(self) -> None:
        if self._file.closed:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        file = FileIO(self.path, "r+")
        abandon(self._file)
        self._file = file
        lock(file.fileno())  # if it is still locked, then by this process: by its map

    @property
    def number(self) -> int:
        """The descriptor, which is the file's at this moment."""
        with self._lock:
            self.status()
            return self._file.fileno()

    def has_name(self) -> bool:
        """Tell whether the path leads to this file."""
        try:
            status = self.path.lstat()
        except FileNotFoundError:
            return False
        return (status.st_dev, status.st_ino) == self._identity

    def lock(self) -> bool:
        """Lock the file; return False if somebody else has."""
        return lock(self.number)

    def read(self, length: int, offset: int) -> bytes:
        """Return so many bytes from an offset on, fewer if the file ends before."""
        with self._lock:
            number = self.number
            if hasattr(os, "pread"):
                return os.pread(number, length, offset)
            os.lseek(number, offset, os.SEEK_SET)
            return os.read(number, length)

    def write(self, data: bytes | memoryview, offset: int) -> bool:
        """Write bytes at an offset; return False if there was room for some of them only."""
        with self._lock:
            number = self.number
            if hasattr(os, "pwrite"):
                return os.pwrite(number, data, offset) == len(data)
            os.lseek(number, offset, os.SEEK_SET)
            return os.write(number, data) == len(data)

    def write_pieces(self, pieces: Sequence[bytes], offset: int) -> bool:
        """Write bytes in pieces that follow each other at an offset; return False if there was room for some only."""
        if not hasattr(os, "pwritev"):
            return self.write(b"".join(pieces), offset)
        with self._lock:
            return os.pwritev(self.number, pieces, offset) == sum(map(len, pieces))

    def write_first(self, page: bytes) -> None:
        """
        Write the first bytes of a new file, and prove with them that its descriptor leads to it.

        The object of the file writes and the operating system reads: whoever stands in for one of them is found out
        before anything is written by number.
        """
        self._file.write(page)
        if self.read(len(page), 0) != page:
            raise OSError(errno.ENOTSUP, "the file system is not that of the operating system")

    def make_private(self) -> None:
        """Let only the owner use the file, whatever the umask."""
        if hasattr(os, "fchmod"):
            os.fchmod(self.number, 0o600)
        else:
            self.path.chmod(0o600)

    def rename(self, path: Path) -> None:
        """Give the file another name."""
        self.path = self.path.rename(path)

    def truncate(self, size: int) -> None:
        """Cut the file, if it is longer."""
        with self._lock:
            if self.status().st_size > size:
                self._file.truncate(size)

    def sync(self) -> None:
        """Wait until the disk has the file."""
        getattr(os, "fdatasync", os.fsync)(self.number)

    def unlink(self) -> None:
        """Delete the file, unless its name is another file's."""
        if self.has_name():
            self.path.unlink()

    def close(self) -> None:
        """Close the file, unless its descriptor is another file's by now."""
        with self._lock:
            self.let_go()

    def let_go(self) -> None:
        """Close the file in a forked child, where the thread that holds the lock may not exist."""
        if self._file.closed:
            return
        if self.own_status() is None:
            file, self._file = self._file, _CLOSED
            abandon(file)
        else:
            self._file.close()

    @property
    def closed(self) -> bool:
        """True once it is closed."""
        return self._file.closed


#: Stands for a file that has let go of its descriptor.
_CLOSED: Final = FileIO(os.open(os.devnull, os.O_RDONLY))
_CLOSED.close()


def sync_directory(directory: Path) -> None:
    """Wait until the disk has the names in a directory, where one can be opened."""
    try:
        descriptor = os.open(directory, os.O_RDONLY)
    except PermissionError:  # Windows
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
