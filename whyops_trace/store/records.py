"""The table of records, as one connection writes it."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Final, NamedTuple

from whyops_trace.store.blobs import Blobs
from whyops_trace.store.lifting import Lifted, Lifter
from whyops_trace.store.packing import Facts, packed
from whyops_trace.store.statements import insert

#: Numbers of traces and records that were deleted are not used again: somebody may still hold one.
_NEXT_NUMBER: Final = "SELECT max((SELECT coalesce(max(id), 0) FROM records), event) + 1, times FROM deleted"


class Row(NamedTuple):
    """
    A record on its way into the table.

    Attributes:
        number: Its number.
        trace: The number of its trace.
        facts: What its row says of it.
        lifted: Its line, without what is large.
        turn: What prices it, if it is a turn of a model.
    """

    number: int
    trace: int
    facts: Facts
    lifted: Lifted
    turn: str | None


class Records:
    """
    The records, as one connection writes them. What it has stored lately is remembered, as the next turns repeat it.

    Args:
        connection: The connection. A transaction that fails has to be the last one on it.

    Attributes:
        connection: The connection.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self._next = 0
        self._lifter = Lifter()
        self._blobs = Blobs()
        self._deletions = 0

    def begin(self) -> None:
        """Begin in an open transaction. What is remembered may have been deleted by anybody."""
        ((self._next, deletions),) = self.connection.execute(_NEXT_NUMBER)
        if deletions != self._deletions:
            self._deletions = deletions
            self.forget()

    def forget(self) -> None:
        """Forget what was stored: it may not be there any more."""
        self._lifter.forget()
        self._blobs.forget()

    def lift(self, line: bytes) -> Lifted:
        """
        Return a line without its large members. It has to be given to :meth:`insert` with those that follow it.

        Raises:
            UnicodeDecodeError: if it is no UTF-8.
        """
        return self._lifter.lift(line)

    def number(self) -> int:
        """Return the number of one more record; none was ever used before."""
        self._next += 1
        return self._next - 1

    def insert(self, rows: Sequence[Row], refused: Sequence[tuple[int, Lifted]] = ()) -> set[int]:
        """
        Insert those of some records that are new by their trace and key.

        Args:
            rows: The records.
            refused: Records that were lifted among them, and are not stored, each with the number of its trace: others
                may go on with their messages.

        Returns:
            The numbers of those that were new.
        """
        lifted = [*refused, *((row.trace, row.lifted) for row in rows)]
        references = self._blobs.store(self.connection, lifted)[len(refused) :]
        values = [
            (row.number, row.trace, *row.facts[:7], packed(row.lifted.text, row.facts), refs)
            for row, refs in zip(rows, references, strict=True)
        ]
        numbers = {row.number for row in rows}
        if insert(self.connection, "INSERT OR IGNORE INTO records", values) < len(rows):
            found = self.connection.execute("SELECT id FROM records WHERE id >= ?", (min(numbers),))
            numbers = {number for (number,) in found}
        turns = [(row.trace, row.number, row.turn) for row in rows if row.turn and row.number in numbers]
        insert(self.connection, "INSERT INTO turns", turns)
        return numbers
