"""Delivers records as spans of OpenTelemetry, by OTLP over HTTP."""

from __future__ import annotations

import gzip
import hashlib
import os
import random
from collections import deque
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

import msgspec

from whyops_trace._clock import give_way
from whyops_trace._guard import warn_once
from whyops_trace._home import SPANS_OUT_FILE, home_directory
from whyops_trace._version import __version__
from whyops_trace.exceptions import DeliveryError
from whyops_trace.exporters._http import Answer, Http, NoAnswerError
from whyops_trace.exporters.base import Batch, Exporter, Outcome
from whyops_trace.exporters.otlp import settings as otlp_settings
from whyops_trace.exporters.otlp.reading import Reader
from whyops_trace.exporters.otlp.retry import Refused, Taken, Wait, decide
from whyops_trace.exporters.otlp.span import (
    SCHEMA_URL,
    Options,
    Origin,
    Span,
    encoded,
    encoded_json,
    request,
    request_json,
)
from whyops_trace.exporters.otlp.state import State

#: Largest bytes of the spans in a request: most receivers take 4 MiB.
MAX_BYTES: Final = 3_500_000
#: Bytes of records in a batch.
BATCH_BYTES: Final = 512 << 10
#: The library that makes the spans, as they name it.
SCOPE: Final = "whyops-trace"
#: Characters above which an attribute of a span that is too large may be cut.
SHORT: Final = 1_000
#: Level of compression: higher ones take much longer.
GZIP: Final = 3
#: Records between two pauses for other threads.
RECORDS: Final = 64
#: Seconds for the last requests of a client that is closed.
LAST_TIMEOUT: Final = 2.0
#: Bytes of the open calls of a process that are in memory; the others are on disk only.
MAX_OPEN_BYTES: Final = 64 << 20


class _Entry(msgspec.Struct):
    """A record that was read: its line, and the spans that it completed, encoded, and its fate."""

    line: bytes
    spans: list[bytes]
    outcome: Outcome | None = None


class OtlpExporter(Exporter):
    """
    Posts spans to a receiver of OTLP: a collector, or any backend that speaks OTLP over HTTP.

    A span is a call from its request to its end, and is sent when it ends. Its ids are the same at each try and in each
    process. Calls whose process dies before they end are sent as errors that say so. Without *content* no messages,
    arguments and results are sent.

    Args:
        endpoint: The URL of the receiver, to which ``/v1/traces`` is added unless it ends so; by default
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
        is_json = settings.protocol == "http/json"
        self._encode, self._request = (encoded_json, request_json) if is_json else (encoded, request)
        self._options = Options(content=settings.content, openinference=settings.openinference)
        self._http = self.http()
        place = "\0".join([settings.endpoint, *map(":".join, sorted(settings.headers.items()))])
        self._state = State(
            home_directory(home) / SPANS_OUT_FILE,
            hashlib.sha256(place.encode(errors="replace")).hexdigest()[:16],
        )
        #: Takes each number from the operating system, so that forked children do not choose alike.
        self._random = random.SystemRandom()
        self._renew()

    def _renew(self) -> None:
        """Start as a process of its own, which has read nothing yet."""
        self._pid = os.getpid()
        self._readers: dict[str, Reader] = {}
        #: The records of each process that were read and have not passed yet.
        self._ahead: dict[str, list[_Entry]] = {}
        #: The name of this process, "" while it has recorded nothing.
        self._process = ""
        #: Number of requests in a row after which nothing was taken.
        self._attempt = 0
        #: The error that came after some records of a batch had been taken. It is raised with the next batch.
        self._late_error: DeliveryError | None = None
        #: True if all that was read before the batch at hand has passed.
        self._may_forget = True

    def http(self) -> Http:
        """Return requests to the receiver, of their own connections."""
        settings = self.settings
        is_json = settings.protocol == "http/json"
        headers = {
            "Content-Type": "application/json" if is_json else "application/x-protobuf",
            "Accept": "*/*",
        }
        if settings.compressed:
            headers["Content-Encoding"] = "gzip"
        return Http(
            settings.endpoint,
            "",
            read_timeout=settings.timeout,
            headers={**headers, **settings.headers},
            trust=settings.trust(),
        )

    def empty_request(self) -> bytes:
        """Return a request without spans, to see if the receiver takes it."""
        return self._body(Origin({"service.name": SCOPE}, SCOPE, __version__, SCHEMA_URL), ())

    def prepare(self) -> None:
        """Load the trusted certificates."""
        self._http.prepare()

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
            self._send_all(entries, reader)
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
        self._http.close()
        self._state.close()

    def _reader(self, process: str, *, load: bool) -> Reader:
        reader = self._readers.get(process)
        if reader is None:
            reader = self._readers[process] = Reader(
                process, self._options, lambda key: self._state.find(process, key)
            )
            if load:
                self._state.load(reader)
        return reader

    def _read(self, reader: Reader, batch: Batch) -> list[_Entry]:
        """Return the records of a batch as they were read, now or for an earlier try."""
        entries = self._ahead.pop(batch.process, [])
        self._may_forget = not entries
        while entries and entries[0].line != batch.lines[0]:
            entries.pop(0)  # the disk was full, and it was dropped
        for number, line in enumerate(batch.lines[len(entries) :]):
            if number % RECORDS == RECORDS - 1:
                give_way()
            spans = reader.read(line)
            outcome = Outcome.REJECTED if spans is None else None
            entries.append(_Entry(line, [self._encoded(span) for span in spans or ()], outcome))
        entries[-1].spans += map(self._encoded, reader.crowded())
        return entries

    def _encoded(self, span: Span) -> bytes:
        """Return a span encoded. What does not fit into a request is cut at its longest attributes."""
        told = self._encode(span)
        while len(told) > MAX_BYTES:
            texts = {name: value for name, value in span.attributes.items() if isinstance(value, str)}
            longest = max(texts, key=lambda name: len(texts[name]), default="")
            if len(texts.get(longest, "")) < SHORT:
                span.events = []
            else:
                span.attributes[longest] = texts[longest][: len(texts[longest]) // 2] + "…"
                span.attributes["whyops.cut"] = True
            told = self._encode(span)
        return told

    def _send_all(self, entries: Sequence[_Entry], reader: Reader) -> None:
        """
        Send the spans of records, in requests of their size, and note the outcome of each record.

        Raises:
            DeliveryError: if the receiver takes nothing more.
        """
        chunk: list[_Entry] = []
        size = 0
        for entry in entries:
            own = sum(map(len, entry.spans))
            if chunk and size + own > MAX_BYTES:
                self._send(chunk, reader)
                chunk, size = [], 0
            chunk.append(entry)
            size += own
        self._send(chunk, reader)

    def _send(self, entries: Sequence[_Entry], reader: Reader) -> None:
        """Send the spans of records in one request, or in parts if the receiver does not take that."""
        chunks = deque([entries])
        while chunks:
            chunk = chunks.popleft()
            sent = [entry for entry in chunk if entry.spans and entry.outcome is None]
            rejected = 0
            if sent:
                give_way()
                decision = self._post([span for entry in sent for span in entry.spans], reader)
                if isinstance(decision, Refused) and len(sent) > 1:
                    half = chunk.index(sent[len(sent) // 2])
                    chunks.extendleft((chunk[half:], chunk[:half]))
                    continue
                rejected = len(sent) if isinstance(decision, Refused) else min(decision.rejected, len(sent))
            for place, entry in enumerate(sent):
                entry.outcome = Outcome.REJECTED if place >= len(sent) - rejected else Outcome.DELIVERED
            for entry in chunk:
                entry.outcome = entry.outcome or Outcome.DELIVERED

    def _post(
        self, spans: Sequence[bytes], reader: Reader, *, timeout: float | None = None
    ) -> Taken | Refused:
        """
        Send spans in one request.

        Raises:
            DeliveryError: if they have to be sent again later.
        """
        resource = {
            "service.name": reader.agent or "unknown_service",
            "service.instance.id": reader.process,
            "telemetry.sdk.name": SCOPE,
            "telemetry.sdk.language": "python",
            "telemetry.sdk.version": __version__,
            **self.settings.resource,
        }
        body = self._body(Origin(resource, SCOPE, __version__, SCHEMA_URL), spans)
        try:
            answer: Answer | NoAnswerError = self._http.post(
                "", body, timeout=timeout or self.settings.timeout
            )
        except NoAnswerError as error:
            answer = error
        decision = decide(
            answer, attempt=self._attempt + 1, now=datetime.now(UTC), chance=self._random.random()
        )
        if isinstance(decision, Wait):
            self._attempt += 1
            raise DeliveryError(f"{self.settings.endpoint}: {decision.why}", decision.seconds)
        if isinstance(decision, Refused):
            if len(spans) == 1:
                warn_once(
                    f"{self.name}: refused", "%s rejects spans: %s", self.settings.endpoint, decision.words
                )
            return decision
        self._attempt = 0
        if decision.words or decision.rejected:
            warn_once(
                f"{self.name}: {decision.words}",
                "%s took a request and rejected %d spans of it: %s",
                self.settings.endpoint, decision.rejected, decision.words,
            )  # fmt: skip
        return decision

    def _body(self, origin: Origin, spans: Sequence[bytes]) -> bytes:
        body = self._request(origin, spans)
        return gzip.compress(body, GZIP) if self.settings.compressed else body

    def _send_last(self, spans: Sequence[Span], reader: Reader) -> None:
        """
        Send spans that no record ends.

        Raises:
            DeliveryError: if the receiver does not take them.
        """
        told = [self._encoded(span) for span in spans]
        while told:
            size = count = 0
            while count < len(told) and (not count or size + len(told[count]) <= MAX_BYTES):
                size += len(told[count])
                count += 1
            self._post(told[:count], reader, timeout=min(LAST_TIMEOUT, self.settings.timeout))
            del told[:count]
