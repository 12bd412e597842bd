"""The SDK of LangSmith as an exporter of OpenTelemetry, besides GenAI's attributes."""

from __future__ import annotations

from collections.abc import Set
from typing import Final

from whyops_trace._models.answers import read_response
from whyops_trace._models.frameworks import id_of
from whyops_trace._otel.attributes import Attributes
from whyops_trace._otel.dialects.values import arguments_of, generation_of, read_result
from whyops_trace._otel.messages import decoded, read_messages
from whyops_trace._otel.reading import Kind, Reading
from whyops_trace._otel.span import Span
from whyops_trace._shapes import dict_of

_KINDS: Final[dict[str, Kind]] = {"llm": "llm", "tool": "tool", "embedding": "embedding"}
_METADATA: Final = "langsmith.metadata."


def is_mine(span: Span, roots: Set[str]) -> bool:
    """Return True for its spans."""
    return "langsmith" in roots


def read(span: Span, attributes: Attributes, reading: Reading) -> None:
    """Fill in what the SDK tells: the inputs and the outputs of a run of LangChain, or of a traced function."""
    kind = attributes.text("langsmith.span.kind")
    agent = attributes.text(_METADATA + "lc_agent_name")
    is_agent = kind == "chain" and span.name == agent
    reading.fill(
        kind="agent" if is_agent else _KINDS.get(kind, "step"),
        agent=agent,
        conversation=attributes.text(*(_METADATA + name for name in ("session_id", "thread_id"))),
        user=attributes.text(_METADATA + "user_id"),
    )
    asked, told = (attributes.made(decoded, f"gen_ai.{name}") for name in ("prompt", "completion"))
    if reading.kind == "llm":
        reading.ask(read_messages(dict_of(asked).get("messages") or asked))
        reading.reply(read_response(told))
        reading.answer.id = id_of(generation_of(told)) if isinstance(told, dict) else ""
    elif reading.kind == "tool":
        reading.fill(input=arguments_of(asked))
        read_result(told, reading)
    elif reading.kind != "embedding":
        reading.fill(name=span.name, input=asked, output=told)
