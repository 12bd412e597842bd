"""
Reads what a model was given, in whatever form it was sent, as messages a person can follow.

The forms are those of OpenAI's chat completions and responses, of Anthropic, of plain texts, and the contents of this
library's own ``user_message`` and ``tool_result`` events. What is none of these is shown as JSON.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import msgspec

from whyops_trace._models import answers
from whyops_trace._models.links import asked_arguments
from whyops_trace._reading.excerpt import get, value
from whyops_trace._shapes import dict_of, dicts_of, list_of, text_of
from whyops_trace.story.turns import Call, Message

#: What the texts of a message stand under, by the type of the block.
_TEXTS: Final = ("text", "refusal")
#: What blocks beside texts are called, by their type; others by their type itself.
_NOUNS: Final = {
    "image_url": "image", "input_image": "image", "document": "file", "input_file": "file", "input_audio": "audio",
}  # fmt: skip
#: Blocks that are told elsewhere: calls as calls, results as messages, and thoughts in the turn that had them.
_ELSEWHERE: Final = frozenset({"tool_use", "tool_result", "thinking", "redacted_thinking", "reasoning"})
#: What strange values make the encoder and the readers of answers raise.
_STRANGE: Final = (TypeError, ValueError, OverflowError, RecursionError)

_ENCODER: Final = msgspec.json.Encoder()


class Prompt(NamedTuple):
    """
    What a request sent.

    Attributes:
        system: The system prompt: the one told beside the messages, and those that lead them.
        tools: The tools on offer, as they were sent.
        messages: The other messages, as they were sent.
        alone: Whether only what is new was recorded, and not the messages before it.
    """

    system: str
    tools: list[Any]
    messages: list[Any]
    alone: bool = False


def read_prompt(content: Any, metadata: Mapping[str, Any]) -> Prompt:
    """Return what a request sent, by the content and metadata of its event."""
    messages, alone = _sent(content)
    told = [text_of(metadata.get("systemPrompt"))]
    leading = 0
    for message in messages:
        if get(message, "role") not in ("system", "developer"):
            break
        told.append(_split(get(message, "content"))[0])
        leading += 1
    system = "\n\n".join(text for text in told if text)
    return Prompt(system, list_of(metadata.get("tools")), messages[leading:] if leading else messages, alone)


def _sent(content: Any) -> tuple[list[Any], bool]:
    """Return the messages of a request, and whether those before them are missing."""
    messages = get(content, "messages")
    if messages:
        return (messages, False) if isinstance(messages, list) else ([messages], True)
    if isinstance(content, dict) and "toolName" in content:
        return [{"role": "tool", "name": content["toolName"], "content": content.get("output")}], True
    if isinstance(content, list):
        return content, False
    sent = [content] if content and messages is None else []
    return sent, bool(sent)


def tool_names(tools: list[Any]) -> dict[str, Any]:
    """Return the tools on offer by their names; one that has no name goes by its type."""
    named = {}
    for tool in tools:
        name = get(get(tool, "function"), "name") or get(tool, "name") or get(tool, "type") or tool
        named[name if isinstance(name, str) else value(name)] = tool
    return named


def read_message(message: Any, names: Mapping[str, str]) -> list[Message]:
    """
    Return what a message of a request says: one message, and one more for each result of a tool among its blocks.

    Args:
        message: The message, as it was sent.
        names: The tools of calls, by the ids of these.
    """
    if isinstance(message, str):
        return [Message("user", message)]
    if not isinstance(message, dict):
        return [Message("", value(message))]
    kind, role = text_of(message.get("type")), text_of(message.get("role"))
    if role in answers.TOOL_ROLES or kind in answers.TOOL_ITEMS:
        return [_result(message, names)]
    if role in ("assistant", "model") or (kind and not role):
        return [_said(message, kind)]
    results = [block for block in dicts_of(message.get("content")) if block.get("type") == "tool_result"]
    text, others = _split(message.get("content", message.get("text")))
    read = [_result(block, names) for block in results]
    return read if read and not (text or others) else [*read, Message(role, text, other=_counted(others))]


def _said(message: dict[str, Any], kind: str) -> Message:
    """Return what a model said: its message, or an item of its answer."""
    item = not message.get("role") or kind == "message"
    turn = read_answer({"output": [message]} if item else message)
    text, others = _split(message.get("content"))
    calls = [read_call(call) for call in turn.tool_calls]
    if isinstance(message.get("content"), list) and not item:
        calls += [
            read_call(call) for call in read_answer({"tool_calls": message.get("tool_calls")}).tool_calls
        ]
    if item and not calls and not text and kind not in _ELSEWHERE:
        others = [message]
    return Message("assistant", turn.content or text, calls=calls, other=_counted(others))


def _result(message: dict[str, Any], names: Mapping[str, str]) -> Message:
    """Return the result of a tool: a message, an item or a block."""
    call_id = next(
        (text_of(message.get(key)) for key in ("tool_call_id", "call_id", "tool_use_id") if message.get(key)),
        "",
    )
    text, others = _split(message.get("content", message.get("output")))
    name = text_of(message.get("name")) or names.get(call_id, "")
    return Message("tool", text, name=name, call_id=call_id, other=_counted(others))


def read_answer(answer: Any) -> answers.Turn:
    """Return what a model answered, an empty turn if that is too strange to be read."""
    try:
        return answers.read_response(answer)
    except _STRANGE:
        return answers.Turn()


def read_call(call: Mapping[str, Any]) -> Call:
    """Return a tool call that a model asked for, as it is recorded of an answer."""
    function = get(call, "function")
    arguments = asked_arguments(get(function, "arguments"))
    return Call(text_of(get(call, "id")), text_of(get(function, "name")), arguments)


def _split(content: Any) -> tuple[str, list[Any]]:
    """Return the texts of a content, and the blocks that are none."""
    if isinstance(content, str):
        return content, []
    blocks = list_of(content)
    if not all(
        isinstance(block, str) or "type" in dict_of(block) or "text" in dict_of(block) for block in blocks
    ):
        return value(content), []  # a list that a tool returned
    if not isinstance(content, list):
        return "" if content is None else value(content), []
    texts, others = [], []
    for block in blocks:
        text = block if isinstance(block, str) else next(filter(None, map(block.get, _TEXTS)), None)
        if isinstance(text, str):
            texts.append(text)
        elif get(block, "type") not in _ELSEWHERE:
            others.append(block)
    return "\n".join(texts), others


def _counted(blocks: list[Any]) -> str:
    """Return what blocks there are, such as ``2 images``."""
    kinds = (text_of(get(block, "type")) or "other" for block in blocks)
    counts = Counter(_NOUNS.get(kind, kind) for kind in kinds)
    return ", ".join(f"{count} {noun}{'s' if count > 1 else ''}" for noun, count in counts.items())


def fingerprint(thing: Any) -> int:
    """Return a number that is the same for equal JSON values, and for hardly any others."""
    try:
        return hash(_ENCODER.encode(thing))
    except _STRANGE:
        return hash(value(thing))


def fingerprints(things: list[Any]) -> list[int]:
    """Return the fingerprint of each of many values."""
    encode = _ENCODER.encode
    try:
        return [hash(encode(thing)) for thing in things]
    except _STRANGE:
        return list(map(fingerprint, things))


def likeness(sent: Any, messages: list[Message]) -> int:
    """
    Return a number that is the same for messages that say the same, whatever the form.

    Marks of what is to be cached, and what a model thought, may differ; images and files may not.

    Args:
        sent: The message as it was sent.
        messages: What :func:`read_message` made of it.
    """
    content = get(sent, "content")
    others = tuple(
        fingerprint({name: part for name, part in dict_of(block).items() if name != "cache_control"})
        for block in (_split(content)[1] if any(message.other for message in messages) else ())
    )
    said = tuple(
        (
            message.role,
            message.text,
            message.call_id,
            message.other,
            tuple(map(_call_likeness, message.calls)),
        )
        for message in messages
    )
    return hash((said, others))


def _call_likeness(call: Call) -> tuple[str, str, int]:
    return call.id, call.name, fingerprint(call.arguments)
