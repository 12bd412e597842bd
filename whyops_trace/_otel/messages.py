"""Messages in the forms that spans have them, in the form of OpenAI's, and the answers among them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

import msgspec

from whyops_trace._models import frameworks
from whyops_trace._models.answers import Turn
from whyops_trace._shapes import dict_of, dicts_of, list_of, parsed, text_of

_ROLES: Final = {"model": "assistant", "ai": "assistant", "human": "user", "tool-call": "assistant"}
#: Types that messages of LangChain have in place of a role.
_TYPES: Final = ("system", "human", "ai", "tool")
#: Types of parts, or members of parts without a type, that are thinking.
_THOUGHTS: Final = ("reasoning", "thinking", "reasoningContent")
#: Members that tell of the wrappers in which LangChain writes its objects, as JSON has them.
_WRAPPERS: Final = ('"lc"', '"data"')
_TEXTS: Final = ("text", "output_text", "input_text")


class _Call(NamedTuple):
    id: str
    name: str
    arguments: Any


class _Result(NamedTuple):
    id: str
    name: str
    value: Any


def read_messages(value: Any) -> list[Any]:
    """
    Return a conversation as ``[{"role", "content", "tool_calls", "tool_call_id"}]``.

    Known are the parts of GenAI, Vercel, Bedrock, Gemini and Haystack, and whatever LangChain and Pydantic AI have.
    Messages of other forms, as OpenAI's and Anthropic's are, stay as they are.

    Args:
        value: A list of messages, one message, a text, or JSON of one of them.
    """
    value = decoded(value)
    if isinstance(value, dict):
        inner = value.get("messages", value.get("contents"))
        value = inner if isinstance(inner, list) else [value]
    if isinstance(value, str):
        return [{"role": "user", "content": value}] if value else []
    items = list_of(value)
    if len(items) == 1 and isinstance(items[0], list):  # LangChain has a list of conversations
        items = items[0]
    return [each for message in frameworks.messages_of(items) for each in _message(message)]


def system_of(value: Any) -> str:
    """Return the text of system instructions: a text, or a list of parts."""
    value = parsed(value)
    if isinstance(value, list):
        return "\n\n".join(filter(None, (_text_of_part(part) for part in value)))
    return value if isinstance(value, str) else _text_of_part(value)


def answer_of(value: Any) -> Turn:
    """Return the answer in messages of a model, one after the other."""
    turn = Turn()
    texts: list[str] = []
    for message in dicts_of(read_messages(value)):
        if message.get("role") in ("system", "user", "tool"):
            continue
        content = message.get("content")
        for block in [content] if isinstance(content, str) else list_of(content):
            if isinstance(block, dict) and block.get("type") == "thinking":
                turn.thinking = [*turn.thinking, block]
            elif text := _text_of_part(block):
                texts.append(text)
        turn.tool_calls = [*turn.tool_calls, *map(asked_call, dicts_of(message.get("tool_calls")))]
        turn.finish_reason = turn.finish_reason or text_of(message.get("finish_reason"))
    turn.content = "".join(texts) or None
    return turn


def asked_call(call: Mapping[str, Any]) -> Any:
    """
    Return a tool call that a model asked for in the form of OpenAI's, with its arguments as JSON text.

    Arguments that are not told are left out.
    """
    function = dict_of(call.get("function")) or call
    asked = {"name": text_of(function.get("name"))}
    for name in ("arguments", "args", "input"):
        if function.get(name) is not None:
            asked["arguments"] = as_json(function[name])
            break
    return {"id": call["id"], "function": asked} if text_of(call.get("id")) else {"function": asked}


def as_json(value: Any) -> str:
    """Return plain data as JSON; a text is JSON already."""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def decoded(value: Any) -> Any:
    """Return the value of a text that is JSON, without the wrappers of LangChain; anything else as it is."""
    if isinstance(value, str) and not any(mark in value for mark in _WRAPPERS):
        return parsed(value)
    return unwrapped(parsed(value))


def unwrapped(value: Any) -> Any:
    """Return plain data without the wrappers in which LangChain writes its objects; as it is if it is too deep."""
    try:
        return _unwrapped(value)
    except RecursionError:
        return value


def _unwrapped(value: Any) -> Any:
    if isinstance(value, list):
        return [_unwrapped(each) for each in value]
    if not isinstance(value, dict):
        return value
    if value.get("lc") == 1 and isinstance(value.get("kwargs"), dict):
        return _unwrapped(value["kwargs"])
    if isinstance(value.get("data"), dict) and isinstance(value.get("type"), str) and len(value) == 2:
        return _unwrapped({"type": value["type"], **value["data"]})
    return {name: _unwrapped(each) for name, each in value.items()}


def _message(message: Any) -> Iterable[Any]:
    if not isinstance(message, dict):
        return [message]
    role = text_of(message.get("role"))
    if not role and message.get("type") in _TYPES:
        role = message["type"]
    role = _ROLES.get(role, role)
    parts = message.get("parts")
    if not isinstance(parts, list):
        parts = message.get("content")
        if not isinstance(parts, list):
            return [_whole(message, role)]
    texts: list[Any] = []
    calls: list[_Call] = []
    results: list[_Result] = []
    for part in parts:
        read = _part(part)
        if isinstance(read, _Call):
            calls.append(read)
        elif isinstance(read, _Result):
            results.append(read)
        elif read is not None:
            texts.append(read)
    read_as = [
        {"role": "tool", "tool_call_id": result.id, "content": result.value}
        | ({"name": result.name} if result.name else {})
        for result in results
    ]
    if texts or calls or message.get("tool_calls") or not results:
        others = {
            name: message[name] for name in ("name", "finish_reason", "tool_call_id") if message.get(name)
        }
        mine: dict[str, Any] = {"role": role or "user", "content": _content(texts), **others}
        asked = [asked_call(call) for call in dicts_of(message.get("tool_calls"))]
        asked += [
            asked_call({"id": call.id, "name": call.name, "arguments": call.arguments}) for call in calls
        ]
        if asked:
            mine["tool_calls"] = asked
        read_as.append(mine)
    return read_as


def _whole(message: dict[str, Any], role: str) -> dict[str, Any]:
    """Return a message whose content is no list of parts, with its tool calls in one form."""
    told = dict(message)
    if role:
        told["role"] = role
    if calls := dicts_of(message.get("tool_calls")):
        told["tool_calls"] = [asked_call(call) for call in calls]
    return told


def _content(blocks: list[Any]) -> Any:
    """Return the content of a message: one text where there is nothing else."""
    if all(isinstance(block, str) for block in blocks):
        return "\n".join(blocks) if blocks else None
    return [{"type": "text", "text": block} if isinstance(block, str) else block for block in blocks]


def _part(part: Any) -> Any:
    """Return a part of a message: a text, a call, a result, or a block as it is."""
    if isinstance(part, str):
        return part or None
    if not isinstance(part, dict):
        return part
    kind = text_of(part.get("type"))
    if kind in _TEXTS or not kind:
        text = part.get("text", part.get("content"))
        if isinstance(text, str):
            return text or None
    if thought := _thought(part, kind):
        return {"type": "thinking", "thinking": thought}
    if (call := _call(part, kind)) is not None:
        return call
    if (result := _result(part, kind)) is not None:
        return result
    return part


def _thought(part: dict[str, Any], kind: str) -> str:
    name = kind if kind in _THOUGHTS else next((name for name in _THOUGHTS if name in part), "")
    if not name:
        return ""
    inner = dict_of(part.get(name))
    texts = (part.get("content"), part.get("text"), part.get(name), inner.get("reasoning_text"))
    return next((text for text in texts if isinstance(text, str)), "") or text_of(
        dict_of(inner.get("reasoningText")).get("text")
    )


def _call(part: dict[str, Any], kind: str) -> _Call | None:
    """Return the tool call in a part: of GenAI, Vercel, Bedrock, Gemini, Haystack."""
    if kind in ("tool_call", "tool-call", "tool_use", "function_call"):
        inner = dict_of(part.get("tool_call")) or part
        function = dict_of(inner.get("function"))
        call_id = inner.get("id", inner.get("toolCallId", inner.get("call_id")))
        name = inner.get("name", inner.get("toolName", function.get("name")))
        arguments = next(
            (
                each[key]
                for each in (inner, function)
                for key in ("arguments", "input", "args")
                if key in each
            ),
            None,
        )
        return _Call(text_of(call_id), text_of(name), arguments)
    for member in ("toolUse", "tool_call", "function_call", "functionCall"):
        if isinstance(part.get(member), dict):
            inner = part[member]
            return _Call(
                text_of(inner.get("toolUseId", inner.get("id"))),
                text_of(inner.get("name", inner.get("tool_name"))),
                inner.get("input", inner.get("arguments", inner.get("args"))),
            )
    return None


def _result(part: dict[str, Any], kind: str) -> _Result | None:
    """Return the result of a tool in a part: of GenAI, Vercel, Anthropic, Bedrock, Gemini, Haystack."""
    if kind in ("tool_call_response", "tool-result", "tool_result"):
        call_id = part.get("id", part.get("toolCallId", part.get("tool_use_id")))
        value = next(
            (part[key] for key in ("response", "result", "output", "content") if part.get(key) is not None),
            None,
        )
        return _Result(text_of(call_id), text_of(part.get("name", part.get("toolName"))), plain_result(value))
    for member in ("toolResult", "tool_call_result", "function_response", "functionResponse"):
        if isinstance(part.get(member), dict):
            inner = part[member]
            origin = dict_of(inner.get("origin"))
            call_id = inner.get("toolUseId", inner.get("id", origin.get("id")))
            name = inner.get("name", origin.get("tool_name"))
            value = inner.get("content", inner.get("result", inner.get("response")))
            return _Result(text_of(call_id), text_of(name), plain_result(value))
    return None


def plain_result(value: Any) -> Any:
    """
    Return the result of a tool without the wrapping of its form: one text, or one value with its type.

    The text of several blocks is joined.
    """
    if isinstance(value, dict) and value.keys() == {"type", "value"}:
        return value["value"]
    blocks = dicts_of(value)
    if blocks and len(blocks) == len(value):
        texts = [_text_of_part(block) for block in blocks]
        if all(texts):
            return "\n".join(texts)
        if len(blocks) == 1 and blocks[0].keys() == {"json"}:
            return blocks[0]["json"]
    return value


def _text_of_part(part: Any) -> str:
    if isinstance(part, str):
        return part
    if not isinstance(part, dict) or part.get("type", "text") not in _TEXTS:
        return ""
    return text_of(part.get("text")) or text_of(part.get("content"))
