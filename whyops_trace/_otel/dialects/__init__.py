"""
The dialects of those who make spans, each as a pure function that fills in a reading.

A span often speaks several: a framework's own, and GenAI's. So each dialect that a span speaks is asked, the most
particular one first, and the ones that everybody speaks last.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Set
from typing import Final, NamedTuple

from whyops_trace._otel.attributes import Attributes
from whyops_trace._otel.dialects import (
    adk,
    ag2,
    claude_code,
    genai,
    haystack,
    langfuse,
    litellm,
    llama_index,
    logfire,
    mcp,
    mlflow,
    openinference,
    plain,
    traceloop,
    vercel,
)
from whyops_trace._otel.failures import read_failure
from whyops_trace._otel.reading import Reading
from whyops_trace._otel.span import LogRecord, Span, SpanEvent
from whyops_trace._shapes import dict_of


class Dialect(NamedTuple):
    """
    A way of writing spans.

    Attributes:
        is_mine: Function from a span, and the first words of the names of its attributes, to True if it is written so.
        read: Function that fills in what the span then tells.
    """

    is_mine: Callable[[Span, Set[str]], bool]
    read: Callable[[Span, Attributes, Reading], None]


DIALECTS: Final = tuple(
    Dialect(module.is_mine, module.read)
    for module in (
        claude_code,
        litellm,
        ag2,
        adk,
        haystack,
        vercel,
        langfuse,
        mlflow,
        llama_index,
        openinference,
        logfire,
        traceloop,
        mcp,
        genai,
        plain,
    )
)


def read_span(span: Span, logs: Iterable[LogRecord] = ()) -> Reading:
    """
    Return what a span tells of.

    Args:
        span: The span.
        logs: Its log records, in order. They count as events of the span.
    """
    for log in logs:
        about = {**log.attributes, **dict_of(log.body)}
        span.events.append(SpanEvent(log.name, log.time_ns, about))
    values = dict(span.attributes)
    for event in span.events:
        if event.name == genai.DETAILS:
            values |= {
                name: value for name, value in event.attributes.items() if values.get(name) in (None, "")
            }
    attributes, reading = Attributes(values), Reading()
    roots = {name.partition(".")[0] for name in values}
    for dialect in DIALECTS:
        if dialect.is_mine(span, roots):
            dialect.read(span, attributes, reading)
    reading.rest = {name: value for name, value in attributes.rest().items() if name in span.attributes}
    reading.error = read_failure(span, reading)
    return reading
