"""
One segment of the journal: a run of records with a cursor for each destination, in a file or in memory.

::

    0      the first page, see whyops_trace._journal.header
    4096   the records, one line of JSON each, then zeros

The file has its full length from the start, so bytes that are not written yet read as NUL, which no JSON text
holds. A record counts if it ends in a newline and no NUL stands in it: a store that a kill cut short shows itself.
The page cache outlives the process, so nothing is synced unless it was asked for.

Writing goes through a memory map, which keeps the GIL, where a system call gives it up to any busy thread for
milliseconds. A large request to a model is written by one nevertheless, see :meth:`Segment.write_pieces`, and where a
map cannot be trusted, each record is. See :mod:`whyops_trace._journal.storage`.

No lock is taken to write or to read. One thread at a time writes (it holds the recorder's lock), at the storage's
own position: the line is copied, then the position moves behind it, all in one call, so an interrupt leaves no half of
a record. Readers look at nothing behind that position, :attr:`Segment.end`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from typing import Final

from whyops_trace._guard import warn_once
from whyops_trace._journal.files import sync_directory
from whyops_trace._journal.header import PAGE, SLOT, Counts, Header, read_slot
from whyops_trace._journal.records import Form, lines_in
from whyops_trace._journal.storage import Mapped, Memory, Storage, may_fail
from whyops_trace._journal.totals import Totals
from whyops_trace.exceptions import JournalError
from whyops_trace.types import DropReason

#: Bytes looked at in one go, so that the GIL is never held for long.
CHUNK: Final = 262_144
#: Bytes of a line from which on a system call takes less time than the first store to each page of a map.
LARGE: Final = 65_536
#: The content of new pages, as many as are written at a time: the thread that writes gives up the GIL each time.
ZEROS: Final = memoryview(bytes(1 << 20))


class Segment:
    """
    A locked segment: of the process that writes it, or of the one that took it over.

    Args:
        storage: Its bytes.
        header: The first page of the file.
        totals: The counts that commits and drops are added to.
        durable: True to wait for the disk with the file's name, before anything is written.
        synced: True to wait for the disk with each record.

    Attributes:
        write: Adds one line of JSON with its newline and returns the bytes that takes. It raises :class:`ValueError` if
            there is no room for it.
        count: The number of records that were written, which the caller of *write* adds to. An interrupt may come
            between the two: see :meth:`recount`.
        sealed: True once no record will be appended any more. Ask before a :meth:`read` that returns nothing, not
            after it, to know that there is nothing more to come.
        adopted: True if another process began it.
        damaged: True if some of its bytes could not be read. Its file is kept then.
    """

    __slots__ = (
        "__weakref__",
        "_closed",
        "_durable",
        "_form",
        "_found",
        "_gone",
        "_reason",
        "_slots",
        "_storage",
        "_synced",
        "_unsure",
        "adopted",
        "count",
        "damaged",
        "header",
        "sealed",
        "size",
        "totals",
        "write",
    )

    def __init__(
        self,
        storage: Storage,
        header: Header,
        totals: Totals,
        *,
        durable: bool = False,
        synced: bool = False,
    ) -> None:
        self._storage = storage
        self._durable = durable
        self._synced = synced
        self._form = Form(header)
        self._closed = self._gone = False
        self._reason: DropReason | None = None
        self._slots: dict[str, tuple[int, Counts]] = dict.fromkeys(header.destinations, (PAGE, Counts()))
        #: Numbers of records that were found in the file of another process, by destination.
        self._found: dict[str, int] = {}
        #: True while the count may miss a record.
        self._unsure = False
        self.header = header
        self.totals = totals
        self.size = storage.size
        self.sealed = False
        self.adopted = False
        self.damaged = False
        self.count = 0
        write = self._form.summing(storage.write)
        self.write: Callable[[bytes], int] = self._syncing(write) if synced else write

    @classmethod
    def in_memory(cls, header: Header, size: int, totals: Totals) -> Segment:
        """
        Return a new segment without a file.

        Raises:
            OSError: if there is no memory for it.
        """
        return cls(Memory(size), header, totals)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.path or 'in memory'}>"

    def _syncing(self, write: Callable[[bytes], int]) -> Callable[[bytes], int]:
        def write_and_sync(line: bytes) -> int:
            length = write(line)
            self._storage.sync()
            return length

        return write_and_sync

    def write_pieces(self, pieces: Sequence[bytes]) -> int:
        """
        Add one line that is in pieces, and return the bytes that takes.

        A large one is written by a system call, which gives up the GIL once, as the request does that it tells of.

        Raises:
            ValueError: if there is no room for it, or somebody has cut the file.
        """
        length = sum(map(len, pieces))
        if length >= LARGE and not self._synced and not self._form.checked:
            return self._storage.write_pieces(pieces)
        if not self.can_take(length):
            raise ValueError("its file is cut")
        return self.write(b"".join(pieces))

    @property
    def path(self) -> Path | None:
        """The file; None if the segment lives only in memory."""
        return self._storage.path

    @property
    def end(self) -> int:
        """Offset behind the last complete record that this process knows."""
        return self._storage.end

    @property
    def is_mapped(self) -> bool:
        """True if records are written through a map."""
        return isinstance(self._storage, Mapped)

    def can_take(self, length: int) -> bool:
        """Tell whether so many bytes can be written now without harm to the process."""
        return self._storage.can_take(length)

    def seal(self) -> None:
        """Let no record be written any more."""
        self._storage.seal()
        self.write = self._storage.write
        self.sealed = True
        if self.path is not None and not (self.adopted or self.is_mapped):
            self.size = self.end  # its file never had more

    def sync(self) -> None:
        """Wait until the disk has the records so far."""
        if not self._gone:
            self._storage.sync()

    # Records

    def read(self, destination: str, limit: int = CHUNK) -> tuple[list[bytes], int]:
        """
        Return records a destination has not passed yet, without their newlines, and the cursor behind them.

        What is damaged is passed, and counted as dropped.

        Args:
            destination: One of the header's; anything else is a :class:`KeyError`.
            limit: Bytes to read; one record comes whole even if it is longer.

        Raises:
            OSError: if the file cannot be reached.
        """
        while True:
            start, end = self.cursor(destination), self.end
            if start >= end or self._gone or self._closed:
                return [], start
            try:
                data = self._load_lines(start, end, limit)
            except OSError:
                if not self._closed:
                    raise
                return [], start
            if self._gone or self._closed:  # by another thread in the meantime
                return [], start
            lines, size = self._form.intact(data)
            if lines:
                return lines, start + size
            self._pass_damage(destination, start, data)

    def _load_lines(self, start: int, end: int, limit: int) -> bytes:
        """Return the bytes of whole lines; all bytes up to the end if there is no newline."""
        while True:
            stop = min(end, start + limit)
            data = self._storage.load(start, stop)
            behind = data.rfind(b"\n") + 1
            if behind or stop == end:
                return data[:behind] or data
            limit = max(2 * limit, CHUNK)

    def before(self, cursor: int, lines: list[bytes]) -> int:
        """Return the cursor before the last ones of the lines that were read up to a cursor."""
        return cursor - sum(map(len, lines)) - len(lines) * self._form.overhead

    def newest(self, destination: str, part: bytes, counts: Callable[[bytes], bool]) -> bytes | None:
        """
        Return the latest record that a destination has not passed yet and that has some text in it, None without any.

        Args:
            destination: One of the header's.
            part: The text.
            counts: Takes a record, and returns True if it may be that one.
        """
        data = b""
        with contextlib.suppress(OSError):  # it cannot be reached
            data = self._storage.load(self.cursor(destination), self.end)
        lines = [line for _, line in self._form.records(data)] if part in data else []
        return next((line for line in reversed(lines) if part in line and counts(line)), None)

    @property
    def records(self) -> int:
        """The number of records written by this process, damaged ones included."""
        return max(self.count, self._newlines(PAGE, self.end)) if self._unsure else self.count

    def recount(self) -> None:
        """Count the records anew, in the thread that writes them, because an interrupt may have come behind one."""
        self._unsure = True
        self.count = self.records
        self._unsure = False

    def _newlines(self, start: int, end: int) -> int:
        number = 0
        with contextlib.suppress(OSError):  # it cannot be reached
            for place in range(start, end, CHUNK):
                number += self._storage.load(place, min(place + CHUNK, end)).count(b"\n")
        return number

    def pending(self, destination: str) -> int:
        """Return the number of records that a destination has not passed."""
        cursor, counts = self._slots[destination]
        if self._gone or (self.adopted and cursor >= self.end):
            return 0
        if not self.adopted:
            return self.records - sum(counts)
        if destination not in self._found:
            self._found[destination] = self._newlines(cursor, self.end) + sum(counts)
        return max(0, self._found[destination] - sum(counts))

    def _pass_damage(self, destination: str, start: int, data: bytes) -> None:
        """Move the cursor behind damaged bytes, and take no more records into such a file."""
        size = self._form.damaged(data)
        self.seal()
        self._say_damage(start)
        # Of its own records a process knows the number, and counts what is missing in the end.
        losses = lines_in(data[:size]) if self.adopted else 0
        with self.totals.lock:
            if not (self._gone or self._closed):
                self._count(destination, start + size, Counts(dropped=losses), "damaged")
                self._count_missing(destination)

    def _say_damage(self, offset: int) -> None:
        if not self.damaged:
            self.damaged = True
            warn_once(
                f"journal: {self.path}: damaged",
                "The journal segment %s is damaged before or at byte %d: records are lost there. The others are "
                "delivered, and the file is kept as .bad.",
                self.path,
                offset,
            )

    def _count_missing(self, destination: str) -> None:
        """Count as dropped what this process wrote and did not find again on the way to the end."""
        if self.adopted:
            return
        missing = self.pending(destination)
        end = self.cursor(destination)
        if missing > 0 and end >= self.end:  # looked at last: a record may have come in the meantime
            self.seal()
            self._say_damage(end)
            self._count(destination, end, Counts(dropped=missing), "damaged")

    # Cursors

    def cursor(self, destination: str) -> int:
        """Return the offset of the first record that a destination has not passed."""
        return self._slots[destination][0]

    def counts(self, destination: str) -> Counts:
        """Return the counts of this segment's records at a destination, over all processes."""
        return self._slots[destination][1]

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
            if self._gone:  # dropped while the destination was busy with them: they did arrive after all
                counts = counts._replace(dropped=counts.dropped - sum(counts))
            elif self._closed:
                return  # the records stay in the file, and come again
            self._count(destination, cursor, counts, self._reason)
            if not self._gone:
                self._count_missing(destination)

    def _count(self, destination: str, cursor: int, counts: Counts, reason: DropReason | None) -> None:
        self._slots[destination] = cursor, self._slots[destination][1].plus(counts)
        self.totals.add(destination, counts, reason)
        if not self._closed:
            self._store(destination)

    def _store(self, destination: str) -> None:
        cursor, counts = self._slots[destination]
        self._storage.store(self.header.slots()[destination], SLOT.pack(cursor, *counts[:-1]))

    # Owners

    def take_over(self) -> None:
        """
        Take the place of a dead owner: find the end of its records, and check the cursors.

        Raises:
            JournalError: if no record begins where a cursor is.
        """
        self.adopted = True
        self.seal()
        self._form = Form(self.header, strict=True)
        end = self._last_newline() + 1
        self._storage.end_at(end)
        page = self._storage.load(0, PAGE)
        for destination, offset in self.header.slots().items():
            cursor, counts = read_slot(page, offset)
            self._slots[destination] = cursor, counts
            # The file has been cut, or nobody is there any more.
            if cursor > end or destination in self.header.ephemeral:
                self._slots[destination] = end, counts
                self._store(destination)
            # Behind a hole nobody knows what stood there.
            elif cursor < PAGE or (cursor > PAGE and self._storage.load(cursor - 1, cursor) not in b"\n\0"):
                raise JournalError(f"its cursor for {destination} is impossible")

    def _last_newline(self) -> int:
        for start in range(self.size - (self.size - PAGE) % CHUNK, PAGE - 1, -CHUNK):
            newline = self._storage.load(start, min(start + CHUNK, self.size)).rfind(b"\n")
            if newline >= 0:
                return start + newline
        return PAGE - 1

    def publish(self, name: str) -> None:
        """
        Give the file its final name, by which others find it.

        Raises:
            OSError: if the file cannot be renamed.
        """
        file = self._storage.file
        if file is not None:
            file.rename(file.path.with_name(name))
            if self._durable:
                sync_directory(file.path.parent)

    def drop(self, reason: DropReason) -> int:
        """
        Remove the segment for lack of room, even if destinations are behind.

        Returns:
            The number of records that some destination will not get.
        """
        with self.totals.lock:
            self.seal()
            losses = 0
            for destination in self._slots:
                behind = self.pending(destination)
                self._count(destination, self.end, Counts(dropped=behind), reason)
                losses = max(losses, behind)
            self._reason = reason
            self._unlink()
            self.release()
            return losses

    def remove(self) -> None:
        """Delete the file and let go of it, or keep it if it is damaged; does nothing after :meth:`release`."""
        with self.totals.lock:
            if not self._closed:
                self._unlink()
                self.release()

    def _unlink(self) -> None:
        self._gone = True
        file = self._storage.file
        # It may be deleted already. If it cannot be, the process that adopts it finds it finished and tries again.
        with contextlib.suppress(OSError):
            if file is not None and self.damaged and file.has_name():
                set_aside(file.path)
            elif file is not None:
                file.unlink()

    def wiped(self, header: Header, path: Path) -> Segment | None:
        """
        Return an empty segment in the file of this one, which is finished; None if that is of no use.

        In a new file, the kernel and the caches of the processor would have to make room for the next records, which
        takes them longer than the writing.

        Args:
            header: The first page of the new segment.
            path: The new name of the file.

        Raises:
            OSError: if the file cannot be renamed, written or mapped. It is gone then, if it could be renamed.
        """
        file = self._storage.file
        if not isinstance(self._storage, Mapped) or file is None or self.damaged or not may_fail():
            return None
        end = self.end
        with self.totals.lock:
            if file.status().st_size < self.size:
                return None
            file.rename(path)
            self._closed = self._gone = True
        try:
            file.write(header.page(), 0)
            for start in range(PAGE, end, len(ZEROS)):
                file.write(ZEROS[: min(len(ZEROS), end - start)], start)
            if self._durable:
                file.sync()
            storage = Mapped(self.size, file)
        except BaseException:
            with contextlib.suppress(OSError):
                file.unlink()
            file.close()
            raise
        return Segment(storage, header, self.totals, durable=self._durable, synced=self._synced)

    def release(self) -> None:
        """Give up the lock and the memory; a file that this process wrote keeps only its records."""
        with self.totals.lock:
            if not self._closed:
                self.seal()
                file = self._storage.file
                if file is not None and not (self.adopted or self._gone):
                    with contextlib.suppress(OSError):
                        file.truncate(self.end)
                self._closed = True
                self._storage.close()

    def abandon(self) -> None:
        """Let go of what a forked child inherited, without a lock: the thread that holds it may not exist there."""
        self._closed = True
        self._storage.let_go()


def set_aside(path: Path) -> Path:
    """
    Rename a file so that it ends in ``.bad``, without a loss of one that is called so; return its new path.

    Raises:
        OSError: if it cannot be renamed: another process was faster, or nothing may be renamed here.
    """
    aside = path.with_name(path.name + ".bad")
    number = count(1)
    while aside.is_symlink() or aside.exists():
        aside = path.with_name(f"{path.name}.{next(number)}.bad")
    return path.rename(aside)
