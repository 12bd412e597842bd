"""
Reads what a model was asked and what it answered from plain data in the shapes of OpenAI and Anthropic.

Everything here works on plain dicts, lists and texts (see :func:`whyops_trace._values.encoding.plain`), so that
nobody's objects are touched, and on whatever subset of a shape is there: what is missing stays empty.
"""

from __future__ import annotations

import binascii
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final

import msgspec

from whyops_trace._checks import MAX_COUNT
from whyops_trace._shapes import dict_of, dicts_of, list_of, text_of
from whyops_trace._values import encoding
from whyops_trace.types import TokenUsage, ToolCallItem

#: Parameters that hold the conversation, in the order they are looked for.
_MESSAGES: Final = ("messages", "input", "prompt", "contents", "question", "query", "text")
#: Parameters that hold what the model is told beside it.
_SYSTEM: Final = ("system", "system_prompt", "systemPrompt", "instructions")
#: What an answer in the library's own names, or the message of a chat completion, may hold.
_OWN: Final = frozenset(
    {"annotations", "audio", "content", "finishReason", "finish_reason", "function_call", "model", "provider",
     "reasoning", "reasoning_content", "refusal", "role", "text", "thinking", "toolCalls", "tool_calls", "usage"}
)  # fmt: skip
#: OpenAI's own tools that the agent runs, by the type of the item that calls them. Any other is run by the server.
_BUILT_IN: Final = {
    "apply_patch_call": "apply_patch",
    "computer_call": "computer",
    "local_shell_call": "local_shell",
    "shell_call": "shell",
}
_CALLS: Final = ("function_call", "custom_tool_call", *_BUILT_IN)
#: Members under which a call says what the tool is given.
_ARGUMENTS: Final = ("arguments", "input", "actions", "action", "operation")
#: Reasons to stop, in lower case: of answers that are whole or want tools called, that a limit cut off, and that a
#: filter or the model itself held back.
DONE_REASONS: Final = frozenset({"stop", "end_turn", "completed", "tool_calls", "tool_use", "function_call"})
CUT_REASONS: Final = frozenset(
    {"length", "max_tokens", "max_output_tokens", "model_length", "model_context_window_exceeded"}
)
FILTER_REASONS: Final = frozenset({"content_filter", "safety", "refusal", "guardrail_intervened"})
#: Roles and item types under which a tool's result goes back to a model.
TOOL_ROLES: Final = ("tool", "function")
TOOL_ITEMS: Final = ("tool_result", *(f"{call}_output" for call in _CALLS))


class Request(msgspec.Struct):
    """
    What a model was asked.

    Attributes:
        messages: ``[{"role", "content"}]``.
        tool: The tool whose result the last message is; "" if it is a new turn.
        output: That result.
        metadata: ``systemPrompt``, ``tools`` and ``params``, as far as there are any.
    """

    messages: list[Any] = []
    tool: str = ""
    output: Any = None
    metadata: dict[str, Any] = {}


class Turn(msgspec.Struct):
    """
    What a model answered.

    Attributes:
        content: Its text, else that of its refusal or its speech; None if it gave none.
        thinking: Its thinking blocks, as contents of ``llm_thinking`` events.
        tool_calls: The tool calls it asks for.
        finish_reason: Why it stopped; "" if it does not say.
        model: The model that answered; "" if it does not say.
        provider: "openai" or "anthropic" by the answer's shape, else "".
        usage: Token counts, the prompt's without the cached ones.
        refusal: What it said in refusing; "" if it did not refuse, or says nothing about it.
    """

    content: str | None = None
    thinking: list[dict[str, Any]] = []
    tool_calls: list[ToolCallItem] = []
    finish_reason: str = ""
    model: str = ""
    provider: str = ""
    usage: TokenUsage = {}
    refusal: str = ""


class Vectors(msgspec.Struct, frozen=True):
    """
    What an embedding call gave back.

    Attributes:
        count: How many vectors.
        dimensions: The length of the first; 0 if it cannot be told.
        encoding: "float", or "base64" if they came as text.
    """

    count: int
    dimensions: int
    encoding: str = "float"


def read_request(arguments: Mapping[str, Any]) -> Request:
    """Read what a model was asked from the plain arguments, by name, of the function that asks it."""
    rest = dict(arguments)
    key = next((name for name in _MESSAGES if rest.get(name) is not None), None) or next(iter(rest), None)
    said = rest.pop(key) if key is not None else None
    system = next((rest.pop(name) for name in _SYSTEM if rest.get(name)), None)
    tools = rest.pop("tools", None)
    metadata: dict[str, Any] = {}
    if system:
        metadata["systemPrompt"] = _text(system)
    if tools:
        metadata["tools"] = tools
    if rest:
        metadata["params"] = rest
    messages = _messages(said)
    request = Request(messages=messages, metadata=metadata)
    if messages:
        request.tool, request.output = _tool_result(messages)
    return request


def _messages(said: Any) -> list[Any]:
    if isinstance(said, str):
        return [{"role": "user", "content": said}]
    if isinstance(said, dict):
        return [said]
    return said if isinstance(said, list) else ([] if said is None else [{"role": "user", "content": said}])


def _tool_result(messages: list[Any]) -> tuple[str, Any]:
    """Return the name and output of the tool whose result ends the conversation, or ``("", None)``."""
    last = dict_of(messages[-1])
    if last.get("role") in TOOL_ROLES:
        return _tool_name(messages, last.get("tool_call_id"), last), last.get("content")
    # What the user adds to the results of tools stands after them in the same message.
    for block in reversed([last, *dicts_of(last.get("content"))]):
        if block.get("type") in TOOL_ITEMS:
            call_id = block.get("tool_use_id") or block.get("call_id")
            return _tool_name(messages, call_id, block), block.get("content", block.get("output"))
    return "", None


def _tool_name(messages: list[Any], call_id: Any, result: dict[str, Any]) -> str:
    """Return the name of the tool a result is from: its own, else that of the call, found by its id."""
    if name := _name(result):
        return name
    for message in reversed(dicts_of(messages)) if call_id is not None else ():
        for call in [*dicts_of(message.get("tool_calls")), *dicts_of(message.get("content")), message]:
            if call_id in (call.get("id"), call.get("call_id")) and (name := _name(call)):
                return name
    return "tool"


def read_response(answer: Any) -> Turn:
    """
    Read a model's answer from plain data.

    Known are: text; OpenAI's chat completion, text completion and response objects, and the message of the first;
    Anthropic's message; and a dict in this library's own names (``content``, ``tool_calls``, ``finish_reason``,
    ``usage``, ``model``, ``provider``). Of several choices the first one counts.

    Tool calls are those that the agent is to run, not what the provider ran itself. Of a custom tool, whose input is
    any text, that text stands for the arguments.
    """
    if isinstance(answer, str):
        return Turn(content=answer)
    if not isinstance(answer, dict):
        return Turn(content=None if answer is None else _compact(answer))
    if isinstance(answer.get("choices"), list):
        turn = _read_chat(answer)
    elif isinstance(answer.get("output"), list):
        turn = _read_responses(answer)
    elif isinstance(answer.get("content"), list):
        turn = _read_message(answer)
    else:
        turn = _read_own(answer)
    turn.model = text_of(answer.get("model"))
    turn.usage = read_usage(answer.get("usage"))
    return turn


def _read_chat(answer: dict[str, Any]) -> Turn:
    choice = dict_of(next(iter(answer["choices"]), None))
    message = dict_of(choice.get("message")) or dict_of(choice.get("delta")) or choice
    turn = _read_chat_message(message)
    turn.provider = "openai"
    turn.finish_reason = text_of(choice.get("finish_reason"))
    return turn


def _read_chat_message(message: dict[str, Any]) -> Turn:
    turn = Turn()
    said = message.get("content", message.get("text"))
    turn.refusal = text_of(message.get("refusal")) or _joined(said, "refusal")
    speech = text_of(dict_of(message.get("audio")).get("transcript"))
    turn.content = _text(said) or turn.refusal or speech or (None if said is None else "")
    turn.tool_calls = [
        _tool_call(call) for call in dicts_of(message.get("tool_calls") or message.get("toolCalls"))
    ]
    if function := dict_of(message.get("function_call")):
        turn.tool_calls.append(_tool_call(function))
    # DeepSeek and those who follow it say reasoning_content, OpenRouter and others reasoning.
    thoughts = (text_of(message.get(name)) for name in ("thinking", "reasoning_content", "reasoning"))
    turn.thinking = [{"type": "thinking", "thinking": thought} for thought in thoughts if thought][:1]
    return turn


def _read_responses(answer: dict[str, Any]) -> Turn:
    turn = Turn(provider="openai", finish_reason=text_of(answer.get("status")))
    if turn.finish_reason == "incomplete":
        reason = dict_of(answer.get("incomplete_details")).get("reason")
        turn.finish_reason = text_of(reason) or turn.finish_reason
    items = [(text_of(item.get("type")), item) for item in dicts_of(answer["output"])]
    # A call whose output stands in the same answer was run by the server.
    answered = [text_of(item.get("call_id")) for kind, item in items if kind.endswith("_output")]
    texts = []
    for kind, item in items:
        if kind == "message":
            texts.append(_text(item.get("content")))
            turn.refusal += _joined(item.get("content"), "refusal")
        elif kind in _CALLS and item.get("call_id") not in answered:
            turn.tool_calls.append(_tool_call(item))
        elif kind == "reasoning":
            summary = _joined(item.get("summary"), "text", "\n\n") or _text(item.get("content"))
            turn.thinking += [{"type": "thinking", "thinking": summary}] if summary else []
    turn.content = "".join(texts) or turn.refusal or ("" if texts else None)
    return turn


def _read_message(answer: dict[str, Any]) -> Turn:
    turn = Turn(provider="anthropic", finish_reason=text_of(answer.get("stop_reason")))
    if turn.finish_reason == "refusal":
        turn.refusal = text_of(dict_of(answer.get("stop_details")).get("explanation"))
    texts = []
    for block in dicts_of(answer["content"]):
        kind = block.get("type")
        if kind == "text":
            texts.append(text_of(block.get("text")))
        elif kind == "tool_use":
            turn.tool_calls.append(_tool_call(block))
        elif kind == "thinking":
            thought = {"type": kind, "thinking": text_of(block.get("thinking"))}
            signature = text_of(block.get("signature"))
            turn.thinking.append(thought | {"signature": signature} if signature else thought)
        elif kind == "redacted_thinking":
            turn.thinking.append({"type": kind, "data": text_of(block.get("data"))})
    turn.content = "".join(texts) or turn.refusal or ("" if texts else None)
    return turn


def _read_own(answer: dict[str, Any]) -> Turn:
    turn = _read_chat_message(answer)
    turn.provider = text_of(answer.get("provider"))
    turn.finish_reason = text_of(answer.get("finish_reason") or answer.get("finishReason"))
    unread = any(value is not None and key not in _OWN for key, value in answer.items())
    if turn.content is None and not turn.tool_calls and unread:
        turn.content = _compact(answer)
    return turn


def read_usage(usage: Any) -> TokenUsage:
    """
    Read token counts in OpenAI's, Anthropic's or the protocol's own names.

    OpenAI counts the tokens read from and written to the cache in ``prompt_tokens`` and ``input_tokens`` (its
    ``cached_tokens`` and ``cache_write_tokens`` are parts of them, see
    https://platform.openai.com/docs/guides/prompt-caching); Anthropic's ``input_tokens`` excludes both
    (https://docs.anthropic.com/en/docs/build-with-claude/prompt-caching). WhyOps adds the three, so ``promptTokens``
    excludes them. How long OpenAI keeps what was written does not change its price.
    """
    usage = dict_of(usage)
    if "promptTokens" in usage or "completionTokens" in usage or "totalTokens" in usage:
        return _present({key: _int(usage.get(key)) for key in TokenUsage.__annotations__})
    given = dict_of(usage.get("prompt_tokens_details")) or dict_of(usage.get("input_tokens_details"))
    made = dict_of(usage.get("completion_tokens_details")) or dict_of(usage.get("output_tokens_details"))
    kept = dict_of(usage.get("cache_creation"))
    read = _first(given.get("cached_tokens"), usage.get("cache_read_input_tokens")) or 0
    hour = _int(kept.get("ephemeral_1h_input_tokens")) or 0
    minutes = _int(kept.get("ephemeral_5m_input_tokens")) or 0
    written = _first(
        given.get("cache_write_tokens"), usage.get("cache_creation_input_tokens"), hour + minutes
    )
    prompt = _first(usage.get("prompt_tokens"), usage.get("input_tokens"))
    if prompt is not None and (given or "prompt_tokens" in usage):
        prompt = max(0, prompt - read - (written or 0))
    completion = _first(usage.get("completion_tokens"), usage.get("output_tokens"))
    total = _int(usage.get("total_tokens"))
    if total is None and (prompt is not None or completion is not None):
        total = _int((prompt or 0) + read + (written or 0) + (completion or 0))
    return _present(
        {
            "promptTokens": prompt,
            "completionTokens": completion,
            "totalTokens": total,
            "cacheReadTokens": read or None,
            "cacheCreationTokens": written or None,
            "cacheWrite1hTokens": hour or None,
            "reasoningTokens": _first(made.get("reasoning_tokens"), made.get("thinking_tokens")) or None,
        }
    )


def _present(counts: dict[str, int | None]) -> TokenUsage:
    return {key: count for key, count in counts.items() if count is not None}  # type: ignore[return-value]


def _first(*counts: Any) -> int | None:
    return next((count for count in map(_int, counts) if count is not None), None)


def read_embedding(answer: Any) -> Vectors:
    """Return how many vectors an embedding call gave back, how long the first is, and how they came."""
    if isinstance(answer, dict):
        shape = _shape(answer)
        if shape:
            return Vectors(shape[0], shape[1]) if len(shape) > 1 else Vectors(1, shape[0])
        answer = answer.get("data", answer.get("embeddings", answer.get("embedding")))
    vectors = [dict_of(item).get("embedding", item) for item in list_of(answer)]
    first = vectors[0] if vectors else []
    if isinstance(first, (int, float)):
        return Vectors(1, len(vectors))
    if isinstance(first, str):
        return Vectors(len(vectors), _floats(first), "base64")
    return Vectors(len(vectors), len(first) if isinstance(first, list) else next(iter(_shape(first)), 0))


def _floats(encoded: str) -> int:
    """Return how many numbers of 32 bits a base64 text holds; 0 if it is none."""
    try:
        size, rest = divmod(len(binascii.a2b_base64(encoded, strict_mode=True)), 4)
    except ValueError:
        return 0
    return 0 if rest else size


def _shape(array: Any) -> list[int]:
    """Return the shape of an array that was too large to be written out."""
    shape = list_of(dict_of(array).get("shape"))
    return shape if all(type(n) is int and n >= 0 for n in shape) else []


def _tool_call(call: dict[str, Any]) -> ToolCallItem:
    function = _function(call)
    arguments: Any = next((function[key] for key in _ARGUMENTS if function.get(key) is not None), {})
    item: ToolCallItem = {
        "function": {
            "name": _name(call) or "tool",
            "arguments": arguments if isinstance(arguments, str) else _compact(arguments),
        }
    }
    # An item of a response has an id of its own beside the one that its output names.
    call_id = text_of(call.get("call_id")) or text_of(call.get("id"))
    if call_id:
        item["id"] = call_id
    return item


def _name(call: dict[str, Any]) -> str:
    """Return the name of the tool of a call, or of a result that says it; else ""."""
    built_in = _BUILT_IN.get(text_of(call.get("type")).removesuffix("_output"), "")
    return text_of(_function(call).get("name")) or built_in


def _function(call: dict[str, Any]) -> dict[str, Any]:
    """Return the part of a tool call that names the tool and what it is given."""
    return dict_of(call.get("function")) or dict_of(call.get("custom")) or call


def _text(value: Any) -> str:
    """Return the text of a message content: text, or the texts of a list of blocks."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    return _joined(value, "text") if isinstance(value, list) else _compact(value)


def _joined(blocks: Any, member: str, separator: str = "") -> str:
    """Return what the blocks of a list have in a member, and the texts among them, as one text."""
    texts = (item if isinstance(item, str) else dict_of(item).get(member) for item in list_of(blocks))
    return separator.join(text for text in texts if isinstance(text, str))


def _compact(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _int(value: Any) -> int | None:
    """Return a count a server can store, None for anything else."""
    counts = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= MAX_COUNT
    return round(value) if counts else None


def hide_in_arguments(value: Any, hides: Callable[[str], bool]) -> None:
    """
    Replace the values of secrets in the arguments of tool calls, which are JSON text, wherever they stand.

    Args:
        value: Plain data, which is changed.
        hides: Which names stand for secrets.
    """
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if isinstance(value, list):
            waiting += value
        elif isinstance(value, dict):
            text = value.get("arguments")
            if isinstance(text, str) and text.startswith("{"):
                with suppress(msgspec.DecodeError, ValueError, RecursionError):
                    arguments = msgspec.json.decode(text)
                    shown = encoding.plain(arguments, hides)
                    value["arguments"] = text if shown == arguments else _compact(shown)
            waiting += value.values()
