"""A span on its way out, as OTLP has it, and its bytes in the two encodings of OTLP."""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, TypeAlias

import msgspec

#: Value of an attribute; of a span that came from elsewhere also anything nested that OTLP knows.
Value: TypeAlias = str | bool | int | float | bytes | Sequence[Any] | Mapping[str, Any] | None

#: Kinds of spans.
INTERNAL: Final = 1
CLIENT: Final = 3
#: The status of a span that failed.
ERROR: Final = 2


#: The conventions by which attributes are named.
SCHEMA_URL: Final = "https://opentelemetry.io/schemas/gen-ai/0.1.0"


class Options(msgspec.Struct, frozen=True):
    """
    Options of the spans.

    Attributes:
        content: True to export messages, arguments and results.
        openinference: True to add the attributes of OpenInference.
    """

    content: bool = False
    openinference: bool = False


class Event(msgspec.Struct, gc=False):
    """Something that happened at one moment of a span."""

    name: str
    time_ns: int
    attributes: dict[str, Value]


class Span(msgspec.Struct, eq=False, gc=False):
    """
    A span.

    Attributes:
        trace_id: 16 bytes.
        span_id: 8 bytes.
        parent_id: 8 bytes; none for a root.
        name: Its name.
        kind: :data:`INTERNAL` or :data:`CLIENT`.
        start_ns: Nanoseconds since the epoch.
        end_ns: Nanoseconds since the epoch, not before the start.
        attributes: Its attributes.
        events: Its events.
        status: 0 for unset, or :data:`ERROR`.
        message: The text of its status.
        links: Ids of traces and spans that it is related to.
        agent: The name of the agent that made it.
        state: The ``tracestate`` of W3C.
    """

    trace_id: bytes
    span_id: bytes
    parent_id: bytes
    name: str
    kind: int
    start_ns: int
    end_ns: int
    attributes: dict[str, Value]
    events: list[Event] = []
    status: int = 0
    message: str = ""
    links: list[tuple[bytes, bytes, Mapping[str, Value]]] = []
    agent: str = ""
    state: str = ""


class Log(msgspec.Struct, gc=False):
    """
    A log record.

    Attributes:
        trace_id: 16 bytes.
        span_id: 8 bytes; none if it belongs to the trace as a whole.
        name: The name of its event.
        time_ns: Nanoseconds since the epoch.
        severity: Its severity, as a number.
        severity_text: Its severity, in the words of its program.
        attributes: Its attributes.
        body: Its body.
    """

    trace_id: bytes
    span_id: bytes
    name: str
    time_ns: int
    severity: int
    severity_text: str
    attributes: dict[str, Value]
    body: Value


class Origin(msgspec.Struct, frozen=True, eq=False):
    """
    The program and the library that spans, or log records, are from.

    Attributes:
        resource: Attributes of the program.
        scope: The library that made them.
        version: The version of that library.
        schema: The URL of the conventions by which attributes are named.
    """

    resource: Mapping[str, Value]
    scope: str
    version: str
    schema: str


# Protobuf. Its messages are members one after the other: a tag (number of the field, and 0 for a number, 1 for eight
# bytes, 2 for bytes with their length before them), then the value.

_SMALL: Final = [bytes((number,)) for number in range(0x80)]
_times: Final = struct.Struct("<BQBQ").pack
_double: Final = struct.Struct("<Bd").pack
_moment: Final = struct.Struct("<BQ").pack
#: Number of names of attributes, with the sizes of their values, whose bytes are remembered.
_MAX_HEADS: Final = 8_192


def _varint(number: int) -> bytes:
    if number < 0x80:
        return _SMALL[number]
    if number < 0x4000:
        return bytes((number & 0x7F | 0x80, number >> 7))
    digits = bytearray()
    while number > 0x7F:
        digits.append(number & 0x7F | 0x80)
        number >>= 7
    digits.append(number)
    return bytes(digits)


def _sized(tag: bytes, value: bytes) -> bytes:
    return tag + _varint(len(value)) + value


def _text(tag: bytes, text: str) -> bytes:
    return _sized(tag, text.encode("utf-8", "replace"))


def _any(value: Value) -> bytes:
    """Return an ``AnyValue``."""
    if isinstance(value, str):
        return _text(b"\x0a", value)
    if isinstance(value, bool):
        return b"\x10\x01" if value else b"\x10\x00"
    if isinstance(value, int):
        return b"\x18" + _varint(value & 0xFFFF_FFFF_FFFF_FFFF)
    if isinstance(value, float):
        return _double(0x21, value)
    if isinstance(value, bytes):
        return _sized(b"\x3a", value)
    if isinstance(value, Mapping):
        return _sized(b"\x32", _attributes(b"\x0a", value))
    if value is None:
        return b""
    return _sized(b"\x2a", b"".join([_sized(b"\x0a", _any(each)) for each in value]))


@lru_cache(_MAX_HEADS)
def _head(tag: bytes, name: str, size: int) -> bytes:
    """Return a ``KeyValue`` as a member with a tag, up to its value, of which only the size matters."""
    key = _text(b"\x0a", name) + b"\x12" + _varint(size)
    return tag + _varint(len(key) + size) + key


@lru_cache(_MAX_HEADS)
def _text_head(tag: bytes, name: str, size: int) -> bytes:
    """Return the same up to the bytes of a text."""
    told = b"\x0a" + _varint(size)
    return _head(tag, name, len(told) + size) + told


def _attributes(tag: bytes, attributes: Mapping[str, Value]) -> bytes:
    """Return attributes as members with a tag."""
    parts: list[bytes] = []
    for name, value in attributes.items():
        if type(value) is str:
            told = value.encode("utf-8", "replace")
            parts += (_text_head(tag, name, len(told)), told)
        else:
            told = _any(value)
            parts += (_head(tag, name, len(told)), told)
    return b"".join(parts)


def encoded(span: Span) -> bytes:
    """Return a span as a member of a ``ScopeSpans`` in protobuf."""
    parts = [b"\x0a\x10", span.trace_id, b"\x12\x08", span.span_id]
    if span.state:
        parts.append(_text(b"\x1a", span.state))
    if span.parent_id:
        parts += (b"\x22\x08", span.parent_id)
    parts += (
        _text(b"\x2a", span.name),
        b"\x30",
        _SMALL[span.kind],
        _times(0x39, span.start_ns, 0x41, span.end_ns),
        _attributes(b"\x4a", span.attributes),
    )
    for event in span.events:
        told = _moment(0x09, event.time_ns) + _text(b"\x12", event.name)
        parts.append(_sized(b"\x5a", told + _attributes(b"\x1a", event.attributes)))
    for trace_id, span_id, attributes in span.links:
        told = b"\x0a\x10%b\x12\x08%b" % (trace_id, span_id)
        parts.append(_sized(b"\x6a", told + _attributes(b"\x22", attributes)))
    if span.status:
        message = _text(b"\x12", span.message) if span.message else b""
        parts.append(_sized(b"\x7a", message + b"\x18" + _SMALL[span.status]))
    return _sized(b"\x12", b"".join(parts))


def encoded_log(log: Log) -> bytes:
    """Return a log record as a member of a ``ScopeLogs`` in protobuf."""
    parts = [
        _moment(0x09, log.time_ns),
        b"\x10" + _varint(log.severity) if log.severity else b"",
        _text(b"\x1a", log.severity_text) if log.severity_text else b"",
        _sized(b"\x2a", _any(log.body)),
        _attributes(b"\x32", log.attributes),
        b"\x4a\x10%b" % log.trace_id,
        b"\x52\x08%b" % log.span_id if log.span_id else b"",
        _text(b"\x62", log.name) if log.name else b"",
    ]
    return _sized(b"\x12", b"".join(parts))


def request(parts: Iterable[tuple[Origin, Iterable[bytes]]]) -> bytes:
    """
    Return an ``ExportTraceServiceRequest`` in protobuf, or an ``ExportLogsServiceRequest``, which has the same form.

    Args:
        parts: The spans or log records of each origin, encoded.
    """
    return b"".join([_resource(origin, items) for origin, items in parts])


def _resource(origin: Origin, items: Iterable[bytes]) -> bytes:
    scope = _text(b"\x0a", origin.scope) + _text(b"\x12", origin.version)
    inner = _sized(b"\x0a", scope) + b"".join(items) + _text(b"\x1a", origin.schema)
    resource = _attributes(b"\x0a", origin.resource)
    return _sized(b"\x0a", _sized(b"\x0a", resource) + _sized(b"\x12", inner))


# JSON


def encoded_json(span: Span) -> bytes:
    """Return a span in JSON."""
    told = {
        "traceId": span.trace_id.hex(),
        "spanId": span.span_id.hex(),
        "traceState": span.state,
        "parentSpanId": span.parent_id.hex(),
        "name": span.name,
        "kind": span.kind,
        "startTimeUnixNano": str(span.start_ns),
        "endTimeUnixNano": str(span.end_ns),
        "attributes": _json_attributes(span.attributes),
        "events": [
            {
                "name": event.name,
                "timeUnixNano": str(event.time_ns),
                "attributes": _json_attributes(event.attributes),
            }
            for event in span.events
        ],
        "links": [
            {"traceId": trace.hex(), "spanId": one.hex(), "attributes": _json_attributes(attributes)}
            for trace, one, attributes in span.links
        ],
        "status": {"code": span.status, "message": span.message} if span.status else {},
    }
    return msgspec.json.encode(told)


def encoded_log_json(log: Log) -> bytes:
    """Return a log record in JSON."""
    told = {
        "traceId": log.trace_id.hex(),
        "spanId": log.span_id.hex(),
        "timeUnixNano": str(log.time_ns),
        "severityNumber": log.severity,
        "severityText": log.severity_text,
        "eventName": log.name,
        "body": _json_any(log.body),
        "attributes": _json_attributes(log.attributes),
    }
    return msgspec.json.encode(told)


def request_json(parts: Iterable[tuple[Origin, Iterable[bytes]]]) -> bytes:
    """Return an ``ExportTraceServiceRequest`` in JSON; see :func:`request`."""
    return _request_json(b'{"resourceSpans":[%b]}', b"scopeSpans", b"spans", parts)


def request_of_logs_json(parts: Iterable[tuple[Origin, Iterable[bytes]]]) -> bytes:
    """Return an ``ExportLogsServiceRequest`` in JSON; see :func:`request`."""
    return _request_json(b'{"resourceLogs":[%b]}', b"scopeLogs", b"logRecords", parts)


def _request_json(
    form: bytes, scopes: bytes, name: bytes, parts: Iterable[tuple[Origin, Iterable[bytes]]]
) -> bytes:
    resources = []
    for origin, items in parts:
        resource = msgspec.json.encode({"attributes": _json_attributes(origin.resource)})
        scope = msgspec.json.encode({"name": origin.scope, "version": origin.version})
        resources.append(
            b'{"resource":%b,"%b":[{"scope":%b,"%b":[%b],"schemaUrl":%b}]}'
            % (resource, scopes, scope, name, b",".join(items), msgspec.json.encode(origin.schema))
        )
    return form % b",".join(resources)


def _json_attributes(attributes: Mapping[str, Value]) -> list[dict[str, object]]:
    return [{"key": name, "value": _json_any(value)} for name, value in attributes.items()]


def _json_any(value: Value) -> dict[str, object]:
    if isinstance(value, str):
        return {"stringValue": value}
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    if isinstance(value, float):
        return {"doubleValue": value}
    if isinstance(value, bytes):
        return {"bytesValue": base64.b64encode(value).decode()}
    if isinstance(value, Mapping):
        return {"kvlistValue": {"values": _json_attributes(value)}}
    if value is None:
        return {}
    return {"arrayValue": {"values": [_json_any(each) for each in value]}}
