"""
The spans of ended calls, by the GenAI conventions of OpenTelemetry.

https://github.com/open-telemetry/semantic-conventions-genai, version 0.1.0
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from whyops_trace._reading.prices import cost_of, is_billed
from whyops_trace._reading.verdict import verdict_of
from whyops_trace._shapes import dict_of, dicts_of, is_number, list_of, parsed, text_of
from whyops_trace.exporters.otlp import openinference
from whyops_trace.exporters.otlp.calls import Asked, OpenCall, OpenTrace, Record
from whyops_trace.exporters.otlp.failing import NO_END, TOOL_ERROR, fail, raise_in
from whyops_trace.exporters.otlp.messages import (
    add_values,
    answered_messages,
    as_text,
    as_value,
    asked_messages,
    text_in,
)
from whyops_trace.exporters.otlp.span import CLIENT, INTERNAL, Options, Span, Value

#: Longest text that the span of a trace has of its input and output.
_WHOLE: Final = 16_384

#: Members of metadata that the library writes: they have attributes of their own, or none. Some are content.
KNOWN: Final = frozenset({
    "agent", "callId", "captured", "conversationId", "doubles", "errorResponse", "failed", "function", "input", "kind",
    "latencyMs", "model", "otel", "outcome", "params", "provider", "ranAt", "rawResponse", "redacted", "remoteParent",
    "requestId", "requestedBy", "responseId", "returned", "server", "startedAt", "step", "system", "systemPrompt",
    "timeToFirstTokenMs", "told", "tool", "tools", "trace", "usage", "within", "wraps",
})  # fmt: skip
#: Parameters of a request that the conventions name.
_PARAMS: Final = {
    "frequency_penalty": "frequency_penalty",
    "max_completion_tokens": "max_tokens",
    "max_output_tokens": "max_tokens",
    "max_tokens": "max_tokens",
    "n": "choice.count",
    "presence_penalty": "presence_penalty",
    "seed": "seed",
    "stop": "stop_sequences",
    "stop_sequences": "stop_sequences",
    "temperature": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
}

_json: Final = msgspec.json.Decoder()
_encode: Final = msgspec.json.Encoder().encode


class _Arguments(msgspec.Struct, gc=False):
    arguments: msgspec.Raw = msgspec.Raw(b"{}")


class _Asked(msgspec.Struct, rename="camel", gc=False):
    """Content of the request of a tool."""

    tool_calls: list[_Arguments] = []


class _Results(msgspec.Struct, rename="camel", gc=False):
    """Content of the end of a tool."""

    tool_results: Any = msgspec.field(default_factory=dict)


_asked: Final = msgspec.json.Decoder(_Asked).decode
_results: Final = msgspec.json.Decoder(_Results).decode


def span_of(trace: OpenTrace, call: OpenCall, end: Record | None, options: Options, parent_id: bytes) -> Span:
    """
    Return the span of a call.

    Args:
        trace: Its trace.
        call: The call.
        end: The record of its end; None if its process ended before it.
        options: Options of the spans.
        parent_id: The span of the enclosing call.
    """
    metadata = call.metadata
    if end is not None:
        metadata |= end.metadata
    latency = metadata.get("latencyMs")
    end_ns = trace.last_ns if end is None else end.time_ns
    if end is not None and type(latency) is int and latency >= 0:
        if call.by_hand and not call.content:
            call.start_ns = end_ns - latency * 1_000_000
        elif not call.by_hand:
            end_ns = call.start_ns + latency * 1_000_000
    span = Span(
        trace.trace_id,
        trace.span_id(call.step),
        parent_id,
        "",
        INTERNAL,
        call.start_ns,
        max(end_ns, call.start_ns),
        {},
        [],
        agent=trace.agent,
    )
    _MAKERS[call.kind](span, trace, call, metadata, end, options)
    attributes = span.attributes
    attributes["whyops.step"] = call.step
    if not metadata.keys() <= KNOWN:
        for name, value in metadata.items():
            if name not in KNOWN and value is not None:
                attributes[f"whyops.metadata.{name}"] = as_value(value)
    if (outcome := metadata.get("outcome")) and outcome != "error":
        attributes["whyops.outcome"] = str(outcome)
    if end is None:
        fail(span, NO_END, "The process ended before the call did: no end was seen.")
    return span


def _make_tool(
    span: Span,
    trace: OpenTrace,
    call: OpenCall,
    metadata: Mapping[str, Any],
    end: Record | None,
    options: Options,
) -> None:
    name = text_of(metadata.get("tool")) or "unknown"
    span.name = f"execute_tool {name}"
    attributes = span.attributes
    attributes["gen_ai.operation.name"] = "execute_tool"
    attributes["gen_ai.tool.name"] = name
    attributes["gen_ai.tool.type"] = "extension" if metadata.get("ranAt") == "provider" else "function"
    calls = _asked(call.content).tool_calls if call.content else []
    arguments = calls[0].arguments if len(calls) == 1 else None
    asker = trace.asked.get(metadata.get("requestedBy", 0))
    call_id = text_of(metadata.get("callId"))
    if asker is not None:
        span.links = [(span.trace_id, asker.span_id, {})]
        call_id = call_id or _take(asker, name, arguments)
    if call_id:
        attributes["gen_ai.tool.call.id"] = call_id
    told = ",".join([str(each.arguments, "utf-8") for each in calls])
    if len(calls) > 1:
        told = f"[{told}]"
    if options.content and told:
        attributes["gen_ai.tool.call.arguments"] = told
    output = ""
    if end is not None:
        results = _results(end.content).tool_results
        is_one = type(results) is dict and len(results) == 1 and "result" in results
        output = as_text(results["result"] if is_one else results)
        if metadata.get("outcome") == "error":
            output = ""  # it is the error alone
        elif options.content:
            attributes["gen_ai.tool.call.result"] = output
        _judge(span, call, metadata, results)
    if options.openinference:
        openinference.add_tool(span.attributes, name, call_id, told, output, content=options.content)


def _judge(span: Span, call: OpenCall, metadata: Mapping[str, Any], results: Any) -> None:
    """Mark the span of a tool as failed if it raised, or if its result says that it failed."""
    if metadata.get("outcome") == "error" or call.error:
        error = dict_of(_json.decode(call.error)) if call.error else dict_of(dict_of(results).get("error"))
        raise_in(span, error)
    elif "outcome" not in metadata and ("failed" in metadata or not _is_number(results)):
        verdict = verdict_of(metadata.get("failed"), results)
        if verdict is not None and verdict.kind == "failed":
            fail(span, TOOL_ERROR, verdict.words)


def _is_number(results: Any) -> bool:
    """Tell whether a tool returned a number, which says nothing of a failure."""
    return type(results) is dict and len(results) == 1 and isinstance(results.get("result"), (int, float))


def _take(asker: Asked, name: str, arguments: msgspec.Raw | None) -> str:
    """Return the id that a model gave a tool call, "" if that is not certain. It belongs to no other call then."""
    calls = [each for each in asker.calls if each[1] == name]
    if len(calls) > 1 and arguments is not None:
        told = _json.decode(arguments)
        calls = [each for each in calls if parsed(each[2]) == told] or calls
    if not calls:
        return ""
    asker.calls.remove(calls[0])
    return calls[0][0]


def _make_turn(
    span: Span,
    trace: OpenTrace,
    call: OpenCall,
    metadata: Mapping[str, Any],
    end: Record | None,
    options: Options,
) -> None:
    attributes, wraps = span.attributes, metadata.get("wraps") is True
    model = text_of(metadata.get("model")) or "unknown"
    asked = dict_of(_json.decode(call.content)) if call.content else {}
    content = {} if end is None else dict_of(_json.decode(end.content))
    if wraps:  # a function around the call of a client, which is a turn of its own
        span.name = text_of(metadata.get("function")) or "call of a model"
        attributes["whyops.kind"] = "wrapper"
    else:
        span.name, span.kind = f"chat {model}", CLIENT
        attributes["gen_ai.operation.name"] = "chat"
        _add_model(attributes, model, metadata)
        _add_params(attributes, dict_of(metadata.get("params")))
        if reason := text_of(content.get("finishReason")):
            attributes["gen_ai.response.finish_reasons"] = [reason]
    failed = end is not None and end.event_type == "error"
    if failed:
        raise_in(span, content)
        content = {"content": content["partial"]} if content.get("partial") else {}
    told = _add_messages(span, trace, call, metadata, asked, content, options)
    if end is not None and end.event_type == "llm_response":
        calls = [
            (text_of(each.get("id")), text_of(function.get("name")), text_of(function.get("arguments")))
            for choice in (content, *dicts_of(content.get("otherChoices")))
            for each in dicts_of(choice.get("toolCalls"))
            if (function := dict_of(each.get("function")))
        ]
        if calls:
            trace.note_asked(end.step_id, Asked(span.span_id, calls))
    cost = _add_usage(attributes, metadata, end)
    if options.openinference:
        openinference.add_turn(attributes, model, metadata, *told, cost, wraps=wraps, content=options.content)


_Messages = tuple[list[dict[str, Any]], list[dict[str, Any]], list[dict[str, Any]]]


def _add_messages(
    span: Span,
    trace: OpenTrace,
    call: OpenCall,
    metadata: Mapping[str, Any],
    asked: Mapping[str, Any],
    content: Mapping[str, Any],
    options: Options,
) -> _Messages:
    """Add the messages of a turn, and note what they say of the trace. Return instructions, input and output."""
    if not options.content:
        return [], [], []
    attributes = span.attributes
    system, messages = asked_messages(asked.get("messages"))
    if not messages and asked.get("toolName"):
        response = {"type": "tool_call_response", "id": "", "response": asked.get("output")}
        messages = [{"role": "tool", "parts": [response]}]
    for instructions in (metadata.get("system"), metadata.get("systemPrompt")):
        if isinstance(instructions, str) and instructions:
            system = [{"type": "text", "content": instructions}, *system]
        elif isinstance(instructions, list):
            system = [*asked_messages([{"role": "system", "content": instructions}])[0], *system]
    answers = answered_messages(content, map(_json.decode, call.thoughts)) if content or call.thoughts else []
    if metadata.get("wraps") is not True:
        for name, value in (
            ("gen_ai.system_instructions", system),
            ("gen_ai.input.messages", messages),
            ("gen_ai.output.messages", answers),
            ("gen_ai.tool.definitions", list_of(metadata.get("tools"))),
        ):
            if value:
                attributes[name] = _encode(value).decode()
    text = text_in(messages, "user")
    if text and (not trace.input_step or call.step < trace.input_step):
        trace.input, trace.input_step = text[:_WHOLE], call.step
    trace.output = text_in(answers, "assistant")[:_WHOLE] or trace.output
    return system, messages, answers


def _add_model(attributes: dict[str, Value], model: str, metadata: Mapping[str, Any]) -> None:
    if provider := text_of(metadata.get("provider")):
        attributes["gen_ai.provider.name"] = provider
    attributes["gen_ai.request.model"] = attributes["gen_ai.response.model"] = model
    if response_id := text_of(metadata.get("responseId")):
        attributes["gen_ai.response.id"] = response_id
    if request_id := text_of(metadata.get("requestId")):
        attributes["whyops.request_id"] = request_id
    first_token = metadata.get("timeToFirstTokenMs")
    if type(first_token) is int:
        attributes["gen_ai.response.time_to_first_chunk"] = first_token / 1000


def _add_params(attributes: dict[str, Value], params: Mapping[str, Any]) -> None:
    for name, value in params.items():
        known = _PARAMS.get(name)
        if known == "stop_sequences" and value:
            attributes["gen_ai.request.stop_sequences"] = (
                [value] if isinstance(value, str) else [*map(str, list_of(value))]
            )
        elif known and isinstance(value, (int, float)):
            attributes[f"gen_ai.request.{known}"] = value


def _add_usage(attributes: dict[str, Value], metadata: Mapping[str, Any], end: Record | None) -> float | None:
    """Add the tokens of a turn and return its cost in US dollars, None if that is not known."""
    usage = dict_of(metadata.get("usage"))
    counts = {name: count for name, count in usage.items() if type(count) is int and count >= 0}
    read, written = counts.get("cacheReadTokens", 0), counts.get("cacheCreationTokens", 0)
    prompt = counts.get("promptTokens")
    if prompt is None and "totalTokens" in counts and "completionTokens" not in counts:
        prompt = counts["totalTokens"]  # of an embedding
    if prompt is not None:
        attributes["gen_ai.usage.input_tokens"] = prompt + read + written
    if "completionTokens" in counts:
        attributes["gen_ai.usage.output_tokens"] = counts["completionTokens"]
    for name, count in (
        ("cache_read.input_tokens", read),
        ("cache_write.input_tokens", written),
        ("reasoning.output_tokens", counts.get("reasoningTokens", 0)),
    ):
        if count:
            attributes[f"gen_ai.usage.{name}"] = count
    if end is None or not usage or not is_billed(end.event_type, metadata.get("wraps")):
        return None
    cost = usage.get("cost")
    if not is_number(cost):
        cost = cost_of(metadata, end.timestamp)
    if cost is None:
        return None
    attributes["gen_ai.usage.cost"] = float(cost)
    return float(cost)


def _make_embedding(
    span: Span,
    trace: OpenTrace,
    call: OpenCall,
    metadata: Mapping[str, Any],
    end: Record | None,
    options: Options,
) -> None:
    attributes = span.attributes
    model = text_of(metadata.get("model")) or "unknown"
    span.name, span.kind = f"embeddings {model}", CLIENT
    attributes["gen_ai.operation.name"] = "embeddings"
    _add_model(attributes, model, metadata)
    content = {} if end is None else dict_of(_json.decode(end.content))
    if type(content.get("firstEmbeddingDimensions")) is int:
        attributes["gen_ai.embeddings.dimension.count"] = content["firstEmbeddingDimensions"]
    if end is not None and end.event_type == "error":
        raise_in(span, content)
    texts = (
        list_of(dict_of(_json.decode(call.content)).get("input")) if call.content and options.content else []
    )
    if texts:
        attributes["gen_ai.embeddings.input"] = _encode(texts).decode()
    cost = _add_usage(attributes, metadata, end)
    if options.openinference:
        openinference.add_embedding(attributes, model, texts, cost)


def _make_step(
    span: Span,
    trace: OpenTrace,
    call: OpenCall,
    metadata: Mapping[str, Any],
    end: Record | None,
    options: Options,
) -> None:
    attributes, name = span.attributes, text_of(metadata.get("step")) or "step"
    kind = text_of(metadata.get("kind")) or "step"
    attributes["whyops.kind"] = kind
    span.name = name
    if kind == "agent":
        span.name = f"invoke_agent {name}"
        attributes["gen_ai.operation.name"] = "invoke_agent"
        attributes["gen_ai.agent.name"] = name
    content = {} if end is None else dict_of(_json.decode(end.content))
    if metadata.get("outcome") == "error":
        raise_in(span, dict_of(content.get("error")))
    asked, answered = metadata.get("input"), content.get("output")
    if options.content:
        add_values(
            attributes, "" if asked is None else as_text(asked), "" if answered is None else as_text(answered)
        )
    if options.openinference:
        openinference.add_chain(attributes, "AGENT" if kind == "agent" else "CHAIN")


_MAKERS: Final = {"tool": _make_tool, "llm": _make_turn, "embedding": _make_embedding, "step": _make_step}
