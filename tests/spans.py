"""Spans as a test writes them: a name, attributes, and times in milliseconds."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Any

from whyops_trace._otel.span import Span, SpanEvent

TRACE = "5b8efff798038103d269b633813fc60c"
#: When the first span of a test begins, in nanoseconds since the epoch.
START = 1_800_000_000_000_000_000
_numbers = itertools.count(1)

#: A question, the call that a model answers it with, the result, and the counts of tokens: 90 of 100 are not cached.
QUESTION = {"role": "user", "content": "How deep is Lake Geneva?"}
ARGUMENTS = {"lake": "Geneva"}
RESULT = {"metres": 310}
CALL = {"id": "call_1", "function": {"name": "depth", "arguments": '{"lake": "Geneva"}'}}
USAGE = {
    "promptTokens": 90,
    "completionTokens": 7,
    "cacheReadTokens": 10,
    "reasoningTokens": 3,
    "totalTokens": 107,
}


def span(
    name: str,
    parent: Span | str | None = None,
    *,
    at: int = 0,
    took: int | None = 10,
    scope: str = "app",
    kind: int = 1,
    error: str | None = None,
    events: Sequence[SpanEvent] = (),
    trace: str = TRACE,
    number: int = 0,
    service: str = "",
    **attributes: Any,
) -> Span:
    """
    Return a span.

    Attributes are given as ``gen_ai__tool__name="x"``, or as a mapping named ``attributes``. *took* is None for a
    span that has not ended. *error* is the text of its status.
    """
    given = attributes.pop("attributes", {})
    named = {key.replace("__", "."): value for key, value in attributes.items()}
    return Span(
        trace_id=trace,
        span_id=f"{number or next(_numbers):016x}",
        parent_id=parent.span_id if isinstance(parent, Span) else parent or "",
        scope=scope,
        name=name,
        kind=kind,
        start_ns=START + at * 1_000_000,
        end_ns=0 if took is None else START + (at + took) * 1_000_000,
        status=0 if error is None else 2,
        message=error or "",
        attributes={**named, **given},
        events=list(events),
        service=service,
    )


def raised(message: str, kind: str = "ValueError") -> SpanEvent:
    """Return the event of an exception that left a span."""
    about = {
        "exception.type": kind,
        "exception.message": message,
        "exception.stacktrace": f"{kind}: {message}",
    }
    return SpanEvent("exception", START, about)


def happened(name: str, **attributes: Any) -> SpanEvent:
    """Return an event of a span; its attributes are named as those of :func:`span`."""
    return SpanEvent(name, START, {key.replace("__", "."): value for key, value in attributes.items()})


def turn(
    parent: Span | None = None, *, at: int = 0, id: str = "", calls: Sequence[Any] = (), **more: Any
) -> Span:
    """Return the span of a turn in GenAI's attributes."""
    parts: list[Mapping[str, Any]] = [
        {"type": "tool_call", "id": call["id"], "name": call["name"], "arguments": call["arguments"]}
        for call in calls
    ]
    parts += [] if calls else [{"type": "text", "content": "310 metres"}]
    attributes = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-5",
        "gen_ai.usage.input_tokens": 100,
        "gen_ai.usage.output_tokens": 7,
        "gen_ai.output.messages": json.dumps([{"role": "assistant", "parts": parts}]),
        **({"gen_ai.response.id": id} if id else {}),
        **more.pop("attributes", {}),
    }
    return span("chat gpt-5", parent, at=at, kind=3, attributes=attributes, **more)


def tool(parent: Span | None = None, *, at: int = 0, name: str = "depth", **more: Any) -> Span:
    """Return the span of a tool call in GenAI's attributes."""
    attributes = {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": name,
        **more.pop("attributes", {}),
    }
    return span(f"execute_tool {name}", parent, at=at, attributes=attributes, **more)
