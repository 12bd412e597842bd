"""
Full-text search over all traces.

Its index is a SQLite file of its own beside the store, built from the store. It may be deleted at any time.
"""

from __future__ import annotations

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
from whyops_trace._database_file import remove
from whyops_trace._guard import told_once
from whyops_trace._home import SEARCH_FILE
from whyops_trace.exceptions import StoreError
from whyops_trace.server.query import Term
from whyops_trace.server.words import spaced, words_of_message, words_of_record
from whyops_trace.store import Store

T = TypeVar("T")

#: Records indexed in one transaction, so that neither other threads nor other processes wait long.
_SLICE: Final = 200
#: Most seconds that a search spends on updating the index.
_PATIENCE: Final = 0.08
#: Fewest records of deleted traces in the index that make it stale, if they also outnumber the others.
_STALE: Final = 1_000

# The texts themselves are only in the store. The index takes about a third of their size. A row of `words` is of a
# record, of a message that records share, or of the id of a trace: its number is three times theirs, and 0, 1 or 2.
_SCHEMA: Final = """
CREATE VIRTUAL TABLE words USING fts5(
    text, tool, model, content='', columnsize=0, tokenize='unicode61 remove_diacritics 2'
);
CREATE TABLE state (
    record INTEGER NOT NULL,
    message INTEGER NOT NULL,
    trace INTEGER NOT NULL,
    records INTEGER NOT NULL,
    key TEXT NOT NULL,
    file TEXT NOT NULL
);
INSERT INTO state VALUES (0, 0, 0, 0, '', '')
"""
# An index of format 1 had the messages of each trace by themselves. It is built anew.
_UPGRADE: Final = "DROP TABLE words; DROP TABLE traces; DROP TABLE docs; DROP TABLE state;" + _SCHEMA


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
        self._database = Database(home / SEARCH_FILE, _SCHEMA, (_UPGRADE,), disposable=True)
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
        ((indexed,),) = self._database.rows("SELECT records FROM state") or [(0,)]
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
        finally:
            self._filling.release()

    def _run(self) -> None:
        with told_once(StoreError):
            self._rebuild_if_stale()
        while not self._closed:
            self._wakeup.wait()
            self._wakeup.clear()
            # A store that cannot be read now may be readable at the next change.
            with told_once(StoreError):
                self.catch_up(float("inf"))

    def _take_slice(self) -> bool:
        """Index some records, messages and ids; return True if there may be more."""
        if not self._store.path.exists():
            return False
        with self._database.transaction() as connection:
            last_record, last_message, last_trace = self._begin(connection)
            records = self._store.light_after(last_record, _SLICE)
            messages = self._store.messages_after(last_message, _SLICE)
            traces = self._store.traces_after(last_trace, _SLICE)
            rows = [
                *((3 * number, *words_of_record(line)) for number, _, line in records),
                *((3 * number + 1, *words_of_message(json)) for number, json in messages),
                *((3 * number + 2, spaced(trace_id), "", "") for number, trace_id in traces),
            ]
            connection.executemany(
                "INSERT INTO words (rowid, text, tool, model) VALUES (?, ?, ?, ?)",
                sorted(row for row in rows if any(row[1:])),  # in another order FTS5 writes each by itself
            )
            if records:
                last_record, key, _ = records[-1]
                connection.execute("UPDATE state SET records = records + ?, key = ?", (len(records), key))
            last_message = messages[-1][0] if messages else last_message
            last_trace = traces[-1][0] if traces else last_trace
            connection.execute(
                "UPDATE state SET (record, message, trace) = (?, ?, ?)",
                (last_record, last_message, last_trace),
            )
        return _SLICE in (len(records), len(messages), len(traces))

    def _begin(self, connection: sqlite3.Connection) -> tuple[int, int, int]:
        """
        Return the numbers of the last record, message and trace that are indexed.

        If the index belongs to another store, it is emptied first.
        """
        ((record, message, trace, key, file),) = connection.execute(
            "SELECT record, message, trace, key, file FROM state"
        )
        status = os.stat(self._store.path)
        now = f"{status.st_dev}:{status.st_ino}"
        there = [(number, known) for number, known, _ in self._store.light_after(record - 1, 1)]
        if file == now and all(known == key for number, known in there if number == record):
            return record, message, trace
        _clear(connection, now)
        return 0, 0, 0

    def _rebuild_if_stale(self) -> None:
        """Start over if most indexed records belong to deleted traces."""
        ((indexed, file),) = self._database.rows("SELECT records, file FROM state") or [(0, "")]
        alive = self._store.record_count()
        if indexed - alive > max(_STALE, alive):
            with self._database.transaction() as connection:
                _clear(connection, file)

    def _holding(self, term: Term) -> set[str]:
        """Return the ids of the traces that hold a term in one of their records."""
        columns = ", ".join(
            f"json_group_array(rowid / 3) FILTER (WHERE rowid % 3 = {kind})" for kind in range(3)
        )
        rows = self._database.rows(f"SELECT {columns} FROM words WHERE words MATCH ?", _expression(term))  # noqa: S608
        return self._store.traces_of(*rows[0]) if rows else set()

    def _mended(self, action: Callable[[], T]) -> T:
        """Return the result of an action on the file. A damaged file was deleted then, and the action is repeated."""
        try:
            return action()
        except StoreError:
            if self._database.path.exists():
                raise
        return action()


def delete_index(home: Path) -> None:
    """Delete the index of a home, which holds the words of all traces. A new one is built from the remaining traces."""
    remove(home / SEARCH_FILE)


def _clear(connection: sqlite3.Connection, file: str) -> None:
    """Empty the index, and note the store that it is to be built from."""
    connection.execute("INSERT INTO words (words) VALUES ('delete-all')")
    connection.execute(
        "UPDATE state SET (record, message, trace, records, key, file) = (0, 0, 0, 0, '', ?)", (file,)
    )


def _expression(term: Term) -> str:
    """Return a term as an FTS5 expression, quoted, so that no character in it has a meaning there."""
    text = "".join(character if character.isprintable() else " " for character in spaced(term.text))
    quoted = '"' + text.replace('"', '""') + '"'
    return (f"{term.column} : " if term.column else "") + quoted + (" *" if term.begins else "")
