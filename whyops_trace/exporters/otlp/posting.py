"""Requests of OTLP: spans or log records go out in parts of a size that receivers take, and each gets its fate."""

from __future__ import annotations

import gzip
import random
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Final, NamedTuple

import msgspec

from whyops_trace._clock import give_way
from whyops_trace._guard import warn_once
from whyops_trace._version import __version__
from whyops_trace.exceptions import DeliveryError
from whyops_trace.exporters._http import Answer, Http, NoAnswerError
from whyops_trace.exporters.base import Outcome, backoff
from whyops_trace.exporters.otlp.retry import TRIES_OF_ONE, Refused, Taken, Wait, decide
from whyops_trace.exporters.otlp.settings import OtlpSettings
from whyops_trace.exporters.otlp.span import (
    SCHEMA_URL,
    Origin,
    Span,
    encoded,
    encoded_json,
    request_json,
)
from whyops_trace.exporters.otlp.span import request as request_protobuf
from whyops_trace.settings import shown_url

#: Largest bytes of the spans in a request: most receivers take 4 MiB.
MAX_BYTES: Final = 3_500_000
#: The library that makes the spans, as they name it.
SCOPE: Final = "whyops-trace"
#: Characters above which an attribute of a span that is too large may be cut.
SHORT: Final = 1_000
#: Level of compression: higher ones take much longer.
GZIP: Final = 3
#: Statuses that say that there is nothing at an address.
_NO_SUCH: Final = (404, 405, 501)


class Item(NamedTuple):
    """A span or a log record, encoded, and where it is from."""

    origin: Origin
    data: bytes


class Entry(msgspec.Struct, gc=False):
    """
    What is taken or rejected as one.

    Attributes:
        line: The bytes that it was made of.
        items: Its spans or log records.
        outcome: Its fate; None until it is known.
    """

    line: bytes
    items: list[Item]
    outcome: Outcome | None = None


class Poster:
    """
    Requests to one receiver.

    Args:
        settings: The settings of the destination.
        name: The name of the destination in the log.
        endpoint: The URL, "" for the one of the settings.
        request: The function that makes a body of items, if they are not spans.
        is_optional: True if a receiver without this address rejects them, and is no wrong one.
    """

    def __init__(
        self,
        settings: OtlpSettings,
        name: str,
        endpoint: str = "",
        request: Callable[[Iterable[tuple[Origin, Iterable[bytes]]]], bytes] | None = None,
        *,
        is_optional: bool = False,
    ) -> None:
        self._settings = settings
        self._name = name
        self._endpoint = endpoint or settings.endpoint
        self._told = shown_url(self._endpoint)
        is_json = settings.protocol == "http/json"
        self._encode = encoded_json if is_json else encoded
        self._make_body = request or (request_json if is_json else request_protobuf)
        self._is_optional = is_optional
        self._http = self.http()
        #: Takes each number from the operating system, so that forked children do not choose alike.
        self._random = random.SystemRandom()
        #: Number of requests in a row after which nothing was taken.
        self._attempt = 0

    def http(self) -> Http:
        """Return requests to the receiver, of their own connections."""
        settings = self._settings
        is_json = settings.protocol == "http/json"
        headers = {
            "Content-Type": "application/json" if is_json else "application/x-protobuf",
            "Accept": "*/*",
        }
        if settings.compressed:
            headers["Content-Encoding"] = "gzip"
        return Http(
            self._endpoint,
            "",
            read_timeout=settings.timeout,
            headers={**headers, **settings.headers},
            trust=settings.trust(),
        )

    def empty_request(self) -> bytes:
        """Return a request without spans, to see if the receiver takes it."""
        return self._body([(Origin({"service.name": SCOPE}, SCOPE, __version__, SCHEMA_URL), ())])

    def prepare(self) -> None:
        """Load the trusted certificates."""
        self._http.prepare()

    def start_over(self) -> None:
        """Forget how the requests of the parent of this fork went."""
        self._attempt = 0

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def encode(self, span: Span) -> bytes:
        """Return a span encoded. What does not fit into a request is cut at its longest attributes."""
        told = self._encode(span)
        while len(told) > MAX_BYTES:
            texts = {name: value for name, value in span.attributes.items() if isinstance(value, str)}
            longest = max(texts, key=lambda name: len(texts[name]), default="")
            if len(texts.get(longest, "")) >= SHORT:
                span.attributes[longest] = texts[longest][: len(texts[longest]) // 2] + "…"
                span.attributes["whyops.cut"] = True
            elif span.events:
                span.events = []
            else:
                span.attributes, span.links = {"whyops.cut": True}, []
            told = self._encode(span)
        return told

    def send_all(self, entries: Sequence[Entry]) -> None:
        """
        Send entries, in requests of their size, and note the outcome of each.

        Raises:
            DeliveryError: if the receiver takes nothing more.
        """
        first = size = 0
        for place, entry in enumerate(entries):
            if entry.items:
                own = sum([len(item.data) for item in entry.items])
                if size and size + own > MAX_BYTES:
                    self._send(entries[first:place])
                    first = place
                    size = 0
                size += own
        self._send(entries[first:])

    def _send(self, entries: Sequence[Entry]) -> None:
        """
        Send entries in one request, or in parts if the receiver does not take that.

        One that a receiver fails at (500) is at fault itself if others are taken; else the receiver is.
        """
        chunks = deque([entries])
        suspects: list[tuple[Entry, Refused]] = []
        is_taking = False
        while chunks:
            chunk = chunks.popleft()
            sent = [entry for entry in chunk if entry.items and entry.outcome is None]
            rejected = 0
            if sent:
                give_way()
                decision = self.post([item for entry in sent for item in entry.items])
                if isinstance(decision, Refused):
                    if len(sent) > 1:
                        half = chunk.index(sent[len(sent) // 2])
                        chunks.extendleft((chunk[half:], chunk[:half]))
                        continue
                    if decision.is_failure and not is_taking:
                        suspects.append((sent[0], decision))
                        if len(suspects) > 1:
                            self._suspect(suspects)
                        continue
                    self._say_rejected(decision)
                    rejected = 1
                else:
                    is_taking = True
                    rejected = min(decision.rejected, len(sent))
            _settle(sent[len(sent) - rejected :], Outcome.REJECTED)
            _settle(chunk, Outcome.DELIVERED)
        if suspects:
            if is_taking:
                self._reject(suspects)
            else:
                self._suspect(suspects)

    def _suspect(self, suspects: list[tuple[Entry, Refused]]) -> None:
        """
        Reject entries that a receiver fails at after many tries in a row.

        Raises:
            DeliveryError: if they have to be sent again first.
        """
        self._attempt += 1
        if self._attempt < TRIES_OF_ONE:
            seconds = backoff(self._attempt, self._random.random())
            raise DeliveryError(f"{self._told}: it fails ({suspects[0][1].words}).", seconds)
        self._attempt = 0
        self._reject(suspects)

    def _reject(self, suspects: list[tuple[Entry, Refused]]) -> None:
        for entry, decision in suspects:
            self._say_rejected(decision)
            entry.outcome = Outcome.REJECTED
        suspects.clear()

    def _say_rejected(self, decision: Refused) -> None:
        warn_once(f"{self._name}: refused", "%s rejects spans: %s", self._told, decision.words)

    def post(self, items: Sequence[Item], *, timeout: float | None = None) -> Taken | Refused:
        """
        Send items in one request.

        Raises:
            DeliveryError: if they have to be sent again later.
        """
        parts: dict[int, tuple[Origin, list[bytes]]] = {}
        for origin, data in items:
            part = parts.get(id(origin))
            if part is None:
                part = parts[id(origin)] = (origin, [])
            part[1].append(data)
        try:
            answer: Answer | NoAnswerError = self._http.post(
                "", self._body(parts.values()), timeout=timeout or self._settings.timeout
            )
        except NoAnswerError as error:
            answer = error
        if self._is_optional and isinstance(answer, Answer) and answer.status in _NO_SUCH:
            return Taken(len(items))
        decision = decide(
            answer, attempt=self._attempt + 1, now=datetime.now(UTC), chance=self._random.random()
        )
        if isinstance(decision, Wait):
            self._attempt += 1
            names_it = decision.why.startswith(self._told)
            raise DeliveryError(
                decision.why if names_it else f"{self._told}: {decision.why}", decision.seconds
            )
        if isinstance(decision, Refused):
            return decision
        self._attempt = 0
        if decision.words or decision.rejected:
            warn_once(
                f"{self._name}: {decision.words}",
                "%s took a request and rejected %d spans of it: %s",
                self._told, decision.rejected, decision.words,
            )  # fmt: skip
        return decision

    def _body(self, parts: Iterable[tuple[Origin, Iterable[bytes]]]) -> bytes:
        body = self._make_body(parts)
        return gzip.compress(body, GZIP) if self._settings.compressed else body


def _settle(entries: Iterable[Entry], outcome: Outcome) -> None:
    """Note the outcome of the entries that have none yet."""
    for entry in entries:
        if entry.outcome is None:
            entry.outcome = outcome
