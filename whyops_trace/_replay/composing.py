"""The answer of a provider as JSON, made of a text and calls of tools where its own JSON was not recorded."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from whyops_trace._reading.excerpt import Tokens
from whyops_trace._replay.recording import RecordedCall
from whyops_trace._shapes import dict_of, dicts_of, text_of

#: The endpoints that answer with a text, each with an answer that only has what must be there.
ANSWERS: Final[Mapping[str, dict[str, Any]]] = {
    "chat.completions": {"id": "chatcmpl-whatif", "object": "chat.completion", "created": 0},
    "messages": {"id": "msg_whatif", "type": "message", "role": "assistant"},
    "responses": {
        "id": "resp_whatif", "object": "response", "created_at": 0, "parallel_tool_calls": True, "tools": [],
        "tool_choice": "auto",
    },
}  # fmt: skip


def with_text(
    endpoint: str, whole: dict[str, Any], text: str, calls: Sequence[dict[str, Any]] = (), reason: str = ""
) -> dict[str, Any]:
    """
    Return an answer with another text and other calls of tools.

    Args:
        endpoint: One of :data:`ANSWERS`.
        whole: The other members of the answer.
        text: The text, "" for none.
        calls: The calls, each with ``id`` and ``function``, which has ``name`` and ``arguments`` as text.
        reason: Why the answer ended, in the provider's word; "" for the usual one.
    """
    whole = {**ANSWERS[endpoint], **whole}
    asked = [(text_of(each.get("id")), dict_of(each.get("function"))) for each in calls]
    if endpoint == "chat.completions":
        said: dict[str, Any] = {"role": "assistant", "content": text if text or not calls else None}
        if asked:
            said["tool_calls"] = [
                {"id": key, "type": "function", "function": function} for key, function in asked
            ]
        ended = reason or ("tool_calls" if asked else "stop")
        return whole | {"choices": [{"index": 0, "finish_reason": ended, "message": said}]}
    if endpoint == "messages":
        blocks: list[dict[str, Any]] = [{"type": "text", "text": text}] if text or not asked else []
        blocks += [
            {"type": "tool_use", "id": key, "name": function.get("name"), "input": _parsed(function)}
            for key, function in asked
        ]
        ended = reason or ("tool_use" if asked else "end_turn")
        return whole | {"content": blocks, "stop_reason": ended, "stop_sequence": None}
    part = {"type": "output_text", "text": text, "annotations": []}
    message = {"type": "message", "id": "msg_whatif", "role": "assistant", "status": "completed"}
    output = [{**message, "content": [part]}] if text or not asked else []
    output += [
        {"type": "function_call", "id": f"fc_{key}", "call_id": key, "status": "completed", **function}
        for key, function in asked
    ]
    return whole | {"output": output, "status": "completed", "incomplete_details": None}


def composed(endpoint: str, found: RecordedCall) -> dict[str, Any]:
    """Return the answer of a recorded call of which a framework told the text, the calls of tools and the tokens."""
    told = dict_of(found.answer)
    whole = {"model": found.model, "usage": used(endpoint, Tokens.of(found.usage))}
    if found.response_id:
        whole["id"] = found.response_id
    calls, reason = dicts_of(told.get("toolCalls")), text_of(told.get("finishReason"))
    return with_text(endpoint, whole, text_of(told.get("content")), calls, reason)


def used(endpoint: str, tokens: Tokens) -> dict[str, Any]:
    """Return the tokens of an answer in the words of an endpoint."""
    if endpoint == "messages":
        return {
            "input_tokens": tokens.prompt,
            "output_tokens": tokens.completion,
            "cache_read_input_tokens": tokens.cache_read,
            "cache_creation_input_tokens": tokens.cache_creation,
        }
    sent, answered = tokens.sent, tokens.completion
    if endpoint == "responses":
        return {
            "input_tokens": sent,
            "input_tokens_details": {
                "cached_tokens": tokens.cache_read,
                "cache_write_tokens": tokens.cache_creation,
            },
            "output_tokens": answered,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": sent + answered,
        }
    return {
        "prompt_tokens": sent,
        "completion_tokens": answered,
        "total_tokens": sent + answered,
        "prompt_tokens_details": {"cached_tokens": tokens.cache_read},
    }


def _parsed(function: Mapping[str, Any]) -> Any:
    try:
        return json.loads(text_of(function.get("arguments")) or "{}")
    except ValueError:
        return {}
