"""
The erasure of some records from the files of a home, whatever destination still waits for them.

A file is written anew without them and takes the place of the old one, while its lock is held: a kill leaves the one or
the other. The file of a running process is left alone.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from whyops_trace._home import JOURNAL
from whyops_trace._journal.header import PAGE, SLOT, Header
from whyops_trace._journal.locks import lock
from whyops_trace.exceptions import JournalError

#: The end of the name of a file that is being written.
_NEW: Final = ".erasing"


class _Record(msgspec.Struct, rename="camel"):
    trace_id: str = ""
    external_user_id: str | None = None


class Owned:
    """
    The records of a user: those that name the user, and all others of the same traces.

    Args:
        user: The user that the agent acted for.

    Attributes:
        trace_ids: The traces in which a record names the user, as far as they are known.
    """

    def __init__(self, user: str) -> None:
        self._user = user
        self._texts = (user.encode("utf-8", "surrogatepass"), msgspec.json.encode(user)[1:-1])
        self._decoder = msgspec.json.Decoder(_Record)
        self.trace_ids: set[str] = set()

    def find(self, line: bytes) -> None:
        """Note the trace of a record, if that names the user."""
        record = self._read(line)
        if record is not None and record.external_user_id == self._user:
            self.trace_ids.add(record.trace_id)

    def __contains__(self, line: bytes) -> bool:
        record = self._read(line)
        if record is None:  # torn, or damaged
            return any(text in line for text in self._texts)
        return record.external_user_id == self._user or record.trace_id in self.trace_ids

    def _read(self, line: bytes) -> _Record | None:
        with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return self._decoder.decode(line[line.find(b"{") :])
        return None


class Erased(NamedTuple):
    """
    The result of an erasure.

    Attributes:
        records: Number of records that were erased.
        in_use: Number of those that are in files of running processes.
    """

    records: int = 0
    in_use: int = 0

    def plus(self, other: Erased) -> Erased:
        """Return the sums."""
        return Erased(self.records + other.records, self.in_use + other.in_use)


def segment_lines(home: Path) -> Iterator[bytes]:
    """
    Yield what stands in the lines of all segments of a home, those set aside included.

    Raises:
        OSError: if one cannot be read.
    """
    for path in _segments(home):
        with contextlib.suppress(FileNotFoundError):
            yield from path.read_bytes()[PAGE:].split(b"\n")


def erase_from_segments(home: Path, owned: Owned) -> Erased:
    """
    Erase the records of a user from the segments of a home, those set aside included.

    Raises:
        OSError: if one cannot be read or written.
    """
    erased = Erased()
    for path in _segments(home):
        erased = erased.plus(rewrite(path, lambda data: _without(data, owned)))
    return erased


def rewrite(path: Path, change: Callable[[bytes], tuple[bytes, int]]) -> Erased:
    """
    Write a file anew, if that takes something out of it and no process uses it.

    Args:
        path: The file; nothing is done if it is gone.
        change: Function from its content to the new one, and the number of records that are missing in that.

    Raises:
        OSError: if it cannot be read or written.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return Erased()
    with open(descriptor, "rb") as file:
        is_free = _lock(descriptor)
        data, records = change(file.read())
        if not records or not is_free:
            return Erased(in_use=records)
        new = path.with_name(path.name + _NEW)
        new.unlink(missing_ok=True)
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as written:
            written.write(data)
            written.flush()
            os.fsync(written.fileno())
        if not os.path.samestat(os.fstat(descriptor), path.stat()):  # another process has made it anew
            new.unlink()
            return Erased(in_use=records)
        os.replace(new, path)
        return Erased(records)


def _segments(home: Path) -> list[Path]:
    return sorted(path for path in (home / JOURNAL).glob("*/*") if path.suffix in (".seg", ".bad"))


def _lock(descriptor: int) -> bool:
    if sys.platform == "win32":  # where a file that is open cannot be replaced
        return False
    try:
        return lock(descriptor)
    except OSError:
        return False


def _without(data: bytes, owned: Owned) -> tuple[bytes, int]:
    """Return the content of a segment without the records of a user, and how many they were."""
    page = bytearray(data[:PAGE])
    slots: dict[int, int] = {}
    with contextlib.suppress(JournalError):
        slots = {
            offset: SLOT.unpack_from(page, offset)[0]
            for offset in Header.decode(bytes(page)).slots().values()
        }
    moved = dict.fromkeys(slots, 0)
    kept: list[bytes] = []
    records, offset = 0, PAGE
    *lines, rest = data[PAGE:].split(b"\n")
    for line in lines:
        if line in owned:
            records += 1
            for slot, cursor in slots.items():
                moved[slot] += (offset < cursor) * (len(line) + 1)
        else:
            kept.append(line + b"\n")
        offset += len(line) + 1
    if rest.strip(b"\0") and rest in owned:
        records += 1
        rest = b""
    for slot, cursor in slots.items():
        page[slot : slot + 8] = (cursor - moved[slot]).to_bytes(8, "little")
    return b"".join((bytes(page), *kept, rest)), records
