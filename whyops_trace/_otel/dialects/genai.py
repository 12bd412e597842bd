"""
The GenAI conventions of OpenTelemetry: the current ones, and those before 1.37.

Content is in attributes, in the event or log record ``gen_ai.client.inference.operation.details``, or, before 1.37,
in an event or log record a message.
"""

from __future__ import annotations

from collections.abc import Iterable, Set
from typing import Any, Final

from whyops_trace._models.answers import Turn
from whyops_trace._otel.attributes import Attributes
from whyops_trace._otel.messages import answer_of, plain_result, read_messages, system_of
from whyops_trace._otel.reading import Kind, Reading
from whyops_trace._otel.span import CLIENT, Span, SpanEvent
from whyops_trace._otel.tokens import read_tokens
from whyops_trace._shapes import dict_of, dicts_of, list_of, parsed, text_of

#: The event with all content of a call.
DETAILS: Final = "gen_ai.client.inference.operation.details"
#: The operations, and the kinds of what they tell; any other one is a step.
KINDS: Final[dict[str, Kind]] = {
    "chat": "llm",
    "completion": "llm",
    "generate_content": "llm",
    "responses": "llm",
    "text_completion": "llm",
    "embedding": "embedding",
    "embeddings": "embedding",
    "execute_tool": "tool",
    "invoke_agent": "agent",
    "handoff": "handoff",
}
#: The instrumentation whose input is Bedrock's own count, which excludes the cached tokens.
_BEDROCK: Final = "opentelemetry.instrumentation.bedrock"
_ROLES: Final = {
    "gen_ai.system.message": "system",
    "gen_ai.user.message": "user",
    "gen_ai.assistant.message": "assistant",
    "gen_ai.tool.message": "tool",
}
#: Attributes with the reason to stop: of the conventions, of an older client of Anthropic, of Semantic Kernel.
_REASONS: Final = (
    "gen_ai.response.finish_reasons",
    "anthropic.message.stop_reason",
    "gen_ai.response.finish_reason",
)
#: Attributes that tell of a call of a model where no operation is named.
_OF_TURNS: Final = ("gen_ai.request.model", "gen_ai.response.model", "gen_ai.response.id")


def is_mine(span: Span, roots: Set[str]) -> bool:
    """Return True for spans with attributes or events of GenAI."""
    return "gen_ai" in roots or any(event.name.startswith("gen_ai.") for event in span.events)


def read(span: Span, attributes: Attributes, reading: Reading) -> None:
    """Fill in what the conventions tell."""
    operation = attributes.text("gen_ai.operation.name")
    reading.fill(
        kind=KINDS.get(operation) or ("step" if operation else _kind_without(span, attributes)),
        agent=attributes.text("gen_ai.agent.name"),
        conversation=attributes.text("gen_ai.conversation.id"),
    )
    if reading.kind == "llm":
        _read_turn(span, attributes, reading)
    elif reading.kind == "tool":
        _read_tool(span, attributes, reading)
    elif reading.kind == "embedding":
        _read_embedding(attributes, reading)
    else:
        _read_step(span, attributes, reading, operation)


def _kind_without(span: Span, attributes: Attributes) -> Kind:
    """Return the kind of a span that names no operation."""
    names = attributes.values
    if "gen_ai.tool.name" in names or "gen_ai.tool.call.id" in names:
        return "tool"
    is_turn = any(name in names for name in _OF_TURNS) and span.kind == CLIENT
    return "llm" if is_turn else ""


def _read_turn(span: Span, attributes: Attributes, reading: Reading) -> None:
    model = attributes.text("gen_ai.request.model")
    reading.fill(model=model)
    provider = attributes.text("gen_ai.provider.name", "gen_ai.system")
    system = system_of(attributes.get("gen_ai.system_instructions"))
    messages = attributes.made(read_messages, "gen_ai.input.messages")
    answer = answer_of(attributes.get("gen_ai.output.messages"))
    params = attributes.named("gen_ai.request.")
    params.pop("model", None)
    tools = attributes.parsed("gen_ai.tool.definitions")
    if not messages:
        messages, told = _old_messages(span.events)
        answer = told if told is not None and not (answer.content or answer.tool_calls) else answer
    if not messages:  # of OpenLIT, as texts
        messages = attributes.made(read_messages, "gen_ai.prompt")
    answer.content = answer.content or attributes.text("gen_ai.completion") or None
    reading.ask(messages, systemPrompt=system, tools=list_of(tools), params=params)
    reasons = attributes.texts(*_REASONS)
    answer.finish_reason = next(iter(reasons), answer.finish_reason)
    answer.model = attributes.text("gen_ai.response.model")
    answer.provider = provider
    answer.id = attributes.text("gen_ai.response.id")
    answer.usage = read_tokens(attributes, cached_beside=span.scope == _BEDROCK)
    reading.reply(answer)


def _old_messages(events: Iterable[SpanEvent]) -> tuple[list[Any], Turn | None]:
    """Return the request and the answer of a turn that has an event for each message."""
    messages: list[Any] = []
    answer: Turn | None = None
    for event in events:
        about = event.attributes
        if event.name == "gen_ai.choice":
            message = parsed(about.get("message"))
            content = message if isinstance(message, list) else dict_of(message).get("content")
            calls = dict_of(message).get("tool_calls") or parsed(about.get("tool_calls"))
            one = {"role": "assistant", "content": content, "tool_calls": calls}
            answer = answer or answer_of([{**one, "finish_reason": about.get("finish_reason")}])
        elif event.name in _ROLES:
            role = text_of(about.get("role")) or _ROLES[event.name]
            told = {"role": role, "content": _content(about.get("content"))}
            if calls := dicts_of(parsed(about.get("tool_calls"))):
                told["tool_calls"] = calls
            if role == "tool" and about.get("id"):
                told["tool_call_id"] = about["id"]
            messages += read_messages([told])
    return messages, answer


def _content(content: Any) -> Any:
    """Return the content of a message; a list of parts may be written as JSON."""
    decoded = parsed(content)
    return decoded if isinstance(decoded, list) and dicts_of(decoded) else content


def _read_tool(span: Span, attributes: Attributes, reading: Reading) -> None:
    reading.fill(
        name=attributes.text("gen_ai.tool.name"),
        call_id=attributes.text("gen_ai.tool.call.id"),
        input=attributes.parsed("gen_ai.tool.call.arguments", "gen_ai.tool.arguments"),
        output=parsed(plain_result(attributes.parsed("gen_ai.tool.call.result", "gen_ai.tool.result"))),
    )
    if "gen_ai.input.messages" in attributes.values or "gen_ai.output.messages" in attributes.values:
        _read_tool_messages(attributes, reading)
    if span.events:
        old_input, old_output = _old_tool(span.events)
        reading.fill(input=old_input, output=old_output)
    status = attributes.get("gen_ai.tool.status", "tool.status")
    if reading.has_failed is None and status in ("error", "success"):
        reading.has_failed = status == "error"


def _read_tool_messages(attributes: Attributes, reading: Reading) -> None:
    """Read a tool whose call and result are in messages."""
    asked, answered = (
        dicts_of(attributes.made(read_messages, f"gen_ai.{which}.messages")) for which in ("input", "output")
    )
    calls = [call for message in asked for call in dicts_of(message.get("tool_calls"))]
    results = [message for message in answered if message.get("role") == "tool"]
    call, result = next(iter(calls), {}), next(iter(results), {})
    reading.fill(
        call_id=text_of(call.get("id")),
        input=parsed(dict_of(call.get("function")).get("arguments")),
        output=parsed(result.get("content")),
    )


def _old_tool(events: Iterable[SpanEvent]) -> tuple[Any, Any]:
    """Return the arguments and the result of a tool that has an event for each."""
    arguments = result = None
    for event in events:
        if event.name == "gen_ai.tool.message":
            arguments = parsed(event.attributes.get("content"))
        elif event.name == "gen_ai.choice":
            result = parsed(plain_result(parsed(event.attributes.get("message"))))
    return arguments, result


def _read_embedding(attributes: Attributes, reading: Reading) -> None:
    reading.fill(
        model=attributes.text("gen_ai.request.model"),
        input=attributes.parsed("gen_ai.input.messages", "gen_ai.embeddings.input"),
        dimensions=attributes.count(
            "gen_ai.embeddings.dimension.count", "gen_ai.request.embedding.dimensions"
        ),
    )
    answer = Turn(
        model=attributes.text("gen_ai.response.model"),
        provider=attributes.text("gen_ai.provider.name", "gen_ai.system"),
        usage=read_tokens(attributes),
    )
    reading.reply(answer)


def _read_step(span: Span, attributes: Attributes, reading: Reading, operation: str) -> None:
    """Read an agent, a workflow or a part of one. Its tokens are the sum of those inside it."""
    if reading.kind == "agent":
        reading.fill(name=reading.agent)
    named = ("gen_ai.workflow.name", "gen_ai.task.name") if operation else ()
    reading.fill(name=attributes.text(*named))
    if not operation and not reading.kind:
        return
    messages, answer = _old_messages(span.events)
    asked = attributes.made(read_messages, "gen_ai.input.messages") or messages
    told = answer_of(attributes.get("gen_ai.output.messages")).content or (answer.content if answer else None)
    reading.fill(
        input=asked or attributes.parsed("gen_ai.task.input"),
        output=told or attributes.parsed("gen_ai.task.output"),
    )
