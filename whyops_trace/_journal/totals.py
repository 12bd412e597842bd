"""Counts of a journal's records, over all its segments."""

from __future__ import annotations

import threading

from whyops_trace._journal.header import Counts
from whyops_trace.types import DropReason


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
