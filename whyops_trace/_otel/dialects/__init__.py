"""
The dialects of those who make spans, each as a pure function that fills in a reading.

A span often speaks several: a framework's own, and GenAI's. So each dialect that a span speaks is asked, the most
particular one first, and the ones that everybody speaks last.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Set
from functools import lru_cache
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
            It looks at names alone: of the scope, the attributes and events, and the begin of the span's.
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


#: Largest number of attributes of spans whose dialects are remembered, and number of such forms of spans.
_MAX_NAMES: Final = 64
_FORMS: Final = 512
#: Characters of a span's name by which a dialect may be known.
_HEAD: Final = 16


@lru_cache(_FORMS)
def _readers(
    scope: str, name: str, names: tuple[str, ...], events: tuple[str, ...]
) -> tuple[Callable[[Span, Attributes, Reading], None], ...]:
    """Return the functions that read spans of this form: scope, begin of the name, names of attributes and events."""
    told = [SpanEvent(event, 0, {}) for event in events]
    span = Span("", "", "", scope, name, 0, 0, 0, 0, "", dict.fromkeys(names), told)
    roots = {each.partition(".")[0] for each in names}
    return tuple(dialect.read for dialect in DIALECTS if dialect.is_mine(span, roots))


def is_known(scope: str, name: str, names: tuple[str, ...]) -> bool:
    """Tell whether a span with these names of attributes is more to a dialect than that of any program."""
    return len(_readers(scope, name[:_HEAD], names, ())) > 1


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
    values = span.attributes.copy()
    for event in span.events:
        if event.name == genai.DETAILS:
            values |= {
                name: value for name, value in event.attributes.items() if values.get(name) in (None, "")
            }
    attributes, reading = Attributes(values), Reading()
    find = _readers if len(values) <= _MAX_NAMES else _readers.__wrapped__
    events = tuple([event.name for event in span.events])
    for read in find(span.scope, span.name[:_HEAD], tuple(values), events):
        read(span, attributes, reading)
    rest = attributes.rest()
    reading.rest = {name: value for name, value in rest.items() if name in span.attributes} if rest else rest
    reading.error = read_failure(span, reading)
    return reading
