"""Logfire, and Pydantic AI, which writes GenAI's attributes and, in older versions, some of its own."""

from __future__ import annotations

from collections.abc import Set
from typing import Any, Final

from whyops_trace._models.answers import is_of_provider, read_response
from whyops_trace._models.frameworks import id_of
from whyops_trace._otel.attributes import Attributes
from whyops_trace._otel.messages import answer_of, read_messages
from whyops_trace._otel.reading import Reading
from whyops_trace._otel.span import Span
from whyops_trace._shapes import dict_of, dicts_of, list_of, parsed, text_of

#: Level of a record that tells of an error.
_ERROR_LEVEL: Final = 17
#: Members of a schema that are no arguments of the function whose call is recorded.
_NO_ARGUMENTS: Final = ("return", "logfire.tags")
_TEMPLATES: Final = {
    "Function: {name}": "tool",
    "Agent run: {name!r}": "agent",
    "Handoff: {from_agent} → {to_agent}": "handoff",
}


def is_mine(span: Span, roots: Set[str]) -> bool:
    """Return True for spans of either."""
    return "logfire" in roots or span.scope.startswith(("logfire", "pydantic-ai", "pydantic_ai"))


def read(span: Span, attributes: Attributes, reading: Reading) -> None:
    """Fill in what the two tell besides GenAI's attributes."""
    template = attributes.text("logfire.msg_template")
    schema = dict_of(attributes.parsed("logfire.json_schema"))
    attributes.get("logfire.span_type", "logfire.level_num")
    level = attributes.count("logfire.level_num")
    kind = _TEMPLATES.get(template, "")
    if kind:
        _read_agents_sdk(kind, attributes, reading)
    elif span.scope.startswith(("pydantic-ai", "pydantic_ai")):
        _read_pydantic_ai(span, attributes, reading)
    elif "gen_ai.operation.name" in span.attributes or "request_data" in span.attributes:
        _read_turn(attributes, reading)
    elif dict_of(schema.get("properties")) and "sdk_span_type" not in span.attributes:
        _read_call(dict_of(schema["properties"]), attributes, reading)
    else:
        reading.fill(kind="step")
    name = attributes.text("logfire.msg")
    if reading.kind == "step":
        reading.fill(name=name)
    if level is not None and level >= _ERROR_LEVEL and reading.kind == "tool":
        reading.has_failed = True


def _read_agents_sdk(kind: str, attributes: Attributes, reading: Reading) -> None:
    """Read what Logfire makes of the spans of the OpenAI Agents SDK."""
    reading.fill(kind=kind)
    if kind == "handoff":
        reading.fill(
            name=attributes.text("to_agent"),
            input={"from": attributes.text("from_agent"), "to": attributes.text("to_agent")},
        )
        return
    reading.fill(name=attributes.text("name"))
    if kind == "agent":
        reading.fill(agent=reading.name)
        return
    reading.fill(input=attributes.parsed("input"), output=attributes.parsed("output"))
    error = attributes.parsed("error")
    reading.has_failed = bool(error)


def _read_turn(attributes: Attributes, reading: Reading) -> None:
    """Read a call of a model with its request and its answer as the client saw them."""
    reading.fill(kind="llm")
    request = dict_of(attributes.parsed("request_data"))
    events = dicts_of(attributes.parsed("events"))
    told = attributes.parsed("response")
    if isinstance(told, dict) and is_of_provider(told):
        reading.reply(read_response(told))
        reading.answer.id = reading.answer.id or id_of(told)
        reading.ask(systemPrompt=text_of(told.get("instructions")), tools=list_of(told.get("tools")))
    answered = parsed(dict_of(attributes.parsed("response_data")).get("message"))
    if isinstance(answered, dict):
        reading.reply(answer_of([answered]))
    messages = read_messages(request.get("messages") or attributes.parsed("raw_input") or [])
    reading.ask(messages, tools=list_of(request.get("tools")))
    _read_events(events, reading)
    attributes.get("response_id", "usage", "gen_ai.usage.raw")


def _read_events(events: list[dict[str, Any]], reading: Reading) -> None:
    """Read messages that are written as a list of events, the answer last."""
    messages = []
    for event in events:
        name = text_of(event.get("event.name"))
        if name == "gen_ai.choice":
            reading.reply(answer_of([dict_of(event.get("message"))]))
            continue
        message = {key: value for key, value in event.items() if not key.startswith(("event.", "gen_ai."))}
        if message.get("role") == "tool" and "id" in message:
            message["tool_call_id"] = message.pop("id")
        messages.append(message)
    if messages and dict_of(messages[-1]).get("role") == "assistant" and not reading.has_answer:
        reading.reply(answer_of([messages.pop()]))
    reading.ask(read_messages(messages))


def _read_pydantic_ai(span: Span, attributes: Attributes, reading: Reading) -> None:
    """Read an agent's run and the tool calls of older versions; newer ones say all with GenAI's attributes."""
    if "agent_name" in span.attributes:
        reading.fill(kind="agent", name=attributes.text("gen_ai.agent.name", "agent_name"))
        attributes.get("model_name")
        attributes.named("gen_ai.aggregated_usage.")
        attributes.named("gen_ai.usage.")
        messages = read_messages(attributes.parsed("pydantic_ai.all_messages") or [])
        asked = next((each for each in messages if dict_of(each).get("role") == "user"), None)
        reading.fill(input=[asked] if asked else None, output=attributes.parsed("final_result"))
    elif "tool_arguments" in span.attributes or "tool_response" in span.attributes:
        reading.fill(
            kind="tool",
            input=attributes.parsed("tool_arguments"),
            output=attributes.parsed("tool_response"),
        )
    _read_events(dicts_of(attributes.parsed("events")), reading)


def _read_call(properties: dict[str, Any], attributes: Attributes, reading: Reading) -> None:
    """Read a call of a function, whose arguments are attributes that the schema names."""
    arguments = {name: attributes.parsed(name) for name in properties if name not in _NO_ARGUMENTS}
    reading.fill(kind="step", input=arguments, output=attributes.parsed("return"))
    reading.may_be_tool = True
