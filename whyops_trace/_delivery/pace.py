"""The pace of a worker: it rests, lets a burst gather, and hurries where somebody waits."""

from __future__ import annotations

import threading
import time
from typing import Final

from whyops_trace._delivery.flag import Flag
from whyops_trace._journal.journal import Journal

#: Seconds a worker waits after the first record, so that a burst becomes one batch.
LINGER: Final = 0.05
#: Records in that time that show that the program does little else, and seconds that it is left alone then.
BURST: Final = 1_000
LONGEST_BURST: Final = 0.5


class Pace:
    """
    The waits of one worker, and the ways to end them.

    Args:
        journal: The journal that a burst is recorded in.

    Attributes:
        linger: Seconds to let a burst gather.
    """

    def __init__(self, journal: Journal) -> None:
        self.linger = LINGER
        self._journal = journal
        #: Set when there may be work.
        self._work = Flag()
        #: Set while somebody waits for the worker: no lingering, no backoff.
        self._urgent = Flag()
        #: Re-entrant, as a signal handler or a finaliser may come back to it.
        self._lock = threading.RLock()
        #: Number of those for whom no burst may gather, because something has to come after what is recorded now.
        self._expedited = 0

    def wake(self) -> None:
        """End the worker's rest."""
        self._work.set()

    def hasten(self) -> None:
        """End the wait for a burst or after a failure: that of now, else the next one."""
        self._urgent.set()

    def expedite(self) -> None:
        """Let no burst gather, until :meth:`relax` is called as often."""
        with self._lock:
            self._expedited += 1

    def relax(self) -> None:
        """Take one :meth:`expedite` back."""
        with self._lock:
            self._expedited = max(0, self._expedited - 1)

    def rest(self, timeout: float | None = None) -> None:
        """Wait until there may be work, so many seconds at most."""
        self._work.wait(timeout)
        self._work.clear()

    def gather(self, started: float, emitted: int, *, at_once: bool = False) -> None:
        """
        Let a burst gather, as long as it lasts: a worker beside it would only make both slower.

        Args:
            started: Time when the worker was woken, as :func:`time.monotonic` tells it.
            emitted: Number of records by then.
            at_once: True if the same records are tried again: then nothing has to gather.
        """
        if not self._expedited and not at_once:
            self._gather(started, emitted)
        self._urgent.clear()  # before the work: it is tried again for those who wait from now on

    def _gather(self, started: float, emitted: int) -> None:
        until = started + self.linger
        while not self._urgent.wait(max(0.0, until - time.monotonic())):
            self._journal.prepare()
            emitted, before = self._journal.emitted, emitted
            if emitted - before < BURST or until >= started + LONGEST_BURST:
                return
            until += self.linger

    def back_off(self, seconds: float) -> None:
        """Wait so long after a failure, then work again."""
        self._urgent.wait(seconds)
        self._work.set()
