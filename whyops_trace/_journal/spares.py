"""Segments made before they are needed, so that an append has nothing to allocate."""

from __future__ import annotations

import contextlib
from collections import deque
from typing import Final

from whyops_trace._journal.budget import SIZE
from whyops_trace._journal.directory import recreate
from whyops_trace._journal.header import Header
from whyops_trace._journal.segment import Segment

#: Bytes of the spare segments, up to which a finished one is kept to be written again.
READY: Final = 1 << 20


class Spares:
    """
    The empty segments of a journal, in files with temporary names.

    One thread takes them, while others add to them.
    """

    def __init__(self) -> None:
        self._segments: deque[Segment] = deque()

    def suffice(self, size: int) -> bool:
        """Tell whether there are enough beside a current segment of so many bytes: two for a burst, else one."""
        return len(self._segments) > (size >= SIZE)

    def add(self, segment: Segment) -> None:
        """Keep a new segment."""
        self._segments.append(segment)

    def take(self, needed: int) -> Segment | None:
        """Return a segment of so many bytes at least; None if there is none, or the next one is too small."""
        try:
            segment = self._segments.popleft()
        except IndexError:
            return None
        if segment.size < needed:
            self._segments.append(segment)
            return None
        return segment

    def reuse(self, segment: Segment, header: Header) -> bool:
        """
        Keep a finished segment as a new one, unless there are enough bytes.

        Args:
            segment: One that no longer belongs to the journal.
            header: The first page of the new one.

        Returns:
            True if it is kept.
        """
        ready = sum(spare.size for spare in tuple(self._segments))
        if segment.size < SIZE or ready + segment.size > READY:
            return False
        with contextlib.suppress(OSError):  # its file was deleted
            spare = recreate(segment, header)
            if spare is not None:
                self._segments.append(spare)
                return True
        return False

    def remove(self) -> None:
        """Delete them all."""
        while self._segments:
            self._segments.pop().remove()

    def abandon(self) -> None:
        """Close what a forked child inherited; the files stay the parent's."""
        while self._segments:
            self._segments.pop().abandon()
