"""The delivery of records that dead processes left in the journals of a home: in the foreground, and with an end."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from whyops_trace._delivery.handover import export_batch
from whyops_trace._home import STORE_FILE, is_writable
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
    The result of draining a stream's records into one destination.

    Attributes:
        destination: Its name.
        counts: The records it took, by their outcome.
        problem: The reason why it took no more; "" if it took all there was.
    """

    destination: str
    counts: Counts
    problem: str


class Patience:
    """
    The time for which a server that takes nothing is asked again, over all streams.

    Args:
        seconds: That time, from the first request in vain.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._until: float | None = None

    def begin(self) -> None:
        """Note that the server is asked now: the time runs, if it does not already."""
        if self._until is None:
            self._until = time.monotonic() + self._seconds

    def renew(self) -> None:
        """Note that the server took something: the time begins anew with the next request."""
        self._until = None

    def wait(self, seconds: float) -> bool:
        """Wait so many seconds and return True; return False at once if that would take too long."""
        if self._until is None or time.monotonic() + seconds > self._until:
            return False
        time.sleep(seconds)
        return True


class _Drain:
    """
    The way to one destination.

    Args:
        exporter: The destination.
        patience: The time to try.
        advance: Called with the number of records that have passed.
        problem: The reason why it is closed from the start; "" if it is open.

    Attributes:
        exporter: The destination.
        counts: The records it took so far, by their outcome.
        problem: The reason why it takes no more; "" if it does.
    """

    def __init__(
        self, exporter: Exporter, patience: Patience, advance: Callable[[int], object], problem: str = ""
    ) -> None:
        self.exporter = exporter
        self.counts = Counts()
        self.problem = problem
        self._patience = patience
        self._advance = advance
        self._failures = 0
        #: The latest problem that has a text.
        self._reason = "it is busy"

    def take(self, segment: Segment) -> None:
        """Deliver the records of a segment, as far as the destination takes them."""
        while not self.problem:
            try:
                self._patience.begin()
                counts = export_batch(self.exporter, segment, adopted=True)
                self._patience.renew()
                if counts is None:
                    self.exporter.process_ended(segment.header.token)
                    return
            except WhyOpsError as error:
                self._failed(error)
                continue
            self._failures = 0
            self.counts = self.counts.plus(counts)
            self._advance(sum(counts))

    def _failed(self, error: WhyOpsError) -> None:
        self._failures += 1
        self._reason = str(error) or self._reason  # without a text it is only too early
        wait = error.wait if isinstance(error, DeliveryError) else math.inf
        if not self._patience.wait(backoff(self._failures, 0.0) if wait is None else wait):
            self.problem = self._reason


def drain(
    home: Path, settings: Settings, stream: Stream, patience: Patience, advance: Callable[[int], object]
) -> list[Drained]:
    """
    Deliver the records that dead processes of a stream left, oldest first, and return the result by destination.

    Args:
        home: The home that the journals are in.
        settings: The server and the key at hand; a stream of another key is left alone.
        stream: The stream, as a survey has seen it.
        patience: The time to try a server that takes nothing.
        advance: Called with the number of records that have passed a destination.

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
            drains.append(_Drain(exporter, tries, advance, problem))
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
    Return the reason why a stream's records cannot go to a server with these settings; "" if they can.

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


def take_in(home: Path, advance: Callable[[int], object] = lambda _: None) -> int:
    """
    Store the records that dead processes left in the journals below a home, and note the ends of these processes.

    In a home that can only be read nothing is done; see :func:`~whyops_trace._delivery.archive.readable`.

    Nothing is deleted: the days for which traces are kept are a setting of the programs that record them, and unknown
    to a command that shows them.

    Args:
        home: The home.
        advance: Called with the number of bytes of the journals that have passed.

    Returns:
        The number of records that were stored.

    Raises:
        StoreError: if the file cannot be written; what was not stored stays in the journals.
        OSError: if the journals cannot be read.
    """
    count = 0
    if not is_writable(home):
        return count
    exporter = LocalExporter(home / STORE_FILE, hint=False, retention=None)
    with contextlib.closing(exporter):
        for segment in segments_in(home):
            if exporter.name in segment.header.destinations:
                count += _take_in_segment(exporter, segment, advance)
    return count


def _take_in_segment(exporter: LocalExporter, segment: Segment, advance: Callable[[int], object]) -> int:
    count = passed = 0
    while (counts := export_batch(exporter, segment, adopted=True)) is not None:
        count += counts.delivered
        place = segment.cursor(exporter.name)
        advance(place - passed)
        passed = place
    exporter.process_ended(segment.header.token)
    return count
