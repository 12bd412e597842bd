"""Delivers what dead processes left in the journals of a home, in the foreground and with an end."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from whyops_trace._delivery.handover import hand_over
from whyops_trace._home import STORE_FILE
from whyops_trace._journal.header import Counts, Header
from whyops_trace._journal.journal import segments_in
from whyops_trace._journal.segment import Segment
from whyops_trace._journal.survey import SERVER, Stream
from whyops_trace.exceptions import DeliveryError, WhyOpsError
from whyops_trace.exporters.base import Exporter, backoff
from whyops_trace.exporters.local import LocalExporter
from whyops_trace.settings import Settings, as_agent


class Drained(NamedTuple):
    """
    What became of a stream's records at one destination.

    Attributes:
        destination: Its name.
        counts: What it did with them.
        problem: Why it took no more; "" if it took all there was.
    """

    destination: str
    counts: Counts
    problem: str


class Patience:
    """
    How long a server that takes nothing is asked again, over all streams.

    Args:
        seconds: Since it was first asked in vain.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._until: float | None = None

    def asked(self) -> None:
        """Note that the server is asked now."""
        if self._until is None:
            self._until = time.monotonic() + self._seconds

    def rewarded(self) -> None:
        """Note that the server took something."""
        self._until = None

    def wait(self, seconds: float) -> bool:
        """Wait, unless that would take too long; return whether to ask again."""
        if self._until is None or time.monotonic() + seconds > self._until:
            return False
        time.sleep(seconds)
        return True


class _Drain:
    """
    The way to one destination.

    Args:
        exporter: The destination.
        patience: How long to try.
        passed: Told how many records have passed.
        problem: Why it is closed from the start.

    Attributes:
        counts: What the destination did so far.
    """

    def __init__(
        self, exporter: Exporter, patience: Patience, passed: Callable[[int], object], problem: str = ""
    ) -> None:
        self.exporter = exporter
        self.counts = Counts()
        self.problem = problem
        self._patience = patience
        self._passed = passed
        self._failures = 0
        self._said = "it is busy"

    def take(self, segment: Segment) -> None:
        """Deliver the records of a segment, as far as the destination takes them."""
        while not self.problem:
            try:
                self._patience.asked()
                counts = hand_over(self.exporter, segment, adopted=True)
                self._patience.rewarded()
                if counts is None:
                    self.exporter.process_ended(segment.header.token)
                    return
            except WhyOpsError as error:
                self._failed(error)
                continue
            self._failures = 0
            self.counts = self.counts.plus(counts)
            self._passed(sum(counts))

    def _failed(self, error: WhyOpsError) -> None:
        self._failures += 1
        self._said = str(error) or self._said  # it says nothing where it is only too early
        wait = error.wait if isinstance(error, DeliveryError) else math.inf
        if not self._patience.wait(backoff(self._failures, 0.0) if wait is None else wait):
            self.problem = self._said


def drain(
    home: Path, settings: Settings, stream: Stream, patience: Patience, passed: Callable[[int], object]
) -> list[Drained]:
    """
    Deliver what dead processes of a stream left, oldest first, and return how each destination fared.

    Args:
        home: Where the journals are.
        settings: The server and the key at hand; a stream of another key is left alone.
        stream: What was seen of the stream.
        patience: How long to try a server that takes nothing.
        passed: Told how many records have passed a destination.

    Raises:
        OSError: if the journal cannot be read.
    """
    header = stream.header
    drains: list[_Drain] = []
    with contextlib.ExitStack() as stack:
        for exporter in _exporters(home, as_agent(settings, header.agent), header.destinations):
            stack.callback(exporter.close)
            problem = why_not(settings, header) if exporter.name == SERVER else ""
            tries = patience if exporter.remote else Patience(0.0)
            drains.append(_Drain(exporter, tries, passed, problem))
        for segment in segments_in(home, folder=stream.name):
            # A file that somebody put into the folder of another stream may be another key's.
            if segment.header.stream == header.stream:
                for each in drains:
                    each.take(segment)
    return [Drained(each.exporter.name, each.counts, each.problem) for each in drains]


def _exporters(home: Path, settings: Settings, destinations: Sequence[str]) -> list[Exporter]:
    exporters: list[Exporter] = []
    if LocalExporter.name in destinations:
        exporters.append(LocalExporter(home / STORE_FILE, hint=False, retention=None))
    if SERVER in destinations:
        from whyops_trace.exporters.whyops import WhyOpsExporter  # it loads the HTTP library

        exporters.append(WhyOpsExporter(settings))
    return exporters


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


def take_in(home: Path) -> int:
    """
    Store what dead processes left in the journals below a home, and note that they are gone.

    Nothing is deleted: how long traces are kept is a setting of the programs that record, which whoever looks at
    the traces need not know.

    Returns:
        How many records were stored.

    Raises:
        StoreError: if the file cannot be written; what was not stored stays in the journals.
        OSError: if the journals cannot be read.
    """
    stored = 0
    exporter = LocalExporter(home / STORE_FILE, hint=False, retention=None)
    with contextlib.closing(exporter):
        for segment in segments_in(home):
            if exporter.name in segment.header.destinations:
                stored += _take_in_segment(exporter, segment)
    return stored


def _take_in_segment(exporter: LocalExporter, segment: Segment) -> int:
    stored = 0
    while (counts := hand_over(exporter, segment, adopted=True)) is not None:
        stored += counts.delivered
    exporter.process_ended(segment.header.token)
    return stored
