"""Haystack, in its own attributes."""

from __future__ import annotations

from collections.abc import Set
from typing import Any, Final

from whyops_trace._models.usage import read_usage
from whyops_trace._otel.attributes import Attributes
from whyops_trace._otel.messages import answer_of, read_messages
from whyops_trace._otel.reading import Failure, Reading
from whyops_trace._otel.span import Span
from whyops_trace._shapes import dict_of, dicts_of, parsed, text_of

_STEP: Final = "haystack.agent.step."
_COMPONENT: Final = "haystack.component."


def is_mine(span: Span, roots: Set[str]) -> bool:
    """Return True for its spans."""
    return "haystack" in roots or span.name.startswith("haystack.")


def read(span: Span, attributes: Attributes, reading: Reading) -> None:
    """Fill in what Haystack tells."""
    component = attributes.text(_COMPONENT + "type")
    if span.name == "haystack.agent.step.tool" or "haystack.tool.name" in span.attributes:
        reading.fill(
            kind="tool",
            name=attributes.text("haystack.tool.name"),
            input=attributes.parsed(_STEP + "tool.input"),
            output=_answer(attributes.parsed(_STEP + "tool.output")),
        )
        reading.has_failed = True if attributes.flag("haystack.tool.error") else reading.has_failed
    elif span.name == "haystack.agent.step.llm" or _STEP + "llm.output" in span.attributes:
        _read_turn(attributes.parsed(_STEP + "llm.input"), attributes.parsed(_STEP + "llm.output"), reading)
    elif component.endswith(("Generator", "LLM")):
        _read_turn(attributes.parsed(_COMPONENT + "input"), attributes.parsed(_COMPONENT + "output"), reading)
    elif component == "ToolInvoker":
        reading.fill(kind="step", name=attributes.text(_COMPONENT + "name"))
        reading.calls = _calls(attributes.parsed(_COMPONENT + "output"))
        attributes.get(_COMPONENT + "input")
    elif span.name == "haystack.agent.run" or component == "Agent":
        asked = dict_of(attributes.parsed("haystack.agent.input", _COMPONENT + "input"))
        told = dict_of(attributes.parsed("haystack.agent.output", _COMPONENT + "output"))
        reading.fill(
            kind="agent",
            name=attributes.text(_COMPONENT + "name"),
            input=read_messages(asked.get("messages") or []) or asked,
            output=_answer(told),
        )
    else:
        reading.fill(
            kind="step",
            name=attributes.text(_COMPONENT + "name"),
            input=attributes.parsed(
                _COMPONENT + "input", "haystack.pipeline.input_data", "haystack.agent.input"
            ),
            output=attributes.parsed(_COMPONENT + "output", "haystack.pipeline.output_data"),
        )


def _answer(told: Any) -> Any:
    """Return the text of the last message that an agent returned, any other output as it is."""
    last = dict_of(dict_of(told).get("last_message"))
    return answer_of([last]).content if last else told


def _calls(told: Any) -> list[Reading]:
    """Return the calls of tools that the invoker of versions before 3 ran, of which it tells in one span."""
    calls = []
    for message in dicts_of(dict_of(told).get("tool_messages")):
        for part in dicts_of(message.get("content") or message.get("_content")):
            result = dict_of(part.get("tool_call_result"))
            origin = dict_of(result.get("origin"))
            call = Reading(
                kind="tool",
                name=text_of(origin.get("tool_name")),
                call_id=text_of(origin.get("id")),
                input=origin.get("arguments"),
                output=parsed(result.get("result")),
            )
            if result.get("error"):
                call.error = Failure(text_of(result.get("result")) or "failed")
            calls.append(call)
    return calls


def _read_turn(asked: Any, told: Any, reading: Reading) -> None:
    asked, told = dict_of(asked), dict_of(told)
    replies = dicts_of(told.get("replies"))[:1] or [dict_of(told.get("reply"))]
    meta = dict_of(replies[0].get("meta")) or dict_of(replies[0].get("_meta"))
    reading.fill(kind="llm")
    tools = [dict_of(tool.get("data")) or tool for tool in dicts_of(asked.get("tools"))]
    reading.ask(
        read_messages(asked.get("messages") or asked.get("prompt") or []),
        tools=tools,
        params=dict_of(asked.get("generation_kwargs")),
    )
    answer = answer_of(replies if replies[0] else [])
    answer.model = text_of(meta.get("model"))
    answer.id = text_of(meta.get("id")) or text_of(meta.get("completion_id"))
    answer.finish_reason = text_of(meta.get("finish_reason")) or text_of(meta.get("stop_reason"))
    answer.usage = read_usage({"usage": dict_of(meta.get("usage"))})
    reading.reply(answer)
