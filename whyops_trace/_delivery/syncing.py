"""The journal on its way to the disk: about once a second, beside the program."""

from __future__ import annotations

import threading
from typing import Final

from whyops_trace._delivery.flag import Flag
from whyops_trace._guard import attempt, guarded
from whyops_trace._journal.journal import Journal
from whyops_trace._recording.recorder import Recorder

#: Seconds from a record to the moment when the disk is asked to have it.
SYNC_EVERY: Final = 1.0


class Syncing:
    """
    A thread that syncs a journal while there are records, and rests while there are none.

    Args:
        recorder: Wakes it.
        journal: The journal.
    """

    def __init__(self, recorder: Recorder, journal: Journal) -> None:
        self._recorder = recorder
        self._journal = journal
        self._renew()
        recorder.after_fork.append(self._renew)

    def _renew(self) -> None:
        """Start as a process of its own, without a thread."""
        self._thread: threading.Thread | None = None
        self._work = Flag()
        self._stop = Flag()
        self._recorder.wakeups.append(self.wake)

    def wake(self) -> None:
        """Let what is recorded be synced a second from now; start the thread the first time."""
        self._work.set()
        if self._thread is None:
            self._stop = Flag()
            self._thread = thread = threading.Thread(
                target=self._run, args=(self._stop,), name="whyops-sync", daemon=True
            )
            if attempt(thread.start)[1] is not None:  # the process ends
                self._thread = None

    def _run(self, stop: Flag) -> None:
        while not stop.is_set():
            self._work.wait()
            self._work.clear()
            stop.wait(SYNC_EVERY)
            if self.wake not in self._recorder.wakeups:
                self._recorder.wakeups.append(self.wake)
            self._sync()

    @guarded("syncing the journal")
    def _sync(self) -> None:
        self._journal.sync()

    def close(self) -> None:
        """Sync for the last time, and let the thread end; it starts again with the next record."""
        thread, self._thread = self._thread, None
        self._stop.set()
        self._work.set()
        if thread is not None and thread.ident is not None:
            thread.join()
        self._sync()
        if self.wake not in self._recorder.wakeups:
            self._recorder.wakeups.append(self.wake)
