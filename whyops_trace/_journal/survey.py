"""The records that wait in the journals of a home, by stream, seen from outside: nothing is taken over."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from whyops_trace._home import JOURNAL
from whyops_trace._journal.directory import segment_files
from whyops_trace._journal.header import PAGE, Counts, Header, read_slot
from whyops_trace._journal.locks import is_locked
from whyops_trace._journal.records import Form
from whyops_trace._journal.segment import CHUNK
from whyops_trace.exceptions import JournalError

#: The destination that only the key of a stream may deliver to.
SERVER: Final = "whyops"


class Glimpse(NamedTuple):
    """
    A segment as it stands in its file; that of a running process changes meanwhile.

    Attributes:
        path: The file.
        header: Its first page.
        size: Its bytes.
        in_use: True while a running process holds it.
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
            file = self.path.open("rb")  # not a map, because its owner may truncate the file
        except FileNotFoundError:
            return
        form = Form(self.header, strict=not self.in_use)
        with file:
            offset = file.seek(PAGE)
            rest = b""
            while chunk := file.read(CHUNK):
                data, newline, rest = (rest + chunk).rpartition(b"\n")
                for place, line in form.records(data + newline):
                    yield offset + place, line
                hole = rest.rfind(b"\0") + 1  # no record begins before its end
                offset += len(data) + len(newline) + hole
                rest = rest[hole:]


def look(path: Path) -> Glimpse | None:
    """
    Return a segment as it stands, without taking it over; None if it is gone.

    Raises:
        JournalError: if it cannot be read as a segment; the process that adopts it sets it aside.
        OSError: if the file cannot be opened.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    with open(descriptor, "rb") as file:
        in_use = is_locked(descriptor)
        size = os.fstat(descriptor).st_size
        page = file.read(PAGE)
    header = Header.decode(page)
    slots = {name: read_slot(page, offset) for name, offset in header.slots().items()}
    return Glimpse(path, header, size, in_use, slots)


class Waiting(NamedTuple):
    """
    The records of a stream by their state at one destination, as far as their segments still exist.

    Attributes:
        pending: Number of records that it has not passed yet.
        left: Number of those of them whose process has ended.
        counts: The others by their outcome.
    """

    pending: int
    left: int
    counts: Counts


class Stream(NamedTuple):
    """
    The segments of one folder of the journal.

    Attributes:
        name: The folder, which is called like the stream.
        header: The first page of its oldest segment.
        segments: All of them, oldest first.
        waiting: The records by their state at each destination that other processes can serve.
    """

    name: str
    header: Header
    segments: list[Glimpse]
    waiting: dict[str, Waiting]

    @property
    def size(self) -> int:
        """The bytes of all segments."""
        return sum(segment.size for segment in self.segments)

    @property
    def left(self) -> list[Glimpse]:
        """The segments of processes that have ended."""
        return [segment for segment in self.segments if not segment.in_use]


class Survey(NamedTuple):
    """
    The content of a home's journals.

    Attributes:
        streams: Those that have segments, the oldest first.
        bad: Files that are, or will be, set aside because they cannot be read.
    """

    streams: list[Stream]
    bad: list[Path]


def survey(home: Path) -> Survey:
    """
    Return the content of a home's journals.

    Raises:
        OSError: if a folder or file cannot be read.
    """
    streams, bad = [], sorted((home / JOURNAL).glob("*/*.bad"))
    for folder in sorted((home / JOURNAL).glob("*/")):
        segments = []
        for path in segment_files(folder):
            try:
                segment = look(path)
            except JournalError:
                bad.append(path)
            else:
                segments += [segment] if segment else []
        if segments:
            streams.append(_stream(folder.name, segments))
    return Survey(sorted(streams, key=lambda stream: stream.header.created), bad)


def _stream(name: str, segments: list[Glimpse]) -> Stream:
    header = segments[0].header
    destinations = [destination for destination in header.destinations if destination not in header.ephemeral]
    return Stream(
        name, header, segments, {destination: _waiting(destination, segments) for destination in destinations}
    )


def _waiting(destination: str, segments: Iterable[Glimpse]) -> Waiting:
    waiting = Waiting(0, 0, Counts())
    for segment in segments:
        if destination in segment.slots:
            cursor, counts = segment.slots[destination]
            behind = sum(offset >= cursor for offset, _ in segment.records())
            left = 0 if segment.in_use else behind
            waiting = Waiting(waiting.pending + behind, waiting.left + left, waiting.counts.plus(counts))
    return waiting


def records_in(home: Path, destination: str) -> Iterator[tuple[Glimpse, bool, bytes]]:
    """
    Yield every record in the journals below a home that are for a destination.

    Returns:
        The segment, True if the record still waits for the destination, and its line.

    Raises:
        OSError: if a folder or file cannot be read.
    """
    for folder in (home / JOURNAL).glob("*/"):
        for path in segment_files(folder):
            try:
                segment = look(path)
            except JournalError:
                continue
            if segment is not None and destination in segment.slots:
                cursor = segment.slots[destination][0]
                for offset, line in segment.records():
                    yield segment, offset >= cursor, line
