"""The progress of a worker with the records of its own process, for the threads that wait for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence

from whyops_trace._journal.journal import Journal


class Progress:
    """
    The batches that a worker's destinations took or failed to take, and the waits for them.

    Args:
        journal: Counts the records.
        destinations: The names of the worker's destinations.
        is_due: Returns True while records that have left the journal are still to be sent.
    """

    def __init__(
        self, journal: Journal, destinations: Sequence[str], is_due: Callable[[], bool] = lambda: False
    ) -> None:
        self._journal = journal
        self._destinations = destinations
        self._is_due = is_due
        # Entered by itself: an interrupt inside Condition.__enter__ would leave it locked for good.
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        #: Failures in a row of each destination.
        self._failures = dict.fromkeys(destinations, 0)

    def failed(self, destination: str) -> int:
        """Note that a destination took no record; return how many times in a row that was."""
        self._failures[destination] += 1
        return self._failures[destination]

    def succeeded(self, destination: str) -> None:
        """Note that a destination took a batch."""
        self._failures[destination] = 0
        with self._lock:
            self._changed.notify_all()

    @property
    def is_failing(self) -> bool:
        """True if a destination took nothing when it was last asked."""
        return any(self._failures.values())

    @property
    def is_behind(self) -> bool:
        """True while something that this process recorded is not delivered yet."""
        return any(self._journal.standing(name)[1] for name in self._destinations)

    def emitted(self) -> dict[str, int]:
        """Return the number of records of this process so far, by destination."""
        return {name: self._journal.emitted_to(name) for name in self._destinations}

    def has_passed(self, emitted: Mapping[str, int]) -> bool:
        """Tell whether every destination has passed the first so many records of this process, and none is due."""
        passed = all(sum(self._journal.totals(name)) >= count for name, count in emitted.items())
        return passed and not self._is_due()

    def wait(self, emitted: Mapping[str, int], deadline: float) -> None:
        """
        Wait until every destination has passed the first so many records of this process.

        Args:
            emitted: The number of records, by destination.
            deadline: The :func:`time.monotonic` time to stop waiting at.
        """
        with self._lock:
            self._changed.wait_for(lambda: self.has_passed(emitted), max(0.0, deadline - time.monotonic()))
