"""The SDK of Langfuse."""

from __future__ import annotations

from collections.abc import Set
from typing import Final

from whyops_trace._models.answers import read_response
from whyops_trace._otel.attributes import Attributes
from whyops_trace._otel.dialects.values import arguments_of, read_result
from whyops_trace._otel.messages import answer_of, read_messages
from whyops_trace._otel.reading import Kind, Reading
from whyops_trace._otel.span import Span
from whyops_trace._otel.tokens import read_tokens
from whyops_trace._shapes import dict_of, list_of

_PREFIX: Final = "langfuse.observation."
_KINDS: Final[dict[str, Kind]] = {
    "generation": "llm",
    "tool": "tool",
    "agent": "agent",
    "embedding": "embedding",
}


def is_mine(span: Span, roots: Set[str]) -> bool:
    """Return True for its spans."""
    return _PREFIX + "type" in span.attributes


def read(span: Span, attributes: Attributes, reading: Reading) -> None:
    """Fill in what the SDK tells."""
    kind = attributes.text(_PREFIX + "type")
    reading.fill(
        kind=_KINDS.get(kind, "step"),
        name=span.name,
        conversation=attributes.text("session.id"),
        user=attributes.text("user.id"),
    )
    asked, told = attributes.parsed(_PREFIX + "input"), attributes.parsed(_PREFIX + "output")
    if attributes.text(_PREFIX + "level") == "ERROR":
        reading.has_failed = True
    if reading.kind == "tool":
        reading.fill(input=arguments_of(asked))
        read_result(told, reading)
    elif reading.kind in ("llm", "embedding"):
        model = attributes.text(_PREFIX + "model.name")
        reading.fill(model=model, input=asked if reading.kind == "embedding" else None)
        reading.ask(
            read_messages(asked),
            tools=list_of(dict_of(asked).get("tools")),
            params=dict_of(attributes.parsed(_PREFIX + "model.parameters")),
        )
        if reading.kind == "llm":
            is_message = isinstance(told, dict) and "role" in told
            reading.reply(answer_of([told]) if is_message or isinstance(told, list) else read_response(told))
        reading.answer.usage = read_tokens(attributes)
        reading.answer.model = reading.answer.model or model
    else:
        reading.fill(input=asked, output=told)
