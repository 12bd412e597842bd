"""
The answer of a provider as its bytes came: JSON, or the events of a stream.

The places where the provider cut a text into pieces were not recorded; it is cut at words.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Final

from whyops_trace._shapes import dict_of, dicts_of, list_of

_WORDS: Final = re.compile(r"\S+\s*|\s+")
#: Members of a chunk of chat completions that the whole has as well.
_OF_CHUNKS: Final = ("id", "created", "model", "service_tier", "system_fingerprint")
#: Members of a message of chat completions that come in one piece.
_WHOLE: Final = frozenset({"annotations", "audio", "function_call", "images", "reasoning_details"})
#: The member of a block of Anthropic's that comes in pieces, and the name of these.
_PIECES: Final = {
    "text": ("text", "text_delta"),
    "thinking": ("thinking", "thinking_delta"),
    "tool_use": ("input", "input_json_delta"),
    "server_tool_use": ("input", "input_json_delta"),
    "mcp_tool_use": ("input", "input_json_delta"),
}

Event = dict[str, Any]


def stream_of(endpoint: str, whole: dict[str, Any], asked: dict[str, Any]) -> Iterator[bytes]:
    """
    Yield an answer as the events of a stream.

    Args:
        endpoint: Name of the endpoint.
        whole: The answer.
        asked: The request.
    """
    if endpoint in ("chat.completions", "completions"):
        chunks = _chunks(whole, asked) if endpoint == "chat.completions" else [whole]
        for chunk in chunks:
            yield b"data: " + json.dumps(chunk).encode() + b"\n\n"
        yield b"data: [DONE]\n\n"
        return
    for event in _messages(whole) if endpoint == "messages" else _responses(whole):
        yield b"event: %b\ndata: %b\n\n" % (event["type"].encode(), json.dumps(event).encode())


def words(text: str) -> list[str]:
    """Return a text in pieces."""
    return _WORDS.findall(text)


def _chunks(whole: dict[str, Any], asked: dict[str, Any]) -> Iterator[Event]:
    base = {name: whole[name] for name in _OF_CHUNKS if name in whole} | {"object": "chat.completion.chunk"}

    def chunk(index: int, delta: Event, reason: Any = None, **more: Any) -> Event:
        return base | {"choices": [{"index": index, "delta": delta, "finish_reason": reason, **more}]}

    for place, choice in enumerate(dicts_of(whole.get("choices"))):
        index, message = choice.get("index", place), dict_of(choice.get("message"))
        yield chunk(index, {"role": message.get("role") or "assistant", "content": ""})
        logprobs = choice.get("logprobs")
        for name, value in message.items():
            if name in ("role", "tool_calls") or value is None:
                continue
            if not isinstance(value, str) or name in _WHOLE:
                yield chunk(index, {name: value})
            elif logprobs:
                yield chunk(index, {name: value}, logprobs=logprobs)
            else:
                for piece in words(value):
                    yield chunk(index, {name: piece})
        for number, call in enumerate(dicts_of(message.get("tool_calls"))):
            yield chunk(index, {"tool_calls": [{"index": number, **call}]})
        yield chunk(index, {}, choice.get("finish_reason"))
    if dict_of(asked.get("stream_options")).get("include_usage"):
        yield base | {"choices": [], "usage": whole.get("usage")}


def _responses(whole: dict[str, Any]) -> Iterator[Event]:
    for number, event in enumerate(_response_events(whole)):
        yield {**event, "sequence_number": number}


def _response_events(whole: dict[str, Any]) -> Iterator[Event]:
    yield {"type": "response.created", "response": whole | {"status": "in_progress", "output": []}}
    for place, item in enumerate(dicts_of(whole.get("output"))):
        at = {"output_index": place, "item_id": item.get("id")}
        empty: Event = {
            name: [] if name in ("content", "summary") else "" if name in ("arguments", "input") else value
            for name, value in item.items()
        }
        yield {
            "type": "response.output_item.added",
            "output_index": place,
            "item": empty | {"status": "in_progress"},
        }
        for number, part in enumerate(dicts_of(item.get("summary"))):
            yield from _part(
                at | {"summary_index": number}, part, "reasoning_summary_part", "reasoning_summary_text"
            )
        for number, part in enumerate(dicts_of(item.get("content")) if item.get("type") == "message" else ()):
            yield from _part(at | {"content_index": number}, part, "content_part", str(part.get("type")))
        if isinstance(item.get("arguments"), str):
            name = "function_call_arguments" if item.get("type") == "function_call" else "mcp_call_arguments"
            yield {"type": f"response.{name}.delta", **at, "delta": item["arguments"]}
            yield {
                "type": f"response.{name}.done",
                **at,
                "arguments": item["arguments"],
                "name": item.get("name"),
            }
        if item.get("type") == "custom_tool_call":
            yield {"type": "response.custom_tool_call_input.delta", **at, "delta": item.get("input")}
            yield {"type": "response.custom_tool_call_input.done", **at, "input": item.get("input")}
        yield {"type": "response.output_item.done", "output_index": place, "item": item}
    ended = whole.get("status")
    last = ended if ended in ("completed", "incomplete", "failed") else "completed"
    yield {"type": f"response.{last}", "response": whole}


def _part(at: Event, part: Event, name: str, kind: str) -> Iterator[Event]:
    """Yield the events of a part of a message or of a summary."""
    member = "refusal" if kind == "refusal" else "text"
    text = part.get(member)
    if not isinstance(text, str):
        yield {"type": f"response.{name}.added", **at, "part": part}
        yield {"type": f"response.{name}.done", **at, "part": part}
        return
    more: Event = {"logprobs": []} if kind == "output_text" else {}
    yield {"type": f"response.{name}.added", **at, "part": part | {member: ""}}
    for piece in words(text):
        yield {"type": f"response.{kind}.delta", **at, "delta": piece, **more}
    for number, note in enumerate(list_of(part.get("annotations"))):
        yield {
            "type": "response.output_text.annotation.added", **at, "annotation": note, "annotation_index": number,
        }  # fmt: skip
    yield {"type": f"response.{kind}.done", **at, member: text, **more}
    yield {"type": f"response.{name}.done", **at, "part": part}


def _messages(whole: dict[str, Any]) -> Iterator[Event]:
    usage = dict_of(whole.get("usage"))
    start = whole | {"content": [], "stop_reason": None, "stop_sequence": None}
    yield {"type": "message_start", "message": start | {"usage": usage | {"output_tokens": 0}}}
    for index, block in enumerate(dicts_of(whole.get("content"))):
        member, delta = _PIECES.get(str(block.get("type")), ("", ""))
        empty = dict(block)
        if member in block:
            empty[member] = {} if member == "input" else ""
        if "signature" in block:
            empty["signature"] = ""
        if block.get("citations"):
            empty["citations"] = []
        yield {"type": "content_block_start", "index": index, "content_block": empty}
        pieces: list[Event] = []
        if member == "input":
            pieces = [{"type": delta, "partial_json": json.dumps(block.get("input"))}]
        elif isinstance(block.get(member), str):
            pieces = [{"type": delta, member: piece} for piece in words(block[member])]
        pieces += [{"type": "citations_delta", "citation": each} for each in list_of(block.get("citations"))]
        if block.get("signature"):
            pieces.append({"type": "signature_delta", "signature": block["signature"]})
        for piece in pieces:
            yield {"type": "content_block_delta", "index": index, "delta": piece}
        yield {"type": "content_block_stop", "index": index}
    ended = {name: whole.get(name) for name in ("stop_reason", "stop_sequence")}
    yield {"type": "message_delta", "delta": ended, "usage": usage}
    yield {"type": "message_stop"}
