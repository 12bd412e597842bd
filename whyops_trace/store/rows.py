"""The rows of records, and the lines that come back out of them."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator, Sequence
from typing import Any, Final, NamedTuple

from whyops_trace._reading.halves import TYPES
from whyops_trace._reading.record import Head, head_of
from whyops_trace.store.faults import NONSENSE
from whyops_trace.store.packing import Facts, unpacked, without_holes
from whyops_trace.store.references import Shelf
from whyops_trace.store.statements import marks

#: The columns of a :class:`StoredRow`, for a statement.
COLUMNS: Final = (
    "records.id, step, parent, within, type, span, timestamp, key, trace_id, agent_name, line, refs"
    " FROM records JOIN traces ON traces.id = trace"
)


class StoredRow(NamedTuple):
    """
    The row of a record.

    Attributes:
        number: Its number.
        facts: What its columns tell.
        line: Its line as it is stored.
        references: The blobs that belong into it.
    """

    number: int
    facts: Facts
    line: str | bytes
    references: str | None

    @classmethod
    def of(cls, row: Sequence[Any]) -> StoredRow:
        """Return a row of :data:`COLUMNS`."""
        return cls(row[0], Facts(*row[1:10]), row[10], row[11])

    @property
    def text(self) -> str:
        """Its line with holes."""
        return unpacked(self.line, self.facts)

    @property
    def light(self) -> str:
        """Its line with null in the place of what it shares with others."""
        return without_holes(self.text) if self.references else self.text


class StoredEvent:
    """
    A record with what the store knows it by.

    Attributes:
        number: Its number: higher than that of any record stored before it.
        trace_id: The trace it belongs to.
        step: Its step there.
        type: The event type.
        key: Its idempotency key, unique in its trace.
    """

    __slots__ = ("_row", "_shelf", "key", "number", "step", "trace_id", "type")

    def __init__(self, row: StoredRow, shelf: Shelf) -> None:
        self._row = row
        self._shelf = shelf
        self.number: int = row.number
        self.trace_id: str = row.facts.trace_id
        self.step: int = row.facts.step
        self.type: str = row.facts.type
        self.key: str = row.facts.key

    @property
    def line(self) -> str:
        """The record as JSON."""
        return self._shelf.line(self._row.text, self._row.references)

    @property
    def light_line(self) -> str:
        """The record as JSON, with null in the place of messages and other large members that records share."""
        return self._row.light


def light_lines(connection: sqlite3.Connection, trace: int, types: Collection[str]) -> Iterator[str]:
    """Yield the records of a trace of some types, by number, with null in the place of what they share."""
    for row in _rows(connection, trace, types):
        yield row.light


def readable_heads(connection: sqlite3.Connection, trace: int) -> Iterator[Head]:
    """Yield the heads of the records of a trace that pair, by number, but for those that are damaged."""
    strict = connection.text_factory
    connection.text_factory = _text
    try:
        for row in _rows(connection, trace, TYPES):
            try:
                head = head_of(row.light)
            except NONSENSE:
                continue
            yield head
    finally:
        connection.text_factory = strict


def _rows(connection: sqlite3.Connection, trace: int, types: Collection[str]) -> Iterator[StoredRow]:
    statement = f"SELECT {COLUMNS} WHERE trace = ? AND type IN {marks(len(types))} ORDER BY records.id"
    return map(StoredRow.of, connection.execute(statement, (trace, *types)))


def _text(data: bytes) -> str:
    return data.decode(errors="replace")
