"""Statements with many parameters, as few of them as possible."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any, Final, TypeVar

T = TypeVar("T")

#: Records that one statement inserts. Each step of a statement gives up the GIL, and a busy thread then
#: keeps it for 5 ms: a step for each record would store 500 a second beside such a thread. Many more than
#: this would hold the GIL for a millisecond while they are decoded, or have more values than a statement takes.
SLICE: Final = 90
#: Parameters of a statement that every build of SQLite takes.
MAX_PARAMETERS: Final = 999

#: The bytes that the store keeps of a trace, for a statement on traces: its own, and those that it shares with others.
SIZE: Final = (
    "(coalesce((SELECT sum(length(line)) FROM records WHERE trace = traces.id), 0) + coalesce("
    "(SELECT sum(length(data)) FROM uses JOIN blobs ON blobs.id = blob WHERE trace = traces.id), 0))"
)


def marks(n: int) -> str:
    """Return *n* places for parameters: ``(?,?,?)``."""
    return "(" + ",".join("?" * n) + ")"


def slices(items: Sequence[T], size: int = MAX_PARAMETERS) -> Iterator[Sequence[T]]:
    """Yield so many items at a time."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def insert(connection: sqlite3.Connection, statement: str, rows: Sequence[tuple[Any, ...]]) -> int:
    """Insert rows with as few statements as possible; return how many were taken."""
    taken = 0
    for part in slices(rows, MAX_PARAMETERS // len(rows[0]) if rows else 1):
        places = ",".join([marks(len(part[0]))] * len(part))
        taken += connection.execute(f"{statement} VALUES {places}", list(chain.from_iterable(part))).rowcount
    return taken
