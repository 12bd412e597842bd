"""A span of an SDK as plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

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


def span_of(source: Source) -> Span:
    """Return what a span tells so far as plain data."""
    scope, parent, status = source.instrumentation_scope, source.parent, source.status
    return Span(
        trace_id=f"{source.context.trace_id:032x}",
        span_id=f"{source.context.span_id:016x}",
        parent_id="" if parent is None else f"{parent.span_id:016x}",
        scope="" if scope is None else scope.name,
        name=source.name,
        kind=source.kind.value + 1,
        start_ns=source.start_time or 0,
        end_ns=0 if source.end_time is None else max(source.end_time, source.start_time or 0, 1),
        status=status.status_code.value,
        message=(status.description or "") if status.status_code.value == ERROR else "",
        attributes=_plain(source.attributes.copy()),
        events=[
            SpanEvent(event.name, event.timestamp, _plain(dict(event.attributes or {})))
            for event in source.events
        ],
    )


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
