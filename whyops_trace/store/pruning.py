"""Deleting from the local store: which traces, a few in each transaction, and the room given back."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from whyops_trace.store.intake import marks

#: Traces, and about as many events, deleted in one transaction, so that other processes need not wait long to write.
DELETED_AT_ONCE: Final = 100
EVENTS_AT_ONCE: Final = 10_000
#: Pages given back in one transaction, for the same reason: 8 MiB.
_FREED_AT_ONCE: Final = 2_000


def too_old(connection: sqlite3.Connection, horizon: float) -> list[int]:
    """Return some of the traces that were last written to before *horizon*."""
    found = connection.execute(
        "SELECT id FROM traces WHERE stored_at < ? LIMIT ?", (horizon, DELETED_AT_ONCE)
    )
    return [number for (number,) in found]


def too_many(connection: sqlite3.Connection, max_bytes: int) -> list[int]:
    """Return some of the oldest traces, about half of what takes more than *max_bytes*, as sizes differ."""
    used = used_bytes(connection)
    if used <= max_bytes:
        return []
    ((count,),) = connection.execute("SELECT count(*) FROM traces")
    share = max(1, min(DELETED_AT_ONCE, count * (used - max_bytes) // used // 2))
    found = connection.execute("SELECT id FROM traces ORDER BY stored_at, id LIMIT ?", (share,))
    return [number for (number,) in found]


def oldest_over(connection: sqlite3.Connection, max_bytes: int) -> Iterator[str]:
    """Yield the traces not written to for longest, until the others take about *max_bytes*."""
    used = used_bytes(connection)
    if used <= max_bytes:
        return
    found = connection.execute(
        "SELECT trace_id, coalesce((SELECT sum(length(CAST(payload AS BLOB))) FROM events WHERE trace = traces.id), 0)"
        " FROM traces ORDER BY stored_at, id"
    ).fetchall()
    # Beside the payloads there are keys, indexes and pages that are not full: each trace has its share of that.
    total = sum(size for _, size in found)
    excess = used - max_bytes
    for trace_id, size in found:
        yield trace_id
        excess -= size * used // total if total else 0
        if excess <= 0:
            return


def used_bytes(connection: sqlite3.Connection) -> int:
    """Return the bytes of the pages that hold something."""
    pages, free, size = (
        connection.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("page_count", "freelist_count", "page_size")
    )
    return int((pages - free) * size)


def numbers_of(connection: sqlite3.Connection, trace_ids: Iterable[str]) -> Iterator[list[int]]:
    """Yield what the store knows traces by, as many at a time as may be deleted at once, but not what it has not."""
    numbers: list[int] = []
    events = 0
    for trace_id in trace_ids:
        found = connection.execute(
            "SELECT id, event_count FROM traces WHERE trace_id = ?", (trace_id,)
        ).fetchall()
        for number, count in found:
            numbers.append(number)
            events += count
        if len(numbers) >= DELETED_AT_ONCE or events >= EVENTS_AT_ONCE:
            yield numbers
            numbers, events = [], 0
    if numbers:
        yield numbers


def delete(connection: sqlite3.Connection, numbers: Sequence[int]) -> int:
    """Delete traces in one transaction, and return how many there were."""
    connection.execute("BEGIN IMMEDIATE")
    connection.execute(
        "UPDATE deleted SET trace = max(trace, (SELECT coalesce(max(id), 0) FROM traces)),"
        " event = max(event, (SELECT coalesce(max(id), 0) FROM events))"
    )
    deleted = 0
    for table, column in (("events", "trace"), ("runs", "trace"), ("traces", "id")):
        deleted = connection.execute(
            f"DELETE FROM {table} WHERE {column} IN {marks(len(numbers))}",  # noqa: S608 - no values in it
            numbers,
        ).rowcount
    connection.execute("COMMIT")
    return deleted


def give_back(connection: sqlite3.Connection, now: int) -> None:
    """Forget the processes that no trace needs any more, and give free room back to the file system."""
    # A process that ended before all of the traces were made left nothing open in them.
    connection.execute(
        "DELETE FROM processes WHERE ended_at < coalesce((SELECT min(made_at) FROM traces), ?)", (now,)
    )
    free = connection.execute("PRAGMA freelist_count").fetchone()[0]
    for _ in range(0, free, _FREED_AT_ONCE):
        # A script, because execute() would take one step of it, which frees one page.
        connection.executescript(f"PRAGMA incremental_vacuum({_FREED_AT_ONCE})")
    # The file gets smaller when the log is written back to it; where another process reads, that happens later.
    connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
