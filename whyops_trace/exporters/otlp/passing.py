"""Spans and log records of others on their way out: as they came, with their ids, and with content only if asked."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from whyops_trace._otel import span as sent
from whyops_trace.exporters.otlp.span import Event, Log, Origin, Span

#: The parts of the names of attributes that hold what users, models and tools said.
_CONTENT: Final = re.compile(
    r"(?:^|[._])(?:answer|args|arguments|body|choices?|completions?|contents?|data|definitions|documents?|events|"
    r"functions|inputs?|instructions|messages?|msg|object|outputs?|prompts?|query|question|reasoning|results?|"
    r"statement|texts?|thinking|tool_calls|tool_response|toolcalls|tools|transcript)(?=$|[._])",
    re.IGNORECASE,
)
#: The beginning of the names of what an exception says, which is a part of its error.
_ERROR: Final = "exception."


def origin_of(source: sent.Source) -> Origin:
    """Return the origin of items that came from somewhere."""
    return Origin(source.resource, source.scope, source.version, source.schema)


def passed_on(span: sent.Span, *, content: bool) -> Span:
    """
    Return a span as it goes on.

    Args:
        span: The span, as it came.
        content: True to pass on messages, arguments and results. They are known by the names of their attributes.
    """
    return Span(
        bytes.fromhex(span.trace_id),
        bytes.fromhex(span.span_id),
        bytes.fromhex(span.parent_id),
        span.name,
        span.kind & 0x7F,
        span.start_ns,
        span.end_ns,
        _attributes(span.attributes, content),
        [Event(event.name, event.time_ns, _attributes(event.attributes, content)) for event in span.events],
        span.status & 0x7F,
        span.message,
        [
            (bytes.fromhex(link.trace_id), bytes.fromhex(link.span_id), _attributes(link.attributes, content))
            for link in span.links
        ],
        state=span.state,
    )


def log_passed_on(log: sent.LogRecord, *, content: bool) -> Log:
    """Return a log record as it goes on; see :func:`passed_on`. Its body is content."""
    return Log(
        bytes.fromhex(log.trace_id),
        bytes.fromhex(log.span_id),
        log.name,
        log.time_ns,
        log.severity,
        log.severity_text,
        _attributes(log.attributes, content),
        log.body if content else None,
    )


def _attributes(attributes: Mapping[str, Any], content: bool) -> dict[str, Any]:
    if content:
        return dict(attributes)
    return {
        name: value
        for name, value in attributes.items()
        if isinstance(value, (bool, int, float)) or name.startswith(_ERROR) or not _CONTENT.search(name)
    }
