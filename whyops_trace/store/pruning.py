"""
Deletion from the local store: the choice of traces, small transactions, and the return of free room.

A clock may be wrong for a moment, so no trace is deleted on one reading of it: the age of traces counts from the newest
write that is itself not new any more. A clock that stands before the newest write is not believed at all.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from whyops_trace.store.statements import SIZE, marks

#: Largest numbers of traces and of events, about, deleted in one transaction: other writers do not wait long.
DELETED_AT_ONCE: Final = 100
EVENTS_AT_ONCE: Final = 10_000
#: The share of the age of traces for which a reading of the clock has to stand before it counts.
_CONFIRMED: Final = 1 / 7
#: Seconds that two processes may differ in the time.
TOLERANCE: Final = 60
#: Traces that were deleted for their age or for room, of which that is remembered.
_REMEMBERED: Final = 20_000
#: Pages given back in one transaction, for the same reason: 8 MiB.
_FREED_AT_ONCE: Final = 2_000

#: The tables that have rows of traces, each with the column of their numbers. The traces themselves are the last.
_TABLES: Final = (
    ("records", "trace"),
    ("turns", "trace"),
    ("uses", "trace"),
    ("runs", "trace"),
    ("traces", "id"),
)


def writing_time(connection: sqlite3.Connection, now: int) -> int:
    """Return the time of a write in seconds since the epoch, which is never before that of the newest trace."""
    newest = connection.execute("SELECT stored_at FROM traces ORDER BY id DESC LIMIT 1").fetchone()
    return now if newest is None else max(now, newest[0])


def horizon(connection: sqlite3.Connection, now: int, max_age: float) -> float:
    """
    Return the time before which a last write is too long ago, in seconds since the epoch.

    Args:
        connection: The connection.
        now: Seconds since the epoch, if the clock is right.
        max_age: Seconds that a trace is kept.
    """
    seen, newest = connection.execute(
        "SELECT max(stored_at) FILTER (WHERE stored_at <= ?), max(stored_at) FROM traces",
        (now - max_age * _CONFIRMED,),
    ).fetchone()
    return float("-inf") if seen is None or newest > now + TOLERANCE else seen - max_age


def too_old(connection: sqlite3.Connection, horizon: float, passed: int | None = None) -> list[int]:
    """
    Return the numbers of some traces whose last write was long ago.

    Args:
        connection: The connection.
        horizon: The moment before which it has to be, in seconds since the epoch.
        passed: The number of a record; traces with a later one are left out.
    """
    rows = connection.execute(
        f"SELECT id FROM traces WHERE stored_at < ?{_all_passed(passed)} LIMIT ?",  # noqa: S608 - a number
        (horizon, DELETED_AT_ONCE),
    )
    return [number for (number,) in rows]


def too_many(connection: sqlite3.Connection, max_bytes: int, passed: int | None = None) -> list[int]:
    """
    Return the numbers of some oldest traces, about half of the excess, since sizes differ.

    Args:
        connection: The connection.
        max_bytes: Bytes that all may take.
        passed: As in :func:`too_old`.
    """
    used = used_bytes(connection)
    if used <= max_bytes:
        return []
    ((count,),) = connection.execute("SELECT count(*) FROM traces")
    share = max(1, min(DELETED_AT_ONCE, count * (used - max_bytes) // used // 2))
    rows = connection.execute(
        f"SELECT id FROM traces WHERE TRUE{_all_passed(passed)} ORDER BY stored_at, id LIMIT ?",  # noqa: S608
        (share,),
    )
    return [number for (number,) in rows]


def _all_passed(number: int | None) -> str:
    """Return the condition that a trace has no later record than that of a number."""
    if number is None:
        return ""
    later = f"SELECT 1 FROM records WHERE trace = traces.id AND records.id > {number:d}"  # noqa: S608 - a number
    return f" AND NOT EXISTS ({later})"


def oldest_over(connection: sqlite3.Connection, max_bytes: int) -> Iterator[str]:
    """Yield the ids of the traces with the oldest last write, until the others take about *max_bytes*."""
    used = used_bytes(connection)
    if used <= max_bytes:
        return
    traces = connection.execute(
        f"SELECT trace_id, {SIZE} FROM traces ORDER BY stored_at, id"  # noqa: S608 - no values in it
    ).fetchall()
    # Keys, indexes and half-empty pages take room beside the records, and traces share blobs: each has its share.
    total = sum(size for _, size in traces)
    excess = used - max_bytes
    for trace_id, size in traces:
        yield trace_id
        excess -= size * used // total if total else 0
        if excess <= 0:
            return


def used_bytes(connection: sqlite3.Connection) -> int:
    """Return the number of bytes of the pages in use."""
    pages, free, size = (
        connection.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("page_count", "freelist_count", "page_size")
    )
    return int((pages - free) * size)


def numbers_of(connection: sqlite3.Connection, trace_ids: Iterable[str]) -> Iterator[list[int]]:
    """Yield the numbers of the traces that exist, as many at a time as may be deleted in one transaction."""
    numbers: list[int] = []
    events = 0
    for trace_id in trace_ids:
        rows = connection.execute(
            "SELECT id, event_count FROM traces WHERE trace_id = ?", (trace_id,)
        ).fetchall()
        for number, count in rows:
            numbers.append(number)
            events += count
        if len(numbers) >= DELETED_AT_ONCE or events >= EVENTS_AT_ONCE:
            yield numbers
            numbers, events = [], 0
    if numbers:
        yield numbers


def delete(
    connection: sqlite3.Connection,
    numbers: Sequence[int],
    *,
    remember: bool = False,
    scores_of: str | None = None,
) -> int:
    """
    Delete traces in one transaction, and return the number of deleted ones.

    Args:
        connection: The connection.
        numbers: Their numbers.
        remember: True to remember how much of them was deleted, in case they go on.
        scores_of: The source of the scores that are deleted with them; None for all.
    """
    connection.execute("BEGIN IMMEDIATE")
    if remember:
        _remember(connection, numbers)
    connection.execute(
        "UPDATE deleted SET trace = max(trace, (SELECT coalesce(max(id), 0) FROM traces)),"
        " event = max(event, (SELECT coalesce(max(id), 0) FROM records)),"
        " blob = max(blob, (SELECT coalesce(max(id), 0) FROM blobs)), times = times + 1"
    )
    those = marks(len(numbers))
    connection.execute(
        f"DELETE FROM blobs WHERE id IN (SELECT blob FROM uses WHERE trace IN {those})"  # noqa: S608 - no values in it
        f" AND NOT EXISTS (SELECT 1 FROM uses WHERE blob = blobs.id AND trace NOT IN {those})",
        [*numbers, *numbers],
    )
    connection.execute(
        f"DELETE FROM scores WHERE trace_id IN (SELECT trace_id FROM traces WHERE id IN {those})"  # noqa: S608
        " AND source = coalesce(?, source)",
        [*numbers, scores_of],
    )
    deleted = 0
    for table, column in _TABLES:
        deleted = connection.execute(
            f"DELETE FROM {table} WHERE {column} IN {those}",  # noqa: S608 - no values in it
            numbers,
        ).rowcount
    connection.execute("COMMIT")
    return deleted


def delete_strays(connection: sqlite3.Connection, horizon: float) -> None:
    """Delete the scores without a trace that were stored before *horizon*, in seconds since the epoch."""
    connection.execute(
        "DELETE FROM scores WHERE stored_at < ? AND trace_id NOT IN (SELECT trace_id FROM traces)", (horizon,)
    )


def _remember(connection: sqlite3.Connection, numbers: Sequence[int]) -> None:
    found = connection.execute(
        f"SELECT trace_id, event_count + forgotten FROM traces WHERE id IN {marks(len(numbers))}",  # noqa: S608
        numbers,
    )
    rows = [(_hash(trace_id), events) for trace_id, events in found]
    connection.executemany("INSERT OR REPLACE INTO forgotten (hash, events) VALUES (?, ?)", rows)
    connection.execute(
        "DELETE FROM forgotten WHERE id <= (SELECT max(id) FROM forgotten) - ?", (_REMEMBERED,)
    )


def recall(connection: sqlite3.Connection, trace_id: str) -> int:
    """Return how many events of a trace were deleted for their age or for room, and forget that."""
    row = connection.execute("SELECT events FROM forgotten WHERE hash = ?", (_hash(trace_id),)).fetchone()
    if row is None:
        return 0
    connection.execute("DELETE FROM forgotten WHERE hash = ?", (_hash(trace_id),))
    return int(row[0])


def _hash(trace_id: str) -> bytes:
    return hashlib.sha256(trace_id.encode()).digest()[:16]


def give_back(connection: sqlite3.Connection, now: int) -> None:
    """Delete the processes that no trace needs any more, and give free room back to the file system."""
    # A process that ended before every trace was made left nothing open in them.
    connection.execute(
        "DELETE FROM processes WHERE ended_at < coalesce((SELECT min(made_at) FROM traces), ?)", (now,)
    )
    free = connection.execute("PRAGMA freelist_count").fetchone()[0]
    for _ in range(0, free, _FREED_AT_ONCE):
        # A script, because execute() would take one step, which frees one page.
        connection.executescript(f"PRAGMA incremental_vacuum({_FREED_AT_ONCE})")
    # The file shrinks when the log is written back to it. If another process reads, that happens later.
    connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
