"""Messages of models in the form of GenAI: a role and parts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from whyops_trace._otel.messages import read_messages
from whyops_trace._shapes import dict_of, dicts_of, list_of, parsed, text_of
from whyops_trace.exporters.otlp.span import Value

#: Roles of messages that are no part of the conversation, but instructions of the program.
SYSTEM: Final = ("system", "developer")
_json: Final = msgspec.json.Encoder()


def as_text(value: Any) -> str:
    """Return a value as an attribute has it: a text as it is, anything else as JSON; a text that looks so, likewise."""
    if isinstance(value, str) and parsed(value) is value:
        return value
    return _json.encode(value).decode()


def as_value(value: Any) -> Value:
    """Return a value of a program's own as an attribute has it: a text, a number or a boolean as it is, else JSON."""
    return value if isinstance(value, (str, bool, int, float)) else as_text(value)


def add_values(attributes: dict[str, Value], asked: str, answered: str) -> None:
    """Add the input and output of something that is no call of a model or a tool."""
    if asked:
        attributes["input.value"] = asked
    if answered:
        attributes["output.value"] = answered


def asked_messages(messages: Any) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the system instructions, as parts, and the messages of a request."""
    system: list[dict[str, Any]] = []
    asked = []
    for message in read_messages(messages):
        told = _message(message)
        if told["role"] in SYSTEM:
            system += told["parts"]
        else:
            asked.append(told)
    return system, asked


def answered_messages(content: Mapping[str, Any], thoughts: Iterable[Any]) -> list[dict[str, Any]]:
    """
    Return the messages of an answer, one for each choice.

    Args:
        content: The content of the answer's record.
        thoughts: What the model thought before it: contents of records.
    """
    return [
        _choice(content, thoughts),
        *(_choice(other, list_of(other.get("thinking"))) for other in dicts_of(content.get("otherChoices"))),
    ]


def text_in(messages: Iterable[Mapping[str, Any]], role: str) -> str:
    """Return the text of the last message of a role, "" if there is none."""
    texts = [
        "\n".join(text_of(part.get("content")) for part in message["parts"] if part.get("type") == "text")
        for message in messages
        if message["role"] == role
    ]
    return next((text for text in reversed(texts) if text), "")


def _choice(content: Mapping[str, Any], thoughts: Iterable[Any]) -> dict[str, Any]:
    parts = [
        {"type": "reasoning", "content": text}
        for thought in thoughts
        if (text := text_of(dict_of(thought).get("thinking")))
    ]
    if text := text_of(content.get("content")):
        parts.append({"type": "text", "content": text})
    parts += [_call(call) for call in dicts_of(content.get("toolCalls"))]
    return {
        "role": "assistant",
        "parts": parts,
        "finish_reason": text_of(content.get("finishReason"))
        or ("tool_call" if content.get("toolCalls") else "stop"),
    }


def _message(message: Any) -> dict[str, Any]:
    if not isinstance(message, dict):
        return {"role": "user", "parts": [_part(message)]}
    role = text_of(message.get("role")) or "user"
    content = message.get("content")
    if role == "tool":
        response = {
            "type": "tool_call_response",
            "id": text_of(message.get("tool_call_id")),
            "response": content,
        }
        return {"role": role, "parts": [response]}
    blocks = content if isinstance(content, list) else [content] if content not in (None, "") else []
    parts = [_part(block) for block in blocks]
    parts += [_call(call) for call in dicts_of(message.get("tool_calls"))]
    told: dict[str, Any] = {"role": role, "parts": parts}
    if name := text_of(message.get("name")):
        told["name"] = name
    return told


def _part(block: Any) -> dict[str, Any]:
    if isinstance(block, str):
        return {"type": "text", "content": block}
    if not isinstance(block, dict):
        return {"type": "text", "content": as_text(block)}
    if isinstance(block.get("text"), str):
        return {"type": "text", "content": block["text"]}
    if block.get("type") == "thinking":
        return {"type": "reasoning", "content": text_of(block.get("thinking"))}
    image = block.get("image_url")
    if image is not None:
        return {
            "type": "uri",
            "modality": "image",
            "uri": text_of(dict_of(image).get("url")) or text_of(image),
        }
    return {"type": "generic", **block}


def _call(call: Mapping[str, Any]) -> dict[str, Any]:
    function = dict_of(call.get("function")) or call
    return {
        "type": "tool_call",
        "id": text_of(call.get("id")),
        "name": text_of(function.get("name")),
        "arguments": parsed(function.get("arguments")),
    }
