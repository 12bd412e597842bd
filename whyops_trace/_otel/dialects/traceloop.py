"""OpenLLMetry, whose conventions are Traceloop's, and which fills in GenAI's as well."""

from __future__ import annotations

from collections.abc import Set
from typing import Any, Final

from whyops_trace._otel.attributes import Attributes
from whyops_trace._otel.dialects.values import arguments_of, read_result
from whyops_trace._otel.messages import answer_of, read_messages
from whyops_trace._otel.reading import Kind, Reading
from whyops_trace._otel.span import Span
from whyops_trace._shapes import dict_of, dicts_of, parsed, text_of

_KINDS: Final[dict[str, Kind]] = {"workflow": "step", "task": "step", "agent": "agent", "tool": "tool"}
_REQUESTS: Final[dict[str, Kind]] = {
    "chat": "llm",
    "completion": "llm",
    "embedding": "embedding",
    "rerank": "step",
}
#: Attributes of which each of its turns has one.
_OF_TURNS: Final = (
    "llm.request.type",
    "gen_ai.prompt.0.role",
    "gen_ai.prompt.0.content",
    "gen_ai.completion.0.role",
    "gen_ai.completion.0.content",
    "gen_ai.completion.0.finish_reason",
    "gen_ai.completion.0.function_call.name",
    "gen_ai.completion.0.tool_calls.0.name",
)
#: The id of a crew of CrewAI, whose span says that it is an agent as those of its members do.
_CREW: Final = "crewai.crew.id"
_PROPERTIES: Final = "traceloop.association.properties."


def is_mine(span: Span, roots: Set[str]) -> bool:
    """Return True for spans with its attributes."""
    return (
        "traceloop" in roots or _CREW in span.attributes or not span.attributes.keys().isdisjoint(_OF_TURNS)
    )


def read(span: Span, attributes: Attributes, reading: Reading) -> None:
    """Fill in what the conventions tell."""
    attributes.get("traceloop.workflow.name", "traceloop.entity.path")
    kind = attributes.text("traceloop.span.kind")
    reading.fill(
        kind=_REQUESTS.get(attributes.text("llm.request.type")) or _KINDS.get(kind),
        conversation=attributes.text(
            *(_PROPERTIES + name for name in ("session_id", "thread_id", "chat_id"))
        ),
        user=attributes.text(_PROPERTIES + "user_id"),
    )
    told = attributes.get("traceloop.entity.output")
    asked = attributes.get("traceloop.entity.input")
    if _CREW in span.attributes:
        reading.fill(
            kind="step",
            name=attributes.text("crewai.crew.name"),
            output=attributes.get("crewai.crew.result"),
        )
    ran = dict_of(parsed(told)) if kind == "task" else {}
    if ran.keys() >= {"tool_name", "raw_output"}:
        ran = {"tool_output": ran, **ran}  # the function itself, in the step of the workflow that calls it
    if ran.keys() >= {"tool_name", "tool_output"} or (kind == "task" and "tool.name" in span.attributes):
        reading.fill(
            name=attributes.text("tool.name") or text_of(ran.get("tool_name")),
            call_id=text_of(ran.get("tool_id")),
            input=attributes.parsed("tool.arguments"),
        )
        reading.kind = "tool"
        told = ran.get("tool_output")
    if reading.kind == "tool":
        reading.fill(
            name=attributes.text("gen_ai.tool.name", "traceloop.entity.name"), input=arguments_of(asked)
        )
        read_result(told, reading)
        if "input_str" in str(attributes.get("gen_ai.tool.call.arguments"))[:20]:
            attributes.get("gen_ai.tool.call.arguments", "gen_ai.tool.call.result")
    elif kind:
        reading.fill(
            name=attributes.text("traceloop.entity.name"), input=arguments_of(asked), output=parsed(told)
        )
        reading.may_be_tool = kind == "task"
    _read_turn(attributes, reading)


def _read_turn(attributes: Attributes, reading: Reading) -> None:
    prompts = dicts_of(attributes.nested("gen_ai.prompt"))
    completions = dicts_of(attributes.nested("gen_ai.completion"))
    functions = dicts_of(attributes.nested("llm.request.functions"))
    attributes.get("llm.is_streaming", "gen_ai.is_streaming", "llm.usage.total_tokens")
    reading.ask(
        read_messages([_message(each) for each in prompts]),
        tools=[
            {"type": "function", "function": {**each, "parameters": parsed(each.get("parameters"))}}
            for each in functions
        ],
    )
    # LiteLLM counts the calls of one answer as if they were answers.
    calls_only = all("function_call" in each and "content" not in each for each in completions)
    told = completions if calls_only else completions[:1]
    answer = answer_of([{"role": "assistant", **_message(each)} for each in told])
    if completions:
        answer.finish_reason = str(completions[0].get("finish_reason") or "")
        reading.reply(answer)


def _message(each: dict[str, Any]) -> dict[str, Any]:
    """Return a message of an attribute's tree in the form of OpenAI's."""
    content = each.get("content")
    blocks = parsed(content)
    told = {
        **{name: each[name] for name in ("role", "tool_call_id") if each.get(name)},
        "content": blocks if isinstance(blocks, list) else content,
    }
    calls = dicts_of(each.get("tool_calls")) or [dict_of(each.get("function_call"))]
    calls = [call for call in calls if call.get("name")]
    return told | ({"tool_calls": calls} if calls else {})
