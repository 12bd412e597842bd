"""
One segment of the journal: a run of records with a cursor for each destination, in a file or in memory.

::

    0      the first page, see whyops_trace._journal.header
    4096   the records, one line of JSON each, then zeros

The file has its full length from the start, so bytes that are not written yet read as NUL, which no JSON text
holds. A record counts if it ends in a newline and no NUL stands before it: a store that a kill cut short shows
itself. The page cache outlives the process, so nothing is ever synced.

Writing goes through a memory map, which keeps the GIL, where a system call gives it up to any busy thread for
milliseconds. Where a map cannot be trusted, :class:`WrittenSegment` writes each record to the file as well.

No lock is taken to write or to read. One thread at a time writes (it holds the recorder's lock), at the map's
own position: the line is copied, then the position moves behind it, all in one call that keeps the GIL, so an
interrupt leaves no half of a record. Readers look at nothing behind that position, :attr:`Segment.end`.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

from whyops_trace._guard import warn_once
from whyops_trace._journal.header import PAGE, SLOT, Counts, Header, read_slot
from whyops_trace.exceptions import JournalError
from whyops_trace.types import DropReason

#: Bytes looked at in one go, so that the GIL is never held for long.
CHUNK: Final = 262_144
#: The content of new pages, as many as are written at a time: the thread that writes gives up the GIL each time.
ZEROS: Final = memoryview(bytes(1 << 20))
#: The memory of a segment that has let go of its own.
_CLOSED: Final = mmap.mmap(-1, 1)
_CLOSED.close()


class Totals:
    """
    Records by destination and outcome.

    Attributes:
        lock: Held while a cursor and the counts move together; a segment is never dropped in between.
    """

    def __init__(self) -> None:
        # Re-entrant: a finaliser run by the garbage collector may come back to it in the same thread.
        self.lock = threading.RLock()
        self._counts: dict[str, Counts] = {}
        self._reasons: dict[str, dict[DropReason, int]] = {}

    def add(self, destination: str, counts: Counts, reason: DropReason | None = None) -> None:
        """Add counts, with the reason of the dropped ones; the caller holds the lock."""
        self._counts[destination] = self.of(destination).plus(counts)
        if reason and counts.dropped:
            reasons = self._reasons.setdefault(destination, {})
            reasons[reason] = reasons.get(reason, 0) + counts.dropped

    def of(self, destination: str) -> Counts:
        """Return the counts of a destination so far."""
        return self._counts.get(destination, Counts())

    def reasons(self, destination: str) -> dict[DropReason, int]:
        """Return the number of records that a destination did not get, by the reason."""
        return {reason: count for reason, count in self._reasons.get(destination, {}).items() if count}


class Segment:
    """
    A locked segment: of the process that writes it, or of the one that took it over.

    Args:
        memory: The bytes: a map of the file, or anonymous memory.
        header: The first page of the file.
        totals: The counts that commits and drops are added to.
        path: The file; None if the segment lives only in memory.

    Attributes:
        sealed: True once no record will be appended any more. Ask before a :meth:`read` that returns nothing, not
            after it, to know that there is nothing more to come.
        adopted: True if another process began it.
    """

    __slots__ = (
        "__weakref__",
        "_end",
        "_gone",
        "_memory",
        "_reason",
        "_slots",
        "adopted",
        "header",
        "path",
        "sealed",
        "size",
        "totals",
    )

    def __init__(self, memory: mmap.mmap, header: Header, totals: Totals, path: Path | None = None) -> None:
        self._memory = memory
        memory.seek(PAGE)
        self._end = PAGE
        self._gone = False
        self._reason: DropReason | None = None
        self._slots = header.slots()
        self.header = header
        self.totals = totals
        self.path = path
        self.size = len(memory)
        self.sealed = False
        self.adopted = False

    @classmethod
    def in_memory(cls, header: Header, size: int, totals: Totals) -> Segment:
        """Return a new segment without a file."""
        return cls(mmap.mmap(-1, size), header, totals)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.path or 'in memory'}>"

    @property
    def write(self) -> Callable[[bytes], object]:
        """Adds one line of JSON with its newline; raises :class:`ValueError` if there is no room for it."""
        return self._memory.write

    @property
    def end(self) -> int:
        """Offset behind the last complete record that this process knows."""
        try:
            return self._memory.tell()
        except ValueError:  # released
            return self._end

    def read(self, destination: str, limit: int = CHUNK) -> tuple[list[bytes], int]:
        """
        Return records a destination has not passed yet, without their newlines, and the cursor behind them.

        Args:
            destination: One of the header's; anything else is a :class:`KeyError`.
            limit: Bytes to read; one record comes whole even if it is longer.
        """
        start = cursor = self.cursor(destination)
        end = self.end
        lines: list[bytes] = []
        if cursor >= end or self._gone:
            return lines, cursor
        memory = self._memory
        try:
            # One by one, and not as a chunk to be split, which costs large ones a copy and the memory for it.
            while (behind := memory.find(b"\n", cursor, end) + 1) and (behind - start <= limit or not lines):
                lines.append(memory[cursor : behind - 1])
                cursor = behind
        except ValueError:  # released by another thread in the meantime
            return [], start
        self.page_out(cursor)
        return lines, cursor

    def newest(self, destination: str, part: bytes, counts: Callable[[bytes], bool]) -> bytes | None:
        """
        Return the latest record that a destination has not passed yet and that has some text in it, None without any.

        Args:
            destination: One of the header's.
            part: The text.
            counts: Takes a record, and returns True if it may be that one.
        """
        memory, start = self._memory, self.cursor(destination)
        try:
            place = memory.rfind(part, start, self.end)
            while place >= 0:
                begin = memory.rfind(b"\n", start, place) + 1 or start
                line = memory[begin : memory.find(b"\n", place)]
                if counts(line):
                    return line
                place = memory.rfind(part, start, begin)
        except ValueError:  # released by another thread in the meantime
            pass
        return None

    def cursor(self, destination: str) -> int:
        """Return the offset of the first record that a destination has not passed."""
        return self._slot(destination)[0]

    def counts(self, destination: str) -> Counts:
        """Return the counts of this segment's records at a destination, over all processes."""
        return self._slot(destination)[1]

    def _slot(self, destination: str) -> tuple[int, Counts]:
        try:
            return read_slot(self._memory, self._slots[destination])
        except ValueError:  # released: nothing is known any more
            return PAGE, Counts()

    def passed(self, destination: str) -> bool:
        """Tell whether a destination has nothing more to expect from this segment."""
        return self._gone or (self.sealed and self.cursor(destination) >= self.end)

    def finished(self) -> bool:
        """Tell whether every destination has :meth:`passed` this segment."""
        return self.sealed and all(map(self.passed, self._slots))

    def commit(self, destination: str, cursor: int, counts: Counts) -> None:
        """
        Move the cursor of a destination.

        A kill in the middle leaves the cursor either old or new; the counters may then be one commit behind.

        Args:
            destination: One of the header's.
            cursor: The one that :meth:`read` returned with the records.
            counts: The records in between by their outcome; they add up to their number.
        """
        with self.totals.lock:
            if self._memory.closed:
                return  # the records stay in the file, and come again
            before, earlier = self._slot(destination)
            if self._gone:  # dropped while the destination was busy with them: they did arrive after all
                counts = counts._replace(dropped=counts.dropped - self._records(before, cursor))
            self._count(destination, cursor, earlier, counts)

    def _records(self, start: int, end: int) -> int:
        return self._memory[start:end].count(b"\n")

    def _count(self, destination: str, cursor: int, earlier: Counts, counts: Counts) -> None:
        self._store(self._slots[destination], SLOT.pack(cursor, *earlier.plus(counts)))
        self.totals.add(destination, counts, self._reason)

    def _store(self, offset: int, data: bytes) -> None:
        self._memory[offset : offset + len(data)] = data

    def take_over(self) -> None:
        """
        Take the place of a dead owner: find the end of its records, and check the cursors.

        Raises:
            JournalError: if no record begins where a cursor is.
        """
        self.sealed = self.adopted = True
        self._memory.seek(self._last_newline(self._first_nul()) + 1)
        for destination in self._slots:
            cursor, counts = self._slot(destination)
            # The file has been cut, or nobody is there any more.
            if cursor > self.end or destination in self.header.ephemeral:
                self._store(self._slots[destination], SLOT.pack(self.end, *counts))
            elif cursor < PAGE or (cursor > PAGE and self._memory[cursor - 1] != ord("\n")):
                raise JournalError(f"its cursor for {destination} is impossible")

    def _first_nul(self) -> int:
        for start in range(PAGE, self.size, CHUNK):
            nul = self._memory[start : start + CHUNK].find(b"\0")
            if nul >= 0:
                return start + nul
        return self.size

    def _last_newline(self, end: int) -> int:
        newline = self._memory.rfind(b"\n", PAGE, end)
        return newline if newline >= 0 else PAGE - 1

    def publish(self, name: str) -> None:
        """
        Give the file its final name, by which others find it.

        Raises:
            OSError: if the file cannot be renamed.
        """
        if self.path is not None:
            self.path = self.path.rename(self.path.with_name(name))

    def drop(self, reason: DropReason) -> int:
        """
        Remove the segment for lack of room, even if destinations are behind.

        The memory stays until a destination that is busy with these records lets go of the segment.

        Returns:
            The number of records that some destination will not get.
        """
        with self.totals.lock:
            self._reason = reason
            losses = 0
            for destination in self._slots:
                cursor, earlier = self._slot(destination)
                behind = self._records(cursor, self.end)
                self._count(destination, cursor, earlier, Counts(dropped=behind))
                losses = max(losses, behind)
            self._unlink()
            return losses

    def remove(self) -> None:
        """Delete the file and let go of it; does nothing after :meth:`release`."""
        with self.totals.lock:
            if not self._memory.closed:
                self._unlink()
                self.release()

    def _unlink(self) -> None:
        self.sealed = self._gone = True
        if self.path is not None:
            # It may be deleted already. If it cannot be, the process that adopts it finds it finished and tries again.
            with contextlib.suppress(OSError):
                self.path.unlink()

    def page_out(self, end: int) -> None:
        """Take the pages before an offset off the memory of the process; those of a file stay in the system's cache."""
        length = end - end % mmap.PAGESIZE - mmap.PAGESIZE
        if self.path is None or length <= 0:
            return
        # Some systems take no such advice, and another thread may have released the memory.
        with contextlib.suppress(AttributeError, OSError, ValueError):
            # The first page is fetched now, and stays: at a later look its neighbours would come back with it.
            _ = self._memory[0]
            self._memory.madvise(mmap.MADV_DONTNEED, mmap.PAGESIZE, length)

    def wiped(self, header: Header, path: Path) -> Segment:
        """
        Return an empty segment in the file and memory of this one, which is finished.

        A thread that still holds this one finds it released. In a new file, the kernel and the caches of the processor
        would have to make room for the next records, which takes them longer than the writing.

        Args:
            header: The first page of the new segment.
            path: The present name of the file.
        """
        with self.totals.lock:
            self._end = records_end = self.end
            memory, self._memory = self._memory, _CLOSED
            self.sealed = self._gone = True
        memory[:PAGE] = header.page()
        for start in range(PAGE, records_end, len(ZEROS)):
            end = min(start + len(ZEROS), records_end)
            memory[start:end] = ZEROS[: end - start]
        return Segment(memory, header, self.totals, path)

    def release(self) -> None:
        """Give up the lock and the memory; a file that this process wrote keeps only its records."""
        with self.totals.lock:
            self.sealed = True
            if not self._memory.closed:
                if self.path is not None and not (self.adopted or self._gone):
                    with contextlib.suppress(OSError):
                        self._trim()
                self.abandon()

    def _trim(self) -> None:
        self._memory.resize(self.end)

    def abandon(self) -> None:
        """Let go of what a forked child inherited, without a lock: the thread that holds it may not exist there."""
        self._end = self.end
        self._memory.close()


class WrittenSegment(Segment):
    """
    A segment whose file is written by system calls, for file systems where a map cannot be trusted.

    Args:
        descriptor: The open and locked file, which the segment owns from now on.
        memory: Anonymous memory that mirrors it.
    """

    __slots__ = ("_descriptor",)

    def __init__(
        self, descriptor: int, memory: mmap.mmap, header: Header, totals: Totals, path: Path | None = None
    ) -> None:
        super().__init__(memory, header, totals, path)
        self._descriptor = descriptor

    @property
    def write(self) -> Callable[[bytes], object]:
        """Adds a record to the file and the memory; a file that does not take it is sealed."""
        return self._write

    def _write(self, line: bytes) -> None:
        start = self.end
        if start + len(line) > self.size or self.sealed:
            raise ValueError("no room")
        try:
            complete = os.pwrite(self._descriptor, line, start) == len(line)
        except OSError as error:
            warn_once(
                f"journal: {error.errno}", "Cannot write to the journal %s: %s.", self.path, error.strerror
            )
            complete = False
        except BaseException:  # an interrupt: nobody knows what was written
            self.sealed = True
            raise
        if not complete:
            self.sealed = True
            raise ValueError("not written")
        self._memory.write(line)

    def page_out(self, end: int) -> None:
        """Do nothing: this memory is nowhere else."""

    def _store(self, offset: int, data: bytes) -> None:
        super()._store(offset, data)
        if not self._gone:
            with contextlib.suppress(OSError):  # then the records come again after a crash
                os.pwrite(self._descriptor, data, offset)

    def _trim(self) -> None:
        os.ftruncate(self._descriptor, self.end)

    def drop(self, reason: DropReason) -> int:
        """Remove the segment as its base does; the file is closed at once."""
        with self.totals.lock:
            losses = super().drop(reason)
            os.close(self._descriptor)
            self._descriptor = -1
            return losses

    def abandon(self) -> None:
        """Close file and memory."""
        super().abandon()
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
