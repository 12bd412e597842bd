"""
The local store: one SQLite file with every trace of the last days, for the command line and the viewer.

The journal forgets what it has delivered; the store remembers. Several processes write to it at the same
time, and a batch that comes twice changes nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

from whyops_trace._reading.summary import TraceSummary
from whyops_trace.exceptions import TraceNotFoundError
from whyops_trace.settings import Retention
from whyops_trace.store.agents import AgentVersion, register
from whyops_trace.store.collection import Collection, SentEvent, Stored
from whyops_trace.store.intake import SLICE, Intake
from whyops_trace.store.pruning import (
    delete,
    give_back,
    numbers_of,
    oldest_over,
    too_many,
    too_old,
    used_bytes,
)
from whyops_trace.store.reading import Reader, StoredEvent
from whyops_trace.store.selection import Counts, Filter

__all__ = ["MAX_AGE", "MAX_BYTES", "Counts", "Filter", "Store", "StoredEvent", "TraceSummary"]

#: Seconds that a trace is kept after it was last written to, and bytes that all traces together may take.
MAX_AGE, MAX_BYTES = Retention()


class Store(Reader):
    """
    A SQLite file of traces, opened when it is first needed and readable by its owner only.

    Safe to use from several threads, which take turns, and after a fork. Reading a store that does not exist
    finds nothing and makes no file. A damaged or foreign file is never deleted or written to.

    Args:
        path: The file.
        clock: Tells when something was stored.
    """

    def ingest(self, batch: tuple[str, Sequence[bytes]]) -> list[bool]:
        """
        Store a batch in one transaction.

        A record that is there already, by trace and idempotency key, stays as it is.

        Args:
            batch: The token of the process that recorded it, and its lines: a
                :class:`~whyops_trace.exporters.base.Batch`.

        Returns:
            For each line whether it is a record; one that is not is left out.

        Raises:
            StoreError: if the file cannot be written; nothing of the batch is stored then.
        """
        token, lines = batch
        taken: list[bool] = []
        with self._database.transaction() as connection:
            intake = Intake(connection, token, self._now())
            for start in range(0, len(lines), SLICE):
                taken += intake.take(lines[start : start + SLICE])
            intake.finish()
        return taken

    def collect(self, events: Sequence[SentEvent]) -> list[Stored]:
        """
        Store events that clients sent, in one transaction, and number those that have no number.

        An event whose key its trace has already stays as it was stored first; one without a key is another one
        each time.

        Args:
            events: The events, of any traces.

        Returns:
            What became of each.

        Raises:
            StoreError: if the file cannot be written; nothing of them is stored then.
        """
        with self._database.transaction() as connection:
            collection = Collection(connection, self._clock.time_ns())
            stored = collection.take(events)
            collection.finish()
        return stored

    def register_agent(self, name: str, metadata: bytes) -> tuple[AgentVersion, bool]:
        """
        Return the version of an agent that has this metadata, and whether it was made now.

        Args:
            name: The agent.
            metadata: Its prompt, tools and description, as JSON that is written alike each time.

        Raises:
            StoreError: if the file cannot be written.
        """
        with self._database.transaction() as connection:
            return register(connection, name, metadata, self._now())

    def process_ended(self, token: str) -> None:
        """
        Note that a process is gone: the calls it left open will not end.

        Raises:
            StoreError: if the file cannot be written.
        """
        with self._database.transaction() as connection:
            connection.execute("INSERT OR IGNORE INTO processes VALUES (?, ?)", (token, self._now()))

    def delete(self, trace_id: str) -> None:
        """
        Delete a trace.

        Raises:
            TraceNotFoundError: if there is none of that id.
            StoreError: if the file cannot be written.
        """
        found = self._database.rows("SELECT id FROM traces WHERE trace_id = ?", trace_id)
        if not found:
            raise TraceNotFoundError(f"There is no trace {trace_id!r}.")
        with self._database.session() as connection:
            delete(connection, [number for (number,) in found])

    def delete_all(self, trace_ids: Iterable[str]) -> int:
        """
        Delete traces, and give their room back to the file system; one that does not exist is passed over.

        Other processes may write meanwhile. What they record on such a trace later begins it anew.

        Returns:
            How many there were.

        Raises:
            StoreError: if the file cannot be written; some of the traces may be deleted then.
        """
        if not os.path.exists(self.path):
            return 0
        with self._database.session() as connection:
            deleted = sum(delete(connection, numbers) for numbers in numbers_of(connection, trace_ids))
            give_back(connection, self._now())
        return deleted

    def oldest_over(self, max_bytes: int) -> list[str]:
        """
        Return the traces not written to for longest, until the others take about *max_bytes* together.

        Raises:
            StoreError: if the file cannot be read.
        """
        if not os.path.exists(self.path):
            return []
        with self._database.session() as connection:
            return list(oldest_over(connection, max_bytes))

    def used_bytes(self) -> int:
        """
        Return the bytes that are in use in the file; it may be larger until free room is given back.

        Raises:
            StoreError: if the file cannot be read.
        """
        if not os.path.exists(self.path):
            return 0
        with self._database.session() as connection:
            return used_bytes(connection)

    def prune(self, max_age_seconds: float = MAX_AGE, max_bytes: int = MAX_BYTES) -> int:
        """
        Delete the traces that were not written to for longest, and give their room back to the file system.

        Args:
            max_age_seconds: Traces not written to for longer go.
            max_bytes: If the store takes more, traces go until a tenth of this is free again.

        Returns:
            How many traces were deleted.

        Raises:
            StoreError: if the file cannot be written.
        """
        if not self.path.exists():
            return 0
        deleted = 0
        with self._database.session() as connection:
            while old := too_old(connection, self._now() - max_age_seconds):
                deleted += delete(connection, old)
            if used_bytes(connection) > max_bytes:
                while old := too_many(connection, max_bytes * 9 // 10):
                    deleted += delete(connection, old)
            if deleted:
                give_back(connection, self._now())
        return deleted
