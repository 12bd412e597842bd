"""
Full-text search over all traces.

Its index is a SQLite file of its own beside the store, built from the store. It may be deleted at any time.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

from whyops_trace._clock import give_way
from whyops_trace._database import Database
from whyops_trace.exceptions import StoreError
from whyops_trace.server.query import Term
from whyops_trace.server.words import Reader, spaced
from whyops_trace.store import Store

T = TypeVar("T")

#: File of the index in a home.
SEARCH_FILE: Final = "search.db"
#: Records indexed in one transaction, so that neither other threads nor other processes wait long.
_SLICE: Final = 200
#: Most seconds that a search spends on updating the index.
_PATIENCE: Final = 0.08
#: Fewest records of deleted traces in the index that make it stale, if they also outnumber the others.
_STALE: Final = 1_000

# The texts themselves are only in the store. The index takes about a third of their size.
_SCHEMA: Final = """
CREATE VIRTUAL TABLE words USING fts5(
    text, tool, model, content='', columnsize=0, tokenize='unicode61 remove_diacritics 2'
);
CREATE TABLE traces (id INTEGER PRIMARY KEY, trace_id TEXT NOT NULL UNIQUE);
CREATE TABLE docs (number INTEGER PRIMARY KEY, trace INTEGER NOT NULL);
CREATE TABLE state (last INTEGER NOT NULL, key TEXT NOT NULL, file TEXT NOT NULL);
INSERT INTO state VALUES (0, '', '')
"""


class SearchResult(NamedTuple):
    """
    The result of a search.

    Attributes:
        trace_ids: The traces.
        behind: True if the index lacks some records yet.
        indexed: Number of records in the index.
    """

    trace_ids: list[str]
    behind: bool
    indexed: int


class Index:
    """
    The words of all traces in a store.

    It is safe to use from several threads and processes.

    Args:
        home: The home of its file.
        store: The store to index.
    """

    def __init__(self, home: Path, store: Store) -> None:
        self._store = store
        self._database = Database(home / SEARCH_FILE, _SCHEMA)
        self._reader = Reader()
        self._filling = threading.Lock()
        self._wakeup = threading.Event()
        self._closed = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Keep the index up to date in the background, each time after :meth:`wake`."""
        self._thread = threading.Thread(target=self._run, name="whyops-search", daemon=True)
        self._thread.start()
        self.wake()

    def wake(self) -> None:
        """Signal that the store may have new records."""
        self._wakeup.set()

    def close(self) -> None:
        """Stop, and close the file."""
        self._closed = True
        self.wake()
        if self._thread is not None:
            self._thread.join()
        self._database.close()

    def find(self, terms: Iterable[Term], patience: float = _PATIENCE) -> SearchResult:
        """
        Return the traces that hold all terms.

        Args:
            terms: The terms to search for. Each may be in another record of the trace.
            patience: Seconds for updating the index first.

        Raises:
            StoreError: if the index or the store cannot be read.
        """
        behind = not self.catch_up(patience)
        trace_ids: set[str] | None = None
        for term in terms:
            holding = self._mended(partial(self._holding, term))
            trace_ids = holding if trace_ids is None else trace_ids & holding
            if not trace_ids:
                break
        ((indexed,),) = self._database.rows("SELECT count(*) FROM docs") or [(0,)]
        return SearchResult(sorted(trace_ids or ()), behind, indexed)

    def catch_up(self, seconds: float) -> bool:
        """
        Index the new records of the store, for about so many seconds.

        Returns:
            True if no new record is left.

        Raises:
            StoreError: if the index or the store cannot be used.
        """
        deadline = time.monotonic() + seconds
        if not self._filling.acquire(timeout=min(seconds, threading.TIMEOUT_MAX)):
            return False
        try:
            while self._mended(self._take_slice):
                if time.monotonic() > deadline or self._closed:
                    return False
                give_way()
            return True
        except BaseException:
            self._reader = Reader()  # its memory of indexed records may be wrong now
            raise
        finally:
            self._filling.release()

    def _run(self) -> None:
        with contextlib.suppress(StoreError):
            self._rebuild_if_stale()
        while not self._closed:
            self._wakeup.wait()
            self._wakeup.clear()
            # A store that cannot be read now may be readable at the next change.
            with contextlib.suppress(StoreError):
                self.catch_up(float("inf"))

    def _take_slice(self) -> bool:
        """Index some records; return True if there may be more."""
        if not self._store.path.exists():
            return False
        with self._database.transaction() as connection:
            last = self._begin(connection)
            events = self._store.all_after(last, _SLICE)
            if not events:
                return False
            numbers = _trace_numbers(connection, dict.fromkeys(event.trace_id for event in events))
            self._reader.forget(numbers, self._store.known)
            words, docs = [], []
            for event in events:
                columns = self._reader.read(event.number, event.trace_id, event.line)
                if any(columns):
                    words.append((event.number, *columns))
                    docs.append((event.number, numbers[event.trace_id]))
            connection.executemany("INSERT INTO words (rowid, text, tool, model) VALUES (?, ?, ?, ?)", words)
            connection.executemany("INSERT INTO docs VALUES (?, ?)", docs)
            connection.execute("UPDATE state SET last = ?, key = ?", (events[-1].number, events[-1].key))
        return len(events) == _SLICE

    def _begin(self, connection: sqlite3.Connection) -> int:
        """Return the number of the last indexed record. Start over if the index belongs to another store."""
        ((last, key, file),) = connection.execute("SELECT last, key, file FROM state")
        status = os.stat(self._store.path)
        now = f"{status.st_dev}:{status.st_ino}"
        if file == now:
            ends = self._store.all_after(last - 1, 1)
            if not ends or ends[0].number != last or ends[0].key == key:
                return int(last)
        _clear(connection)
        self._reader = Reader()
        connection.execute("UPDATE state SET last = 0, key = '', file = ?", (now,))
        return 0

    def _rebuild_if_stale(self) -> None:
        """Start over if most indexed records belong to deleted traces."""
        numbers = [number for (number,) in self._database.rows("SELECT number FROM docs")]
        alive = 0
        for start in range(0, len(numbers), 5_000):
            alive += len(self._store.known(numbers[start : start + 5_000]))
            give_way()
        if len(numbers) - alive > max(_STALE, alive):
            with self._database.transaction() as connection:
                _clear(connection)
                connection.execute("UPDATE state SET last = 0, key = ''")

    def _holding(self, term: Term) -> set[str]:
        """Return the ids of the traces that hold a term in one of their records."""
        hits = self._database.rows(
            "SELECT trace, max(number) FROM words JOIN docs ON number = words.rowid WHERE words MATCH ? GROUP BY trace",
            _expression(term),
        )
        # Traces are deleted as a whole: without the latest record that holds the term, all earlier ones are gone too.
        numbers = self._store.known([number for _, number in hits])
        ids = [trace for trace, number in hits if number in numbers]
        rows = self._database.rows(
            "SELECT trace_id FROM traces WHERE id IN (SELECT value FROM json_each(?))", json.dumps(ids)
        )
        return {trace_id for (trace_id,) in rows}

    def _mended(self, action: Callable[[], T]) -> T:
        """Return the result of an action on the file. If the file is damaged, repeat the action on a new one."""
        try:
            return action()
        except StoreError as error:
            name = getattr(error.__cause__, "sqlite_errorname", "")
            if not name.startswith(("SQLITE_NOTADB", "SQLITE_CORRUPT")):
                raise
        delete_index(self._database.path.parent)
        return action()


def delete_index(home: Path) -> None:
    """Delete the index of a home, which holds the words of all traces. A new one is built from the remaining traces."""
    for ending in ("-wal", "-shm", ""):
        (home / (SEARCH_FILE + ending)).unlink(missing_ok=True)


def _trace_numbers(connection: sqlite3.Connection, trace_ids: Iterable[str]) -> dict[str, int]:
    """Return the number of each trace in the index."""
    numbers = {}
    for trace_id in trace_ids:
        connection.execute("INSERT OR IGNORE INTO traces (trace_id) VALUES (?)", (trace_id,))
        ((numbers[trace_id],),) = connection.execute("SELECT id FROM traces WHERE trace_id = ?", (trace_id,))
    return numbers


def _clear(connection: sqlite3.Connection) -> None:
    connection.execute("INSERT INTO words (words) VALUES ('delete-all')")
    connection.execute("DELETE FROM docs")
    connection.execute("DELETE FROM traces")


def _expression(term: Term) -> str:
    """Return a term as an FTS5 expression, quoted, so that no character in it has a meaning there."""
    text = "".join(character if character.isprintable() else " " for character in spaced(term.text))
    quoted = '"' + text.replace('"', '""') + '"'
    return (f"{term.column} : " if term.column else "") + quoted + (" *" if term.begins else "")
