"""The attributes of OpenInference, for receivers that know them better: https://github.com/Arize-ai/openinference."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from whyops_trace._shapes import dict_of, text_of
from whyops_trace.exporters.otlp.messages import as_text
from whyops_trace.exporters.otlp.span import Value

_encode = msgspec.json.Encoder().encode
_Attributes = dict[str, Value]


def add_chain(attributes: _Attributes, kind: str) -> None:
    """Add the kind of a step, an agent or a trace; its input and output have the same names already."""
    attributes["openinference.span.kind"] = kind


def add_tool(
    attributes: _Attributes, name: str, call_id: str, arguments: str, result: str, *, content: bool
) -> None:
    """Add what is known of a tool call."""
    attributes["openinference.span.kind"] = "TOOL"
    attributes["tool.name"] = name
    if call_id:
        attributes["tool_call.id"] = call_id
    if content:
        _add_value(attributes, "input", arguments)
        _add_value(attributes, "output", result)


def add_turn(
    attributes: _Attributes,
    model: str,
    metadata: Mapping[str, Any],
    system: list[dict[str, Any]],
    asked: list[dict[str, Any]],
    answered: list[dict[str, Any]],
    cost: float | None,
    *,
    wraps: bool,
    content: bool,
) -> None:
    """Add what is known of a turn of a model."""
    attributes["openinference.span.kind"] = "CHAIN" if wraps else "LLM"
    if not wraps:
        attributes["llm.model_name"] = model
        if provider := text_of(metadata.get("provider")):
            attributes["llm.provider"] = provider
        if params := dict_of(metadata.get("params")):
            attributes["llm.invocation_parameters"] = _encode(params).decode()
        _add_usage(attributes, cost)
    if content:
        instructions = [{"role": "system", "parts": system}] if system else []
        _add_value(attributes, "input", _encode([*instructions, *asked]).decode())
        _add_value(attributes, "output", _encode(answered).decode())
        if not wraps:
            _add_messages(attributes, "llm.input_messages", [*instructions, *asked])
            _add_messages(attributes, "llm.output_messages", answered)


def add_embedding(attributes: _Attributes, model: str, texts: Iterable[Any], cost: float | None) -> None:
    """Add what is known of an embedding."""
    attributes["openinference.span.kind"] = "EMBEDDING"
    attributes["embedding.model_name"] = model
    for place, text in enumerate(texts):
        attributes[f"embedding.embeddings.{place}.embedding.text"] = as_text(text)
    _add_usage(attributes, cost)


def add_whole(attributes: _Attributes, tags: list[str], metadata: Mapping[str, Any]) -> None:
    """Add what is known of a trace as a whole."""
    if tags:
        attributes["tag.tags"] = tags
    if metadata:
        attributes["metadata"] = _encode(metadata).decode()


def _add_usage(attributes: _Attributes, cost: float | None) -> None:
    for name, convention in (
        ("prompt", "input_tokens"),
        ("completion", "output_tokens"),
        ("prompt_details.cache_read", "cache_read.input_tokens"),
        ("prompt_details.cache_write", "cache_write.input_tokens"),
        ("completion_details.reasoning", "reasoning.output_tokens"),
    ):
        count = attributes.get(f"gen_ai.usage.{convention}")
        if isinstance(count, int):
            attributes[f"llm.token_count.{name}"] = count
    sent, answered = attributes.get("llm.token_count.prompt"), attributes.get("llm.token_count.completion", 0)
    if isinstance(sent, int) and isinstance(answered, int):
        attributes["llm.token_count.total"] = sent + answered
    if cost is not None:
        attributes["llm.cost.total"] = cost


def _add_value(attributes: _Attributes, which: str, text: str) -> None:
    if text:
        attributes[f"{which}.value"] = text
        is_json = text[0] in "{["
        attributes[f"{which}.mime_type"] = "application/json" if is_json else "text/plain"


def _add_messages(attributes: _Attributes, prefix: str, messages: list[dict[str, Any]]) -> None:
    for place, message in enumerate(messages):
        start = f"{prefix}.{place}.message."
        attributes[f"{start}role"] = message["role"]
        texts = [text_of(part.get("content")) for part in message["parts"] if part["type"] == "text"]
        calls = [part for part in message["parts"] if part["type"] == "tool_call"]
        for result in (part for part in message["parts"] if part["type"] == "tool_call_response"):
            texts.append(as_text(result.get("response")))
            attributes[f"{start}tool_call_id"] = text_of(result.get("id"))
        if texts:
            attributes[f"{start}content"] = "\n".join(texts)
        for number, call in enumerate(calls):
            inner = f"{start}tool_calls.{number}.tool_call."
            if call_id := text_of(call.get("id")):
                attributes[f"{inner}id"] = call_id
            attributes[f"{inner}function.name"] = text_of(call.get("name"))
            attributes[f"{inner}function.arguments"] = as_text(call.get("arguments"))
