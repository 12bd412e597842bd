"""Spans and log records as bytes, to be kept until their trace is read, without the secrets in them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final

import msgspec

from whyops_trace._otel.span import Link, LogRecord, Source, Span, SpanEvent
from whyops_trace._shapes import dict_of, list_of, parsed, text_of
from whyops_trace._values.reflection import REDACTED

#: Words of which one is in each name of a secret, so that most texts need not be decoded.
_SUSPICIOUS: Final = (
    "passw", "passphrase", "pwd", "secret", "credential", "authori", "bearer", "cookie", "key", "token", "card", "cvv",
    "cvc", "ssn", "social",
)  # fmt: skip
#: Characters of JSON in a text above which it is kept decoded, so that it is cut by its members and not anywhere.
_LARGE: Final = 200_000
#: Deepest nesting that is looked into.
_MAX_DEPTH: Final = 60

Encode = Callable[[object], bytes]


class _Head(msgspec.Struct, array_like=True, gc=False):
    """The members of a span that hold no text of the user's."""

    trace_id: str
    span_id: str
    parent_id: str
    kind: int
    start_ns: int
    end_ns: int
    status: int
    times: list[int]


_encode: Final = msgspec.json.Encoder().encode
_head_decoder: Final = msgspec.json.Decoder(_Head)
_decode: Final = msgspec.json.decode


def pack(span: Span, encode: Encode, hides: Callable[[str], bool]) -> bytes:
    """
    Return a span as bytes.

    Args:
        span: The span.
        encode: Function from any value to JSON without secrets.
        hides: Function from a name to True if the value under it is a secret.
    """
    head = _Head(
        span.trace_id,
        span.span_id,
        span.parent_id,
        span.kind,
        span.start_ns,
        span.end_ns,
        span.status,
        [event.time_ns for event in span.events],
    )
    body = [
        span.scope,
        span.name,
        span.message,
        span.service,
        _without_secrets(span.attributes, hides),
        [[event.name, _without_secrets(event.attributes, hides)] for event in span.events],
    ]
    return _encode(head) + b"\n" + encode(body)


def unpack(data: bytes) -> Span:
    """Return the span of :func:`pack`."""
    first, _, second = data.partition(b"\n")
    head, body = _head_decoder.decode(first), list_of(_decode(second))
    scope, name, message, service = (text_of(each) for each in body[:4])
    events = list_of(body[5]) if len(body) > 5 else []
    return Span(
        trace_id=head.trace_id,
        span_id=head.span_id,
        parent_id=head.parent_id,
        scope=scope,
        name=name,
        kind=head.kind,
        start_ns=head.start_ns,
        end_ns=head.end_ns,
        status=head.status,
        message=message,
        attributes=dict_of(body[4]) if len(body) > 4 else {},
        events=[
            SpanEvent(text_of(event[0]), time, dict_of(event[1]))
            for event, time in zip(events, head.times, strict=False)
        ],
        service=service,
    )


def pack_rest(item: Span | LogRecord, encode: Encode, hides: Callable[[str], bool]) -> bytes:
    """Return what :func:`pack` and :func:`pack_log` leave out, as it only matters to whom an item is passed on to."""
    source = item.source
    about = encode([_without_secrets(source.resource, hides), source.scope, source.version, source.schema])
    if isinstance(item, LogRecord):
        return about + b"\n" + encode([item.severity, item.severity_text])
    links = [[link.trace_id, link.span_id, _without_secrets(link.attributes, hides)] for link in item.links]
    return about + b"\n" + encode([links, item.state])


def unpack_whole(data: bytes) -> tuple[Span, bytes]:
    """Return the span of :func:`pack` and :func:`pack_rest`, with a newline between the two, and its packed source."""
    data, about, rest = data.rsplit(b"\n", 2)
    span = unpack(data)
    links, state = _decode(rest)
    span.links = [Link(trace_id, span_id, dict_of(attributes)) for trace_id, span_id, attributes in links]
    span.state = text_of(state)
    return span, about


def unpack_whole_log(data: bytes) -> tuple[LogRecord, bytes]:
    """Return the log record of :func:`pack_log` and :func:`pack_rest`, and its packed source, likewise."""
    data, about, rest = data.rsplit(b"\n", 2)
    log = unpack_log(data)
    log.severity, log.severity_text = _decode(rest)
    return log, about


def unpack_source(about: bytes) -> Source:
    """Return a source."""
    resource, scope, version, schema = _decode(about)
    return Source(dict_of(resource), text_of(scope), text_of(version), text_of(schema))


def pack_log(log: LogRecord, encode: Encode, hides: Callable[[str], bool]) -> bytes:
    """Return a log record as bytes; see :func:`pack`."""
    body = [log.name, _without_secrets(log.attributes, hides), _without_secrets(log.body, hides)]
    return _encode([log.trace_id, log.span_id, log.time_ns]) + b"\n" + encode(body)


def unpack_log(data: bytes) -> LogRecord:
    """Return the log record of :func:`pack_log`."""
    first, _, second = data.partition(b"\n")
    trace_id, span_id, time_ns = _decode(first)
    name, attributes, body = _decode(second)
    return LogRecord(trace_id, span_id, text_of(name), time_ns, dict_of(attributes), body)


def _without_secrets(value: Any, hides: Callable[[str], bool], depth: int = 0) -> Any:
    """Return a value without the secrets in the JSON that is in its texts; the encoder sees to all others."""
    if isinstance(value, str):
        if value[:1] not in ("{", "["):
            return value
        if len(value) <= _LARGE and not _may_have_secret(value):
            return value
        return _decoded_without_secrets(value, hides, depth)
    if depth > _MAX_DEPTH:
        return value
    if isinstance(value, dict):
        return {name: _without_secrets(each, hides, depth + 1) for name, each in value.items()}
    if isinstance(value, list):
        return [_without_secrets(each, hides, depth + 1) for each in value]
    return value


def _may_have_secret(text: str) -> bool:
    text = text.lower()  # an expression that ignores the case takes twenty times as long
    return any(word in text for word in _SUSPICIOUS)


def _decoded_without_secrets(text: str, hides: Callable[[str], bool], depth: int) -> Any:
    """Return JSON with nothing under the name of a secret: the text itself if there is none, decoded if it is large."""
    decoded = parsed(text)
    if decoded is text:
        return text
    hidden = _hidden(decoded, hides, depth)
    if len(text) > _LARGE:
        return hidden
    return text if hidden == decoded else json.dumps(hidden, ensure_ascii=False)


def _hidden(value: Any, hides: Callable[[str], bool], depth: int) -> Any:
    if depth > _MAX_DEPTH:
        return value
    if isinstance(value, dict):
        return {
            name: REDACTED
            if hides(name) and not isinstance(each, (bool, type(None)))
            else _hidden(each, hides, depth + 1)
            for name, each in value.items()
        }
    if isinstance(value, list):
        return [_hidden(each, hides, depth + 1) for each in value]
    return _without_secrets(value, hides, depth + 1)
