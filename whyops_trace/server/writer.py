"""Stores what several requests bring at the same time in one transaction."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Final

import anyio
import anyio.to_thread

from whyops_trace.exceptions import StoreError
from whyops_trace.settings import Retention
from whyops_trace.store import Store
from whyops_trace.store.collection import SentEvent, Stored

#: The store is pruned after that many transactions, or bytes, whichever comes first.
_PRUNE_GROUPS: Final = 1_000
_PRUNE_BYTES: Final = 32 << 20


class _Waiting:
    """The events of one request, until it is known what became of them."""

    def __init__(self, events: Sequence[SentEvent], size: int) -> None:
        self.events = events
        self.size = size
        self.stored: Sequence[Stored] | None = None
        self.error: StoreError | None = None


class Writer:
    """
    The one that writes to the store for all requests of this process.

    While one transaction is written, requests that come meanwhile wait, and the first of them writes what all of
    them brought. So a single event costs a transaction of its own only where nothing else is going on. The event
    loop never waits for the disk.

    Args:
        store: Where to; with a connection of its own, so that nobody who reads waits for a transaction.
        retention: What the store keeps; None deletes nothing.
    """

    def __init__(self, store: Store, retention: Retention | None) -> None:
        self._store = store
        self._retention = retention
        self._lock = anyio.Lock()
        self._waiting: list[_Waiting] = []
        self._groups = 0
        self._bytes = 0

    async def store(self, events: Sequence[SentEvent], size: int) -> Sequence[Stored]:
        """
        Store the events of one request, all or none, and return what became of each.

        Args:
            events: The events.
            size: The bytes they came in.

        Raises:
            StoreError: if the file cannot be written.
        """
        mine = _Waiting(events, size)
        self._waiting.append(mine)
        async with self._lock:
            if mine.stored is None and mine.error is None:
                group, self._waiting = self._waiting, []
                await anyio.to_thread.run_sync(self._write, group)
        if mine.stored is None:
            raise mine.error or StoreError("Nothing was stored.")
        return mine.stored

    def _write(self, group: Sequence[_Waiting]) -> None:
        try:
            stored = self._store.collect([event for waiting in group for event in waiting.events])
        except StoreError as error:
            for waiting in group:
                waiting.error = error
            return
        start = 0
        for waiting in group:
            waiting.stored = stored[start : start + len(waiting.events)]
            start += len(waiting.events)
        self._prune(sum(waiting.size for waiting in group))

    def _prune(self, size: int) -> None:
        """Let the store forget what is too old or too much: after the first transaction, and every so often."""
        due = self._groups % _PRUNE_GROUPS == 0 or self._bytes + size > _PRUNE_BYTES
        self._groups += 1
        self._bytes += size
        if due and self._retention is not None:
            self._bytes = 0
            with contextlib.suppress(StoreError):  # the next time will do
                self._store.prune(*self._retention)
