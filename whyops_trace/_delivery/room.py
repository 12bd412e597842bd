"""
The waiting room: records on disk that have left the journal, until it is known whether a destination gets their trace.

It is the SQLite file ``waiting.db`` of the home, which all processes share. The records of a trace that one batch
brought are a *part*. Each part belongs to a process, its owner, which alone sends it: the one that recorded it, or one
that took it over. That a trace is kept holds for all owners and all destinations.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import closing
from enum import IntEnum
from pathlib import Path
from typing import Final, NamedTuple

from whyops_trace._database import Database
from whyops_trace._home import WAITING_FILE

#: Seconds that is remembered which traces are kept, 30 days, as long as offsets are; and most traces that are.
KEPT_LIFETIME: Final = 30 * 24 * 3600
MAX_KEPT: Final = 200_000
#: Seconds that left out parts stay, in case that their trace is kept after all.
LEFT_OUT_LIFETIME: Final = 3600

_SCHEMA: Final = """
CREATE TABLE parts (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    place TEXT NOT NULL,
    owner TEXT NOT NULL,
    state INTEGER NOT NULL,
    process TEXT NOT NULL,
    trace TEXT NOT NULL,
    left_out INTEGER NOT NULL,
    records INTEGER NOT NULL,
    size INTEGER NOT NULL,
    made_at INTEGER NOT NULL,
    body BLOB NOT NULL
);
CREATE INDEX parts_by_owner ON parts (place, owner, state, id, made_at, size);
CREATE INDEX parts_by_trace ON parts (trace);
CREATE TABLE kept (
    trace TEXT PRIMARY KEY,
    made_at INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX kept_by_time ON kept (made_at);
CREATE TABLE taken (
    place TEXT NOT NULL,
    segment TEXT NOT NULL,
    cursor INTEGER NOT NULL,
    PRIMARY KEY (place, segment)
) WITHOUT ROWID;
"""

_ANY: Final = "SELECT 1 FROM parts WHERE place = ? AND owner = ? AND state = ? LIMIT 1"


class State(IntEnum):
    """The state of a part: it waits for a decision, is to be sent, or is left out unless its trace is kept later."""

    WAITS = 0
    DUE = 1
    LEFT_OUT = 2


class Part(NamedTuple):
    """
    Records of one trace, in the order they were recorded.

    Attributes:
        process: The process that recorded them.
        trace: The trace id.
        records: Number of them that are for the destination.
        body: Their lines.
        id: Its number, 0 before it has one.
        left_out: True if they were counted as sampled out.
    """

    process: str
    trace: str
    records: int
    body: bytes
    id: int = 0
    left_out: bool = False

    @property
    def lines(self) -> list[bytes]:
        """The records."""
        return self.body.split(b"\n")


class Verdicts(NamedTuple):
    """
    Decisions on traces.

    Attributes:
        kept: The ids of traces that are kept.
        left_out: Traces that are left out, each by the process that recorded it and its id.
    """

    kept: Collection[str] = ()
    left_out: Collection[tuple[str, str]] = ()


class Room:
    """
    The file, as far as it is about one destination of one stream.

    Args:
        path: The file.
        place: The name of the stream and its destination.

    Every method raises :class:`~whyops_trace.exceptions.StoreError` if the file cannot be read or written; then nothing
    is changed.
    """

    def __init__(self, path: str | os.PathLike[str], place: str) -> None:
        self._database = Database(path, _SCHEMA)
        self._place = place

    def taken(self, segment: str) -> int:
        """Return the cursor up to which the records of a segment are or were here, 0 for none."""
        rows = self._database.rows(
            "SELECT cursor FROM taken WHERE place = ? AND segment = ?", self._place, segment
        )
        return rows[0][0] if rows else 0

    def take_in(
        self, owner: str, parts: Iterable[tuple[Part, State]], verdicts: Verdicts, segment: str, cursor: int
    ) -> tuple[dict[str, int], bool]:
        """
        Take parts in, and decide. Those of traces that any process has kept are due, whatever state is given.

        Args:
            owner: The process that takes them.
            parts: The parts, in the order in which they are sent, each with its state.
            verdicts: Decisions, on parts that are here already.
            segment: The segment that they come from; "" if it does not survive the process.
            cursor: The offset in it behind them.

        Returns:
            The numbers of records that are left out from now on, by the process that recorded them, without those of
            *parts*; and True if anything is to be sent.
        """
        now = int(time.time())
        parts = list(parts)
        rows = [
            (
                *(self._place, owner, state, *part[:2], state is State.LEFT_OUT),
                *(part.records, len(part.body), now, part.body),
            )
            for part, state in parts
        ]  # fmt: skip
        with self._database.transaction() as connection:
            left_out: dict[str, int] = {}
            for process, trace in verdicts.left_out:
                chosen = (self._place, owner, process, trace)
                where = f"place = ? AND owner = ? AND process = ? AND trace = ? AND state = {State.WAITS:d}"
                ((records,),) = connection.execute(
                    f"SELECT coalesce(sum(records), 0) FROM parts WHERE {where}",  # noqa: S608 - no values
                    chosen,
                )
                left_out[process] = left_out.get(process, 0) + records
                connection.execute(
                    f"UPDATE parts SET state = {State.LEFT_OUT:d}, left_out = 1 WHERE {where}",  # noqa: S608
                    chosen,
                )
            connection.executemany(
                "INSERT INTO parts (place, owner, state, process, trace, left_out, records, size, made_at, body)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                rows,
            )
            if segment:
                connection.execute(
                    "INSERT OR REPLACE INTO taken VALUES (?, ?, ?)", (self._place, segment, cursor)
                )
            connection.executemany(
                "INSERT OR REPLACE INTO kept VALUES (?, ?)", [(trace, now) for trace in verdicts.kept]
            )
            connection.executemany(
                f"UPDATE parts SET state = {State.DUE:d} WHERE trace = ?1 AND state <> {State.DUE:d}"  # noqa: S608
                " AND EXISTS (SELECT 1 FROM kept WHERE trace = ?1)",
                [(trace,) for trace in {*verdicts.kept, *(part.trace for part, _ in parts)}],
            )
            has_due = connection.execute(_ANY, (self._place, owner, State.DUE)).fetchone() is not None
        return left_out, has_due

    def waiting(self, owner: str, process: str, trace: str) -> list[bytes]:
        """Return the records of a process in a trace that wait for a decision."""
        rows = self._database.rows(
            "SELECT body FROM parts WHERE trace = ? AND place = ? AND owner = ? AND process = ? AND state = ?"
            " ORDER BY id",
            trace, self._place, owner, process, State.WAITS,
        )  # fmt: skip
        return [line for (body,) in rows for line in body.split(b"\n")]

    def waiting_traces(self, owner: str) -> list[tuple[str, str, int]]:
        """Return what waits for a decision: the process that recorded it, the trace id, and the bytes."""
        rows = self._database.rows(
            "SELECT process, trace, sum(size) FROM parts WHERE place = ? AND owner = ? AND state = ?"
            " GROUP BY process, trace ORDER BY min(id)",
            self._place, owner, State.WAITS,
        )  # fmt: skip
        return [(process, trace, size) for process, trace, size in rows]

    def due(self, owner: str, most: int) -> list[Part]:
        """Return the first parts that are to be sent: all of one process, of about so many bytes, at least one."""
        parts: list[Part] = []
        size = 0
        with self._database.session() as connection:
            rows = connection.execute(
                "SELECT process, trace, records, body, id, left_out FROM parts"
                " WHERE place = ? AND owner = ? AND state = ? ORDER BY id",
                (self._place, owner, State.DUE),
            )
            for row in rows:
                part = Part(*row)
                size += len(part.body)
                if parts and (size > most or part.process != parts[0].process):
                    break
                parts.append(part)
            rows.close()
        return parts

    def has_due(self, owner: str) -> bool:
        """Return True if anything is to be sent."""
        return bool(self._database.rows(_ANY, self._place, owner, State.DUE))

    def size(self, owner: str, state: State) -> int:
        """Return the bytes of the parts in a state."""
        rows = self._database.rows(
            "SELECT coalesce(sum(size), 0) FROM parts WHERE place = ? AND owner = ? AND state = ?",
            self._place, owner, state,
        )  # fmt: skip
        return rows[0][0] if rows else 0

    def has_any(self, owner: str) -> bool:
        """Return True if an owner has any part here."""
        return bool(
            self._database.rows(
                "SELECT 1 FROM parts WHERE place = ? AND owner = ? LIMIT 1", self._place, owner
            )
        )

    def pass_parts(self, sent: Iterable[int], rest: Part | None = None) -> None:
        """Remove parts that were sent, and shorten one that was sent in part to its rest."""
        with self._database.transaction() as connection:
            connection.executemany("DELETE FROM parts WHERE id = ?", [(number,) for number in sent])
            if rest is not None:
                connection.execute(
                    "UPDATE parts SET body = ?, size = ?, records = ? WHERE id = ?",
                    (rest.body, len(rest.body), rest.records, rest.id),
                )

    # Owners

    def owners(self) -> list[str]:
        """Return all who have parts here."""
        rows = self._database.rows("SELECT DISTINCT owner FROM parts WHERE place = ?", self._place)
        return [owner for (owner,) in rows]

    def take_over(self, owner: str, gone: str) -> dict[str, int]:
        """Take what an owner that is gone has; return the numbers of records that wait, by their process."""
        with self._database.transaction() as connection:
            rows = connection.execute(
                "SELECT process, sum(records) FROM parts WHERE place = ? AND owner = ? AND NOT left_out"
                " GROUP BY process",
                (self._place, gone),
            ).fetchall()
            connection.execute(
                "UPDATE parts SET owner = ? WHERE place = ? AND owner = ?", (owner, self._place, gone)
            )
        return dict(rows)

    # Bounds

    def tidy(self, owner: str, most_left_out: int, segments: Callable[[], Collection[str]]) -> None:
        """
        Forget what is of no use any more.

        Args:
            owner: The process whose left out parts are meant.
            most_left_out: Bytes of left out parts that stay at most, the latest ones.
            segments: Returns the names of the segments that there still are.
        """
        now = int(time.time())
        rows = self._database.rows(
            "SELECT coalesce(max(id), 0) FROM (SELECT id, made_at, sum(size) OVER (ORDER BY id DESC) AS together"
            " FROM parts WHERE place = ? AND owner = ? AND state = ?) WHERE together > ? OR made_at < ?",
            self._place, owner, State.LEFT_OUT, most_left_out, now - LEFT_OUT_LIFETIME,
        )  # fmt: skip
        last = rows[0][0] if rows else 0
        rows = self._database.rows(
            "SELECT made_at FROM kept ORDER BY made_at DESC LIMIT 1 OFFSET ?", MAX_KEPT
        )
        oldest = max(now - KEPT_LIFETIME, rows[0][0] if rows else 0)
        markers = self._database.rows("SELECT segment FROM taken WHERE place = ?", self._place)
        present = segments()  # looked at last: each of these had its segment when it was made
        gone = [(self._place, segment) for (segment,) in markers if segment not in present]
        with self._database.transaction() as connection:
            connection.execute(
                "DELETE FROM parts WHERE place = ? AND owner = ? AND state = ? AND id <= ?",
                (self._place, owner, State.LEFT_OUT, last),
            )
            connection.executemany("DELETE FROM taken WHERE place = ? AND segment = ?", gone)
            connection.execute("DELETE FROM kept WHERE made_at < ?", (oldest,))

    def close(self) -> None:
        """Close the file."""
        self._database.close()


def waiting_lines(home: Path) -> Iterator[bytes]:
    """
    Yield the records in the room of a home, for whatever destination.

    Raises:
        StoreError: if the file cannot be read.
    """
    with closing(Database(home / WAITING_FILE, _SCHEMA)) as database:
        last = 0
        while rows := database.rows("SELECT id, body FROM parts WHERE id > ? ORDER BY id LIMIT 1", last):
            ((last, body),) = rows
            yield from body.split(b"\n")


def waiting_count(home: Path) -> int:
    """
    Return the number of records in the room of a home that are to be decided on, or to be sent.

    Raises:
        StoreError: if the file cannot be read.
    """
    with closing(Database(home / WAITING_FILE, _SCHEMA)) as database:
        rows = database.rows(
            "SELECT coalesce(sum(records), 0) FROM parts WHERE state <> ?", int(State.LEFT_OUT)
        )
    return int(rows[0][0]) if rows else 0


def erase_waiting(home: Path, traces: Iterable[str]) -> int:
    """
    Erase the records of traces from the room of a home; return the number of those that were meant for a destination.

    Raises:
        StoreError: if the file cannot be written.
    """
    if not os.path.exists(home / WAITING_FILE):
        return 0
    records = 0
    with (
        closing(Database(home / WAITING_FILE, _SCHEMA)) as database,
        database.session(writing=True) as connection,
    ):
        connection.execute("PRAGMA secure_delete = ON")
        connection.execute("BEGIN IMMEDIATE")
        for trace in traces:
            ((count,),) = connection.execute(
                "SELECT coalesce(sum(records), 0) FROM parts WHERE trace = ?", (trace,)
            ).fetchall()
            records += count
            connection.execute("DELETE FROM parts WHERE trace = ?", (trace,))
        connection.execute("COMMIT")
        connection.execute("VACUUM")  # what was sent earlier left bytes behind
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    return records
