"""
The local store: one SQLite file with every trace of the last days, for the command line and the viewer.

The journal deletes delivered records; the store keeps them. Several processes write to it at the same time, and a
batch that comes twice changes nothing.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from itertools import tee

import msgspec

from whyops_trace._checks import check_score, check_step
from whyops_trace._clock import Clock, iso
from whyops_trace._database import UnstorableError
from whyops_trace._database_file import is_busy, is_full, may_grow_to
from whyops_trace._guard import warn_once
from whyops_trace._journal.directory import MAPPABLE, is_mappable
from whyops_trace._reading.score import Score
from whyops_trace._reading.summary import TraceSummary
from whyops_trace._values.processor import encode_metadata
from whyops_trace.exceptions import StoreError, TraceNotFoundError
from whyops_trace.settings import Retention
from whyops_trace.store.agents import AgentVersion, register
from whyops_trace.store.collection import Collection, SentEvent, Stored
from whyops_trace.store.faults import storable
from whyops_trace.store.forwards import PATIENCE, Forwarded, Forwards, unforwarded_in
from whyops_trace.store.intake import Intake
from whyops_trace.store.pruning import (
    TOLERANCE,
    delete,
    delete_strays,
    give_back,
    horizon,
    numbers_of,
    oldest_over,
    too_many,
    too_old,
    used_bytes,
    writing_time,
)
from whyops_trace.store.reading import Reader
from whyops_trace.store.records import Records
from whyops_trace.store.rows import StoredEvent
from whyops_trace.store.scores import NewScore
from whyops_trace.store.scores import remove as remove_score
from whyops_trace.store.scores import write as write_scores
from whyops_trace.store.selection import Counts, Filter, ScoreTest, Session
from whyops_trace.store.statements import SLICE, slices

__all__ = [
    "MAX_AGE",
    "MAX_BYTES",
    "AgentVersion",
    "Counts",
    "Filter",
    "Score",
    "ScoreTest",
    "Session",
    "Store",
    "Stored",
    "StoredEvent",
    "TraceSummary",
]

#: Seconds that a trace is kept after the last write to it, and bytes that all traces together may take.
MAX_AGE, MAX_BYTES = Retention()


class Store(Reader):
    """
    A SQLite file of traces, opened at the first use and readable by its owner only.

    It is safe to use from several threads, which take turns, and after a fork. Reading a store that does not exist
    returns nothing and makes no file. A damaged file is set aside, with ``.bad`` at the end of its name. That of
    another program or a newer version is left alone.

    Args:
        path: The file.
        clock: Clock for the time of each write.
    """

    def __init__(self, path: str | os.PathLike[str], *, clock: Clock | None = None) -> None:
        super().__init__(path, clock=clock)
        self._records: Records | None = None

    def ingest(self, batch: tuple[str, Sequence[bytes]]) -> list[bool]:
        """
        Store a batch in one transaction.

        A record that is stored already, by trace and idempotency key, stays as it is. If one cannot be stored for what
        is in it, it is left out, and the others are stored in several transactions.

        Args:
            batch: The token of the process that recorded it, and its lines: a
                :class:`~whyops_trace.exporters.base.Batch`.

        Returns:
            For each line True if it is a record that can be stored. Other lines are not stored.

        Raises:
            StoreError: if the file cannot be written. The batch may come again as a whole then.
        """
        token, lines = batch
        try:
            return storable(self._take_in, token, lines)
        except UnstorableError as error:
            if len(lines) <= 1:
                warn_once("store: not storable", "Left out what cannot be stored: %s", error)
                return [False] * len(lines)
        half = len(lines) // 2
        return self.ingest((token, lines[:half])) + self.ingest((token, lines[half:]))

    def _take_in(self, token: str, lines: Sequence[bytes]) -> list[bool]:
        is_record: list[bool] = []
        with self._database.transaction() as connection:
            intake = Intake(self._records_in(connection), token, self._now())
            for some in slices(lines, SLICE):
                is_record += intake.take(some)
            intake.finish()
        return is_record

    def collect(self, events: Sequence[SentEvent]) -> list[Stored]:
        """
        Store events from clients in one transaction, and number those that have no number.

        An event whose key its trace has already stays as it was stored first. An event without a key is a new one
        each time.

        Args:
            events: The events, of any traces.

        Returns:
            The result for each event.

        Raises:
            StoreError: if the file cannot be written, or one of them cannot be stored for what is in it. None of them
                is stored then.
        """
        return storable(self._collect, events)

    def _collect(self, events: Sequence[SentEvent]) -> list[Stored]:
        with self._database.transaction() as connection:
            collection = Collection(self._records_in(connection), self._clock.time_ns())
            results = collection.take(events)
            collection.finish()
        return results

    def register_agent(self, name: str, metadata: bytes) -> tuple[AgentVersion, bool]:
        """
        Return the version of an agent that has this metadata, and True if it is new.

        Args:
            name: The agent.
            metadata: Its prompt, tools and description, as JSON in the same form each time.

        Raises:
            StoreError: if the file cannot be written.
        """
        with self._database.transaction() as connection:
            return register(connection, name, metadata, self._now())

    def process_ended(self, token: str) -> None:
        """
        Record that a process is gone: its open calls will not end.

        Raises:
            StoreError: if the file cannot be written.
        """
        with self._database.transaction() as connection:
            now = writing_time(connection, self._now())
            connection.execute("INSERT OR IGNORE INTO processes VALUES (?, ?)", (token, now))

    def score(
        self,
        trace_id: str,
        name: str,
        value: bool | float | str | None = None,
        *,
        comment: str | None = None,
        step: int = 0,
        source: str = "program",
    ) -> Score:
        """
        Store a score of a trace, in place of the one of that name. The trace need not be in the store.

        Args:
            trace_id: The id of the trace.
            name: What is judged; 1 to 255 characters.
            value: True or False for a thumb up or down, a finite number, or a label of 1 to 255 characters.
            comment: A reason or a note, at most 10,000 characters. Secrets in it are hidden.
            step: The step that is judged, 0 for the trace as a whole.
            source: Where it was given.

        Returns:
            The score as it is stored.

        Raises:
            InvalidEventError: if an argument is of the wrong type or size.
            StoreError: if the file cannot be written.
        """
        if step:
            check_step("step", step)
        content = msgspec.json.decode(encode_metadata(check_score(name, value, comment)))
        time_ns = self._clock.time_ns()
        score = Score(**content, step=step, source=source, time=iso(time_ns))
        with self._database.transaction() as connection:
            write_scores(connection, [NewScore(trace_id, score)], time_ns // 1_000_000_000)
        return score

    def remove_score(self, trace_id: str, name: str, step: int = 0) -> bool:
        """
        Delete a score of a trace, or of a step of it. Return False if there is none.

        Raises:
            StoreError: if the file cannot be written.
        """
        if not os.path.exists(self.path):
            return False
        with self._database.transaction() as connection:
            return remove_score(connection, trace_id, name, step)

    def delete(self, trace_id: str, *, scores_of: str | None = None) -> None:
        """
        Delete a trace.

        Args:
            trace_id: Its id.
            scores_of: Only scores that were given there are deleted with it; None for all.

        Raises:
            TraceNotFoundError: if there is none of that id.
            StoreError: if the file cannot be written.
        """
        rows = self._database.rows("SELECT id FROM traces WHERE trace_id = ?", trace_id)
        if not rows:
            raise TraceNotFoundError(f"There is no trace {trace_id!r}.")
        with self._database.session(writing=True) as connection:
            delete(connection, [number for (number,) in rows], scores_of=scores_of)

    def delete_all(self, trace_ids: Iterable[str]) -> int:
        """
        Delete traces, and give their room back to the file system. Ids without a trace are ignored.

        Other processes may write meanwhile. Their later records on a deleted trace begin it anew. On a full disk the
        file is changed in place, without a log, and no other process may have it open.

        Returns:
            Number of deleted traces.

        Raises:
            StoreError: if the file cannot be written. Some of the traces may be deleted then.
        """
        if not os.path.exists(self.path):
            return 0
        ids, again = tee(trace_ids)
        try:
            return self._delete_all(self._database.session(writing=True), ids)
        except StoreError as error:
            if not is_full(error.__cause__):
                raise
            if not (is_mappable(self.path.parent, MAPPABLE) and may_grow_to(self.path.stat().st_size)):
                raise StoreError(
                    f"{self.path} has no room for the log of a deletion, and this file system, or a limit of the size "
                    "of files, does not let it be changed in place without danger: free some room first."
                ) from error
        try:
            return self._delete_all(self._database.in_place(), again)
        except StoreError as error:
            if not is_busy(error.__cause__):
                raise
            raise StoreError(
                f"The disk of {self.path} is full, and another process has the store open: end it and repeat this, or "
                "free some room first."
            ) from error

    def erase(self, trace_ids: Iterable[str]) -> int:
        """
        Delete traces, and scores of traces that are not there, so that nothing of them is left in the file or its log.

        The file is written anew, which takes as much room again.

        Returns:
            Number of deleted traces.

        Raises:
            StoreError: if the file cannot be written, or another process keeps the log in use. Some of the traces may
                be deleted then, and their bytes still be in the file.
        """
        if not os.path.exists(self.path):
            return 0
        with self._database.session(writing=True) as connection:
            connection.execute("PRAGMA secure_delete = ON")
            ids, again = tee(trace_ids)
            deleted = sum(delete(connection, numbers) for numbers in numbers_of(connection, ids))
            connection.executemany("DELETE FROM scores WHERE trace_id = ?", ((each,) for each in again))
            give_back(connection, self._now())
            connection.execute("VACUUM")  # rows that were changed earlier left bytes behind
            ((is_busy, _, _),) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        if is_busy:
            raise StoreError(
                f"The traces are deleted, but another process reads {self.path}, so that its log may still have "
                "some of their bytes: end it, and repeat this."
            )
        return deleted

    def _delete_all(
        self, session: AbstractContextManager[sqlite3.Connection], trace_ids: Iterable[str]
    ) -> int:
        with session as connection:
            deleted = sum(delete(connection, numbers) for numbers in numbers_of(connection, trace_ids))
            give_back(connection, self._now())
            return deleted

    def oldest_over(self, max_bytes: int) -> list[str]:
        """
        Return the ids of the traces with the oldest last write, until the others take about *max_bytes* together.

        Raises:
            StoreError: if the file cannot be read.
        """
        if not os.path.exists(self.path):
            return []
        with self._database.session() as connection:
            return list(oldest_over(connection, max_bytes))

    def check_clock(self) -> None:
        """
        Check that the clock is not behind the newest write, before traces are deleted for their age.

        Raises:
            StoreError: if it is, or if the file cannot be read.
        """
        newest = self._database.rows("SELECT max(stored_at) FROM traces")
        if newest and (newest[0][0] or 0) > self._now() + TOLERANCE:
            there, here = (iso(1_000_000_000 * seconds) for seconds in (newest[0][0], self._now()))
            raise StoreError(
                f"{self.path} was written to at {there}, but it is {here} by the clock of this machine: "
                "nothing is deleted for its age while one of them is wrong."
            )

    def used_bytes(self) -> int:
        """
        Return the number of bytes in use in the file. The file may be larger until free room is given back.

        Raises:
            StoreError: if the file cannot be read.
        """
        if not os.path.exists(self.path):
            return 0
        with self._database.session() as connection:
            return used_bytes(connection)

    def prune(self, max_age_seconds: float = MAX_AGE, max_bytes: int = MAX_BYTES) -> int:
        """
        Delete the traces with the oldest last write, and give their room back to the file system.

        Args:
            max_age_seconds: Traces without a write for longer are deleted. That counts from the newest write that is a
                seventh of it old, so that one wrong reading of the clock deletes nothing.
            max_bytes: If the store takes more, traces are deleted until a tenth of this is free.

        Traces that wait to be forwarded are kept until they are twice as old, or the store takes twice as much.

        Returns:
            Number of deleted traces.

        Raises:
            StoreError: if the file cannot be written.
        """
        if not self.path.exists():
            return 0
        deleted = 0
        forwards = Forwards(self.path.parent)
        receivers = forwards.all()
        dropped: list[tuple[str, int]] = []
        with self._database.session(writing=True) as connection:
            if receivers:
                passed = min(receiver.records for receiver in receivers)
                deleted += self._prune(connection, max_age_seconds, max_bytes, passed)
                max_age_seconds, max_bytes = PATIENCE * max_age_seconds, PATIENCE * max_bytes
            deleted += self._prune(connection, max_age_seconds, max_bytes, None, receivers, dropped)
            if deleted:
                give_back(connection, self._now())
        if dropped:
            forwards.note_dropped(dropped)
        forwards.close()
        return deleted

    def _prune(
        self,
        connection: sqlite3.Connection,
        max_age: float,
        max_bytes: int,
        passed: int | None,
        receivers: Sequence[Forwarded] = (),
        dropped: list[tuple[str, int]] | None = None,
    ) -> int:
        """
        Delete traces; see :meth:`prune`.

        Args:
            connection: The connection.
            max_age: Seconds that a trace is kept.
            max_bytes: Bytes that all may take.
            passed: Traces with a later record than that of this number are kept; None for no such number.
            receivers: The receivers that traces are forwarded to.
            dropped: Gets how many records each of them has not got.
        """
        deleted = 0

        def delete_some(numbers: list[int]) -> int:
            if dropped is not None and receivers:
                dropped.extend(unforwarded_in(connection, numbers, receivers))
            return delete(connection, numbers, remember=True)

        earliest = horizon(connection, self._now(), max_age)
        while old := too_old(connection, earliest, passed):
            deleted += delete_some(old)
        delete_strays(connection, earliest)
        if used_bytes(connection) > max_bytes:
            delete_strays(connection, float("inf"))
            while old := too_many(connection, max_bytes * 9 // 10, passed):
                deleted += delete_some(old)
        return deleted

    def last_number(self) -> int:
        """
        Return the highest number that a record had, be it deleted; 0 if there was none.

        Raises:
            StoreError: if the file cannot be read.
        """
        rows = self._database.rows(
            "SELECT max((SELECT coalesce(max(id), 0) FROM records), event) FROM deleted"
        )
        return int(rows[0][0]) if rows else 0

    def unforwarded(self, number: int) -> tuple[int, str]:
        """
        Return how many records came after one, without those that are of spans, and the time of the oldest of them.

        Args:
            number: The number of the last record that was forwarded.

        Raises:
            StoreError: if the file cannot be read.
        """
        rows = self._database.rows(
            "SELECT count(*), coalesce(min(timestamp), '') FROM records WHERE id > ? AND key NOT LIKE 'otel-%'",
            number,
        )
        return rows[0] if rows else (0, "")

    def _records_in(self, connection: sqlite3.Connection) -> Records:
        """Return the records, with a transaction open. What is remembered of them belongs to the connection."""
        if self._records is None or self._records.connection is not connection:
            self._records = Records(connection)
        self._records.begin()
        return self._records
