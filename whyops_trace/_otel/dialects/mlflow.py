"""MLflow, which writes each attribute as JSON."""

from __future__ import annotations

from collections.abc import Set
from typing import Final

from whyops_trace._models.answers import read_response
from whyops_trace._models.frameworks import id_of
from whyops_trace._otel.attributes import Attributes
from whyops_trace._otel.dialects.values import arguments_of, read_result
from whyops_trace._otel.messages import read_messages, unwrapped
from whyops_trace._otel.reading import Kind, Reading
from whyops_trace._otel.span import Span
from whyops_trace._otel.tokens import read_tokens
from whyops_trace._shapes import dict_of, list_of, text_of

_KINDS: Final[dict[str, Kind]] = {
    "CHAT_MODEL": "llm",
    "LLM": "llm",
    "TOOL": "tool",
    "AGENT": "agent",
    "EMBEDDING": "embedding",
}


def is_mine(span: Span, roots: Set[str]) -> bool:
    """Return True for its spans."""
    return "mlflow.spanType" in span.attributes


def read(span: Span, attributes: Attributes, reading: Reading) -> None:
    """Fill in what MLflow tells."""
    kind = text_of(attributes.parsed("mlflow.spanType"))
    asked, told = attributes.parsed("mlflow.spanInputs"), unwrapped(attributes.parsed("mlflow.spanOutputs"))
    attributes.get("mlflow.traceRequestId", "mlflow.spanFunctionName")
    reading.fill(
        kind=_KINDS.get(kind, "step"),
        name=text_of(attributes.parsed("mlflow.spanFunctionName")) or span.name,
        conversation=text_of(attributes.parsed("mlflow.trace.session")),
        user=text_of(attributes.parsed("mlflow.trace.user")),
    )
    if reading.kind == "tool":
        reading.fill(input=arguments_of(asked))
        read_result(told, reading)
    elif reading.kind in ("llm", "embedding"):
        request = dict_of(asked)
        tools = list_of(attributes.parsed("mlflow.chat.tools")) or list_of(request.get("tools"))
        params = {
            name: value for name, value in request.items() if name not in ("messages", "tools", "input")
        }
        reading.fill(
            model=text_of(attributes.parsed("mlflow.llm.model")) or text_of(request.get("model")),
            input=request.get("input") if reading.kind == "embedding" else None,
        )
        reading.ask(
            read_messages(request.get("messages") or request.get("input") or asked),
            tools=tools,
            params=params,
        )
        if reading.kind == "llm":
            reading.reply(read_response(told))
            reading.answer.id = id_of(told)
        reading.answer.usage = reading.answer.usage or read_tokens(attributes)
        reading.answer.provider = reading.answer.provider or text_of(attributes.parsed("mlflow.llm.provider"))
    else:
        reading.fill(input=asked, output=told)
