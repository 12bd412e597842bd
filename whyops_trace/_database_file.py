"""The file of a database: made private, opened where it can only be read, and set aside once it is damaged."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sqlite3
import tempfile
from itertools import count
from pathlib import Path
from typing import Final
from urllib.parse import quote

from whyops_trace._home import is_writable, make_private

#: Endings of the files beside a database: its write-ahead log, the index of that, and the journal of other modes.
LOG, INDEX, JOURNAL = "-wal", "-shm", "-journal"
#: Errors of SQLite after which a file may still be read, though it cannot be written.
_ONLY_WRITING: Final = ("SQLITE_FULL", "SQLITE_IOERR", "SQLITE_CANTOPEN", "SQLITE_READONLY", "SQLITE_PERM")
#: Highest format that any version will ever have; a file of a higher one is damaged.
MAX_FORMAT: Final = 10_000
#: Errors of SQLite on a disk without room, for the file, its log or the index of that.
_FULL: Final = ("SQLITE_FULL", "SQLITE_IOERR_WRITE", "SQLITE_IOERR_SHMSIZE", "SQLITE_IOERR_TRUNCATE")
#: Errors of SQLite for what it cannot understand.
_DAMAGE: Final = ("SQLITE_NOTADB", "SQLITE_CORRUPT", "SQLITE_IOERR_SHORT_READ")
#: Beginnings of messages about a file that lacks what its format has.
_LACKS: Final = ("no such table", "no such column", "table ")


class DamagedError(sqlite3.DatabaseError):
    """A file has what no version writes."""


def beside(path: Path, ending: str) -> Path:
    """Return a file beside a database."""
    return path.with_name(path.name + ending)


def make_file(path: Path) -> None:
    """
    Make an empty file that only its owner can read, with any umask; close one that was opened to others.

    Raises:
        OSError: if it cannot be made.
    """
    make_private(path.parent)
    try:
        # Only a new file is opened here: closing one that SQLite has open would end its locks.
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        for each in (path, beside(path, LOG), beside(path, INDEX)):
            with contextlib.suppress(OSError):  # it is not there, or somebody else's
                if os.path.isfile(each) and each.stat().st_mode & 0o077:
                    each.chmod(0o600)
    else:
        os.close(descriptor)
        path.chmod(0o600)


def can_be_written(path: Path) -> bool:
    """Return True if a database can be written, or made."""
    return is_writable(path.parent) and (not os.path.exists(path) or is_writable(path))


def is_no_text(error: BaseException | None) -> bool:
    """Return True if an error comes from a text in a row that is no UTF-8."""
    return isinstance(error, sqlite3.OperationalError) and str(error).startswith("Could not decode")


def is_full(error: BaseException | None) -> bool:
    """Return True if an error comes from a disk without room."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return getattr(error, "sqlite_errorname", "") in _FULL


def is_busy(error: BaseException | None) -> bool:
    """Return True if an error comes from another process that uses a file."""
    return getattr(error, "sqlite_errorname", "").startswith(("SQLITE_BUSY", "SQLITE_LOCKED"))


def may_grow_to(size: int) -> bool:
    """Return True if this process may write to a file up to so many bytes; the limit is no matter of the disk."""
    try:
        import resource
    except ModuleNotFoundError:  # not every system has such a limit
        return True
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    return limit == resource.RLIM_INFINITY or limit >= size


def may_be_read(error: sqlite3.Error | OSError) -> bool:
    """Return True if a file that could not be opened for writing may be readable."""
    return isinstance(error, OSError) or getattr(error, "sqlite_errorname", "").startswith(_ONLY_WRITING)


def state(path: Path) -> tuple[int, ...]:
    """Return numbers that change when another file takes the place of a database, or somebody writes to it."""
    numbers: list[int] = []
    for each in (path, beside(path, LOG)):
        with contextlib.suppress(OSError):
            status = each.stat()
            numbers += (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
    return tuple(numbers)


def open_to_read(path: Path) -> sqlite3.Connection | None:
    """
    Open a file that cannot be written, None if it takes a copy to read all that is in it.

    Its log is read with it. If SQLite cannot read that without writing, and there is something in it, it takes a copy.

    Raises:
        sqlite3.Error: if the file cannot be read.
    """
    with contextlib.suppress(sqlite3.OperationalError):
        return _opened(path, "mode=ro")
    if _has_content(beside(path, LOG)) or _has_content(beside(path, JOURNAL)):
        return None
    return _opened(path, "immutable=1")


def copied(path: Path) -> tuple[sqlite3.Connection, Path]:
    """
    Open a copy of a file with its log; return also its folder, which has to be deleted at the end.

    Raises:
        OSError: if there is no room for it.
        sqlite3.Error: if it cannot be opened.
    """
    folder = Path(tempfile.mkdtemp(prefix="whyops-trace-"))
    try:
        for ending in ("", LOG, JOURNAL):
            with contextlib.suppress(FileNotFoundError):
                shutil.copyfile(beside(path, ending), folder / (path.name + ending))
        return sqlite3.connect(folder / path.name, isolation_level=None, check_same_thread=False), folder
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _opened(path: Path, mode: str) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"file:{quote(str(path))}?{mode}", uri=True, isolation_level=None, check_same_thread=False
    )
    try:
        connection.execute("SELECT count(*) FROM sqlite_master").fetchall()
    except BaseException:
        connection.close()
        raise
    return connection


def _has_content(path: Path) -> bool:
    try:
        return path.stat().st_size > 0
    except FileNotFoundError:
        return False


def is_damage(path: Path, error: Exception, connection: sqlite3.Connection | None, newest: int) -> bool:
    """
    Return True if an error comes from damage of a file.

    Args:
        path: The file.
        error: The error.
        connection: The connection that it happened on, None without one.
        newest: The format of the file, if it has one that can be read.
    """
    if os.path.isdir(path) or isinstance(
        error, (DamagedError, UnicodeDecodeError)
    ):  # of an error about the schema
        return True
    name = getattr(error, "sqlite_errorname", "")
    if name.startswith(_DAMAGE):
        return True
    if connection is None or not isinstance(error, sqlite3.Error):
        return False
    if name == "SQLITE_ERROR" and str(error).startswith(_LACKS):
        # Not where another process has brought the file to the format of a newer version.
        return _fact(connection, "user_version") == newest
    return isinstance(error, sqlite3.IntegrityError) and _fact(connection, "quick_check(1)") != "ok"


def _fact(connection: sqlite3.Connection, pragma: str) -> object:
    try:
        return connection.execute(f"PRAGMA {pragma}").fetchone()[0]
    except sqlite3.Error as error:
        return str(error)


def set_aside(path: Path) -> Path | None:
    """Rename a file with its log, so that a new one is made; return its new name, None if that is not possible."""
    aside = beside(path, ".bad")
    number = count(1)
    while os.path.lexists(aside):
        aside = beside(path, f".{next(number)}.bad")
    try:
        with contextlib.suppress(FileNotFoundError):
            beside(path, LOG).rename(beside(aside, LOG))
        path.rename(aside)
        beside(path, INDEX).unlink(missing_ok=True)
    except OSError:
        return None
    return aside


def remove(path: Path) -> None:
    """
    Delete a file and those beside it.

    Raises:
        OSError: if one cannot be deleted.
    """
    for ending in (LOG, INDEX, ""):
        beside(path, ending).unlink(missing_ok=True)
