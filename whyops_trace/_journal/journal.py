"""
The journal: every record goes there first, and each destination fetches it from there at its own pace.

It is the queue, the spool and the crash record in one: a row of segments (see :mod:`whyops_trace._journal.segment`)
that outlive the process. A segment goes when every destination has passed it, or when the room for records is
used up. The next process of the same stream takes over those that a process leaves behind.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from time import perf_counter_ns
from typing import Final

from whyops_trace._clock import iso
from whyops_trace._guard import warn_once
from whyops_trace._home import JOURNAL, make_private
from whyops_trace._journal.budget import FIRST_SIZE, RECORDS, SIZE, Budget, forget
from whyops_trace._journal.directory import MAPPABLE, Ways, begun, create, left_behind
from whyops_trace._journal.header import PAGE, Counts, Header
from whyops_trace._journal.records import CHECKED
from whyops_trace._journal.segment import Segment
from whyops_trace._journal.spares import Spares
from whyops_trace._journal.storage import Storage
from whyops_trace._journal.totals import Totals
from whyops_trace._locks import is_held_here
from whyops_trace.types import DropReason, Fsync

#: Nanoseconds after a record in which the next one is written without another look at the file. The look costs as much
#: as all the rest of an append, and what a program does in that time has not cut a file.
TRUST: Final = 100_000
#: Segments of other processes held at a time; others follow when these are finished. Each costs a descriptor, and from
#: the 64th on Linux holds a process with threads up for 15 ms to make room for more of them.
ADOPTED_AT_ONCE: Final = 64


class Journal:
    """
    The segments of one process and stream.

    A record that :meth:`append` has taken survives the process, whatever that dies of, as long as the directory can
    be written. Where it cannot, records wait in memory, and a warning says so once. A record that fits nowhere is
    counted as dropped; nothing is raised.

    :meth:`append` and :meth:`close` are for one thread at a time, the one that holds the recorder's lock. The other
    methods are for worker threads, at the same time as these and as each other.

    Args:
        directory: The stream's own directory, made when the first record comes; None to keep records in memory.
        stream: Name of the account, server, agent and destinations that the records belong to.
        agent: The agent's name, for people who look at the records that wait.
        destinations: The names of the destinations.
        ephemeral: Those of them that get no record that another process left.
        budget: Bytes on disk for the segments of this process and those it takes over, beside the spare ones.
        memory_budget: Bytes in memory, where nothing can be written.
        mappable: File systems whose files can safely be written through a memory map.
        checked: True to write a sum with each record, by which a changed byte shows.
        fsync: When to wait for the disk: "never", with "interval" in :meth:`sync`, with "always" for each record.

    Attributes:
        stream: As the argument.
        token: Name of this process: twelve hexadecimal digits.
        segments: Those taken over and our own, oldest first.
        ended: The processes whose segments were taken over, in that order; the values say nothing.
        backlog: True if the latest :meth:`adopt` left something to be taken over later.
        lock: Held while a worker opens or closes files. A fork takes it, after the recorder's lock, or
            the child may inherit a locked file that nobody there knows of.

    Raises:
        ConfigurationError: if the names are too long for the first page of a segment.
    """

    def __init__(
        self,
        directory: Path | None,
        *,
        stream: str,
        agent: str,
        destinations: Sequence[str],
        ephemeral: Sequence[str] = (),
        budget: int = 256 << 20,
        memory_budget: int = 16 << 20,
        mappable: Collection[str] = MAPPABLE,
        checked: bool = False,
        fsync: Fsync = "never",
    ) -> None:
        self._directory = directory
        self.stream: str = stream
        self._agent = agent
        self._destinations = list(destinations)
        self._ephemeral = list(ephemeral)
        self._budget = Budget(stream, budget, memory_budget)
        self._ways = Ways(mappable, durable=fsync != "never", synced=fsync == "always")
        self._checked = checked
        self._start()
        self._header().page()

    def _start(self) -> None:
        """Start as a process that has recorded nothing."""
        self.token: str = os.urandom(6).hex()
        self.ended: dict[str, None] = {}
        self.backlog: bool = False
        # Threads change the list by its own methods only, each of which is a single step to the others.
        self.segments: list[Segment] = []
        # Re-entrant: a finaliser run by the garbage collector may come back to it in the same thread.
        self.lock: threading.RLock = threading.RLock()
        self._own = Totals()
        self._adopted = Totals()
        #: The segment that records go to; one that takes none where there is none.
        self._current: Segment = self._nowhere()
        #: The time until which the current segment is written without another look at its file.
        self._trusted_until = 0
        #: The records that a close left in files, by the name of the file and the destination that has not passed them.
        self._left: dict[str, dict[str, int]] = {}
        #: Bytes of the next file, where there is no reason for more or less.
        self._next_size = FIRST_SIZE
        self._spares = Spares()
        self._serial = 0

    def _header(self) -> Header:
        return Header(
            stream=self.stream,
            token=self.token,
            agent=self._agent,
            destinations=self._destinations,
            ephemeral=self._ephemeral,
            created=iso(time.time_ns()),
            version=CHECKED if self._checked else 1,
            seed=int.from_bytes(os.urandom(4)) if self._checked else 0,
        )

    def _nowhere(self) -> Segment:
        """Return a segment that takes no record."""
        return Segment(Storage(0), self._header(), Totals())

    def append(self, line: bytes) -> None:
        """
        Take a record; the caller holds the recorder's lock.

        Args:
            line: One line of JSON with its newline.
        """
        segment = self._current
        now = perf_counter_ns()
        if now > self._trusted_until and not segment.can_take(len(line)):
            segment.seal()  # somebody has cut the file
        try:
            segment.write(line)
            segment.count += 1
        except ValueError:
            self._rotate((line,))
        except BaseException:  # an interrupt, before or behind the record
            segment.recount()
            raise
        self._trusted_until = now + TRUST

    def append_pieces(self, pieces: Sequence[bytes]) -> None:
        """Take a large record, whose line is in pieces; the caller holds the recorder's lock."""
        segment = self._current
        try:
            segment.write_pieces(pieces)
            segment.count += 1
        except ValueError:
            self._rotate(pieces)
        except BaseException:
            segment.recount()
            raise

    def _rotate(self, pieces: Sequence[bytes]) -> None:
        """Append to a new segment: a spare one, else a file made now, else memory."""
        for each in self.segments:
            if not each.sealed:  # the current one, and one that an interrupt kept from becoming it
                each.seal()
        length = sum(map(len, pieces))
        needed = PAGE + length
        for make in (self._take_spare, self._make_file, self._make_memory):
            segment = make(needed)
            if segment is None:
                continue
            try:
                segment.write_pieces(pieces)
            except ValueError:
                segment.remove()
                continue
            segment.count = 1
            self._next_size = SIZE
            self.segments.append(segment)
            self._current = segment
            return
        fits = needed <= max(self._budget.memory, self._budget.disk if self._directory is not None else 0)
        warn_once(
            f"journal: {self.stream}: no room: {fits}",
            "The system has neither disk nor memory for a record of %d bytes, which is dropped."
            if fits
            else "A record of %d bytes fits nowhere and is dropped.",
            length,
        )
        with self._own.lock:
            for destination in self._destinations:
                self._own.add(destination, Counts(dropped=1), "no_memory" if fits else "too_large")

    def _take_spare(self, needed: int) -> Segment | None:
        spare = self._spares.take(needed)
        if spare is None:
            return None
        self._budget.make_room(self.segments, spare.size, on_disk=True)
        with contextlib.suppress(OSError):  # its file was deleted
            return self._publish(spare)
        return None

    def _make_file(self, needed: int) -> Segment | None:
        if self._directory is None or needed > self._budget.disk:
            return None
        size = max(needed, self._file_size(needed))
        self._budget.make_room(self.segments, size, on_disk=True)
        try:
            return self._publish(self._create(self._directory, size))
        except OSError as error:
            warn_once(
                f"journal: {self._directory}: {error.errno}",
                "Recording in memory only, where records do not survive the process: %s: %s. "
                "Set WHYOPS_HOME to a writable directory with free space.",
                self._directory,
                error.strerror,
            )
            return None

    def _make_memory(self, needed: int) -> Segment | None:
        if needed > self._budget.memory:
            return None
        size = max(needed, self._budget.memory_size())
        self._budget.make_room(self.segments, size, on_disk=False)
        with contextlib.suppress(OSError):  # no memory either
            return Segment.in_memory(self._header(), size, self._own)
        return None

    def _file_size(self, needed: int) -> int:
        backlog = sum(not segment.adopted for segment in tuple(self.segments))
        return self._budget.file_size(self._next_size, needed, backlog)

    def _create(self, directory: Path, size: int) -> Segment:
        make_private(directory)
        return create(directory, self._header(), size, self._own, self._ways)

    def _publish(self, segment: Segment) -> Segment:
        self._serial = max(self._serial + 1, time.time_ns())
        try:
            segment.publish(f"{self.token}-{self._serial}.seg")
        except OSError:
            segment.remove()
            raise
        return segment

    def prepare(self) -> None:
        """Make the next segment ready, once the current one is half full, so that :meth:`append` need not."""
        with self.lock:
            current = self._current
            if self._directory is None or current.end < max(current.size // 2, PAGE):
                return
            if self._spares.suffice(current.size):
                return
            with contextlib.suppress(OSError):  # append says so if it matters
                size = self._file_size(current.size // RECORDS)
                self._spares.add(self._create(self._directory, size))

    def adopt(self) -> list[Segment]:
        """
        Take over the segments of this stream's dead processes, and put them before those that we began later.

        Those that exceed the budget are dropped, the oldest first. A segment that is finished already tells that its
        process has ended. A large number is not taken all at once: ask again later.

        Returns:
            The segments taken now, oldest first.
        """
        with self.lock:
            snapshot = tuple(self.segments)
            position = sum(segment.adopted for segment in snapshot)
            self.backlog = position >= ADOPTED_AT_ONCE
            if self._directory is None or self.backlog:
                return []
            room = self._budget.room(snapshot, on_disk=True)
            segments: deque[Segment] = deque()
            for segment in left_behind(self._directory, self._adopted, stream=self.stream, newest_first=True):
                if segment.header.token == self.token:  # ours, from before a close
                    segment.totals = self._own
                room -= segment.size
                if room < 0:
                    self._left.pop(_name(segment), None)
                    self._budget.drop(segment, "disk_full")
                    continue
                segments.appendleft(segment)
                if len(segments) > ADOPTED_AT_ONCE - position:
                    segments.pop().release()
                    self.backlog = True
            for segment in segments:
                self.segments.insert(self._place(segment), segment)
                self._left.pop(_name(segment), None)
                if segment.header.token != self.token:
                    self.ended[segment.header.token] = None
            return list(segments)

    def is_beside_others(self) -> bool:
        """Return True if the directory has segments of other processes, be they alive or dead."""
        return any(name.endswith(".seg") and not name.startswith(self.token) for name in self.names())

    def _place(self, segment: Segment) -> int:
        """
        Return the position of a segment among those held: before those that any process began later.

        The records of a forked child follow from its parent's earlier ones, which may still be here.
        """
        return sum(begun(held) <= begun(segment) for held in tuple(self.segments))

    def retire(self) -> None:
        """Remove the segments that every destination has passed, or keep them ready."""
        with self.lock:
            for segment in tuple(self.segments):
                is_forgotten = segment.finished() and forget(self.segments, segment)
                if is_forgotten and not self._spares.reuse(segment, self._header()):
                    segment.remove()

    @property
    def emitted(self) -> int:
        """The number of records appended so far; 0 if nobody is to get them."""
        return max(map(self.emitted_to, self._destinations), default=0)

    @property
    def is_locked_here(self) -> bool:
        """True in a signal handler or finaliser for which this thread holds what a worker needs to go on."""
        return is_held_here(self._own.lock) or is_held_here(self.lock)

    def emitted_to(self, destination: str) -> int:
        """Return the number of records appended so far, as far as a destination has passed them or can still do so."""
        counts, pending = self.standing(destination)
        return sum(counts) + pending

    def standing(self, destination: str) -> tuple[Counts, int]:
        """Return the counts of this process's records at a destination, and the number of those that still wait."""
        with self._own.lock:
            left = sum(counts.get(destination, 0) for counts in tuple(self._left.values()))
            own = (segment for segment in tuple(self.segments) if segment.header.token == self.token)
            counts = self.totals(destination)
            pending = counts.waiting + left + sum(segment.pending(destination) for segment in own)
            return counts._replace(waiting=0), pending

    def settle(self, destination: str, counts: Counts, *, adopted: bool) -> None:
        """
        Change the counts of records that have passed a destination, once it is known what becomes of them.

        Args:
            destination: Its name.
            counts: The changes, which add up to 0 unless such records were taken over.
            adopted: True if another process recorded them.
        """
        totals = self._adopted if adopted else self._own
        with totals.lock:
            totals.add(destination, counts)

    def names(self) -> set[str]:
        """Return the names of all segments of the stream, whoever holds them."""
        try:
            return set(os.listdir(self._directory)) if self._directory is not None else set()
        except OSError:  # nobody has recorded yet
            return set()

    def totals(self, destination: str, *, adopted: bool = False) -> Counts:
        """
        Return the counts of this process's records at a destination, as far as this process saw to them.

        Args:
            destination: Its name.
            adopted: True to count the records of other processes instead.
        """
        return (self._adopted if adopted else self._own).of(destination)

    def sync(self) -> None:
        """Wait until the disk has what was recorded so far."""
        for segment in tuple(self.segments):
            if not segment.adopted:
                segment.sync()

    def reasons(self, destination: str) -> dict[DropReason, int]:
        """Return the number of this process's records that a destination did not get, by the reason."""
        return self._own.reasons(destination)

    def renew(self) -> None:
        """Start over in a forked child, where no other thread runs; the files stay the parent's."""
        for segment in self.segments:
            segment.abandon()
        self._spares.abandon()
        self._start()

    def close(self) -> None:
        """
        Let go of all segments; the caller holds the recorder's lock.

        Undelivered records stay on disk for the next process; those that are only in memory are dropped. A later
        record starts a new segment.
        """
        with self.lock:
            self._current = self._nowhere()
            self._next_size = FIRST_SIZE
            self._spares.remove()
            for segment in tuple(self.segments):
                segment.seal()
                if segment.finished():
                    segment.remove()
                elif segment.path is not None:
                    if segment.header.token == self.token:
                        self._left[_name(segment)] = {
                            name: segment.pending(name) for name in self._destinations
                        }
                    segment.release()
                else:
                    losses = segment.drop("process_end")
                    warn_once(
                        f"journal: {self.stream}: memory",
                        "%d records that were only in memory are lost: they were not delivered in time.",
                        losses,
                    )
            self.segments.clear()


def _name(segment: Segment) -> str:
    return "" if segment.path is None else segment.path.name


def segments_in(home: Path, *, folder: str | None = None) -> Iterator[Segment]:
    """
    Take over, one after the other, the segments of dead processes below a home, oldest first.

    A segment is held until the next one is asked for. Then it is removed if it is finished, else left to others.

    Args:
        home: The home.
        folder: The only folder of its journal to look into; None for every stream's.
    """
    journal = home / JOURNAL
    for directory in sorted(journal.glob("*/")) if folder is None else [journal / folder]:
        for segment in left_behind(directory, Totals()):
            try:
                yield segment
            finally:
                if segment.finished():
                    segment.remove()
                else:
                    segment.release()
