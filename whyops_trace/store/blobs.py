"""The values that records share: each is stored once under a number, and a table of uses says which trace has which."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Final

from whyops_trace.store.lifting import Blob, Lifted
from whyops_trace.store.packing import compressed
from whyops_trace.store.references import Part, written
from whyops_trace.store.statements import insert, marks, slices

#: Blobs whose numbers are remembered at most, and traces whose blobs are.
MAX_NUMBERS: Final = 20_000
MAX_TRACES: Final = 1_000


class Blobs:
    """
    The numbers of blobs, of which those of the latest records are remembered.

    A failed transaction makes what is remembered wrong, and so does a deletion by another process.
    """

    def __init__(self) -> None:
        self._numbers: dict[bytes, int] = {}
        self._used: dict[int, set[int]] = {}

    def forget(self) -> None:
        """Forget the numbers."""
        self._numbers.clear()
        self._used.clear()

    def store(
        self,
        connection: sqlite3.Connection,
        lifted: Sequence[tuple[int, Lifted]],
    ) -> list[str | None]:
        """
        Store the blobs of records that are not stored yet, in an open transaction.

        Args:
            connection: The connection.
            lifted: The records, each with the number of its trace.

        Returns:
            The references of each record.
        """
        if len(self._numbers) > MAX_NUMBERS or len(self._used) > MAX_TRACES:
            self.forget()
        lines = [line for _, line in lifted]
        self._look_up(connection, {each for line in lines for place in line.places for each in place.hashes})
        self._add(connection, (blob for line in lines for blob in line.new))
        number_of = self._numbers.__getitem__
        references: list[str | None] = []
        uses: list[tuple[int, int]] = []
        for trace, line in lifted:
            if not line.places:
                references.append(None)
                continue
            parts = [
                Part(place.hole, place.separator, [*map(number_of, place.hashes)], place.part)
                for place in line.places
            ]
            references.append(written(parts))
            used = self._used.setdefault(trace, set())
            unused = {number for part in parts for number in part.numbers} - used
            used |= unused
            uses += ((trace, number) for number in sorted(unused))
        insert(connection, "INSERT OR IGNORE INTO uses", uses)
        return references

    def _look_up(self, connection: sqlite3.Connection, hashes: set[bytes]) -> None:
        """Find the numbers of blobs that are stored."""
        for some in slices([each for each in hashes if each not in self._numbers]):
            rows = connection.execute(f"SELECT hash, id FROM blobs WHERE hash IN {marks(len(some))}", some)  # noqa: S608
            self._numbers.update(rows.fetchall())

    def _add(self, connection: sqlite3.Connection, blobs: Iterable[Blob]) -> None:
        """Store those of some blobs that are not stored, in their order."""
        new = {blob.hash: blob for blob in blobs if blob.hash not in self._numbers}
        if not new:
            return
        ((last,),) = connection.execute(
            "SELECT max((SELECT coalesce(max(id), 0) FROM blobs), blob) FROM deleted"
        )
        rows = []
        for number, blob in enumerate(new.values(), last + 1):
            self._numbers[blob.hash] = number
            rows.append((number, blob.hash, blob.kind == "message", compressed(blob.data.decode())))
        insert(connection, "INSERT INTO blobs", rows)
