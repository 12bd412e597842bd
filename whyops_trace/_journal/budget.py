"""The room for a journal's segments: how many bytes each one gets, and which of them go when it is used up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from whyops_trace._guard import warn_once
from whyops_trace._journal.segment import Segment
from whyops_trace.types import DropReason

#: Bytes of a process's first segment: most processes are short, and they must not eat the budget.
FIRST_SIZE: Final = 64 << 10
SIZE: Final = 1 << 20
#: A segment has room for this number of records of the size at hand, as long as that is within the limit in bytes.
RECORDS: Final = 4
LARGE: Final = 2 << 20
#: Bytes of a segment in memory: after each one the disk is tried again.
MEMORY_SIZE: Final = 256 << 10
#: Segments of a backlog after which new ones are twice as large, several times over: each costs a descriptor, and
#: from the 64th on Linux holds a process with threads up for 15 ms to make room for more of them.
DOUBLED_EVERY: Final = 32
DOUBLED_TIMES: Final = 3
#: Each segment is at most this part of a budget, so that dropping one drops little.
SHARE: Final = 8


class Budget:
    """
    The bytes that the segments of one journal may take.

    Args:
        stream: Name of the journal's stream, for which a lack of room is said once.
        disk: Bytes on disk, beside the segments kept ready.
        memory: Bytes in memory, where nothing can be written.
    """

    def __init__(self, stream: str, disk: int, memory: int) -> None:
        self.disk = disk
        self.memory = memory
        self._stream = stream

    def file_size(self, usual: int, needed: int, backlog: int) -> int:
        """
        Return the bytes of the next file.

        Args:
            usual: Its bytes where there is no reason for more or less.
            needed: The bytes that a record takes, about.
            backlog: The number of segments of this process that wait.
        """
        size = usual << min(backlog // DOUBLED_EVERY, DOUBLED_TIMES)
        return min(max(size, min(needed * RECORDS, LARGE)), max(FIRST_SIZE, self.disk // SHARE))

    def memory_size(self) -> int:
        """Return the bytes of the next segment in memory."""
        return min(MEMORY_SIZE, self.memory // SHARE)

    def room(self, segments: Sequence[Segment], *, on_disk: bool) -> int:
        """Return the bytes that these segments leave on disk, or in memory; less than 0 if they take too many."""
        budget = self.disk if on_disk else self.memory
        return budget - sum(segment.size for segment in segments if _is_on_disk(segment) is on_disk)

    def make_room(self, segments: list[Segment], size: int, *, on_disk: bool) -> None:
        """
        Drop the oldest segments, finished ones first, until there is room for another one.

        Args:
            segments: Those of the journal; the dropped ones are taken off.
            size: The bytes of the other one.
            on_disk: Make room on disk, else in memory.
        """
        snapshot = tuple(segments)
        excess = size - self.room(snapshot, on_disk=on_disk)
        if excess <= 0:
            return
        candidates = [segment for segment in snapshot if segment.sealed and _is_on_disk(segment) is on_disk]
        for segment in sorted(candidates, key=lambda segment: not segment.finished()):
            if excess > 0 and forget(segments, segment):
                excess -= segment.size
                self.drop(segment, "disk_full" if on_disk else "memory_full")

    def drop(self, segment: Segment, reason: DropReason) -> None:
        """Drop a segment for lack of room; say so once if records are lost with it."""
        losses = segment.drop(reason)
        if losses:
            warn_once(
                f"journal: {self._stream}: full",
                "The room for records that wait to be delivered is full (%d bytes on disk, %d in memory): "
                "the oldest %d were dropped, and more will be.",
                self.disk,
                self.memory,
                losses,
            )


def forget(segments: list[Segment], segment: Segment) -> bool:
    """Take a segment off a list; return False if another thread has."""
    try:
        segments.remove(segment)
    except ValueError:
        return False
    return True


def _is_on_disk(segment: Segment) -> bool:
    return segment.path is not None
