"""
A SQLite file in the home: made, opened, lent to callers, and closed when the process forks.

The user of a database brings the schema and knows the meaning of the rows.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias

from whyops_trace import _database_file as files
from whyops_trace._forks import at_fork
from whyops_trace.exceptions import StoreError

#: Seconds to wait for another process that writes.
BUSY_TIMEOUT: Final = 5.0
#: Seconds to wait for another thread of this process, which may itself wait for another process.
LOCK_TIMEOUT: Final = 30.0
#: Seconds that a fork waits for a transaction to end.
FORK_TIMEOUT: Final = 1.0
#: Seconds between two parts of an upgrade, in which another process that waits gets its turn.
UPGRADE_PAUSE: Final = 0.05
#: Bytes of the write-ahead log that are kept for the next writes.
LOG_BYTES: Final = 16 << 20


class MachineClock:
    """
    The clock of the machine, as SQLite reads it.

    Libraries that stop or move the time of a test replace Python's functions, but not these.
    """

    perf_counter_ns = staticmethod(time.perf_counter_ns)

    @staticmethod
    def time_ns() -> int:
        """Return nanoseconds since the epoch, to the millisecond."""
        with contextlib.closing(sqlite3.connect(":memory:")) as connection:
            ((days,),) = connection.execute("SELECT julianday('now') - 2440587.5")
        return round(float(days) * 86_400_000) * 1_000_000


class UnstorableError(StoreError):
    """A record has a value that no column takes, or a form that nobody thought of. The file is as it should be."""


#: Errors of SQLite about the values of a statement.
_OF_VALUES: Final = (
    sqlite3.DataError,
    sqlite3.IntegrityError,
    sqlite3.InterfaceError,
    sqlite3.ProgrammingError,
)
#: The names of the tables in a schema.
_FIRST_TABLE: Final = re.compile(r"CREATE (?:VIRTUAL )?TABLE (\w+)")
#: The step from one format of a file to the next.
Upgrade: TypeAlias = str | Callable[[sqlite3.Connection], bool]


class Database:
    """
    One SQLite file with one connection, which threads use in turn.

    Args:
        path: The file. The first transaction makes it, with its directory.
        schema: The statements that make its tables, separated by semicolons.
        disposable: True if a damaged file is deleted; others are set aside.
        upgrades: What brings a file of format 1 to format 2, from there to format 3, and so on: statements, or a
            function that does some of it each time, in an open transaction, and returns True until all is done. The
            format of *schema* is the last of them; a file of a higher one is left alone.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        schema: str,
        upgrades: Sequence[Upgrade] = (),
        *,
        disposable: bool = False,
    ) -> None:
        self._connection: sqlite3.Connection | None = None
        self._disposable = disposable
        #: True if the open file, or a copy of it, is only read.
        self._only_read = False
        self.path = Path(path)
        self._schema = schema
        self._upgrades = upgrades
        self._lock = threading.Lock()
        #: The file, as it was when it was opened.
        self._file: tuple[int, ...] = ()
        self._paused = False
        #: Number of the states that :meth:`version` saw, and the last of them.
        self._version = 0
        self._state: tuple[int, ...] = ()
        self._opened = 0
        _databases.add(self)

    def __del__(self) -> None:
        self._drop()  # nobody can close it any more, and sqlite3 warns of that

    def rows(self, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
        """
        Return all rows of a statement, none if there is no file yet.

        Raises:
            StoreError: if the file cannot be read.
        """
        if not os.path.exists(self.path):  # False without permission to look, where Path.exists() raises
            return []
        with self.session() as connection:
            try:
                return connection.execute(statement, parameters).fetchall()
            except UnicodeEncodeError:  # no row holds half a character, such as one typed in another encoding
                return []
            except sqlite3.OperationalError as error:
                if files.is_no_text(error):
                    raise files.DamagedError(str(error)) from error
                raise

    def version(self) -> int:
        """
        Return a number that changes with every write, by any process.

        Raises:
            StoreError: if the file cannot be read.
        """
        if not os.path.exists(self.path):
            return self._version
        with self.session() as connection:
            # SQLite counts the writes of other connections and of this one separately.
            ((others,),) = connection.execute("PRAGMA data_version").fetchall()
            state = (self._opened, others, connection.total_changes)
            if state != self._state:
                self._state = state
                self._version += 1
            return self._version

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """
        Lend the connection for a transaction that writes.

        Raises:
            StoreError: if the file cannot be written. Nothing is changed then.
        """
        with self.session(writing=True) as connection:
            # Not a plain BEGIN: if another process wrote between this transaction's first read and first write, SQLite
            # would refuse it without waiting.
            connection.execute("BEGIN IMMEDIATE")
            yield connection
            connection.execute("COMMIT")

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[sqlite3.Connection]:
        """
        Lend the connection for statements that all see one state of the file.

        Raises:
            StoreError: if the file cannot be read.
        """
        with self.session() as connection:
            connection.execute("BEGIN")
            yield connection
            connection.execute("COMMIT")

    @contextlib.contextmanager
    def session(self, *, writing: bool = False) -> Iterator[sqlite3.Connection]:
        """
        Lend the connection. Any exception closes it, which undoes uncommitted changes.

        Args:
            writing: True to write. A file that cannot be written, or a full disk, may still be read.

        Raises:
            StoreError: if the file cannot be used. If it is damaged it is set aside, and the next use makes a new one.
        """
        with self._locked():
            try:
                yield self._connect(writing)
            except (sqlite3.Error, OSError, UnicodeDecodeError) as error:
                raise self._failed(error) from error
            except BaseException:
                self._drop()
                raise

    @contextlib.contextmanager
    def in_place(self) -> Iterator[sqlite3.Connection]:
        """
        Lend a connection that writes without a log, which would need room on the disk.

        No other process may have the file open. A kill in the middle of a transaction may damage it.

        Raises:
            StoreError: if the file cannot be used so.
        """
        with self._locked():
            self._drop()
            try:
                with contextlib.closing(_connected(self.path)) as connection:
                    connection.execute("PRAGMA locking_mode = EXCLUSIVE")  # needs no index of the log either
                    connection.execute("PRAGMA journal_mode = MEMORY").fetchall()
                    yield connection
            except (sqlite3.Error, OSError, UnicodeDecodeError) as error:
                raise self._failed(error) from error

    def set_aside(self, reason: object) -> StoreError:
        """Set the file aside, as what is in it cannot be understood; return the error to raise."""
        with self._locked():
            return self._set_aside(reason)

    def _failed(self, error: sqlite3.Error | OSError | UnicodeDecodeError) -> StoreError:
        """Return the error that tells what happened; set a damaged file aside."""
        if files.is_damage(self.path, error, self._connection, 1 + len(self._upgrades)):
            return self._set_aside(error)
        self._drop()
        if isinstance(error, _OF_VALUES):
            return UnstorableError(f"{self.path} takes no such values ({error}).")
        return StoreError(_explained(self.path, error))

    def _set_aside(self, reason: object) -> StoreError:
        problem = f"{self.path} is damaged, or no store at all ({reason})"
        is_same = files.state(self.path)[:2] == self._file[:2]  # nobody has set it aside already
        self._drop()
        if self._disposable and os.path.isfile(self.path):
            with contextlib.suppress(OSError):
                files.remove(self.path)
                return StoreError(f"{problem}: it is made anew.")
        if not is_same:
            return StoreError(f"{problem}. Another file has taken its place.")
        aside = files.set_aside(self.path)
        if aside is None:
            return StoreError(f"{problem}: move it away and a new one is made.")
        return StoreError(f"{problem}. It is kept as {aside}, and what comes now goes to a new one.")

    def close(self) -> None:
        """Close the file. The next use opens it again."""
        with self._locked():
            self._drop()

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        if not self._lock.acquire(timeout=LOCK_TIMEOUT):
            raise StoreError(f"{self.path} is in use by another thread of this process.")
        try:
            yield
        finally:
            self._lock.release()

    def _connect(self, writing: bool) -> sqlite3.Connection:
        if self._connection is not None:
            # The file may have been deleted or replaced. Writes to the old one would be lost.
            now = files.state(self.path)
            if (self._file != now if self._only_read else self._file[:2] != now[:2]) or (
                writing and self._only_read
            ):
                self._drop()
        if self._connection is None:
            self._opened += 1
            try:
                return self._open()
            except (sqlite3.Error, OSError) as error:
                if writing or not files.may_be_read(error) or not os.path.isfile(self.path):
                    raise
            self._drop()
            return self._open_to_read()
        return self._connection

    def _open(self) -> sqlite3.Connection:
        if not files.can_be_written(self.path) and os.path.isfile(self.path):
            raise PermissionError(errno.EACCES, "it can only be read")
        files.make_file(self.path)
        self._file = files.state(self.path)
        connection = self._keep(_connected(self.path))
        _prepare(connection, self.path, self._schema, self._upgrades)
        return connection

    def _open_to_read(self) -> sqlite3.Connection:
        self._only_read = True
        self._file = files.state(self.path)
        connection = files.open_to_read(self.path)
        newest = 1 + len(self._upgrades)
        if connection is not None:
            self._keep(connection)
            if _format(connection, self.path, newest, self._schema) == newest:
                return connection
            self._drop()
            self._only_read = True
        connection = self._keep(*files.copied(self.path))
        _prepare(connection, self.path, self._schema, self._upgrades)
        connection.execute("PRAGMA query_only = ON")
        return connection

    def _keep(self, connection: sqlite3.Connection, folder: Path | None = None) -> sqlite3.Connection:
        self._connection = connection
        # The same as __del__, which comes too late if it is collected together with the connection.
        self._closing = weakref.finalize(self, _close, connection, folder)
        self._closing.atexit = folder is not None
        return connection

    def _drop(self) -> None:
        self._only_read = False
        if self._connection is not None:
            # Not called: a finalizer does nothing any more once the interpreter is past its own exit functions.
            if (closing := self._closing.detach()) is not None:
                _, close, arguments, _ = closing
                close(*arguments)
            self._connection = None

    def _pause(self) -> None:
        self._paused = self._lock.acquire(timeout=FORK_TIMEOUT)
        if self._paused:
            self._drop()

    def _resume(self) -> None:
        if self._paused:
            self._paused = False
            self._lock.release()

    def _start_over(self) -> None:
        self._lock = threading.Lock()
        self._paused = False
        if self._connection is not None:
            _abandoned.append(self._connection)
            self._closing.detach()
            self._connection = None


def _connected(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=False)


def _close(connection: sqlite3.Connection, folder: Path | None) -> None:
    connection.close()
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)


def _prepare(connection: sqlite3.Connection, path: Path, schema: str, upgrades: Sequence[Upgrade]) -> None:
    """
    Make the tables of a new file, upgrade those of an earlier format, and refuse any other file.

    Raises:
        StoreError: if the file belongs to another program or a newer version.
    """
    newest = 1 + len(upgrades)
    if not _format(connection, path, newest, schema):
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    _log_ahead(connection)
    # In WAL mode this never damages the file; a power cut may take the last batches back out of it.
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute(f"PRAGMA journal_size_limit = {LOG_BYTES}")
    while _format(connection, path, newest, schema) != newest:
        connection.execute("BEGIN IMMEDIATE")
        current = _format(connection, path, newest, schema)  # another process may have been faster
        is_done = current == newest or _upgrade(connection, upgrades[current - 1] if current else schema)
        if is_done and current != newest:
            connection.execute(f"PRAGMA user_version = {current + 1 if current else newest}")
        connection.execute("COMMIT")
        if not is_done:
            time.sleep(UPGRADE_PAUSE)


def _upgrade(connection: sqlite3.Connection, step: Upgrade) -> bool:
    """Do an upgrade, or a part of it; return True if it is done."""
    if not isinstance(step, str):
        return not step(connection)
    for statement in step.split(";"):
        connection.execute(statement)
    return True


def _log_ahead(connection: sqlite3.Connection) -> None:
    """Switch to a write-ahead log. If another process is switching too, SQLite reports a lock at once: then retry."""
    deadline = time.monotonic() + BUSY_TIMEOUT
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


def _format(connection: sqlite3.Connection, path: Path, newest: int, schema: str) -> int:
    """
    Return the format of the file, 0 if it is empty.

    Raises:
        StoreError: if the file belongs to another program or a newer version.
        DamagedError: if it is ours, but without a format that any version has.
    """
    # One statement reads one state of the file, even while another process makes the tables.
    ((version, filled, is_ours),) = connection.execute(
        "SELECT user_version, EXISTS (SELECT 1 FROM sqlite_master), EXISTS (SELECT 1 FROM sqlite_master WHERE name = ?)"
        " FROM pragma_user_version",
        (_FIRST_TABLE.findall(schema)[0],),
    )
    if is_ours and not 0 < version < files.MAX_FORMAT:
        raise files.DamagedError(f"it has the format {version}")
    if filled and not is_ours:
        raise StoreError(f"{path} is the database of another program: move it away, or choose another home.")
    if version > newest:
        raise StoreError(
            f"{path} is a store of format {version} and this whyops-trace reads format {newest}: "
            "upgrade it with pip install -U whyops-trace, or move the file away."
        )
    return int(version)


def _explained(path: Path, error: sqlite3.Error | OSError | UnicodeDecodeError) -> str:
    """Return the problem of the file and its remedy."""
    if files.is_busy(error):
        return f"{path} is busy: another process has been writing to it for {BUSY_TIMEOUT:.0f} seconds."
    if files.is_full(error):
        return f"{path} cannot be written, as its disk is full ({error}): `whyops-trace rm` frees room."
    if os.path.exists(path) and not os.access(path, os.R_OK):
        return f"{path} cannot be read by this user ({error})."
    return f"{path} cannot be used ({error}): its directory has to be writable and needs room."


#: Every database alive. SQLite keeps its locks for the whole process. A child that inherits an open file, or is born
#: during another thread's transaction, hangs or damages the file. So none is open while forking. See "Carrying an open
#: database connection across a fork" in https://www.sqlite.org/howtocorrupt.html.
_databases: weakref.WeakSet[Database] = weakref.WeakSet()
#: Connections inherited nevertheless, from a transaction that took too long. Closing one is as harmful.
_abandoned: list[sqlite3.Connection] = []


def _before_fork() -> None:
    for database in sorted(_databases, key=id):
        database._pause()


def _after_fork_in_parent() -> None:
    for database in _databases:
        database._resume()


def _after_fork_in_child() -> None:
    for database in _databases:
        database._start_over()


at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
