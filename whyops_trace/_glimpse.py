"""Looking at a segment as it stands in its file, without taking it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from whyops_trace._header import PAGE, Counts, Header, read_slot
from whyops_trace._segment import CHUNK

if sys.platform != "win32":
    import fcntl


class Glimpse(NamedTuple):
    """
    A segment as it stands in its file, which nobody took; that of a running process changes meanwhile.

    Attributes:
        path: The file.
        header: What it says about itself.
        size: Its bytes.
        in_use: Whether a running process holds it.
        slots: The cursor and the counts of each destination.
    """

    path: Path
    header: Header
    size: int
    in_use: bool
    slots: dict[str, tuple[int, Counts]]

    def records(self) -> Iterator[tuple[int, bytes]]:
        """Yield each complete record with its offset, without its newline; nothing if the file is gone."""
        try:
            file = self.path.open("rb")  # not a map: its owner may truncate the file under our feet
        except FileNotFoundError:
            return
        with file:
            offset = file.seek(PAGE)
            rest = b""
            while chunk := file.read(CHUNK):
                written, nul, _ = chunk.partition(b"\0")
                *lines, rest = (rest + written).split(b"\n")
                for line in lines:
                    yield offset, line
                    offset += len(line) + 1
                if nul:
                    return


def look(path: Path) -> Glimpse | None:
    """
    Look at a segment without taking it; None if it is gone.

    Raises:
        JournalError: if it cannot be read as a segment; whoever adopts it sets it aside.
        OSError: if the file cannot be opened.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        in_use = _is_locked(descriptor)
        size = os.fstat(descriptor).st_size
        page = os.pread(descriptor, PAGE, 0)
    finally:
        os.close(descriptor)
    header = Header.decode(page)
    slots = {name: read_slot(page, offset) for name, offset in header.slots().items()}
    return Glimpse(path, header, size, in_use, slots)


def _is_locked(descriptor: int) -> bool:
    """Return whether somebody else has locked a file; one that is free is free again when it is closed."""
    if sys.platform == "win32":
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False
