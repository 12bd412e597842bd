"""What waits in the journals of a home, by stream: looked at from outside, without taking anything."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from whyops_trace._directory import segment_files
from whyops_trace._glimpse import Glimpse, look
from whyops_trace._header import Counts, Header
from whyops_trace._home import JOURNAL
from whyops_trace.exceptions import JournalError
from whyops_trace.settings import Settings, resolve

#: The destination that only the key of a stream may deliver to.
SERVER: Final = "whyops"


class Waiting(NamedTuple):
    """
    What became of a stream's records at one destination, as far as their segments still exist.

    Attributes:
        pending: Records that it has not passed yet.
        left: Those of them whose process has ended.
        counts: What it did with the others.
    """

    pending: int
    left: int
    counts: Counts


class Stream(NamedTuple):
    """
    The segments of one folder of the journal.

    Attributes:
        name: The folder, which is called like the stream.
        header: What its oldest segment says about itself.
        segments: All of them, oldest first.
        waiting: What waits for each destination that other processes can serve.
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
    What is in the journals of a home.

    Attributes:
        streams: Those that have segments, the one that was begun first at the beginning.
        bad: Files that are, or will be, set aside because they cannot be read.
    """

    streams: list[Stream]
    bad: list[Path]


def survey(home: Path) -> Survey:
    """
    Look at the journals of a home.

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
    served = [destination for destination in header.destinations if destination not in header.ephemeral]
    return Stream(
        name, header, segments, {destination: _waiting(destination, segments) for destination in served}
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
        The segment, whether the record still waits for the destination, and its line.

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


def at_hand(home: Path) -> Settings:
    """
    Return the settings that the environment gives for a home.

    Raises:
        ConfigurationError: if one cannot be obeyed.
    """
    return resolve(
        api_key=None,
        agent_name=None,
        proxy_base_url=None,
        analyse_base_url=None,
        home=home,
        tracing=None,
        store=None,
        console=None,
    )


def why_not(settings: Settings, header: Header) -> str:
    """
    Return why the records of a stream cannot go to a server with these settings; "" if they can.

    A stream is named after its server, key, agent and destinations: no other key ever delivers it.
    """
    if not settings.api_key:
        return "WHYOPS_API_KEY is not set"
    if not settings.server:
        return f"WHYOPS_TRACING is {settings.tracing}, so nothing leaves this machine"
    if as_agent(settings, header.agent).stream(header.destinations) != header.stream:
        return (
            "they were recorded with another key, or for another server (WHYOPS_API_KEY, WHYOPS_ANALYSE_URL)"
        )
    return ""


def as_agent(settings: Settings, agent: str) -> Settings:
    """Return settings under the name of another agent."""
    return msgspec.structs.replace(settings, agent_name=agent)
