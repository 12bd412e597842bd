"""
One builder for each event type of the WhyOps protocol.

A builder checks its arguments and returns an :class:`Event`; it knows nothing of traces, clocks or files.
A value that a server would refuse or silently lose is mended where the intent is plain (a latency of 12.5 ms is 13 ms)
and otherwise refused with an error that says what to do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Generic, TypeVar

from typing_extensions import Unpack

from whyops_trace._checks import (
    MAX_FINISH_REASON,
    MAX_NAME,
    check_count,
    check_metadata,
    check_options,
    check_text,
    check_tool_calls,
    is_list,
    model_metadata,
    moment,
    require,
    tool_metadata,
)
from whyops_trace.types import (
    EventOptions,
    EventType,
    MessageItem,
    ResponseOptions,
    SpanId,
    TokenUsage,
    ToolCallItem,
    ToolCallPair,
    UserMessageMetadata,
)

#: Result of recording the event: its step, or for a tool request its span id, which knows the step.
T_co = TypeVar("T_co", int, SpanId, covariant=True)


class Event(Generic[T_co]):
    """
    One event before it is numbered: its type, metadata and content as Python values, and the caller's options.

    Attributes:
        type: The event type.
        content: Any value; encoded when the event is recorded.
        metadata: Metadata without ``within``.
        options: Checked :class:`~whyops_trace.types.EventOptions`; ``timestamp`` in wire form.
    """

    __slots__ = ("content", "metadata", "options", "type")

    def __init__(
        self, type: EventType, content: Any, metadata: Mapping[str, Any] | None, options: EventOptions
    ) -> None:
        self.type: EventType = type
        self.content: Any = content
        self.metadata: dict[str, Any] = dict(metadata or {})
        self.options: EventOptions = check_options(options) if options else {}


def user_message(
    messages: Sequence[MessageItem],
    *,
    metadata: UserMessageMetadata | None = None,
    **options: Unpack[EventOptions],
) -> Event[int]:
    """
    Record a request to a model, which begins a new turn.

    Args:
        messages: Conversation as the model gets it, ``[{"role": ..., "content": ...}]``.
        metadata: ``systemPrompt`` (text), ``tools`` and ``params`` the model was given.
        **options: See :class:`~whyops_trace.types.EventOptions`.

    Returns:
        The step this event took, to name it as a parent.

    Raises:
        InvalidEventError: if an argument has a type or size that a server refuses.
        UnknownOptionError: if an option does not exist.
    """
    require(is_list(messages), "messages", messages, 'a list such as [{"role": "user", "content": "Hello"}]')
    return Event("user_message", {"messages": messages}, check_metadata(metadata), options)


def llm_response(
    model: str,
    provider: str,
    content: str | None = None,
    *,
    tool_calls: Sequence[ToolCallItem] | None = None,
    finish_reason: str | None = None,
    usage: TokenUsage | None = None,
    latency_ms: float | None = None,
    **options: Unpack[EventOptions],
) -> Event[int]:
    """
    Record the answer of a model.

    Args:
        model: The model's name, such as ``"openai/gpt-4o"``; 1 to 200 characters.
        provider: Service that runs the model, such as ``"openai"``.
        content: The text of the answer.
        tool_calls: The tool calls the answer asks for, ``[{"id", "function": {"name", "arguments": JSON text}}]``.
        finish_reason: Reason for which the model stopped, such as ``"stop"``; cut to 100 characters.
        usage: Token counts; ``promptTokens`` without the cached ones.
        latency_ms: Milliseconds from request to answer; rounded to a whole number.
        **options: See :class:`~whyops_trace.types.EventOptions`.

    Returns:
        The step this event took, to name it as a parent.

    Raises:
        InvalidEventError: if an argument has a type or size that a server refuses.
        UnknownOptionError: if an option does not exist.
    """
    body: dict[str, Any] = {}
    if content is not None:
        require(isinstance(content, str), "content", content, "text or None")
        body["content"] = content
    if tool_calls:
        require(is_list(tool_calls), "tool_calls", tool_calls, "a list of tool calls")
        body["toolCalls"] = tool_calls
    if finish_reason:
        require(isinstance(finish_reason, str), "finish_reason", finish_reason, 'text such as "stop"')
        body["finishReason"] = finish_reason[:MAX_FINISH_REASON]
    return Event("llm_response", body, model_metadata(model, provider, usage, latency_ms), options)


def llm_thinking(
    thinking: str, *, signature: str | None = None, **options: Unpack[EventOptions]
) -> Event[int]:
    """
    Record a thought of a model, or of the agent, before it acts.

    Args:
        thinking: The text.
        signature: The provider's signature of the thinking block, if it has one.
        **options: See :class:`~whyops_trace.types.EventOptions`.

    Returns:
        The step this event took, to name it as a parent.

    Raises:
        InvalidEventError: if an argument has a type that a server refuses.
        UnknownOptionError: if an option does not exist.
    """
    require(isinstance(thinking, str), "thinking", thinking, "text")
    content = {"type": "thinking", "thinking": thinking}
    if signature:
        require(isinstance(signature, str), "signature", signature, "text or None")
        content["signature"] = signature
    return Event("llm_thinking", content, None, options)


def embedding_request(inputs: Sequence[str], **options: Unpack[EventOptions]) -> Event[int]:
    """
    Record a request to an embedding model.

    Args:
        inputs: The texts.
        **options: See :class:`~whyops_trace.types.EventOptions`.

    Returns:
        The step this event took, to name it as a parent.

    Raises:
        InvalidEventError: if *inputs* is not a list.
        UnknownOptionError: if an option does not exist.
    """
    require(is_list(inputs), "inputs", inputs, 'a list of texts such as ["query"]')
    return Event("embedding_request", {"input": inputs}, None, options)


def embedding_response(
    model: str,
    provider: str,
    embedding_count: int,
    first_embedding_dimensions: int,
    *,
    total_tokens: int | None = None,
    latency_ms: float | None = None,
    **options: Unpack[EventOptions],
) -> Event[int]:
    """
    Record that an embedding model answered; the vectors themselves are not recorded.

    Args:
        model: The model's name; 1 to 200 characters.
        provider: Service that runs the model, such as ``"openai"``.
        embedding_count: Number of vectors in the answer.
        first_embedding_dimensions: The length of the first one.
        total_tokens: Tokens billed.
        latency_ms: Milliseconds from request to answer; rounded to a whole number.
        **options: See :class:`~whyops_trace.types.EventOptions`.

    Returns:
        The step this event took, to name it as a parent.

    Raises:
        InvalidEventError: if an argument has a type or size that a server refuses.
        UnknownOptionError: if an option does not exist.
    """
    content = {
        "object": "list",
        "embeddingCount": check_count("embedding_count", embedding_count),
        "firstEmbeddingDimensions": check_count("first_embedding_dimensions", first_embedding_dimensions),
        "encodingFormat": "float",
    }
    usage: TokenUsage | None = None if total_tokens is None else {"totalTokens": total_tokens}
    return Event("embedding_response", content, model_metadata(model, provider, usage, latency_ms), options)


def tool_call_request(
    tool: str,
    tool_calls: Sequence[ToolCallPair],
    *,
    latency_ms: float | None = None,
    requested_at: str | datetime | None = None,
    **options: Unpack[EventOptions],
) -> Event[SpanId]:
    """
    Record that a tool is about to run.

    Args:
        tool: The tool's name; 1 to 255 characters.
        tool_calls: Calls with their arguments, ``[{"name", "arguments": {...}}]``.
        latency_ms: Milliseconds since the tool was asked for; rounded to a whole number.
        requested_at: Time it was asked for, ISO 8601 or a :class:`~datetime.datetime`.
        **options: See :class:`~whyops_trace.types.EventOptions`.

    Returns:
        The span id to pass to ``tool_call_response``; its ``step_id`` is the step this event took.

    Raises:
        InvalidEventError: if an argument has a type or size that a server refuses.
        UnknownOptionError: if an option does not exist.
    """
    content = {"toolCalls": check_tool_calls(tool_calls), **moment("requested_at", requested_at)}
    return Event("tool_call_request", content, tool_metadata(tool, latency_ms), options)


def tool_call_response(
    tool: str,
    span_id: str,
    tool_calls: Sequence[ToolCallPair],
    tool_results: dict[str, Any],
    *,
    latency_ms: float | None = None,
    responded_at: str | datetime | None = None,
    failed: bool | str | None = None,
    **options: Unpack[ResponseOptions],
) -> Event[int]:
    """
    Record the result of a tool.

    Args:
        tool: The tool's name; 1 to 255 characters.
        span_id: Span id that ``tool_call_request`` returned.
        tool_calls: Calls with their arguments, ``[{"name", "arguments": {...}}]``.
        tool_results: Result; a failure is ``{"error": {"type": ..., "message": ...}}``.
        latency_ms: Milliseconds it ran; rounded to a whole number.
        responded_at: Time it returned, ISO 8601 or a :class:`~datetime.datetime`.
        failed: True or some words if the result tells of a failure, False if it does not; by default readers judge
            by its shape.
        **options: See :class:`~whyops_trace.types.EventOptions`.

    Returns:
        The step this event took, to name it as a parent.

    Raises:
        InvalidEventError: if an argument has a type or size that a server refuses.
        UnknownOptionError: if an option does not exist.
    """
    require(isinstance(tool_results, Mapping), "tool_results", tool_results, 'a dict such as {"result": 1}')
    content = {
        "toolCalls": check_tool_calls(tool_calls),
        "toolResults": tool_results,
        **moment("responded_at", responded_at),
    }
    metadata = tool_metadata(tool, latency_ms)
    if failed is not None:
        require(isinstance(failed, (bool, str)), "failed", failed, "True, False or the words of the failure")
        metadata["failed"] = failed
    paired: EventOptions = {**options, "span_id": span_id}
    return Event("tool_call_response", content, metadata, paired)


def tool_result(tool_name: str, output: Any, **options: Unpack[EventOptions]) -> Event[int]:
    """
    Record a tool's result as it goes back to the model.

    Args:
        tool_name: The tool's name.
        output: Result; any value.
        **options: See :class:`~whyops_trace.types.EventOptions`.

    Returns:
        The step this event took, to name it as a parent.

    Raises:
        InvalidEventError: if *tool_name* is not text.
        UnknownOptionError: if an option does not exist.
    """
    check_text("tool_name", tool_name, MAX_NAME)
    return Event("tool_result", {"toolName": tool_name, "output": output}, None, options)


def error(
    message: str, *, status: int | None = None, stack: str | None = None, **options: Unpack[EventOptions]
) -> Event[int]:
    """
    Record that something failed.

    Args:
        message: Description of the failure.
        status: An HTTP status, if there is one.
        stack: A stack trace.
        **options: See :class:`~whyops_trace.types.EventOptions`.

    Returns:
        The step this event took, to name it as a parent.

    Raises:
        InvalidEventError: if an argument has the wrong type.
        UnknownOptionError: if an option does not exist.
    """
    require(isinstance(message, str), "message", message, "text: str(exception), for example")
    content: dict[str, Any] = {"message": message}
    if status is not None:
        content["status"] = check_count("status", status)
    if stack:
        require(isinstance(stack, str), "stack", stack, "text: traceback.format_exc(), for example")
        content["stack"] = stack
    return Event("error", content, None, options)
