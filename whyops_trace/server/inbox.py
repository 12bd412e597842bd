"""
Spans that arrived, kept until nothing can be expected to belong to their traces any more.

A span is sent when it ends, so children come before their parents, and often each in a request of its own. What a
trace tells is known only with all of it. So the spans are stored as they come, in a file beside the store, and the
trace is read from them anew when more have come.
"""

from __future__ import annotations

import hashlib
import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias

from whyops_trace._database import Database
from whyops_trace._home import SPANS_FILE
from whyops_trace._otel.packing import pack, pack_log, pack_rest, unpack, unpack_log
from whyops_trace._otel.span import Batch, LogRecord, Span
from whyops_trace._values.processor import Processor
from whyops_trace.settings import MAX_EVENT_BYTES
from whyops_trace.store.statements import marks, slices

#: Seconds after the last span of a trace for which all of them are kept, and for which the trace is remembered.
KEPT: Final = 3_600.0
_REMEMBERED: Final = 30 * 86_400.0
#: Traces that are swept at a time.
_SWEPT: Final = 500
#: Spans and log records that are read at a time to be forwarded.
_OUTGOING_AT_ONCE: Final = 1_000

# `arrived` is when a span or the last span of a trace came, `first` when the first one came that is not in the store
# yet, all in seconds since the epoch. `name` is the id of the trace in the store, "" before it is there.
_SCHEMA: Final = """
CREATE TABLE spans (
    trace TEXT NOT NULL,
    span TEXT NOT NULL,
    start INTEGER NOT NULL,
    ended INTEGER NOT NULL,
    data BLOB NOT NULL,
    arrived REAL NOT NULL,
    PRIMARY KEY (trace, span, start)
) WITHOUT ROWID;
CREATE TABLE logs (
    trace TEXT NOT NULL,
    hash BLOB NOT NULL,
    data BLOB NOT NULL,
    arrived REAL NOT NULL,
    PRIMARY KEY (trace, hash)
) WITHOUT ROWID;
CREATE TABLE traces (
    trace TEXT PRIMARY KEY,
    name TEXT NOT NULL DEFAULT '',
    arrived REAL NOT NULL,
    first REAL,
    joined REAL NOT NULL DEFAULT 0,
    spans INTEGER NOT NULL DEFAULT 0,
    settled INTEGER NOT NULL DEFAULT 0,
    open INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE INDEX due ON traces (first) WHERE first IS NOT NULL;
"""
#: Spans and log records in the order they came, until they are forwarded.
_OUTGOING: Final = """
CREATE TABLE outgoing (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    trace TEXT NOT NULL,
    is_log INTEGER NOT NULL,
    data BLOB NOT NULL,
    arrived REAL NOT NULL
);
"""
_TABLES: Final = ("spans", "logs", "outgoing")
_ADD_SPAN: Final = (
    "INSERT INTO spans VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE"
    " SET ended = excluded.ended, arrived = excluded.arrived, data = excluded.data WHERE excluded.ended > ended"
)
_TRACE_COLUMNS: Final = "trace, name, arrived, coalesce(first, 0), joined, settled, open, spans"
_ADD_LOG: Final = "INSERT OR IGNORE INTO logs VALUES (?, ?, ?, ?)"
_ADD_OUTGOING: Final = "INSERT INTO outgoing (trace, is_log, data, arrived) VALUES (?, ?, ?, ?)"
_ADD_TRACE: Final = (
    "INSERT INTO traces (trace, arrived, first, spans) VALUES (?1, ?2, ?2, ?3) ON CONFLICT DO UPDATE"
    " SET arrived = ?2, first = coalesce(first, ?2), spans = spans + ?3"
)


_Row: TypeAlias = tuple[Any, ...]


class Waiting(NamedTuple):
    """
    A trace of which spans came.

    Attributes:
        trace_id: Its id.
        name: The id that it has in the store, "" if it is not there.
        arrived: When its last span came, in seconds since the epoch.
        first: When the first one came that is not in the store, 0 if all are.
        joined: When it was last read, 0 for never.
        is_settled: Its earlier spans are not kept any more.
        is_open: It is in the store without an end, since more of it was expected.
        spans: Number of its spans that came.
    """

    trace_id: str
    name: str
    arrived: float
    first: float
    joined: float
    is_settled: bool
    is_open: bool
    spans: int


class Outgoing(NamedTuple):
    """
    A span or a log record that is to be forwarded.

    Attributes:
        number: Its number: higher than that of any that came before.
        data: It, packed.
        is_log: True for a log record.
    """

    number: int
    data: bytes
    is_log: bool


class Inbox:
    """
    The spans of one home. It is safe to use from several threads and processes.

    Args:
        home: The home.
        processor: Redaction: no secret is written.
        now: Function that returns the seconds since the epoch.
        forwards: True to keep each span and log record until it is forwarded, too.
    """

    def __init__(
        self,
        home: Path,
        processor: Processor,
        now: Callable[[], float] = time.time,
        *,
        forwards: bool = False,
    ) -> None:
        self._database = _opened(home)
        self._processor = processor
        self._now = now
        self._forwards = forwards

    def add(self, batch: Batch) -> dict[str, int]:
        """
        Store the spans and log records of a request in one transaction.

        A span that is there already stays as it is, unless it had not ended, or ends later now.

        Returns:
            The number of new ones of each trace that has some.

        Raises:
            StoreError: if the file cannot be written. Nothing is stored then.
        """
        encode, hides = self._processor.encode, self._processor.hides
        rows: dict[str, tuple[list[_Row], list[_Row]]] = {}
        rests: dict[bytes, bytes] = {}
        for span in batch.spans:
            data = pack(span, encode, hides)
            row = (span.trace_id, span.span_id, span.start_ns, span.end_ns, data)
            rows.setdefault(span.trace_id, ([], []))[0].append(row)
            rests[data] = pack_rest(span, encode, hides) if self._forwards else b""
        for log in batch.logs:
            data = pack_log(log, encode, hides)
            rows.setdefault(log.trace_id, ([], []))[1].append((log.trace_id, _hash(data), data))
            rests[data] = pack_rest(log, encode, hides) if self._forwards else b""
        new: dict[str, int] = {}
        with self._database.transaction() as connection:
            now = self._now()
            for trace, (spans, logs) in rows.items():
                before = connection.total_changes
                new_spans = self._insert(connection, _ADD_SPAN, spans, now)
                new_logs = self._insert(connection, _ADD_LOG, logs, now)
                changes = connection.total_changes - before
                if changes:
                    connection.execute(_ADD_TRACE, (trace, now, changes))
                    new[trace] = changes
                for is_log, some in ((False, new_spans), (True, new_logs)):
                    outgoing = [(trace, is_log, b"%b\n%b" % (data, rests[data]), now) for data in some]
                    connection.executemany(_ADD_OUTGOING, outgoing)
        return new

    def _insert(
        self, connection: sqlite3.Connection, statement: str, rows: Sequence[_Row], now: float
    ) -> list[bytes]:
        """Insert rows; return the data of those that are new, if they are to be forwarded."""
        if not self._forwards:
            connection.executemany(statement, [(*row, now) for row in rows])
            return []
        return [row[-1] for row in rows if connection.execute(statement, (*row, now)).rowcount > 0]

    def waiting(self) -> list[Waiting]:
        """
        Return the traces with spans that are not in the store yet, oldest first.

        Raises:
            StoreError: if the file cannot be read.
        """
        return self._traces("first IS NOT NULL ORDER BY first")

    def open_since(self, moment: float) -> list[Waiting]:
        """
        Return the traces of which more was expected, and nothing came after that moment.

        Raises:
            StoreError: if the file cannot be read.
        """
        return self._traces("open AND arrived <= ?", moment)

    def find(self, trace_id: str) -> Waiting | None:
        """
        Return a trace, None if it is unknown.

        Raises:
            StoreError: if the file cannot be read.
        """
        return next(iter(self._traces("trace = ?", trace_id)), None)

    def _traces(self, condition: str, *parameters: object) -> list[Waiting]:
        rows = self._database.rows(
            f"SELECT {_TRACE_COLUMNS} FROM traces WHERE {condition}",  # noqa: S608 - the values are parameters
            *parameters,
        )
        return [
            Waiting(trace, name, arrived, first, joined, bool(settled), bool(is_open), count)
            for trace, name, arrived, first, joined, settled, is_open, count in rows
        ]

    def spans(self, trace_id: str) -> tuple[list[Span], list[LogRecord]]:
        """
        Return the spans and log records of a trace that are kept.

        Raises:
            StoreError: if the file cannot be read.
        """
        spans = self._database.rows("SELECT data FROM spans WHERE trace = ?", trace_id)
        logs = self._database.rows("SELECT data FROM logs WHERE trace = ?", trace_id)
        return [unpack(data) for (data,) in spans], [unpack_log(data) for (data,) in logs]

    def note_joined(self, traces: Iterable[tuple[Waiting, str, bool]], began: float) -> None:
        """
        Record that traces are in the store as they were when they were found.

        Args:
            traces: Each as it was found, with the id that it has in the store, and True if more of it is expected.
            began: The moment, in seconds since the epoch.

        Raises:
            StoreError: if the file cannot be written.
        """
        with self._database.transaction() as connection:
            connection.executemany(
                # What came meanwhile was perhaps not read.
                "UPDATE traces SET name = ?, joined = ?, open = ?, first = CASE WHEN spans > ? THEN arrived END"
                " WHERE trace = ?",
                [(name, began, is_open, trace.spans, trace.trace_id) for trace, name, is_open in traces],
            )

    def forget(self, trace_ids: Iterable[str], before: float | None = None) -> None:
        """
        Delete the spans of traces, those that came before a moment or all.

        Raises:
            StoreError: if the file cannot be written.
        """
        if not self._database.path.exists():
            return
        moment = self._now() if before is None else before
        with self._database.transaction() as connection:
            for trace_id in trace_ids:
                for table in ("spans", "logs"):
                    connection.execute(
                        f"DELETE FROM {table} WHERE trace = ? AND arrived <= ?",  # noqa: S608 - no value in it
                        (trace_id, moment),
                    )

    def sweep(self, exist: Callable[[Sequence[str]], set[str]]) -> None:
        """
        Delete what nothing can be expected to belong to any more: spans of traces that are quiet, or were deleted.

        Args:
            exist: Function that returns which ids of traces the store has.

        Raises:
            StoreError: if the file cannot be written.
        """
        now = self._now()
        rows = self._database.rows(
            "SELECT trace, name, arrived FROM traces WHERE first IS NULL AND NOT open AND NOT settled LIMIT ?",
            _SWEPT,
        )
        there = exist([name for _, name, _ in rows])
        gone = [trace for trace, name, arrived in rows if arrived < now - KEPT or name not in there]
        self.forget(gone)
        with self._database.transaction() as connection:
            connection.executemany(
                "UPDATE traces SET settled = 1 WHERE trace = ?", [(trace,) for trace in gone]
            )
            connection.execute("DELETE FROM traces WHERE settled AND arrived < ?", (now - _REMEMBERED,))

    # What is to be forwarded

    def outgoing(self, number: int, max_bytes: int) -> list[Outgoing]:
        """
        Return spans and log records that are to be forwarded, in the order they came.

        Args:
            number: The number of the last one that has been.
            max_bytes: Largest number of bytes of them; one that is larger comes alone.

        Raises:
            StoreError: if the file cannot be read.
        """
        rows = self._database.rows(
            "SELECT number, data, is_log FROM (SELECT *, sum(length(data)) OVER (ORDER BY number) AS size"
            " FROM (SELECT * FROM outgoing WHERE number > ? ORDER BY number LIMIT ?))"
            " WHERE size - length(data) = 0 OR size <= ?",
            number,
            _OUTGOING_AT_ONCE,
            max_bytes,
        )
        return [Outgoing(row[0], row[1], bool(row[2])) for row in rows]

    def unforwarded(self, number: int) -> tuple[int, float]:
        """
        Return how many spans and log records came after one, and when the oldest came, 0 for none.

        Raises:
            StoreError: if the file cannot be read.
        """
        rows = self._database.rows(
            "SELECT count(*), coalesce(min(arrived), 0) FROM outgoing WHERE number > ?", number
        )
        return rows[0] if rows else (0, 0.0)

    def last_number(self) -> int:
        """
        Return the highest number that anything to be forwarded had; 0 if there was none.

        Raises:
            StoreError: if the file cannot be read.
        """
        rows = self._database.rows("SELECT seq FROM sqlite_sequence WHERE name = 'outgoing'")
        return int(rows[0][0]) if rows else 0

    def drop_outgoing(self, number: int) -> None:
        """
        Delete what came up to a number: all receivers have it.

        Raises:
            StoreError: if the file cannot be written.
        """
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM outgoing WHERE number <= ?", (number,))

    def trim_outgoing(self, max_age: float, max_bytes: int) -> list[int]:
        """
        Delete what waits for too long to be forwarded, or takes too much room, oldest first.

        Args:
            max_age: Seconds that it may wait.
            max_bytes: Bytes that all of it may take.

        Returns:
            The numbers of what was deleted.

        Raises:
            StoreError: if the file cannot be written.
        """
        old = (
            "SELECT number FROM (SELECT number, arrived, sum(length(data)) OVER (ORDER BY number DESC) AS size"
            " FROM outgoing) WHERE arrived < ? OR size > ?"
        )
        limits = (self._now() - max_age, max_bytes)
        numbers = sorted(number for (number,) in self._database.rows(old, *limits))
        if numbers:
            self.drop_outgoing(numbers[-1])
        return numbers

    def close(self) -> None:
        """Close the file; whatever is called next opens it again."""
        self._database.close()


def _opened(home: Path) -> Database:
    return Database(home / SPANS_FILE, _SCHEMA + _OUTGOING, [_OUTGOING])


def reading_inbox(home: Path) -> Inbox:
    """Return the inbox of a home, for whoever adds nothing to it."""
    return Inbox(home, Processor(max_event_bytes=MAX_EVENT_BYTES, sample_rate=1))


def _hash(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()


def forget_spans(home: Path, names: Sequence[str]) -> None:
    """
    Delete the spans of traces from the file beside the store, so that none is left in it.

    Args:
        home: The home.
        names: The ids that the traces have in the store.

    Raises:
        StoreError: if the file cannot be written.
    """
    database = _opened(home)
    if not database.path.exists():
        return
    try:
        with database.session(writing=True) as connection:
            connection.execute("PRAGMA secure_delete = ON")
            for some in slices(names):
                those = f"SELECT trace FROM traces WHERE name IN {marks(len(some))}"  # noqa: S608 - no values in it
                for table in _TABLES:
                    connection.execute(f"DELETE FROM {table} WHERE trace IN ({those})", some)  # noqa: S608
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    finally:
        database.close()
