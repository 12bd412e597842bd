"""
Full-text search over all traces.

Its index is a SQLite file of its own beside the store, made of what is in the store. It may be deleted at any time.
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

#: The index in a home.
SEARCH_FILE: Final = "search.db"
#: Records taken in at once, so that neither other threads nor other processes wait long.
_SLICE: Final = 200
#: Seconds that a search takes at most to bring the index up to date.
_PATIENCE: Final = 0.08
#: Records of deleted traces in the index from which on it is looked at whether they are more than the others.
_STALE: Final = 1_000

# Without the texts themselves, which are in the store: the index takes about a third of them.
_SCHEMA: Final = """
CREATE VIRTUAL TABLE words USING fts5(
    text, tool, model, content='', columnsize=0, tokenize='unicode61 remove_diacritics 2'
);
CREATE TABLE traces (id INTEGER PRIMARY KEY, trace_id TEXT NOT NULL UNIQUE);
CREATE TABLE docs (number INTEGER PRIMARY KEY, trace INTEGER NOT NULL);
CREATE TABLE state (last INTEGER NOT NULL, key TEXT NOT NULL, file TEXT NOT NULL);
INSERT INTO state VALUES (0, '', '')
"""


class Found(NamedTuple):
    """
    What a search found.

    Attributes:
        trace_ids: The traces.
        behind: Whether there are records that the index does not have yet.
        indexed: How many it has.
    """

    trace_ids: list[str]
    behind: bool
    indexed: int


class Index:
    """
    The words of all traces in a store.

    Safe to use from several threads and processes.

    Args:
        home: Where its file is.
        store: What is indexed.
    """

    def __init__(self, home: Path, store: Store) -> None:
        self._store = store
        self._database = Database(home / SEARCH_FILE, _SCHEMA)
        self._reader = Reader()
        self._filling = threading.Lock()
        self._wanted = threading.Event()
        self._closed = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Keep the index up to date in the background, each time after :meth:`wake`."""
        self._thread = threading.Thread(target=self._run, name="whyops-search", daemon=True)
        self._thread.start()
        self.wake()

    def wake(self) -> None:
        """Say that there may be something new."""
        self._wanted.set()

    def close(self) -> None:
        """Stop, and close the file."""
        self._closed = True
        self.wake()
        if self._thread is not None:
            self._thread.join()
        self._database.close()

    def find(self, terms: Iterable[Term], patience: float = _PATIENCE) -> Found:
        """
        Return the traces that hold all of these.

        Args:
            terms: What is looked for; each may stand in another record of the trace.
            patience: Seconds to bring the index up to date before.

        Raises:
            StoreError: if the index or the store cannot be read.
        """
        behind = not self.catch_up(patience)
        found: set[str] | None = None
        for term in terms:
            holding = self._mended(partial(self._holding, term))
            found = holding if found is None else found & holding
            if not found:
                break
        ((indexed,),) = self._database.rows("SELECT count(*) FROM docs") or [(0,)]
        return Found(sorted(found or ()), behind, indexed)

    def catch_up(self, seconds: float) -> bool:
        """
        Take in what is new in the store, for about so many seconds.

        Returns:
            Whether nothing is left.

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
            self._reader = Reader()  # what it remembers to be indexed may not be
            raise
        finally:
            self._filling.release()

    def _run(self) -> None:
        with contextlib.suppress(StoreError):
            self._rebuild_if_stale()
        while not self._closed:
            self._wanted.wait()
            self._wanted.clear()
            # A store that cannot be read now may be readable when there is something new in it.
            with contextlib.suppress(StoreError):
                self.catch_up(float("inf"))

    def _take_slice(self) -> bool:
        """Index some records; return whether there may be more."""
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
                read = self._reader.read(event.number, event.trace_id, event.line)
                if any(read):
                    words.append((event.number, *read))
                    docs.append((event.number, numbers[event.trace_id]))
            connection.executemany("INSERT INTO words (rowid, text, tool, model) VALUES (?, ?, ?, ?)", words)
            connection.executemany("INSERT INTO docs VALUES (?, ?)", docs)
            connection.execute("UPDATE state SET last = ?, key = ?", (events[-1].number, events[-1].key))
        return len(events) == _SLICE

    def _begin(self, connection: sqlite3.Connection) -> int:
        """Return the number of the last record that is indexed; start over if it was one of another store."""
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
        """Start over if most of what is indexed is of traces that are deleted."""
        numbers = [number for (number,) in self._database.rows("SELECT number FROM docs")]
        left = 0
        for start in range(0, len(numbers), 5_000):
            left += len(self._store.known(numbers[start : start + 5_000]))
            give_way()
        if len(numbers) - left > max(_STALE, left):
            with self._database.transaction() as connection:
                _clear(connection)
                connection.execute("UPDATE state SET last = 0, key = ''")

    def _holding(self, term: Term) -> set[str]:
        """Return the traces that hold a term in one of their records."""
        hits = self._database.rows(
            "SELECT trace, max(number) FROM words JOIN docs ON number = words.rowid WHERE words MATCH ? GROUP BY trace",
            _expression(term),
        )
        # Traces are deleted as a whole: where the latest record that holds it is gone, all earlier ones are.
        known = self._store.known([number for _, number in hits])
        ids = [trace for trace, number in hits if number in known]
        rows = self._database.rows(
            "SELECT trace_id FROM traces WHERE id IN (SELECT value FROM json_each(?))", json.dumps(ids)
        )
        return {trace_id for (trace_id,) in rows}

    def _mended(self, action: Callable[[], T]) -> T:
        """Do something with the file; if it is damaged, with a new one."""
        try:
            return action()
        except StoreError as error:
            name = getattr(error.__cause__, "sqlite_errorname", "")
            if not name.startswith(("SQLITE_NOTADB", "SQLITE_CORRUPT")):
                raise
        delete_index(self._database.path.parent)
        return action()


def delete_index(home: Path) -> None:
    """Delete the index of a home, which holds the words of all traces; a new one is made of those that are left."""
    for ending in ("-wal", "-shm", ""):
        (home / (SEARCH_FILE + ending)).unlink(missing_ok=True)


def _trace_numbers(connection: sqlite3.Connection, trace_ids: Iterable[str]) -> dict[str, int]:
    """Return what the index knows each trace by."""
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
    """Return a term in the language of FTS5, quoted, so that nothing in it has a meaning there."""
    text = "".join(character if character.isprintable() else " " for character in spaced(term.text))
    quoted = '"' + text.replace('"', '""') + '"'
    return (f"{term.column} : " if term.column else "") + quoted + (" *" if term.begins else "")
