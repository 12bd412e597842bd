"""
How far the traces of a home have been forwarded to other receivers.

It is in a file beside the store, which whoever deletes old traces looks at: what waits to be forwarded is kept longer.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from whyops_trace._database import Database
from whyops_trace._home import FORWARD_FILE
from whyops_trace.store.statements import marks

#: How many times as old and as large as others what waits may become before it is deleted all the same.
PATIENCE: Final = 2

_SCHEMA: Final = """
CREATE TABLE receivers (
    url TEXT PRIMARY KEY,
    records INTEGER NOT NULL,
    items INTEGER NOT NULL,
    forwarded INTEGER NOT NULL DEFAULT 0,
    rejected INTEGER NOT NULL DEFAULT 0,
    dropped INTEGER NOT NULL DEFAULT 0,
    error TEXT NOT NULL DEFAULT '',
    seen REAL NOT NULL
) WITHOUT ROWID
"""
_COLUMNS: Final = "url, records, items, forwarded, rejected, dropped, error, seen"


class Forwarded(NamedTuple):
    """
    What one receiver has got.

    Attributes:
        url: The URL that is posted to.
        records: The number in the store of the last record that has passed.
        items: The number of the last span or log record that has passed.
        forwarded: How many of both it took.
        rejected: How many it will never take.
        dropped: How many were deleted before, for their age or for room.
        error: Why the last request failed, "" if it did not.
        seen: When a server last tried, in seconds since the epoch.
    """

    url: str
    records: int
    items: int
    forwarded: int
    rejected: int
    dropped: int
    error: str
    seen: float


class Forwards:
    """
    The receivers of one home.

    Args:
        home: The home.
    """

    def __init__(self, home: Path) -> None:
        self._database = Database(home / FORWARD_FILE, _SCHEMA)

    def all(self) -> list[Forwarded]:
        """
        Return all receivers.

        Raises:
            StoreError: if the file cannot be read.
        """
        return [
            Forwarded(*row)
            for row in self._database.rows(f"SELECT {_COLUMNS} FROM receivers ORDER BY url")  # noqa: S608
        ]

    def get(self, url: str) -> Forwarded | None:
        """
        Return a receiver, None if it is unknown.

        Raises:
            StoreError: if the file cannot be read.
        """
        return next((each for each in self.all() if each.url == url), None)

    def begin(self, url: str, records: int) -> None:
        """
        Add a receiver, unless it is there. It gets what comes from now on.

        Args:
            url: The URL.
            records: The number of the last record in the store.

        Raises:
            StoreError: if the file cannot be written.
        """
        with self._database.transaction() as connection:
            connection.execute(
                "INSERT OR IGNORE INTO receivers (url, records, items, seen) VALUES (?, ?, 0, ?)",
                (url, records, time.time()),
            )

    def advance(
        self,
        url: str,
        *,
        records: int | None = None,
        items: int | None = None,
        forwarded: int = 0,
        rejected: int = 0,
        error: str = "",
    ) -> None:
        """
        Note how far a receiver is, and how its last request ended.

        Args:
            url: Its URL.
            records: The number of the last record that has passed; None for no change.
            items: The same of spans and log records.
            forwarded: How many more it took.
            rejected: How many more it rejected.
            error: Why the request failed, "" if it did not.

        Raises:
            StoreError: if the file cannot be written.
        """
        with self._database.transaction() as connection:
            connection.execute(
                "UPDATE receivers SET records = coalesce(?, records), items = coalesce(?, items),"
                " forwarded = forwarded + ?, rejected = rejected + ?, error = ?, seen = ? WHERE url = ?",
                (records, items, forwarded, rejected, error, time.time(), url),
            )

    def note_dropped(self, dropped: Sequence[tuple[str, int]]) -> None:
        """
        Count what was deleted before receivers got it.

        Raises:
            StoreError: if the file cannot be written.
        """
        with self._database.transaction() as connection:
            connection.executemany(
                "UPDATE receivers SET dropped = dropped + ? WHERE url = ?",
                [(count, url) for url, count in dropped if count],
            )

    def forget(self, since: float) -> None:
        """
        Delete the receivers that no server has forwarded to since a moment.

        Args:
            since: Seconds since the epoch.

        Raises:
            StoreError: if the file cannot be written.
        """
        if any(each.seen < since for each in self.all()):
            with self._database.transaction() as connection:
                connection.execute("DELETE FROM receivers WHERE seen < ?", (since,))

    def close(self) -> None:
        """Close the file; whatever is called next opens it again."""
        self._database.close()


def unforwarded_in(
    connection: sqlite3.Connection, traces: Sequence[int], receivers: Sequence[Forwarded]
) -> list[tuple[str, int]]:
    """
    Return how many records of traces each receiver has not got.

    Args:
        connection: A connection to the store.
        traces: Their numbers.
        receivers: The receivers.
    """
    counts = []
    for receiver in receivers:
        ((count,),) = connection.execute(
            f"SELECT count(*) FROM records WHERE trace IN {marks(len(traces))} AND id > ?"  # noqa: S608
            " AND key NOT LIKE 'otel-%'",
            (*traces, receiver.records),
        )
        counts.append((receiver.url, count))
    return counts
