"""
Reads what a model was asked and what it answered from plain data in the shapes of OpenAI and Anthropic.

Everything here works on plain dicts, lists and texts (see :func:`whyops_trace._json.plain`), so that nobody's objects
are touched, and on whatever subset of a shape is there: what is missing stays empty.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from whyops_trace._checks import MAX_COUNT
from whyops_trace.types import TokenUsage, ToolCallItem

#: Parameters that hold the conversation, in the order they are looked for.
_MESSAGES: Final = ("messages", "input", "prompt", "contents", "question", "query", "text")
#: Parameters that hold what the model is told beside it.
_SYSTEM: Final = ("system", "system_prompt", "systemPrompt", "instructions")
#: What an answer in the library's own names may hold.
_OWN: Final = frozenset(
    {"content", "finishReason", "finish_reason", "model", "provider", "text", "thinking", "toolCalls",
     "tool_calls", "usage"}
)  # fmt: skip
#: Roles and item types under which a tool's result goes back to a model.
_TOOL_ROLES: Final = ("tool", "function")
_TOOL_ITEMS: Final = ("tool_result", "function_call_output")


class Request(msgspec.Struct):
    """
    What a model was asked.

    Attributes:
        messages: ``[{"role", "content"}]``.
        tool: The tool whose result the last message is; "" if it is a new turn.
        output: That result.
        metadata: ``systemPrompt``, ``tools`` and ``params``, as far as there are any.
        model: The model asked for, if the arguments name one.
    """

    messages: list[Any] = []
    tool: str = ""
    output: Any = None
    metadata: dict[str, Any] = {}
    model: str = ""


class Turn(msgspec.Struct):
    """
    What a model answered.

    Attributes:
        content: Its text; None if it gave none.
        thinking: Its thinking blocks, as contents of ``llm_thinking`` events.
        tool_calls: The tool calls it asks for.
        finish_reason: Why it stopped; "" if it does not say.
        model: The model that answered; "" if it does not say.
        provider: "openai" or "anthropic" by the answer's shape, else "".
        usage: Token counts, the prompt's without the cached ones.
    """

    content: str | None = None
    thinking: list[dict[str, Any]] = []
    tool_calls: list[ToolCallItem] = []
    finish_reason: str = ""
    model: str = ""
    provider: str = ""
    usage: TokenUsage = {}


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
    request = Request(messages=messages, metadata=metadata, model=_str(rest.get("model")))
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
    last = messages[-1]
    if not isinstance(last, dict):
        return "", None
    if last.get("role") in _TOOL_ROLES:
        return _tool_name(messages, last.get("tool_call_id"), last.get("name")), last.get("content")
    blocks = last.get("content") if isinstance(last.get("content"), list) else [last]
    block = blocks[-1] if blocks else None
    if isinstance(block, dict) and block.get("type") in _TOOL_ITEMS:
        call_id = block.get("tool_use_id") or block.get("call_id")
        return _tool_name(messages, call_id, None), block.get("content", block.get("output"))
    return "", None


def _tool_name(messages: list[Any], call_id: Any, name: Any) -> str:
    """Return the name of a tool call by its id, looked up in the conversation."""
    if isinstance(name, str) and name:
        return name
    for message in reversed(messages) if call_id is not None else ():
        if isinstance(message, dict):
            for call in [*_list(message.get("tool_calls")), *_list(message.get("content")), message]:
                if isinstance(call, dict) and call_id in (call.get("id"), call.get("call_id")):
                    found = call.get("name") or _dict(call.get("function")).get("name")
                    if isinstance(found, str) and found:
                        return found
    return "tool"


def read_response(answer: Any) -> Turn:
    """
    Read a model's answer from plain data.

    Known are: text; OpenAI's chat completion and response objects; Anthropic's message; and a dict in this library's
    own names (``content``, ``tool_calls``, ``finish_reason``, ``usage``, ``model``, ``provider``).
    """
    if isinstance(answer, str):
        return Turn(content=answer)
    if not isinstance(answer, dict):
        return Turn(content=None if answer is None else _compact(answer))
    if _list(answer.get("choices")):
        turn = _read_chat(answer)
    elif isinstance(answer.get("output"), list):
        turn = _read_responses(answer)
    elif isinstance(answer.get("content"), list):
        turn = _read_message(answer)
    else:
        turn = _read_own(answer)
    turn.model = _str(answer.get("model"))
    turn.usage = read_usage(answer.get("usage"))
    return turn


def _read_chat(answer: dict[str, Any]) -> Turn:
    choice = _dict(answer["choices"][0])
    message = _dict(choice.get("message")) or _dict(choice.get("delta"))
    turn = Turn(provider="openai", finish_reason=_str(choice.get("finish_reason")))
    said = message.get("content")
    turn.content = _text(said) if said is not None else _str(message.get("refusal")) or None
    turn.tool_calls = [
        _tool_call(call) for call in _list(message.get("tool_calls")) if isinstance(call, dict)
    ]
    thinking = message.get("reasoning_content")
    if isinstance(thinking, str) and thinking:
        turn.thinking = [{"type": "thinking", "thinking": thinking}]
    return turn


def _read_responses(answer: dict[str, Any]) -> Turn:
    turn = Turn(provider="openai", finish_reason=_str(answer.get("status")))
    texts = []
    for item in answer["output"]:
        kind = _dict(item).get("type")
        if kind == "message":
            texts.append(_text(item.get("content")))
        elif kind == "function_call":
            turn.tool_calls = [*turn.tool_calls, _tool_call({"id": item.get("call_id"), "function": item})]
        elif kind == "reasoning" and (thought := _text(item.get("summary"))):
            turn.thinking = [*turn.thinking, {"type": "thinking", "thinking": thought}]
    turn.content = "".join(texts) if texts else None
    return turn


def _read_message(answer: dict[str, Any]) -> Turn:
    turn = Turn(provider="anthropic", finish_reason=_str(answer.get("stop_reason")))
    texts = []
    for block in answer["content"]:
        kind = _dict(block).get("type")
        if kind == "text":
            texts.append(_str(block.get("text")))
        elif kind == "tool_use":
            call = {
                "id": block.get("id"),
                "function": {"name": block.get("name"), "arguments": block.get("input")},
            }
            turn.tool_calls = [*turn.tool_calls, _tool_call(call)]
        elif kind in ("thinking", "redacted_thinking"):
            turn.thinking = [
                *turn.thinking,
                {key: value for key, value in block.items() if value is not None},
            ]
    turn.content = "".join(texts) if texts else None
    return turn


def _read_own(answer: dict[str, Any]) -> Turn:
    turn = Turn(provider=_str(answer.get("provider")))
    turn.finish_reason = _str(answer.get("finish_reason") or answer.get("finishReason"))
    calls = answer.get("tool_calls") or answer.get("toolCalls")
    turn.tool_calls = [_tool_call(call) for call in _list(calls) if isinstance(call, dict)]
    text = answer.get("content", answer.get("text"))
    if text is not None:
        turn.content = _text(text)
    elif not turn.tool_calls and answer.keys() - _OWN:
        turn.content = _compact(answer)
    thinking = answer.get("thinking")
    if isinstance(thinking, str) and thinking:
        turn.thinking = [{"type": "thinking", "thinking": thinking}]
    return turn


def read_usage(usage: Any) -> TokenUsage:
    """
    Read token counts in OpenAI's, Anthropic's or the protocol's own names.

    OpenAI counts cached tokens in ``prompt_tokens`` and ``input_tokens`` (its ``cached_tokens`` are a part of them,
    see https://platform.openai.com/docs/guides/prompt-caching); Anthropic's ``input_tokens`` excludes what was read
    from and written to the cache (https://docs.anthropic.com/en/docs/build-with-claude/prompt-caching). WhyOps adds
    the three, so ``promptTokens`` excludes them.
    """
    if not isinstance(usage, dict):
        return {}
    if "promptTokens" in usage or "completionTokens" in usage or "totalTokens" in usage:
        own = {
            key: value for key in TokenUsage.__annotations__ if (value := _int(usage.get(key))) is not None
        }
        return own  # type: ignore[return-value]
    details = _dict(usage.get("prompt_tokens_details")) or _dict(usage.get("input_tokens_details"))
    cached = _int(details.get("cached_tokens")) or 0
    prompt = _int(usage.get("prompt_tokens", usage.get("input_tokens")))
    completion = _int(usage.get("completion_tokens", usage.get("output_tokens")))
    read = cached or _int(usage.get("cache_read_input_tokens")) or 0
    written = _int(usage.get("cache_creation_input_tokens")) or 0
    counts: TokenUsage = {}
    if prompt is not None:
        counts["promptTokens"] = max(0, prompt - cached)
    if completion is not None:
        counts["completionTokens"] = completion
    total = _int(usage.get("total_tokens"))
    if total is None and counts:
        total = _int(counts.get("promptTokens", 0) + read + written + counts.get("completionTokens", 0))
    if total is not None:
        counts["totalTokens"] = total
    if read:
        counts["cacheReadTokens"] = read
    if written:
        counts["cacheCreationTokens"] = written
    return counts


def read_embedding(answer: Any) -> tuple[int, int]:
    """Return how many vectors an embedding call gave back, and the length of the first."""
    if isinstance(answer, dict):
        shape = _shape(answer)
        if shape:
            return (shape[0], shape[1]) if len(shape) > 1 else (1, shape[0])
        answer = answer.get("data", answer.get("embeddings", answer.get("embedding")))
    vectors = [_dict(item).get("embedding", item) for item in _list(answer)]
    first = vectors[0] if vectors else []
    if isinstance(first, (int, float)):
        return 1, len(vectors)
    return len(vectors), len(first) if isinstance(first, list) else next(iter(_shape(first)), 0)


def _shape(array: Any) -> list[int]:
    """Return the shape of an array that was too large to be written out."""
    shape = _list(_dict(array).get("shape"))
    return shape if all(type(n) is int and n >= 0 for n in shape) else []


def _tool_call(call: dict[str, Any]) -> ToolCallItem:
    function = _dict(call.get("function")) or call
    arguments = function.get("arguments")
    item: ToolCallItem = {
        "function": {
            "name": _str(function.get("name")) or "tool",
            "arguments": arguments if isinstance(arguments, str) else _compact(arguments or {}),
        }
    }
    if _str(call.get("id")):
        item["id"] = call["id"]
    return item


def _text(value: Any) -> str:
    """Return the text of a message content: text, or the texts of a list of blocks."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, list):
        texts = (item if isinstance(item, str) else _dict(item).get("text") for item in value)
        return "".join(text for text in texts if isinstance(text, str))
    return _compact(value)


def _compact(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _str(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _int(value: Any) -> int | None:
    """Return a count a server can store, None for anything else."""
    counts = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= MAX_COUNT
    return round(value) if counts else None
