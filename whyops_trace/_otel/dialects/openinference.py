"""OpenInference, the conventions of Arize Phoenix: https://github.com/Arize-ai/openinference/tree/main/spec."""

from __future__ import annotations

from collections.abc import Set
from typing import Any, Final

from whyops_trace._models.answers import Turn, is_of_provider, read_response
from whyops_trace._models.frameworks import id_of
from whyops_trace._otel.attributes import Attributes, literal
from whyops_trace._otel.dialects.values import arguments_of, generation_of, read_result
from whyops_trace._otel.messages import answer_of, read_messages, unwrapped
from whyops_trace._otel.reading import Kind, Reading
from whyops_trace._otel.span import Span
from whyops_trace._otel.tokens import read_tokens
from whyops_trace._shapes import dict_of, dicts_of, list_of, parsed, text_of

#: The kinds of spans, and of what they tell; any other one is a step.
KINDS: Final[dict[str, Kind]] = {
    "LLM": "llm",
    "TOOL": "tool",
    "AGENT": "agent",
    "EMBEDDING": "embedding",
}
#: The name under which a framework hands over its final answer: no tool that ran.
_FINALS: Final = {"dspy": "finish", "smolagents": "final_answer"}
_SCOPE: Final = "openinference.instrumentation."
#: The span of DSPy's agent. One of a class of its own is known by the trajectory that it returns.
_REACT: Final = "ReAct.forward"
#: The tool argument that names the agent to which one of CrewAI delegates.
_COWORKER: Final = "coworker"
#: The beginning of the name of a span in which one agent of the OpenAI Agents SDK hands over to another.
_HANDOFF: Final = "handoff to "


def is_mine(span: Span, roots: Set[str]) -> bool:
    """Return True for spans that name their kind."""
    return "openinference.span.kind" in span.attributes


def read(span: Span, attributes: Attributes, reading: Reading) -> None:
    """Fill in what the conventions tell."""
    kind = attributes.text("openinference.span.kind").upper()
    attributes.get("input.mime_type", "output.mime_type", "llm.token_count.total")
    reading.fill(
        kind=KINDS.get(kind, "step"),
        conversation=attributes.text("session.id"),
        user=attributes.text("user.id"),
        agent=attributes.text("agent.name"),
    )
    if reading.kind == "llm":
        _read_turn(attributes, reading)
    elif reading.kind == "tool":
        _read_tool(span, attributes, reading)
    elif reading.kind == "embedding":
        _read_embedding(attributes, reading)
    else:
        _read_step(span, attributes, reading)


def _read_turn(attributes: Attributes, reading: Reading) -> None:
    asked, told = attributes.parsed("input.value"), unwrapped(attributes.parsed("output.value"))
    params = dict_of(attributes.parsed("llm.invocation_parameters"))
    tools = [
        parsed(dict_of(each.get("tool")).get("json_schema"))
        for each in dicts_of(attributes.nested("llm.tools"))
    ]
    messages = [_message(each) for each in dicts_of(attributes.nested("llm.input_messages"))]
    prompts = dicts_of(attributes.nested("llm.prompts"))
    texts = [text_of(dict_of(each.get("prompt")).get("text")) for each in prompts]
    reading.ask(
        read_messages(messages)
        or [{"role": "user", "content": text} for text in texts if text]
        or read_messages(dict_of(asked).get("messages") or asked),
        tools=[tool for tool in tools if tool],
        params={name: value for name, value in params.items() if name not in ("tools", "instructions")},
    )
    # LangChain and others tell more in the whole answer than in its parts, or in the client's answer in it.
    inner = literal(dict_of(told).get("raw"))
    told = inner if is_of_provider(inner) else told
    raw = read_response(told) if is_of_provider(told) or "generations" in dict_of(told) else Turn()
    answer = answer_of([_message(each) for each in dicts_of(attributes.nested("llm.output_messages"))])
    choices = dicts_of(attributes.nested("llm.choices"))
    answer.content = answer.content or next(
        (text_of(dict_of(each.get("completion")).get("text")) for each in choices), None
    )
    # AutoGen has the text beside the calls, and the reason, in an answer of its own form.
    own = dict_of(told)
    answer.content = answer.content or text_of(own.get("thought")) or None
    answer.finish_reason = (
        attributes.text("llm.finish_reason") or raw.finish_reason or text_of(own.get("finish_reason"))
    )
    answer.model = attributes.text("llm.response.model_name", "llm.model_name")
    answer.provider = attributes.text("llm.provider", "llm.system")
    answer.usage = read_tokens(attributes)
    answer.id = id_of(generation_of(told)) if isinstance(told, dict) else ""
    reading.fill(model=attributes.text("llm.request.model_name", "llm.model_name"))
    reading.reply(answer)
    reading.reply(raw)
    if not reading.has_answer:
        reading.reply(_plain_answer(told))
    if not reading.has_answer and not reading.answer.usage and "messages" in dict_of(told):
        reading.kind, reading.is_copy = "step", True  # it makes the request that the turn sends


def _plain_answer(told: Any) -> Turn:
    """Return an answer that is a message, a text, or a list of one text."""
    if "role" in dict_of(told):
        return answer_of([told])
    text = told[0] if isinstance(told, list) and len(told) == 1 else told
    return Turn(content=text) if isinstance(text, str) else Turn()


def _message(each: dict[str, Any]) -> dict[str, Any]:
    """Return a message of an attribute's tree in the form of OpenAI's."""
    message = dict_of(each.get("message"))
    blocks = []
    for block in dicts_of(message.get("contents")):
        content = dict_of(block.get("message_content"))
        if content.get("type") in ("tool_use", "tool_result"):
            continue  # it is among the calls, or a message of its own
        blocks.append({name: value for name, value in content.items() if name != "signature"})
    told: dict[str, Any] = {"role": message.get("role"), "content": message.get("content")}
    if not text_of(told["content"]):
        told["content"] = blocks or told["content"]
    calls = [dict_of(call.get("tool_call")) for call in dicts_of(message.get("tool_calls"))]
    if calls:
        told["tool_calls"] = [
            {
                "id": call.get("id"),
                "function": {
                    "name": dict_of(call.get("function")).get("name"),
                    "arguments": dict_of(call.get("function")).get("arguments", "{}"),
                },
            }
            for call in calls
        ]
    return told | {name: message[name] for name in ("name", "tool_call_id") if message.get(name)}


def _read_tool(span: Span, attributes: Attributes, reading: Reading) -> None:
    name = attributes.text("tool.name") or span.name.removesuffix(".__call__")
    if _FINALS.get(span.scope.removeprefix(_SCOPE)) == name:
        reading.kind = "step"
    if name.startswith(_HANDOFF) and "tool.name" not in span.attributes:
        name = name.removeprefix(_HANDOFF)
        reading.kind = "handoff"
    call = dict_of(attributes.nested("tool_call"))
    reading.fill(
        name=name,
        call_id=attributes.text("tool.id", "tool_call.id") or text_of(call.get("id")),
        input=arguments_of(
            attributes.parsed("input.value") or parsed(attributes.get("tool_call.function.arguments"))
        ),
    )
    if span.scope == f"{_SCOPE}crewai":
        reading.fill(delegate=text_of(dict_of(reading.input).get(_COWORKER)))
    read_result(attributes.get("output.value"), reading)


def _read_embedding(attributes: Attributes, reading: Reading) -> None:
    vectors = [dict_of(each.get("embedding")) for each in dicts_of(attributes.nested("embedding.embeddings"))]
    first = parsed(next((each.get("vector") for each in vectors), None))
    reading.fill(
        model=attributes.text("embedding.model_name"),
        input=[text_of(each.get("text")) for each in vectors] or attributes.parsed("input.value"),
        dimensions=len(list_of(first)),
    )
    reading.reply(
        Turn(
            model=attributes.text("embedding.model_name"),
            provider=attributes.text("llm.provider", "llm.system"),
            usage=read_tokens(attributes),
        )
    )


def _read_step(span: Span, attributes: Attributes, reading: Reading) -> None:
    name = attributes.text("agent.name", "graph.node.id", "graph.node.name")
    output = attributes.parsed("output.value")
    if span.name == _REACT or (span.scope == f"{_SCOPE}dspy" and "trajectory" in dict_of(output)):
        name, reading.kind = span.name.removesuffix(".forward"), "agent"
    if reading.kind == "agent" and not name and "openai_agents" in span.scope:
        reading.kind = "step"  # the trace as a whole, which has no agent
    if span.name in _agents_of(attributes):
        reading.kind = "agent"  # a graph of LangChain that is one
    reading.fill(
        name=name or (span.name.removesuffix(".run") if reading.kind == "agent" else ""),
        input=attributes.parsed("input.value"),
        output=output,
    )


def _agents_of(attributes: Attributes) -> tuple[str, ...]:
    """Return the name of the agent that LangChain's metadata tell, if they do."""
    name = dict_of(attributes.parsed("metadata")).get("lc_agent_name")
    return (name,) if isinstance(name, str) else ()
