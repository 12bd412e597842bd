"""
The dialects of those who make spans, each as a pure function that fills in a reading.

A span often speaks several: a framework's own, and GenAI's. So each dialect that a span speaks is asked, the most
particular one first, and the ones that everybody speaks last.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Set
from functools import lru_cache
from typing import Any, Final, NamedTuple

from whyops_trace._otel.attributes import Attributes, Decoded
from whyops_trace._otel.dialects import (
    adk,
    ag2,
    claude_code,
    evaluation,
    genai,
    haystack,
    langfuse,
    langsmith,
    litellm,
    llama_index,
    logfire,
    mcp,
    mlflow,
    openinference,
    plain,
    traceloop,
    vercel,
    whyops,
)
from whyops_trace._otel.failures import read_failure
from whyops_trace._otel.reading import Reading
from whyops_trace._otel.span import LogRecord, Span, SpanEvent
from whyops_trace._shapes import dict_of, parsed, text_of


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
        whyops,
        claude_code,
        litellm,
        ag2,
        adk,
        haystack,
        vercel,
        langfuse,
        langsmith,
        mlflow,
        llama_index,
        openinference,
        logfire,
        traceloop,
        mcp,
        genai,
        evaluation,
        plain,
    )
)


#: Largest number of attributes of spans whose dialects are remembered, and number of such forms of spans.
_MAX_NAMES: Final = 64
_FORMS: Final = 512
#: Characters of a span's name by which a dialect may be known.
HEAD: Final = 16
#: Attributes that name the operation: of GenAI, and of OpenInference.
_OPERATION: Final = "gen_ai.operation.name"
_SPAN_KIND: Final = "openinference.span.kind"
#: Kinds of operations that are calls of models.
_TURNS: Final = ("llm", "embedding")


class Form(NamedTuple):
    """
    The form that spans of one origin have in common.

    Attributes:
        scope: The library that made them.
        name: The begin of their name.
        kind: The kind of the spans.
        names: The names of their attributes.
        events: The names of their events.
    """

    scope: str
    name: str
    kind: int
    names: tuple[str, ...]
    events: tuple[str, ...] = ()

    @classmethod
    def of(cls, span: Span) -> Form:
        """Return the form of a span."""
        events = tuple([event.name for event in span.events])
        return cls(span.scope, span.name[:HEAD], span.kind, tuple(span.attributes), events)

    def span(self) -> Span:
        """Return a span of this form that tells nothing."""
        told = [SpanEvent(event, 0, {}) for event in self.events]
        return Span(
            "", "", "", self.scope, self.name, self.kind, 0, 0, 0, "", dict.fromkeys(self.names), told
        )


class _Readers(NamedTuple):
    """The functions that read spans of a form, and whether these are foreign."""

    functions: tuple[Callable[[Span, Attributes, Reading], None], ...]
    are_foreign: bool


def _find_readers(form: Form) -> _Readers:
    span = form.span()
    roots = {each.partition(".")[0] for each in form.names}
    functions = tuple(dialect.read for dialect in DIALECTS if dialect.is_mine(span, roots))
    return _Readers(functions, len(functions) == 1 and plain.is_foreign(span))


_known_readers: Final = lru_cache(_FORMS)(_find_readers)


def _readers(form: Form) -> _Readers:
    return _known_readers(form) if len(form.names) <= _MAX_NAMES else _find_readers(form)


def is_known(form: Form) -> bool:
    """Tell whether spans of a form are more to a dialect than those of any program."""
    return len(_readers(form).functions) > 1


def is_foreign(form: Form) -> bool:
    """Tell whether spans of a form call other services, or answer them, and are nothing else to any dialect."""
    return _readers(form).are_foreign


def names_operation(attributes: Mapping[str, Any]) -> bool:
    """Tell whether attributes name an operation. Then a dialect knows the span, whatever its form is."""
    return _OPERATION in attributes or _SPAN_KIND in attributes


def is_turn(attributes: Mapping[str, Any]) -> bool:
    """Tell whether attributes name an operation that is a call of a model."""
    return (
        genai.KINDS.get(text_of(attributes.get(_OPERATION))) in _TURNS
        or openinference.KINDS.get(text_of(attributes.get(_SPAN_KIND))) in _TURNS
    )


def read_span(span: Span, logs: Iterable[LogRecord] = (), decoded: Decoded | None = None) -> Reading:
    """
    Return what a span tells of.

    Args:
        span: The span.
        logs: Its log records, in order. They count as events of the span.
        decoded: What earlier readings of this span decoded, to which this one adds.
    """
    for log in logs:
        about = {**log.attributes, **dict_of(parsed(log.body))}
        span.events.append(SpanEvent(log.name, log.time_ns, about))
    values, form = span.attributes, Form.of(span)
    for event in span.events:
        if event.name == genai.DETAILS:
            more = {name: value for name, value in event.attributes.items() if values.get(name) in (None, "")}
            values = values | more
            form = form._replace(names=tuple(values))
    attributes, reading = Attributes(values, decoded), Reading()
    for read in _readers(form).functions:
        read(span, attributes, reading)
    rest = attributes.rest()
    reading.rest = {name: value for name, value in rest.items() if name in span.attributes} if rest else rest
    reading.error = read_failure(span, reading)
    return reading
