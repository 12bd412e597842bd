"""The file of events that a server refused for good, each with the server's reason, for people to read."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from whyops_trace._clock import iso
from whyops_trace._guard import attempt, warn_once
from whyops_trace._home import REJECTED_FILE, make_private
from whyops_trace._journal.erasure import Erased, Owned, rewrite
from whyops_trace._values import encoding

try:
    import fcntl
except ImportError:  # Windows, and platforms without processes
    fcntl = None  # type: ignore[assignment]

T = TypeVar("T")

#: End of the name of the file that was set aside.
_OLD: Final = ".old"
#: Bytes after which the file is set aside under a second name. The one set aside before is replaced.
MAX_BYTES: Final = 16 << 20


class DeadLetters:
    """
    Appends to the file, which only its owner can read. Several processes may append at the same time.

    Args:
        path: The file. The one that was set aside is beside it, with ``.old`` at the end of its name.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(self, event: bytes, why: str) -> None:
        """Keep an event. If that is not possible, a warning is logged once, and the event is only counted."""
        reason = encoding.string(why)
        entry = b'{"at":"%b","reason":%b,"event":%b}\n' % (iso(time.time_ns()).encode(), reason, event)
        _, error = attempt(self._append, entry)
        if error is not None:
            warn_once(f"dead letters: {self.path}", "Cannot keep a refused event in %s: %s", self.path, error)

    def _append(self, entry: bytes) -> None:
        make_private(self.path.parent)
        descriptor = self._open()
        try:
            os.write(descriptor, entry)
            if os.fstat(descriptor).st_size > MAX_BYTES:
                self.path.replace(self.path.with_name(self.path.name + _OLD))
        finally:
            os.close(descriptor)

    def _open(self) -> int:
        """Open the file and lock it. If it was set aside during the wait for the lock, open the new one."""
        while True:
            descriptor = os.open(self.path, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600)
            if fcntl is not None:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), self.path.stat()):
                    return descriptor
            os.close(descriptor)


def letter_counts(home: Path) -> dict[Path, int]:
    """
    Return the number of events in each file of a home that exists. The file that was set aside comes last.

    Raises:
        OSError: if one cannot be read.
    """
    counts = {}
    for path in (home / REJECTED_FILE, home / (REJECTED_FILE + _OLD)):
        if path.exists():
            with path.open("rb") as file:
                counts[path] = sum(1 for _ in file)
    return counts


class _Letter(msgspec.Struct):
    event: msgspec.Raw


def letter_events(home: Path) -> Iterator[bytes]:
    """
    Yield the refused events as they were recorded.

    Raises:
        OSError: if a file cannot be read.
    """
    for letter in read_letters(home, _Letter):
        yield bytes(letter.event)


def erase_letters(home: Path, owned: Owned) -> Erased:
    """
    Erase the refused events of a user.

    Raises:
        OSError: if a file cannot be read or written.
    """

    def without(data: bytes) -> tuple[bytes, int]:
        lines = data.splitlines(keepends=True)
        kept = [line for line in lines if _event(line) not in owned]
        return b"".join(kept), len(lines) - len(kept)

    erased = Erased()
    for name in (REJECTED_FILE + _OLD, REJECTED_FILE):
        erased = erased.plus(rewrite(home / name, without))
    return erased


def _event(line: bytes) -> bytes:
    """Return the event in a line, all of it if it cannot be decoded."""
    try:
        return bytes(msgspec.json.decode(line, type=_Letter).event)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return line


def read_letters(home: Path, form: type[T]) -> Iterator[T]:
    """
    Yield the refused events, the oldest first. A line that cannot be decoded is left out.

    Args:
        home: The folder of the files.
        form: The type to decode each line to. A line has ``at``, ``reason`` and ``event``.

    Raises:
        OSError: if a file cannot be read.
    """
    decoder = msgspec.json.Decoder(form)
    for name in (REJECTED_FILE + _OLD, REJECTED_FILE):
        with contextlib.suppress(FileNotFoundError), (home / name).open("rb") as file:
            for line in file:
                with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                    yield decoder.decode(line)
