"""Spans and log records as plain data, whatever encoding they came in, and the reader of OTLP/JSON."""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import msgspec

from whyops_trace._shapes import dict_of, dicts_of, list_of, text_of
from whyops_trace.exceptions import WhyOpsError

#: Values of a span's kind and status that its readers ask for.
SERVER: Final = 2
CLIENT: Final = 3
ERROR: Final = 2
#: The name of an event that tells of a score; as a log record it may be of a trace as a whole.
EVALUATION: Final = "gen_ai.evaluation.result"
#: Largest time that is stored, in nanoseconds since the epoch, in the year 2262: a column takes no larger number.
MAX_TIME_NS: Final = 2**63 - 1
#: Deepest nesting of a value in an attribute.
_MAX_DEPTH: Final = 64
_KINDS: Final = {
    f"SPAN_KIND_{name}": number
    for number, name in enumerate(("UNSPECIFIED", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER"))
}
_STATUSES: Final = {"STATUS_CODE_UNSET": 0, "STATUS_CODE_OK": 1, "STATUS_CODE_ERROR": ERROR}


class MalformedError(WhyOpsError):
    """The body of a request is no OTLP message."""


class Source(msgspec.Struct, frozen=True, eq=False):
    """
    The program and the library that an item is from.

    Attributes:
        resource: Attributes of the program.
        scope: The name of the library.
        version: The version of the library.
        schema: The URL of the conventions by which attributes are named.
    """

    resource: dict[str, Any] = {}
    scope: str = ""
    version: str = ""
    schema: str = ""

    @property
    def service(self) -> str:
        """The name of the service, "" if it has none."""
        return text_of(self.resource.get("service.name"))


#: Of an item that is not passed on.
NO_SOURCE: Final = Source()


class Link(msgspec.Struct, gc=False):
    """A span that another one is related to, and attributes of the relation."""

    trace_id: str
    span_id: str
    attributes: dict[str, Any]


class SpanEvent(msgspec.Struct, gc=False):
    """Something that happened at one moment of a span."""

    name: str
    time_ns: int
    attributes: dict[str, Any]


class Span(msgspec.Struct, gc=False):
    """
    A span.

    Attributes:
        trace_id: 32 hex digits.
        span_id: 16 hex digits.
        parent_id: 16 hex digits, "" for a root.
        scope: The name of the library that made it.
        name: Its name.
        kind: 0 to 5, as in OTLP; 3 is a client's, 2 a server's.
        start_ns: Nanoseconds since the epoch.
        end_ns: Nanoseconds since the epoch, not before the start; 0 if it has not ended.
        status: 0 unset, 1 ok, 2 error.
        message: The text of its status.
        attributes: Values are texts, numbers, booleans, lists and dicts.
        events: In the order they were sent.
        service: The name of the service that it ran in.
        source: The program and the library, with all that is known of them.
        links: The spans that it is related to.
        state: The ``tracestate`` of W3C.
    """

    trace_id: str
    span_id: str
    parent_id: str
    scope: str
    name: str
    kind: int
    start_ns: int
    end_ns: int
    status: int
    message: str
    attributes: dict[str, Any]
    events: list[SpanEvent]
    service: str = ""
    source: Source = NO_SOURCE
    links: list[Link] = []
    state: str = ""


class LogRecord(msgspec.Struct, gc=False):
    """A log record of a span, or a score of a trace: the name of its event, its attributes, body and severity."""

    trace_id: str
    span_id: str
    name: str
    time_ns: int
    attributes: dict[str, Any]
    body: Any
    severity: int = 0
    severity_text: str = ""
    source: Source = NO_SOURCE


class Batch(msgspec.Struct):
    """
    The items of a request.

    Attributes:
        spans: Those that can be stored.
        logs: Those that can be stored.
        refused: A reason for each of the others.
    """

    spans: list[Span] = []
    logs: list[LogRecord] = []
    refused: list[str] = []


def read_json(body: bytes) -> Batch:
    """
    Read a request in OTLP/JSON: spans, log records, or both.

    Raises:
        MalformedError: if the body is no JSON object.
    """
    request = _decoded(body)
    if not isinstance(request, dict):
        raise MalformedError("The body is no JSON object.")
    return read_object(request)


def _decoded(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        reason = str(error)
    with contextlib.suppress(ValueError, RecursionError):
        return json.loads(body)  # it takes half of a surrogate pair, where JavaScript cut a text in an emoji
    raise MalformedError(f"The body is no JSON: {reason}")


def read_object(request: dict[str, Any]) -> Batch:
    """Read a request in OTLP/JSON that is decoded already: spans, log records, or both."""
    batch = Batch()
    for source, item in _items(request, "resourceSpans", "scopeSpans", "spans"):
        _add(batch.spans, lambda: _span(item, source), batch.refused)  # noqa: B023
    for source, item in _items(request, "resourceLogs", "scopeLogs", "logRecords"):
        _add(batch.logs, lambda: _log(item, source), batch.refused)  # noqa: B023
    return batch


def _items(request: dict[str, Any], *members: str) -> Iterator[tuple[Source, dict[str, Any]]]:
    """Yield the source and the item, for each item of a request."""
    resources, scopes, items = members
    for resource in dicts_of(request.get(resources)):
        attributes = _attributes(dict_of(resource.get("resource")).get("attributes"))
        for scope in dicts_of(resource.get(scopes)):
            library = dict_of(scope.get("scope"))
            schema = text_of(scope.get("schemaUrl")) or text_of(resource.get("schemaUrl"))
            source = Source(attributes, text_of(library.get("name")), text_of(library.get("version")), schema)
            for item in dicts_of(scope.get(items)):
                yield source, item


def _add(items: list[Any], read: Callable[[], Any], refused: list[str]) -> None:
    try:
        items.append(read())
    except (ValueError, TypeError, RecursionError) as error:
        refused.append(str(error) or "The item is nested too deep.")


def _span(item: Mapping[str, Any], source: Source) -> Span:
    status = dict_of(item.get("status"))
    code = status.get("code")
    return checked(
        Span(
            trace_id=_id(item.get("traceId")),
            span_id=_id(item.get("spanId")),
            parent_id=_id(item.get("parentSpanId")),
            scope=source.scope,
            name=text_of(item.get("name")),
            kind=_number(_KINDS.get(text_of(item.get("kind")), item.get("kind"))),
            start_ns=_number(item.get("startTimeUnixNano")),
            end_ns=_number(item.get("endTimeUnixNano")),
            status=_number(_STATUSES.get(text_of(code), code)),
            message=text_of(status.get("message")),
            attributes=_attributes(item.get("attributes")),
            events=[
                SpanEvent(
                    text_of(event.get("name")),
                    _number(event.get("timeUnixNano")),
                    _attributes(event.get("attributes")),
                )
                for event in dicts_of(item.get("events"))
            ],
            service=source.service,
            source=source,
            links=_links(item.get("links")) if item.get("links") else [],
            state=text_of(item.get("traceState")),
        )
    )


def _links(items: Any) -> list[Link]:
    """Return those links whose ids can be read."""
    links = []
    for item in dicts_of(items):
        with contextlib.suppress(ValueError):
            trace_id = _checked_id("trace", _id(item.get("traceId")), 32)
            span_id = _checked_id("span", _id(item.get("spanId")), 16)
            links.append(Link(trace_id, span_id, _attributes(item.get("attributes"))))
    return links


def _log(item: Mapping[str, Any], source: Source) -> LogRecord:
    return checked_log(
        LogRecord(
            trace_id=_id(item.get("traceId")),
            span_id=_id(item.get("spanId")),
            name=text_of(item.get("eventName")),
            time_ns=_number(item.get("timeUnixNano")) or _number(item.get("observedTimeUnixNano")),
            attributes=_attributes(item.get("attributes")),
            body=_value(item.get("body")),
            severity=_number(item.get("severityNumber")),
            severity_text=text_of(item.get("severityText")),
            source=source,
        )
    )


def checked(span: Span) -> Span:
    """
    Return a span with what can be mended in it mended: a root's parent of zeros, and an end before the start.

    Raises:
        ValueError: if an id has another length, is all zeros or no hex; or if there is no time to show it at.
    """
    span.trace_id, span.span_id = (
        _checked_id("trace", span.trace_id, 32),
        _checked_id("span", span.span_id, 16),
    )
    span.parent_id = _checked_id("parent", span.parent_id, 16) if span.parent_id.strip("0") else ""
    if not 0 < span.start_ns <= MAX_TIME_NS:
        raise ValueError(f"Span {span.span_id} has no start that can be shown: {span.start_ns}.")
    if span.end_ns:
        span.end_ns = min(max(span.end_ns, span.start_ns), MAX_TIME_NS)
    if span.parent_id == span.span_id:
        span.parent_id = ""
    return span


def checked_log(log: LogRecord) -> LogRecord:
    """
    Return a log record; its event's name is also taken from the attribute that was used for it before.

    Raises:
        ValueError: if it belongs to no span, and is no score of a trace.
    """
    log.name = log.name or text_of(log.attributes.get("event.name"))
    log.trace_id = _checked_id("trace", log.trace_id, 32)
    is_of_trace = log.name == EVALUATION and not log.span_id.strip("0")
    log.span_id = "" if is_of_trace else _checked_id("span", log.span_id, 16)
    return log


def _checked_id(what: str, digits: str, length: int) -> str:
    if len(digits) != length or not digits.strip("0"):
        raise ValueError(f"The {what} id {digits[:40]!r} is not {length} hex digits, or all zeros.")
    return digits


def _id(value: Any) -> str:
    """Return an id as lower-case hex digits. Some write its bytes in base64, as JSON made of protobuf has them."""
    text = text_of(value)
    try:
        return bytes.fromhex(text).hex()
    except ValueError:
        pass
    try:
        return base64.b64decode(text, validate=True).hex()
    except (binascii.Error, ValueError):
        raise ValueError(f"The id {text[:40]!r} is no hex.") from None


def _number(value: Any) -> int:
    """Return a whole number, which JSON has as a number or as a text; 0 for anything else."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20:
        return int(value)
    return int(value) if isinstance(value, (int, float)) and 0 <= value <= 2**64 else 0


def _attributes(pairs: Any) -> dict[str, Any]:
    return {text_of(pair.get("key")): _value(pair.get("value")) for pair in dicts_of(pairs)}


def _value(wrapped: Any, depth: int = 0) -> Any:
    """Return the plain value of an attribute."""
    if depth > _MAX_DEPTH:
        raise ValueError(f"An attribute is nested deeper than {_MAX_DEPTH}.")
    kind, value = next(iter(dict_of(wrapped).items()), ("", None))
    if kind == "intValue":
        return int(value) if isinstance(value, (int, str)) and len(str(value)) < 21 else None
    if kind == "arrayValue":
        return [_value(each, depth + 1) for each in list_of(dict_of(value).get("values"))]
    if kind == "kvlistValue":
        pairs = dicts_of(dict_of(value).get("values"))
        return {text_of(pair.get("key")): _value(pair.get("value"), depth + 1) for pair in pairs}
    return value if isinstance(value, (str, bool, int, float)) else None
