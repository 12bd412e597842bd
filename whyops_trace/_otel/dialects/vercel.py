"""The AI SDK of Vercel, in its own attributes ``ai.*``: versions to 6, and the legacy mode of 7."""

from __future__ import annotations

from collections.abc import Set
from typing import Any, Final

from whyops_trace._otel.attributes import Attributes
from whyops_trace._otel.messages import answer_of, as_json, plain_result, read_messages
from whyops_trace._otel.reading import Reading
from whyops_trace._otel.span import Span
from whyops_trace._otel.tokens import read_tokens
from whyops_trace._shapes import dict_of, dicts_of, list_of, parsed, text_of

_METADATA: Final = "ai.telemetry.metadata."
#: The spans of one call of a model. Those around them repeat the sum of their tokens.
_TURNS: Final = (".doGenerate", ".doStream")


def is_mine(span: Span, roots: Set[str]) -> bool:
    """Return True for spans that name their operation."""
    return "ai.operationId" in span.attributes


def read(span: Span, attributes: Attributes, reading: Reading) -> None:
    """Fill in what the SDK tells."""
    operation = attributes.text("ai.operationId")
    attributes.get("operation.name", "ai.usage.totalTokens")
    function = attributes.text("ai.telemetry.functionId", "resource.name")
    reading.fill(
        conversation=attributes.text(_METADATA + "sessionId", _METADATA + "conversationId", "session.id"),
        user=attributes.text(_METADATA + "userId", "user.id"),
    )
    if operation == "ai.toolCall":
        reading.fill(
            kind="tool",
            name=attributes.text("ai.toolCall.name"),
            call_id=attributes.text("ai.toolCall.id"),
            input=attributes.parsed("ai.toolCall.args", "ai.toolCall.input"),
            output=plain_result(attributes.parsed("ai.toolCall.result", "ai.toolCall.output")),
        )
    elif operation.endswith(".doEmbed"):
        _read_embedding(attributes, reading)
    elif operation.endswith(_TURNS):
        _read_turn(attributes, reading)
    elif operation.startswith("ai.embed"):
        reading.fill(kind="step", name=function or operation)
        attributes.named("ai.")
    else:
        _read_run(attributes, reading, function or operation)


def _read_turn(attributes: Attributes, reading: Reading) -> None:
    attributes.get("ai.model.id")
    tools = [parsed(tool) for tool in list_of(attributes.parsed("ai.prompt.tools"))]
    settings = attributes.named("ai.settings.")
    choice = attributes.parsed("ai.prompt.toolChoice")
    reading.fill(kind="llm", model=attributes.text("ai.model.id"))
    reading.ask(
        read_messages(attributes.parsed("ai.prompt.messages") or []),
        tools=tools,
        params={**settings, **({"toolChoice": choice} if choice else {})},
    )
    calls = [
        {
            "id": call.get("toolCallId"),
            "name": call.get("toolName"),
            "arguments": as_json(call.get("input", call.get("args", {}))),
        }
        for call in dicts_of(attributes.parsed("ai.response.toolCalls"))
    ]
    thought = attributes.text("ai.response.reasoning")
    blocks = [{"type": "reasoning", "text": thought}] if thought else []
    text = attributes.text("ai.response.text")
    answer = answer_of(
        [{"role": "assistant", "content": [*blocks, *([text] if text else [])], "tool_calls": calls}]
    )
    if not answer.content and (told := attributes.get("ai.response.object")):
        answer.content = as_json(told)
    answer.finish_reason = attributes.text("ai.response.finishReason")
    answer.model = attributes.text("ai.response.model")
    answer.id = attributes.text("ai.response.id")
    answer.provider = attributes.text("ai.model.provider", "gen_ai.system").partition(".")[0]
    answer.usage = read_tokens(attributes)
    reading.reply(answer)


def _read_embedding(attributes: Attributes, reading: Reading) -> None:
    vectors = list_of(attributes.parsed("ai.embeddings")) or [attributes.parsed("ai.embedding")]
    first = parsed(next(iter(vectors), None))
    values = [parsed(value) for value in list_of(attributes.get("ai.values"))]
    reading.fill(
        kind="embedding",
        model=attributes.text("ai.model.id"),
        input=values or attributes.parsed("ai.value"),
        dimensions=len(list_of(first)),
    )
    answer = answer_of([])
    answer.provider = attributes.text("ai.model.provider").partition(".")[0]
    answer.usage = read_tokens(attributes)
    reading.reply(answer)


def _read_run(attributes: Attributes, reading: Reading, name: str) -> None:
    """Read the outer span of a run; its tokens are the sum of those inside."""
    prompt: Any = attributes.parsed("ai.prompt")
    asked = dict_of(prompt).get("messages") or dict_of(prompt).get("prompt")
    reading.fill(
        kind="agent",
        name=name,
        agent=name,
        input=read_messages(asked or prompt),
        output=text_of(attributes.get("ai.response.text")) or attributes.parsed("ai.response.object"),
    )
    for prefix in ("ai.usage.", "ai.model.", "ai.settings.", "ai.response.", "gen_ai."):
        attributes.named(prefix)
