"""Failures of spans: their status, the type of the error, and an event for an exception."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from whyops_trace._reading.excerpt import problem, raised_at
from whyops_trace._shapes import text_of
from whyops_trace.exporters.otlp.span import ERROR, Event, Span, Value

#: The error type of a tool that did not raise, but whose result says that it failed.
TOOL_ERROR: Final = "tool_error"
#: The error type of a call whose process ended before it.
NO_END: Final = "no_end_seen"
#: Longest text of a status.
_MESSAGE: Final = 1_000


def fail(span: Span, kind: str, message: str) -> None:
    """Mark a span as failed."""
    span.status, span.message = ERROR, message[:_MESSAGE]
    span.attributes["error.type"] = kind


def forgive(span: Span) -> None:
    """Mark a span as not failed."""
    span.status, span.message = 0, ""
    span.attributes.pop("error.type", None)


def raise_in(span: Span, error: Mapping[str, Any]) -> None:
    """Mark a span as failed by an exception, and add that as an event."""
    kind, message = text_of(error.get("type")) or "error", text_of(error.get("message"))
    fail(span, kind, problem(error) or message)
    about: dict[str, Value] = {"exception.type": kind, "exception.message": message}
    if stack := raised_at(error):
        about["exception.stacktrace"] = stack
    span.events = [*span.events, Event("exception", span.end_ns, about)]
    if type(error.get("status")) is int:
        span.attributes["http.response.status_code"] = error["status"]
