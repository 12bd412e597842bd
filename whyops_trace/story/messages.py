"""
The input of a model, in any form, as messages a person can follow.

The forms are those of OpenAI's chat completions and responses, of Anthropic, of plain texts, and the contents of this
library's own ``user_message`` and ``tool_result`` events. Anything else is shown as JSON.
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

#: Types of blocks that hold text, which are also the names of the member that holds it.
_TEXTS: Final = ("text", "refusal")
#: Nouns for blocks without text, by their type. Any other block is called by its type.
_NOUNS: Final = {
    "image_url": "image", "input_image": "image", "document": "file", "input_file": "file", "input_audio": "audio",
}  # fmt: skip
#: Blocks that are shown elsewhere: calls as calls, results as messages, and thoughts in their turn.
_ELSEWHERE: Final = frozenset({"tool_use", "tool_result", "thinking", "redacted_thinking", "reasoning"})
#: Exceptions that the encoder and the readers of answers raise for strange values.
_STRANGE: Final = (TypeError, ValueError, OverflowError, RecursionError)

_ENCODER: Final = msgspec.json.Encoder()


class Prompt(NamedTuple):
    """
    The content of a request.

    Attributes:
        system: The system prompt: the one beside the messages, and the system messages that lead them.
        tools: The tools on offer, as sent.
        messages: The other messages, as sent.
        alone: True if only the new messages were recorded, without those before them.
    """

    system: str
    tools: list[Any]
    messages: list[Any]
    alone: bool = False


def read_prompt(content: Any, metadata: Mapping[str, Any]) -> Prompt:
    """Return the prompt of a request from the content and metadata of its event."""
    messages, alone = _request_messages(content)
    system_texts = [text_of(metadata.get("systemPrompt"))]
    leading = 0
    for message in messages:
        if get(message, "role") not in ("system", "developer"):
            break
        system_texts.append(_split(get(message, "content"))[0])
        leading += 1
    system = "\n\n".join(text for text in system_texts if text)
    return Prompt(system, list_of(metadata.get("tools")), messages[leading:] if leading else messages, alone)


def _request_messages(content: Any) -> tuple[list[Any], bool]:
    """Return the messages of a request, and True if those before them are missing."""
    messages = get(content, "messages")
    if messages:
        return (messages, False) if isinstance(messages, list) else ([messages], True)
    if isinstance(content, dict) and "toolName" in content:
        return [{"role": "tool", "name": content["toolName"], "content": content.get("output")}], True
    if isinstance(content, list):
        return content, False
    single = [content] if content and messages is None else []
    return single, bool(single)


def tool_names(tools: list[Any]) -> dict[str, Any]:
    """Return the tools on offer by their names. A tool without a name goes by its type."""
    by_name = {}
    for tool in tools:
        name = get(get(tool, "function"), "name") or get(tool, "name") or get(tool, "type") or tool
        by_name[name if isinstance(name, str) else value(name)] = tool
    return by_name


def read_message(message: Any, names: Mapping[str, str]) -> list[Message]:
    """
    Return a message of a request as one message, and one more for each tool result among its blocks.

    Args:
        message: The message, as sent.
        names: Names of tools, by the ids of their calls.
    """
    if isinstance(message, str):
        return [Message("user", message)]
    if not isinstance(message, dict):
        return [Message("", value(message))]
    kind, role = text_of(message.get("type")), text_of(message.get("role"))
    if role in answers.TOOL_ROLES or kind in answers.TOOL_ITEMS:
        return [_result(message, names)]
    if role in ("assistant", "model") or (kind and not role):
        return [_model_message(message, kind)]
    results = [block for block in dicts_of(message.get("content")) if block.get("type") == "tool_result"]
    text, others = _split(_content_of(message))
    messages = [_result(block, names) for block in results]
    if messages and not (text or others):
        return messages
    return [*messages, Message(role, text, other=_block_counts(others), blocks=others)]


def _model_message(message: dict[str, Any], kind: str) -> Message:
    """Return a message from a model: its whole message, or an item of its answer."""
    item = not message.get("role") or kind == "message"
    turn = read_answer({"output": [message]} if item else message)
    text, others = _split(_content_of(message))
    calls = [read_call(call) for call in turn.tool_calls]
    if isinstance(message.get("content"), list) and not item:
        calls += [
            read_call(call) for call in read_answer({"tool_calls": message.get("tool_calls")}).tool_calls
        ]
    if item and not calls and not text and kind not in _ELSEWHERE:
        others = [message]
    return Message("assistant", turn.content or text, calls=calls, other=_block_counts(others), blocks=others)


def _result(message: dict[str, Any], names: Mapping[str, str]) -> Message:
    """Return the result of a tool, given as a message, an item or a block."""
    call_id = next(
        (text_of(message.get(key)) for key in ("tool_call_id", "call_id", "tool_use_id") if message.get(key)),
        "",
    )
    text, others = _split(message.get("content", message.get("output")))
    name = text_of(message.get("name")) or names.get(call_id, "")
    return Message("tool", text, name=name, call_id=call_id, other=_block_counts(others), blocks=others)


def read_answer(answer: Any) -> answers.Turn:
    """Return the answer of a model, an empty turn if it cannot be read."""
    try:
        return answers.read_response(answer)
    except _STRANGE:
        return answers.Turn()


def read_call(call: Mapping[str, Any]) -> Call:
    """Return a tool call that a model requested, from the form in which an answer records it."""
    function = get(call, "function")
    arguments = asked_arguments(get(function, "arguments"))
    return Call(text_of(get(call, "id")), text_of(get(function, "name")), arguments)


def _content_of(message: dict[str, Any]) -> Any:
    """Return the content of a message. Google's parts are told by the name of their only member."""
    parts = dicts_of(message.get("parts"))
    if message.get("content") is None and parts:
        return [part if "text" in part else {"type": next(iter(part), ""), **part} for part in parts]
    return message.get("content", message.get("text"))


def _split(content: Any) -> tuple[str, list[Any]]:
    """Return the texts of a content, joined by newlines, and its blocks without text."""
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


def _block_counts(blocks: list[Any]) -> str:
    """Return the number of blocks of each kind, such as ``2 images``."""
    kinds = (text_of(get(block, "type")) or "other" for block in blocks)
    counts = Counter(_NOUNS.get(kind, kind) for kind in kinds)
    return ", ".join(f"{count} {noun}{'s' if count > 1 else ''}" for noun, count in counts.items())


def fingerprint(thing: Any) -> int:
    """Return a hash of a JSON value."""
    try:
        return hash(_ENCODER.encode(thing))
    except _STRANGE:
        return hash(value(thing))


def likeness(original: Any, messages: list[Message]) -> int:
    """
    Return a number that is the same for messages of the same content, in any form.

    Cache marks and thinking may differ. Images and files may not.

    Args:
        original: The message, as sent.
        messages: The result of :func:`read_message` for it.
    """
    content = get(original, "content")
    others = tuple(
        fingerprint({name: part for name, part in dict_of(block).items() if name != "cache_control"})
        for block in (_split(content)[1] if any(message.other for message in messages) else ())
    )
    contents = tuple(
        (
            message.role,
            message.text,
            message.call_id,
            message.other,
            tuple(map(_call_likeness, message.calls)),
        )
        for message in messages
    )
    return hash((contents, others))


def _call_likeness(call: Call) -> tuple[str, str, int]:
    return call.id, call.name, fingerprint(call.arguments)
