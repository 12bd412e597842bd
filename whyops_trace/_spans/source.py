"""A span of an SDK as plain data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from whyops_trace._otel.dialects import HEAD, Form
from whyops_trace._otel.span import ERROR, Span, SpanEvent


class Source(Protocol):
    """A span of an SDK, open or ended, as far as it is read here."""

    @property
    def name(self) -> str:
        """Its name."""
        ...

    @property
    def context(self) -> Any:
        """Its ids."""
        ...

    @property
    def parent(self) -> Any:
        """The ids of its parent, None for a root."""
        ...

    @property
    def kind(self) -> Any:
        """Its kind, an enumeration that begins with 0 for internal."""
        ...

    @property
    def start_time(self) -> int | None:
        """Its start, in nanoseconds since the epoch."""
        ...

    @property
    def end_time(self) -> int | None:
        """Its end, in nanoseconds since the epoch; None while it is open."""
        ...

    @property
    def status(self) -> Any:
        """Its status, whose code is an enumeration of 0 unset, 1 ok, 2 error."""
        ...

    @property
    def attributes(self) -> Any:
        """Its attributes, a mapping that may grow."""
        ...

    @property
    def events(self) -> Sequence[Any]:
        """Its events."""
        ...

    @property
    def instrumentation_scope(self) -> Any:
        """The library that made it."""
        ...


def form_of(source: Source, attributes: Iterable[str]) -> Form:
    """Return the form of a span with these attributes."""
    scope = source.instrumentation_scope
    return Form(
        "" if scope is None else scope.name,
        source.name[:HEAD],
        source.kind._value_ + 1,
        tuple(attributes),
        tuple([event.name for event in source.events]),
    )


def span_of(source: Source) -> Span:
    """Return what a span tells so far as plain data."""
    context, scope, parent = source.context, source.instrumentation_scope, source.parent
    return told_by(
        source,
        Span(
            trace_id=f"{context.trace_id:032x}",
            span_id=f"{context.span_id:016x}",
            parent_id="" if parent is None else f"{parent.span_id:016x}",
            scope="" if scope is None else scope.name,
            name="",
            kind=source.kind._value_ + 1,  # .value of an enumeration is a function, and as slow
            start_ns=source.start_time or 0,
            end_ns=0,
            status=0,
            message="",
            attributes={},
            events=[],
        ),
    )


def told_by(source: Source, span: Span) -> Span:
    """Return a span with what may have changed of it since it was read before."""
    status, end_ns = source.status, source.end_time
    code = status.status_code._value_
    span.name, span.status = source.name, code
    span.message = (status.description or "") if code == ERROR else ""
    span.end_ns = 0 if end_ns is None else max(end_ns, span.start_ns, 1)
    span.attributes = _plain(source.attributes.copy())
    span.events = [
        SpanEvent(event.name, event.timestamp, _plain(dict(event.attributes or {})))
        for event in source.events
    ]
    return span


def _plain(attributes: dict[str, Any]) -> dict[str, Any]:
    """Return attributes with lists and dicts in place of tuples and other mappings."""
    for name, value in attributes.items():
        if not isinstance(value, str):
            attributes[name] = _plain_value(value)
    return attributes


def _plain_value(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_plain_value(each) for each in value]
    if isinstance(value, Mapping):
        return {str(name): _plain_value(each) for name, each in value.items()}
    return None if isinstance(value, bytes) else value
