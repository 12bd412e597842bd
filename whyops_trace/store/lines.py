"""Reading of the records in the local store. Nothing here writes."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any, Final, TypeVar

from whyops_trace._clock import Clock
from whyops_trace._database import Database, MachineClock
from whyops_trace._database_file import is_no_text
from whyops_trace._home import command_line
from whyops_trace._reading.processes import in_time
from whyops_trace._recording.line import LOCAL
from whyops_trace.exceptions import StoreError, WhyOpsError
from whyops_trace.store.faults import NONSENSE, DamagedTraceError
from whyops_trace.store.packing import decompressed
from whyops_trace.store.references import Shelf
from whyops_trace.store.rows import COLUMNS, StoredEvent, StoredRow, light_lines
from whyops_trace.store.schema import SCHEMA
from whyops_trace.store.statements import SIZE
from whyops_trace.store.upgrade import UPGRADES

T = TypeVar("T")

_TRACE: Final = "trace = (SELECT id FROM traces WHERE trace_id = ?)"
_LOCAL: Final = f"({', '.join(map(repr, sorted(LOCAL)))})"
_ORDER: Final = f"ORDER BY step, type IN {_LOCAL}, records.id"


class RecordReader:
    """
    The records in a SQLite file of traces; see :class:`~whyops_trace.store.Store`.

    Args:
        path: The file.
        clock: Tells how long ago something was stored.
    """

    def __init__(self, path: str | os.PathLike[str], *, clock: Clock | None = None) -> None:
        self._database = Database(path, SCHEMA, UPGRADES)
        self._clock: Clock = clock or MachineClock()

    def __repr__(self) -> str:
        return f"<Store {str(self.path)!r}>"

    @property
    def path(self) -> Path:
        """The file."""
        return self._database.path

    def close(self) -> None:
        """Close the file; whatever is called next opens it again."""
        self._database.close()

    def version(self) -> int:
        """
        Return a number that is another one whenever anything was written, by any process; it costs microseconds.

        Raises:
            StoreError: if the file cannot be read.
        """
        return self._database.version()

    def events(self, trace_id: str) -> list[dict[str, Any]]:
        """
        Return the records of a trace, decoded, by step; the end of a step directly after its beginning.

        Records of several processes are in the order of time. Where a process knew only the id of the trace, and ran
        while one call was open, the member ``ranIn`` of the metadata is the step of that call.

        Records share the messages, tools and prompts that are in several of them: who changes one, changes all.

        Raises:
            StoreError: if the file cannot be read.
        """
        return in_time(self._decoded(f"WHERE {_TRACE} {_ORDER}", trace_id))

    def lines(self, trace_id: str) -> list[str]:
        """
        Return the records of a trace by step, each as one line of JSON.

        Raises:
            StoreError: if the file cannot be read.
        """
        with self._understanding(trace_id):
            rows, shelf = self._rows(f"WHERE {_TRACE} {_ORDER}", trace_id)
            return [shelf.line(row.text, row.references) for row in rows]

    def event(self, trace_id: str, step: int) -> list[dict[str, Any]]:
        """
        Return the records of one step, in the order of :meth:`events`; none if there are none.

        A step that ended has two, and so has a number that two processes used at the same time.

        Raises:
            StoreError: if the file cannot be read.
        """
        return self._decoded(f"WHERE {_TRACE} AND step = ? {_ORDER}", trace_id, step)

    def events_after(self, trace_id: str, number: int) -> list[tuple[int, dict[str, Any]]]:
        """
        Return what a trace has grown by: its records with their numbers in the store, in the order they were stored.

        Args:
            trace_id: The trace.
            number: The number of the last record that is known already, 0 for none.

        Raises:
            StoreError: if the file cannot be read.
        """
        with self._understanding(trace_id):
            rows, shelf = self._rows(
                f"WHERE {_TRACE} AND records.id > ? ORDER BY records.id", trace_id, number
            )
            return [(row.number, shelf.event(row.text, row.references)) for row in rows]

    def lines_after(self, trace_id: str, number: int, limit: int = -1) -> list[tuple[int, str]]:
        """
        Return what :meth:`events_after` does, each record as one line of JSON.

        Args:
            trace_id: The trace.
            number: The number of the last record that is known already, 0 for none.
            limit: Largest number of them; all of them if it is negative.

        Raises:
            StoreError: if the file cannot be read.
        """
        rest = f"WHERE {_TRACE} AND records.id > ? ORDER BY records.id LIMIT ?"
        with self._understanding(trace_id):
            rows, shelf = self._rows(rest, trace_id, number, limit)
            return [(row.number, shelf.line(row.text, row.references)) for row in rows]

    def all_after(self, number: int, limit: int = 1000) -> list[StoredEvent]:
        """
        Return records of all traces in the order they were stored.

        Args:
            number: The number of the last record that is known already, 0 for none.
            limit: Largest number of them; all of them if it is negative.

        Raises:
            StoreError: if the file cannot be read.
        """
        return self._stored("WHERE records.id > ? ORDER BY records.id LIMIT ?", number, limit)

    def light_after(self, number: int, limit: int = 1000) -> list[tuple[int, str, str]]:
        """
        Return records of all traces in the order they were stored, for an index of them.

        Each is its number, its idempotency key, and its line with null in the place of the messages, tools and prompts
        that records share.

        Args:
            number: The number of the last record that is known already, 0 for none.
            limit: Largest number of them.

        Raises:
            StoreError: if the file cannot be read.
        """
        statement = f"SELECT {COLUMNS} WHERE records.id > ? ORDER BY records.id LIMIT ?"
        rows = map(StoredRow.of, self._database.rows(statement, number, limit))
        return [(row.number, row.facts.key, row.light) for row in rows]

    def record_lines(self) -> Iterator[bytes]:
        """
        Yield the records of all traces, with null in the place of the messages, tools and prompts that they share.

        Raises:
            StoreError: if the file cannot be read.
        """
        number = 0
        while rows := self.light_after(number):
            number = rows[-1][0]
            yield from (line.encode("utf-8", "surrogatepass") for _, _, line in rows)

    def messages_after(self, number: int, limit: int = 1000) -> list[tuple[int, str]]:
        """
        Return the numbers and the JSON of messages that records share, in the order they were stored, for an index.

        Args:
            number: The number of the last message that is known already, 0 for none.
            limit: Largest number of them.

        Raises:
            StoreError: if the file cannot be read.
        """
        statement = "SELECT id, data FROM blobs WHERE id > ? AND message ORDER BY id LIMIT ?"
        rows = self._database.rows(statement, number, limit)
        return [(each, decompressed(data)) for each, data in rows]

    def traces_after(self, number: int, limit: int = 1000) -> list[tuple[int, str]]:
        """
        Return the numbers and ids of traces in the order their first records were stored, for an index of them.

        Args:
            number: The number of the last trace that is known already, 0 for none.
            limit: Largest number of them.

        Raises:
            StoreError: if the file cannot be read.
        """
        statement = "SELECT id, trace_id FROM traces WHERE id > ? ORDER BY id LIMIT ?"
        return self._database.rows(statement, number, limit)

    def traces_of(self, records: str, messages: str, traces: str) -> set[str]:
        """
        Return the ids of the traces that have at least one of some records or messages, or are among some traces.

        Args:
            records: Numbers of records, which may have been deleted, as a JSON array.
            messages: Numbers of messages, likewise.
            traces: Numbers of traces, likewise.

        Raises:
            StoreError: if the file cannot be read.
        """
        rows = self._database.rows(
            "SELECT trace_id FROM traces WHERE id IN (SELECT trace FROM records"
            " WHERE id IN (SELECT value FROM json_each(?)) UNION SELECT trace FROM uses"
            " WHERE blob IN (SELECT value FROM json_each(?)) UNION SELECT value FROM json_each(?))",
            records,
            messages,
            traces,
        )
        return {trace_id for (trace_id,) in rows}

    def size(self, trace_id: str) -> int:
        """
        Return the number of bytes that the store keeps of a trace, those included that it shares with others.

        Raises:
            StoreError: if the file cannot be read.
        """
        rows = self._database.rows(f"SELECT {SIZE} FROM traces WHERE trace_id = ?", trace_id)  # noqa: S608
        return int(rows[0][0]) if rows else 0

    def record_count(self) -> int:
        """
        Return the number of records, those of all traces.

        Raises:
            StoreError: if the file cannot be read.
        """
        rows = self._database.rows("SELECT count(*) FROM records")
        return int(rows[0][0]) if rows else 0

    def latest(self, trace_id: str | None, limit: int, offset: int) -> tuple[list[StoredEvent], int]:
        """
        Return a page of the events of a trace, the latest first, and how many there are; none of the local types.

        Args:
            trace_id: The trace; None for all of them, in the order they were stored.
            limit: Largest number of them.
            offset: Number of them to leave out first.

        Raises:
            StoreError: if the file cannot be read.
        """
        which = "TRUE" if trace_id is None else _TRACE
        values = () if trace_id is None else (trace_id,)
        order = "records.id DESC" if trace_id is None else "timestamp DESC, step DESC, records.id DESC"
        events = f"FROM records WHERE {which} AND type NOT IN {_LOCAL}"
        page = f"SELECT id {events} ORDER BY {order} LIMIT ? OFFSET ?"
        found = self._stored(f"WHERE records.id IN ({page}) ORDER BY {order}", *values, limit, offset)
        count = self._database.rows(f"SELECT count(*) {events}", *values)
        return found, count[0][0] if count else 0

    def select(self, trace_id: str, types: Collection[str], read: Callable[[str], T]) -> list[T]:
        """
        Return what *read* makes of each record of some types, in the order they were stored.

        One line is in memory at a time. In the place of messages, tools and prompts that records share it has null.

        Args:
            trace_id: The trace.
            types: The event types.
            read: Makes something of a line; it must not use the store.

        Raises:
            StoreError: if the file cannot be read.
        """
        if not os.path.exists(self.path):
            return []
        with self._understanding(trace_id), self._database.session() as connection:
            found = connection.execute("SELECT id FROM traces WHERE trace_id = ?", (trace_id,)).fetchall()
            return [read(line) for (trace,) in found for line in light_lines(connection, trace, types)]

    @contextlib.contextmanager
    def _understanding(self, trace_id: str | None = None) -> Iterator[None]:
        """
        Turn errors about the content of the file into one that says so.

        Args:
            trace_id: The only trace that is read, whose deletion removes the damage; None to set the file aside.

        Raises:
            StoreError: if the content is damaged.
        """
        try:
            yield
        except WhyOpsError as error:
            if not is_no_text(error.__cause__):
                raise
            raise self._damaged(error.__cause__, trace_id) from error
        except NONSENSE as error:
            raise self._damaged(repr(error), trace_id) from error

    def _damaged(self, reason: object, trace_id: str | None) -> StoreError:
        if trace_id is None:
            return self._database.set_aside(reason)
        remove = command_line("rm", trace_id, home=self.path.parent)
        return DamagedTraceError(
            f"A record of the trace {trace_id!r} in {self.path} is damaged ({reason}): `{remove}` deletes the trace."
        )

    def _now(self) -> int:
        return self._clock.time_ns() // 1_000_000_000

    def _rows(self, rest: str, *parameters: object) -> tuple[list[StoredRow], Shelf]:
        """Return the rows of records, and the blobs that belong into them."""
        if not os.path.exists(self.path):  # False without permission to look, where Path.exists() raises
            return [], Shelf()
        with self._database.snapshot() as connection:
            try:
                found = connection.execute(f"SELECT {COLUMNS} {rest}", parameters)
            except UnicodeEncodeError:  # no row holds half a character, such as one typed in another encoding
                return [], Shelf()
            rows = [StoredRow.of(row) for row in found]
            return rows, Shelf.of(connection, {row.references for row in rows if row.references})

    def _decoded(self, rest: str, trace_id: str, *more: object) -> list[dict[str, Any]]:
        with self._understanding(trace_id):
            rows, shelf = self._rows(rest, trace_id, *more)
            return [shelf.event(row.text, row.references) for row in rows]

    def _stored(self, rest: str, *parameters: object) -> list[StoredEvent]:
        rows, shelf = self._rows(rest, *parameters)
        return [StoredEvent(row, shelf) for row in rows]
