"""
The local store: one SQLite file with every trace of the last days, for the command line and the viewer.

The journal forgets what it has delivered; the store remembers. Several processes write to it at the same
time, and a batch that comes twice changes nothing.
"""

from __future__ import annotations

import difflib
import json
import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from whyops_trace._clock import Clock, SystemClock
from whyops_trace._database import Database
from whyops_trace._intake import SLICE, Intake, marks
from whyops_trace._prices import cost, total
from whyops_trace._summary import SUMMARY_COLUMNS, TraceSummary, from_columns
from whyops_trace.exceptions import TraceNotFoundError

__all__ = ["MAX_AGE", "MAX_BYTES", "Store", "TraceSummary"]

#: Seconds that a trace is kept after it was last written to.
MAX_AGE: Final = 7 * 86_400
#: Bytes that all traces together may take.
MAX_BYTES: Final = 512 << 20

#: Traces deleted in one transaction, so that other processes need not wait long to write.
_DELETED_AT_ONCE: Final = 100

# The columns of `traces` after the first five are the fields of TraceSummary, in their order.
#
# What a turn of a model is priced by stands in `turn`, and the index `turns` holds all of it, so that pricing a trace
# reads no payloads. A process that opened the file when it had format 1 can no longer insert into `events`: what it
# records waits in its journal for one of a newer version.
_SCHEMA: Final = """
CREATE TABLE traces (
    id INTEGER PRIMARY KEY,
    last_step INTEGER NOT NULL,
    process TEXT NOT NULL,
    made_at INTEGER NOT NULL,
    stored_at INTEGER NOT NULL,
    trace_id TEXT NOT NULL UNIQUE,
    tags TEXT NOT NULL,
    metadata TEXT NOT NULL,
    agent_name TEXT NOT NULL,
    external_user_id TEXT,
    started_at TEXT NOT NULL,
    last_at TEXT NOT NULL,
    event_count INTEGER NOT NULL,
    tool_calls INTEGER NOT NULL,
    llm_responses INTEGER NOT NULL,
    errors INTEGER NOT NULL,
    prompt_tokens INTEGER NOT NULL,
    completion_tokens INTEGER NOT NULL,
    cache_read_tokens INTEGER NOT NULL,
    cache_creation_tokens INTEGER NOT NULL,
    asked TEXT NOT NULL,
    ended_with TEXT NOT NULL,
    failed INTEGER NOT NULL,
    ended INTEGER NOT NULL
);
CREATE INDEX traces_by_time ON traces (last_at);
CREATE TABLE events (
    id INTEGER PRIMARY KEY,
    trace INTEGER NOT NULL,
    step INTEGER NOT NULL,
    parent INTEGER,
    within INTEGER NOT NULL,
    type TEXT NOT NULL,
    span TEXT,
    timestamp TEXT NOT NULL,
    key TEXT NOT NULL,
    payload TEXT NOT NULL,
    turn TEXT
);
CREATE UNIQUE INDEX events_by_key ON events (trace, key);
CREATE INDEX turns ON events (trace, turn) WHERE turn IS NOT NULL;
CREATE TABLE runs (
    run TEXT NOT NULL,
    trace INTEGER NOT NULL,
    shift INTEGER NOT NULL,
    PRIMARY KEY (run, trace)
) WITHOUT ROWID;
CREATE INDEX runs_by_trace ON runs (trace);
CREATE TABLE processes (
    token TEXT PRIMARY KEY,
    ended_at INTEGER NOT NULL
) WITHOUT ROWID;
"""

# In SQL alone: a Python function would take the GIL for each record, which a busy thread gives away slowly.
_ADD_TURNS: Final = """
ALTER TABLE events ADD COLUMN turn TEXT;
UPDATE events SET turn = CASE WHEN json_valid(payload) THEN json_array(
    json_extract(payload, '$.metadata.model'),
    json_extract(payload, '$.metadata.provider'),
    json_extract(payload, '$.metadata.usage'),
    timestamp
) ELSE '[null,null,null,null]' END WHERE type IN ('llm_response', 'embedding_response');
CREATE INDEX turns ON events (trace, turn) WHERE turn IS NOT NULL;
"""

# As a JSON array, so that they are decoded at once.
_TURNS_OF_TRACE: Final = (
    "SELECT '[' || group_concat(turn) || ']' FROM events WHERE trace = traces.id AND turn IS NOT NULL"
)


class Store:
    """
    A SQLite file of traces, opened when it is first needed and readable by its owner only.

    Safe to use from several threads, which take turns, and after a fork. Reading a store that does not exist
    finds nothing and makes no file. A damaged or foreign file is never deleted or written to.

    Args:
        path: The file.
        clock: Tells when something was stored.
    """

    def __init__(self, path: str | os.PathLike[str], *, clock: Clock | None = None) -> None:
        self._database = Database(path, _SCHEMA, [_ADD_TURNS])
        self._clock: Clock = clock or SystemClock()

    def __repr__(self) -> str:
        return f"<Store {str(self.path)!r}>"

    @property
    def path(self) -> Path:
        """The file."""
        return self._database.path

    def close(self) -> None:
        """Close the file; whatever is called next opens it again."""
        self._database.close()

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

    def process_ended(self, token: str) -> None:
        """
        Note that a process is gone: the calls it left open will not end.

        Raises:
            StoreError: if the file cannot be written.
        """
        with self._database.transaction() as connection:
            connection.execute("INSERT OR IGNORE INTO processes VALUES (?, ?)", (token, self._now()))

    def ended_processes(self) -> set[str]:
        """
        Return the tokens of processes that are known to be gone.

        Raises:
            StoreError: if the file cannot be read.
        """
        return {token for (token,) in self._database.rows("SELECT token FROM processes")}

    def traces(self, limit: int = 50, after: str | None = None) -> list[TraceSummary]:
        """
        Return summaries of the traces, the one that was last recorded on first.

        A page takes as long as any other, however many there are before it.

        Args:
            limit: How many at most.
            after: The id of the trace that the page comes after, which is the last one of the page before.

        Raises:
            TraceNotFoundError: if there is no trace of that id.
            StoreError: if the file cannot be read.
        """
        if after is None:
            return self._summaries("ORDER BY last_at DESC, id DESC LIMIT ?", limit)
        found = self._database.rows("SELECT last_at, id FROM traces WHERE trace_id = ?", after)
        if not found:
            raise TraceNotFoundError(f"There is no trace {after!r}.")
        return self._summaries(
            "WHERE (last_at, id) < (?, ?) ORDER BY last_at DESC, id DESC LIMIT ?", *found[0], limit
        )

    def trace(self, trace_id: str) -> TraceSummary:
        """
        Return the summary of one trace.

        Raises:
            TraceNotFoundError: if there is none of that id.
            StoreError: if the file cannot be read.
        """
        found = self._summaries("WHERE trace_id = ?", trace_id)
        if not found:
            raise TraceNotFoundError(f"There is no trace {trace_id!r}.")
        return found[0]

    def resolve(self, name: str) -> str:
        """
        Return the id of the trace a user means.

        Args:
            name: An id, the beginning of only one id, or ``latest``.

        Raises:
            TraceNotFoundError: if no trace, or more than one, can be meant; the message says what to type.
            StoreError: if the file cannot be read.
        """
        rows = self._database.rows("SELECT trace_id FROM traces ORDER BY last_at DESC, id DESC")
        ids: list[str] = [trace_id for (trace_id,) in rows]
        if name in ids:
            return name
        if name == "latest" and ids:
            return ids[0]
        begins = [trace_id for trace_id in ids if name and trace_id.startswith(name)]
        if len(begins) == 1:
            return begins[0]
        raise TraceNotFoundError(_not_found(name, ids, begins))

    def events(self, trace_id: str) -> list[dict[str, Any]]:
        """
        Return the records of a trace, decoded, by step; the end of a step directly after its beginning.

        Raises:
            StoreError: if the file cannot be read.
        """
        return [json.loads(line) for line in self.lines(trace_id)]

    def lines(self, trace_id: str) -> list[str]:
        """
        Return the records of a trace in the order of :meth:`events`, each as one line of JSON.

        Raises:
            StoreError: if the file cannot be read.
        """
        rows = self._database.rows(
            "SELECT payload FROM events WHERE trace = (SELECT id FROM traces WHERE trace_id = ?)"
            " ORDER BY step, type IN ('step_end', 'trace_end'), id",
            trace_id,
        )
        return [line for (line,) in rows]

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
            _delete(connection, [number for (number,) in found])

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
            while old := _too_old(connection, self._now() - max_age_seconds):
                deleted += _delete(connection, old)
            if _used_bytes(connection) > max_bytes:
                while old := _too_many(connection, max_bytes * 9 // 10):
                    deleted += _delete(connection, old)
            if deleted:
                # A process that ended before all of the traces were made left nothing open in them.
                connection.execute(
                    "DELETE FROM processes WHERE ended_at < coalesce((SELECT min(made_at) FROM traces), ?)",
                    (self._now(),),
                )
                # A script, because execute() would take one step of it, which frees one page.
                connection.executescript("PRAGMA incremental_vacuum")
        return deleted

    def _now(self) -> int:
        return self._clock.time_ns() // 1_000_000_000

    def _summaries(self, rest: str, *parameters: object) -> list[TraceSummary]:
        running = "NOT ended AND process NOT IN (SELECT token FROM processes)"
        rows = self._database.rows(
            f"SELECT ({_TURNS_OF_TRACE}), {SUMMARY_COLUMNS}, {running} FROM traces {rest}",  # noqa: S608 - no values in it
            *parameters,
        )
        return [_summary(*row) for row in rows]


def _summary(turns: str | None, *columns: Any) -> TraceSummary:
    """Return a trace's summary, with what its *turns*, a JSON array, cost together."""
    summary = from_columns(columns)
    costs = (cost(*turn) for turn in msgspec.json.decode(turns or "[]", type=list[tuple[Any, Any, Any, Any]]))
    amount = total(costs)
    summary.cost = None if amount is None else float(amount)
    return summary


def _not_found(name: str, ids: list[str], begins: list[str]) -> str:
    if not ids:
        return "There are no traces yet."
    if begins:
        some = ", ".join([*map(repr, begins[:5]), *(["..."] if begins[5:] else [])])
        return f"{len(begins)} traces begin with {name!r}: {some}. Type more of the id."
    near = difflib.get_close_matches(name, ids[:1000], n=3)
    hint = f"did you mean {' or '.join(map(repr, near))}?" if near else "whyops-trace ls lists what there is."
    return f"There is no trace {name!r}: {hint}"


def _too_old(connection: sqlite3.Connection, horizon: float) -> list[int]:
    """Return some of the traces that were last written to before *horizon*."""
    found = connection.execute(
        "SELECT id FROM traces WHERE stored_at < ? LIMIT ?", (horizon, _DELETED_AT_ONCE)
    )
    return [number for (number,) in found]


def _too_many(connection: sqlite3.Connection, max_bytes: int) -> list[int]:
    """Return some of the oldest traces, about half of what takes more than *max_bytes*, as sizes differ."""
    used = _used_bytes(connection)
    if used <= max_bytes:
        return []
    ((count,),) = connection.execute("SELECT count(*) FROM traces")
    share = max(1, min(_DELETED_AT_ONCE, count * (used - max_bytes) // used // 2))
    found = connection.execute("SELECT id FROM traces ORDER BY stored_at, id LIMIT ?", (share,))
    return [number for (number,) in found]


def _used_bytes(connection: sqlite3.Connection) -> int:
    pages, free, size = (
        connection.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("page_count", "freelist_count", "page_size")
    )
    return int((pages - free) * size)


def _delete(connection: sqlite3.Connection, ids: Sequence[int]) -> int:
    connection.execute("BEGIN IMMEDIATE")
    for table, column in (("events", "trace"), ("runs", "trace"), ("traces", "id")):
        connection.execute(f"DELETE FROM {table} WHERE {column} IN {marks(len(ids))}", ids)  # noqa: S608
    connection.execute("COMMIT")
    return len(ids)
