"""
The bytes of a segment: in memory, in a file that is written through a map, or in one that is written by system calls.

One thread at a time writes. Any thread reads what is written already, and none of them through a map: where somebody
has cut the file, a look at the map would kill the process, while a system call only says so.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

from whyops_trace._guard import warn_once
from whyops_trace._journal.files import HeldFile, abandon
from whyops_trace._journal.header import PAGE

mmap: Any
try:
    import mmap
except ImportError:  # a platform without memory maps
    mmap = None

#: The advice by which Linux, from 5.14 on, makes pages ready to be written: it fails where a store would kill.
_POPULATE_WRITE: Final = 23


def has_maps() -> bool:
    """Tell whether this platform can write to files through a map, and take the room for them before."""
    return mmap is not None and hasattr(os, "posix_fallocate")


def may_fail() -> bool:
    """
    Tell whether a store that fails, into the map of a file that somebody has cut, ends the process.

    A handler of the program, written in Python, would be called only once that store is done, which is tried again
    without end.
    """
    return not callable(signal.getsignal(signal.SIGBUS)) if hasattr(signal, "SIGBUS") else True


class Area(Protocol):
    """Memory of a fixed size with a position, as an anonymous map is."""

    def write(self, data: bytes, /) -> int:
        """Write at the position; :class:`ValueError` if there is no room, or the memory is given back."""
        ...

    def tell(self) -> int:
        """Return the position."""
        ...

    def seek(self, position: int, /) -> object:
        """Set the position."""
        ...

    def __getitem__(self, part: slice, /) -> bytes: ...

    def close(self) -> None:
        """Give the memory back."""


class _Bytes:
    """An area where there are no maps."""

    def __init__(self, size: int) -> None:
        self._bytes = bytearray(size)
        self._position = 0

    def write(self, data: bytes, /) -> int:
        end = self._position + len(data)
        if end > len(self._bytes):
            raise ValueError("no room")
        self._bytes[self._position : end] = data
        self._position = end
        return len(data)

    def tell(self) -> int:
        return self._position

    def seek(self, position: int, /) -> None:
        self._position = position

    def __getitem__(self, part: slice, /) -> bytes:
        return bytes(self._bytes[part])

    def close(self) -> None:
        self._bytes = bytearray()


def _area(size: int) -> Area:
    """
    Return memory for records after a first page.

    Raises:
        OSError: if the system gives none.
    """
    try:
        area: Area = _Bytes(size) if mmap is None else mmap.mmap(-1, size)
    except MemoryError as error:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)) from error
    area.seek(PAGE)
    return area


def _refuse(line: bytes) -> int:
    """Stand for the way to write where there is none."""
    raise ValueError("no room")


class Storage:
    """
    The bytes of a segment that nobody writes records to.

    Args:
        size: Their number, with the first page.
        file: The open and locked file, which belongs to this object from now on; None if there is none.
        end: The offset behind the last record.

    Attributes:
        size: As the argument.
        file: As the argument.
        write: Adds one line, in a single step that no interrupt divides, and returns its length. It raises
            :class:`ValueError` if there is no room for it.
    """

    __slots__ = ("_end", "file", "size", "write")

    def __init__(self, size: int, file: HeldFile | None = None, end: int = PAGE) -> None:
        self.size = size
        self.file = file
        self._end = end
        self.write: Callable[[bytes], int] = _refuse

    @property
    def path(self) -> Path | None:
        """The present path of the file."""
        return None if self.file is None else self.file.path

    @property
    def end(self) -> int:
        """The offset behind the last record."""
        return self._end

    def end_at(self, end: int) -> None:
        """Set the offset behind the last record."""
        self._end = end

    def load(self, start: int, end: int) -> bytes:
        """
        Return the bytes between two offsets; NUL stands for those that the file or the disk does not have any more.

        Raises:
            OSError: if the file cannot be reached.
        """
        data = b""
        try:
            if self.file is not None:
                data = self.file.read(end - start, start)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            if end - start > PAGE:  # a sector is gone, but not those beside it
                middle = (start + end) // 2
                return self.load(start, middle) + self.load(middle, end)
        return data.ljust(end - start, b"\0")

    def store(self, offset: int, data: bytes) -> None:
        """Write into the first page of the file, if there is one and it is not cut."""
        if self.file is not None:
            with contextlib.suppress(OSError):  # then the records come again after a crash
                if self.file.status().st_size >= offset + len(data):
                    self.file.write(data, offset)

    def can_take(self, length: int) -> bool:
        """Tell whether so many bytes can be written now without harm to the process."""
        return True

    def write_pieces(self, pieces: Sequence[bytes]) -> int:
        """Add one line that is in pieces, as :attr:`write` does."""
        return self.write(b"".join(pieces))

    def seal(self) -> None:
        """Take no more records."""
        self.write = _refuse

    def sync(self) -> None:
        """Wait until the disk has the records."""
        if self.file is not None:
            try:
                self.file.sync()
            except OSError as error:
                if not self.file.closed:
                    warn_once(
                        f"journal: sync: {error.errno}",
                        "The journal %s cannot be synced to the disk: %s.",
                        self.path,
                        error.strerror,
                    )

    def close(self) -> None:
        """Let go of memory and file."""
        self.seal()
        if self.file is not None:
            self.file.close()

    def let_go(self) -> None:
        """Let go of what a forked child inherited, without a lock: the thread that holds it may not exist there."""
        self.seal()
        if self.file is not None:
            self.file.let_go()


class Memory(Storage):
    """
    Records in the memory of the process, and in a file as well if there is one.

    Args:
        size: Bytes.
        file: The open and locked file, for file systems where a map cannot be trusted. It is written to first.

    Raises:
        OSError: if the system gives no memory.
    """

    __slots__ = ("_area",)

    def __init__(self, size: int, file: HeldFile | None = None) -> None:
        super().__init__(size, file)
        self._area = _area(size)
        self.write = self._area.write if file is None else functools.partial(self._write, file)

    def _write(self, file: HeldFile, line: bytes) -> int:
        start = self._area.tell()
        if start + len(line) > self.size or self.write is _refuse:
            raise ValueError("no room")
        try:
            complete = file.write(line, start)
        except OSError as error:
            warn_once(
                f"journal: {error.errno}", "Cannot write to the journal %s: %s.", self.path, error.strerror
            )
            complete = False
        except BaseException:  # an interrupt: nobody knows what was written
            self.seal()
            raise
        if not complete:
            self.seal()
            raise ValueError("not written")
        return self._area.write(line)

    @property
    def end(self) -> int:
        """The offset behind the last record."""
        try:
            return self._area.tell()
        except ValueError:  # closed
            return self._end

    def load(self, start: int, end: int) -> bytes:
        """Return the bytes between two offsets."""
        try:
            return self._area[start:end]
        except ValueError:  # closed by another thread in the meantime
            return b""

    def close(self) -> None:
        """Let go of memory and file."""
        super().close()
        self._give_back()

    def let_go(self) -> None:
        """Let go of what a forked child inherited."""
        super().let_go()
        self._give_back()

    def _give_back(self) -> None:
        self._end = self.end
        self._area.close()


class Mapped(Storage):
    """
    Records in a file that is written through a map, which keeps the GIL where a system call gives it up.

    Args:
        size: Bytes, which the file has already.
        file: The open and locked file.

    Raises:
        OSError: if it cannot be mapped, or the map is not the file's.
    """

    __slots__ = ("_map",)

    def __init__(self, size: int, file: HeldFile) -> None:
        super().__init__(size, file)
        number = file.number
        if sys.version_info >= (3, 13):
            self._map = mmap.mmap(number, size, trackfd=False)
        else:
            self._map = mmap.mmap(number, size)
        self._map.seek(PAGE)
        self.write = self._map.write

    @property
    def end(self) -> int:
        """The offset behind the last record."""
        try:
            position: int = self._map.tell()
        except ValueError:  # sealed
            return self._end
        return position

    def can_take(self, length: int) -> bool:
        """Tell whether a store of so many bytes is safe now; it kills the process where somebody cut the file."""
        try:
            position = self._map.tell()
            page = position - position % mmap.PAGESIZE
            self._map.madvise(_POPULATE_WRITE, page, min(position + length, self.size) - page)
        except ValueError:  # sealed, or full
            return True
        except (OSError, AttributeError) as error:
            if not isinstance(error, OSError) or error.errno == errno.EINVAL:  # a system without that advice
                return self._file_size() >= self.size
            return False
        return True

    def write_pieces(self, pieces: Sequence[bytes]) -> int:
        """Add one line that is in pieces, by a system call."""
        start: int = self._map.tell()
        end = start + sum(map(len, pieces))
        if self.file is None or end > self.size or self._file_size() < self.size:
            raise ValueError("no room")
        try:
            is_complete = self.file.write_pieces(pieces, start)
            self._map.seek(end if is_complete else start)
        except OSError:
            is_complete = False
        except BaseException:  # an interrupt: nobody knows what was written
            self.seal()
            raise
        if not is_complete:
            self.seal()
            raise ValueError("not written")
        return end - start

    def _file_size(self) -> int:
        status = None if self.file is None else self.file.own_status()
        return self.size if status is None else status.st_size  # out of reach, it is mapped nevertheless

    def seal(self) -> None:
        """Take no more records, and give the map back: what waits needs no memory."""
        super().seal()
        self._end = self.end
        if sys.version_info < (3, 13):
            # The map owns a descriptor as well, of a number that nobody is told.
            try:
                is_ours = self._map.closed or self._map.size() == self._file_size()
            except OSError:
                is_ours = False
            if not is_ours:
                abandon(self._map)
                self._map = _CLOSED
        self._map.close()


if mmap is not None:
    #: The map of a segment that had to abandon its own.
    _CLOSED: Final = mmap.mmap(-1, 1)
    _CLOSED.close()
