"""Delivers records as spans of OpenTelemetry, by OTLP over HTTP."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Mapping, Sequence
from typing import Final

from whyops_trace._clock import give_way
from whyops_trace._home import SPANS_OUT_FILE, home_directory
from whyops_trace._version import __version__
from whyops_trace.exceptions import DeliveryError
from whyops_trace.exporters._http import Http
from whyops_trace.exporters.base import Batch, Exporter, Outcome
from whyops_trace.exporters.otlp import settings as otlp_settings
from whyops_trace.exporters.otlp.posting import MAX_BYTES, SCOPE, Entry, Item, Poster
from whyops_trace.exporters.otlp.reading import Reader
from whyops_trace.exporters.otlp.span import SCHEMA_URL, Options, Origin, Span
from whyops_trace.exporters.otlp.state import State

#: Bytes of records in a batch.
BATCH_BYTES: Final = 512 << 10
#: Records between two pauses for other threads.
RECORDS: Final = 128
#: Seconds for the last requests of a client that is closed.
LAST_TIMEOUT: Final = 2.0
#: Bytes of the open calls of a process that are in memory; the others are on disk only.
MAX_OPEN_BYTES: Final = 64 << 20
#: Number of processes and agents whose description is remembered.
MAX_ORIGINS: Final = 1_000
#: Seconds without a record after which a trace of messages by hand is told as a whole: nobody ends it.
QUIET: Final = 300.0


class OtlpExporter(Exporter):
    """
    Posts spans to a receiver of OTLP: a collector, or any backend that speaks OTLP over HTTP.

    A span is a call from its request to its end, and is sent when it ends. Its ids are the same at each try and in each
    process. Calls whose process dies before they end are sent as errors that say so. Without *content* no messages,
    arguments and results are sent.

    Args:
        endpoint: The URL of the receiver, to whose path ``/v1/traces`` is added unless it ends so; by default
            ``OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`` or ``OTEL_EXPORTER_OTLP_ENDPOINT``.
        headers: Headers of each request, such as one with a key; by default ``OTEL_EXPORTER_OTLP_HEADERS``.
        content: True to send messages, arguments and results (``WHYOPS_OTLP_CONTENT=on|off``; default off).
        openinference: True to add the attributes of OpenInference (``WHYOPS_OTLP_OPENINFERENCE=on|off``; default off).
        name: The name of the destination in the ledger; a client has no two of the same name.
        home: The directory that keeps open calls; by default the home of this user.

    Attributes:
        settings: The settings that it obeys.

    Raises:
        ConfigurationError: if a setting cannot be obeyed.
    """

    remote = True
    continues_spans = True
    batch_bytes = BATCH_BYTES
    #: True if the records are those of a store.
    _whole = False

    def __init__(
        self,
        endpoint: str | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        content: bool | None = None,
        openinference: bool | None = None,
        name: str = "otlp",
        home: str | os.PathLike[str] | None = None,
    ) -> None:
        self.name = name
        settings = otlp_settings.resolve(endpoint, headers, content, openinference)
        self.settings: otlp_settings.OtlpSettings = settings
        self._options = Options(content=settings.content, openinference=settings.openinference)
        self._poster = Poster(settings, name)
        self._state = State(home_directory(home) / SPANS_OUT_FILE, self.place)
        self._renew()

    def _renew(self) -> None:
        """Start as a process of its own, which has read nothing yet."""
        self._pid = os.getpid()
        self._readers: dict[str, Reader] = {}
        #: The records of each process that were read and have not passed yet.
        self._ahead: dict[str, list[Entry]] = {}
        #: The name of this process, "" while it has recorded nothing.
        self._process = ""
        #: The origin of the spans of each process and agent.
        self._origins: dict[tuple[str, str], Origin] = {}
        self._poster.start_over()
        #: The error that came after some records of a batch had been taken. It is raised with the next batch.
        self._late_error: DeliveryError | None = None
        #: True if all that was read before the batch at hand has passed.
        self._may_forget = True

    @property
    def place(self) -> str:
        """A name for the receiver and the headers that it is sent, without these, as files have it."""
        place = "\0".join([self.settings.endpoint, *map(":".join, sorted(self.settings.headers.items()))])
        return hashlib.sha256(place.encode(errors="replace")).hexdigest()[:16]

    def http(self) -> Http:
        """Return requests to the receiver, of their own connections."""
        return self._poster.http()

    def empty_request(self) -> bytes:
        """Return a request without spans, to see if the receiver takes it."""
        return self._poster.empty_request()

    def prepare(self) -> None:
        """Load the trusted certificates."""
        self._poster.prepare()

    def on_start(self) -> None:
        """Tell of the processes that ended while the receiver could not be reached."""
        for process in self._state.gone():
            if process != self._process:
                self.process_ended(process)

    def export(self, batch: Batch) -> Sequence[Outcome]:
        """
        Send the spans that a batch completes.

        Raises:
            DeliveryError: if no record was taken. Its message says what to check.
        """
        if self._pid != os.getpid():
            self._renew()
        late_error, self._late_error = self._late_error, None
        if late_error is not None:
            raise late_error
        reader = self._reader(batch.process, load=batch.adopted)
        if not batch.adopted:
            self._process = batch.process
        entries = self._read(reader, batch)
        try:
            self._poster.send_all(entries)
        except DeliveryError as error:
            late_error = error
        outcomes: list[Outcome] = []
        for entry in entries:
            if entry.outcome is None:
                break
            outcomes.append(entry.outcome)
        self._ahead[batch.process] = entries[len(outcomes) :]
        if not outcomes and late_error is not None:
            raise late_error
        self._late_error = late_error
        self._state.save(reader, forget=self._may_forget)
        reader.spare(MAX_OPEN_BYTES)
        return outcomes

    def process_ended(self, process: str) -> None:
        """
        Send the calls that a process left open, as errors.

        Raises:
            DeliveryError: if the receiver did not take them. A later process tries again then.
        """
        if self._ahead.get(process):
            return  # its records come again, and so does this
        reader = self._reader(process, load=True)
        self._state.load(reader)
        spans = reader.close_all()
        del self._readers[process]
        self._ahead.pop(process, None)
        try:
            self._send_last(spans, reader)
        except DeliveryError:
            self._state.note_gone(process)
            raise
        self._state.forget(process)

    def close(self) -> None:
        """Send the traces, as a whole, that nobody ends, such as those of events by hand; close the connections."""
        reader = self._readers.get(self._process)
        if reader is not None and self._pid == os.getpid() and not self._ahead.get(self._process):
            try:
                self._send_last(reader.close_idle(), reader)
                self._state.save(reader, forget=True)
            except DeliveryError:
                self._state.note_gone(self._process)
        self._late_error = None
        self._poster.close()
        self._state.close()

    def _reader(self, process: str, *, load: bool) -> Reader:
        reader = self._readers.get(process)
        if reader is None:
            reader = self._readers[process] = Reader(
                process,
                self._options,
                lambda key: self._state.find(process, key),
                whole=self._whole,
            )
            if load:
                self._state.load(reader)
        return reader

    def _read(self, reader: Reader, batch: Batch) -> list[Entry]:
        """Return the records of a batch as they were read, now or for an earlier try."""
        entries = self._ahead.pop(batch.process, [])
        self._may_forget = not entries
        while entries and entries[0].line != batch.lines[0]:
            entries.pop(0)  # the disk was full, and it was dropped
        reader.now = time.time()
        rejected = Outcome.REJECTED
        for number, line in enumerate(batch.lines[len(entries) :]):
            if number % RECORDS == RECORDS - 1:
                give_way()
            spans = reader.read(line)
            if spans:
                entries.append(Entry(line, self._items(spans, reader)))
            else:
                entries.append(Entry(line, [], rejected if spans is None else None))
        late = [*reader.crowded(), *reader.quiet(reader.now - QUIET)]
        entries[-1].items += self._items(late, reader)
        return entries

    def _items(self, spans: Sequence[Span], reader: Reader) -> list[Item]:
        encode, origins, process = self._poster.encode, self._origins, reader.process
        return [
            Item(origins.get((process, span.agent)) or self._origin(process, span.agent), encode(span))
            for span in spans
        ]

    def _origin(self, process: str, agent: str) -> Origin:
        """Describe what spans of an agent of a process are from, and remember it."""
        if len(self._origins) >= MAX_ORIGINS:
            self._origins.clear()
        resource = {
            "service.name": agent or "unknown_service",
            **({} if self._whole else {"service.instance.id": process}),
            "telemetry.sdk.name": SCOPE,
            "telemetry.sdk.language": "python",
            "telemetry.sdk.version": __version__,
            **self.settings.resource,
        }
        origin = self._origins[process, agent] = Origin(resource, SCOPE, __version__, SCHEMA_URL)
        return origin

    def _send_last(self, spans: Sequence[Span], reader: Reader) -> None:
        """
        Send spans that no record ends.

        Raises:
            DeliveryError: if the receiver does not take them.
        """
        items = self._items(spans, reader)
        while items:
            size = count = 0
            while count < len(items) and (not count or size + len(items[count].data) <= MAX_BYTES):
                size += len(items[count].data)
                count += 1
            self._poster.post(items[:count], timeout=min(LAST_TIMEOUT, self.settings.timeout))
            del items[:count]
