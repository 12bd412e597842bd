"""The writer of the collector: one transaction for the events of all requests at the same time."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Final

import anyio
import anyio.to_thread

from whyops_trace._database import UnstorableError
from whyops_trace.exceptions import StoreError
from whyops_trace.settings import Retention
from whyops_trace.store import Store
from whyops_trace.store.collection import SentEvent, Stored

#: Numbers of transactions and of bytes after which the store is pruned, whichever comes first.
_PRUNE_GROUPS: Final = 1_000
_PRUNE_BYTES: Final = 32 << 20


class _Submission:
    """The events of one request, until their results are known."""

    def __init__(self, events: Sequence[SentEvent], size: int) -> None:
        self.events = events
        self.size = size
        self.results: Sequence[Stored] | None = None
        self.error: StoreError | None = None


class Writer:
    """
    The only writer to the store for all requests of this process.

    While one transaction is written, new requests wait, and the first of them then writes the events of all of them.
    So a single event costs a transaction of its own only if there are no other requests. The event loop never waits
    for the disk.

    Args:
        store: The store to write to, with a connection of its own, so that no reader waits for a transaction.
        retention: Limits of the store; None deletes nothing.
    """

    def __init__(self, store: Store, retention: Retention | None) -> None:
        self._store = store
        self._retention = retention
        self._lock = anyio.Lock()
        self._queue: list[_Submission] = []
        self._groups = 0
        self._bytes = 0

    async def store(self, events: Sequence[SentEvent], size: int) -> Sequence[Stored]:
        """
        Store the events of one request, all or none, and return the result for each.

        Args:
            events: The events.
            size: Number of bytes of the body.

        Raises:
            UnstorableError: if one of them cannot be stored for what is in it.
            StoreError: if the file cannot be written.
        """
        mine = _Submission(events, size)
        self._queue.append(mine)
        async with self._lock:
            if mine.results is None and mine.error is None:
                group, self._queue = self._queue, []
                await anyio.to_thread.run_sync(self._write, group)
        if mine.results is None:
            raise mine.error or StoreError("Nothing was stored.")
        return mine.results

    def _write(self, group: Sequence[_Submission]) -> None:
        try:
            results = self._store.collect([event for submission in group for event in submission.events])
        except StoreError as error:
            if isinstance(error, UnstorableError) and len(group) > 1:
                for submission in group:  # only the one with such an event is refused
                    self._write([submission])
                return
            for submission in group:
                submission.error = error
            return
        start = 0
        for submission in group:
            submission.results = results[start : start + len(submission.events)]
            start += len(submission.events)
        self._prune(sum(submission.size for submission in group))

    def _prune(self, size: int) -> None:
        """Delete old and excess traces: after the first transaction, and then after every 1,000, or 32 MiB."""
        due = self._groups % _PRUNE_GROUPS == 0 or self._bytes + size > _PRUNE_BYTES
        self._groups += 1
        self._bytes += size
        if due and self._retention is not None:
            self._bytes = 0
            with contextlib.suppress(StoreError):  # the next time will do
                self._store.prune(*self._retention)
