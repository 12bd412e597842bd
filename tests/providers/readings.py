"""
Facts of models' answers, read in the plainest way from the bytes of an answer, and from the records of a traced call.

The package under test reads answers as well. Nothing of that is used here, so a mistake there shows as a difference.
"""

from __future__ import annotations

import base64
import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]
#: Name and arguments of a tool call.
ToolCall = tuple[str, Any]


@dataclass
class Reading:
    """Facts of an answer: text, tool calls and finish reason of each choice, the model, and the tokens of all kinds."""

    choices: list[tuple[str, list[ToolCall], str]] = field(default_factory=list)
    model: str | None = None
    prompt: int | None = None
    completion: int | None = None
    total: int | None = None
    error: str | None = None

    def count(self, usage: Json, prompt: str, completion: str) -> Reading:
        """Take the tokens from a usage, and return this reading."""
        self.prompt, self.completion = usage.get(prompt), usage.get(completion)
        counts = [count for count in (self.prompt, self.completion) if count is not None]
        self.total = usage.get("total_tokens", sum(counts) if counts else None)
        return self


def read_answer(method: str, status: int, answer: bytes, *, streamed: bool) -> Reading:
    """
    Read the answer to a request.

    Args:
        method: Method of a client that makes such requests, such as "chat.completions".
        status: Status of HTTP; an answer of 400 and more is an error.
        answer: Body of the answer.
        streamed: True if the body is a stream of events.
    """
    if status >= 400:
        return Reading(error=str(status))
    try:
        parts = _events(answer) if streamed else [json.loads(answer)]
    except ValueError:  # the packages hand it on as text
        return Reading([(answer.decode(), [], "")])
    read = {"responses": _responses, "messages": _messages, "embeddings": _embeddings}.get(
        method, _completions
    )
    reading = read(parts)
    if not reading.choices and "error" in parts[0]:
        reading.error = str(parts[0]["error"].get("status"))
    return reading


def read_records(records: Iterable[Json]) -> Reading:
    """Read what was recorded of a call."""
    reading = Reading()
    for record in records:
        content, about = record["content"], record["metadata"]
        if record["eventType"] == "error":
            reading.error = str(content.get("status") or content["type"])
        elif record["eventType"] in ("llm_response", "embedding_response"):
            usage = dict(about.get("usage", {}))
            usage["total_tokens"] = usage.get("totalTokens")
            for name in ("cacheReadTokens", "cacheCreationTokens"):
                if name in usage:
                    usage["promptTokens"] = usage.get("promptTokens", 0) + usage[name]
            reading.model = about.get("model")
            reading.count(usage, "promptTokens", "completionTokens")
            for choice in (content, *content.get("otherChoices", [])):
                functions = [call["function"] for call in choice.get("toolCalls", [])]
                calls = [(function["name"], _arguments(function["arguments"])) for function in functions]
                reading.choices.append((choice.get("content") or "", calls, choice.get("finishReason", "")))
            if record["eventType"] == "embedding_response":
                size = f"{content['embeddingCount']} x {content['firstEmbeddingDimensions']}"
                reading.choices = [(size, [], "")]
    return reading


def _events(answer: bytes) -> list[Json]:
    blocks = answer.decode().replace("\r\n", "\n").split("\n\n")
    data = [[line[5:].strip() for line in block.split("\n") if line.startswith("data:")] for block in blocks]
    return [json.loads("\n".join(lines)) for lines in data if lines and lines != ["[DONE]"]]


def _completions(parts: list[Json]) -> Reading:
    """Read a completion of OpenAI's, whole or in chunks."""
    reading = Reading()
    usage: Json = {}
    texts: dict[int, str] = defaultdict(str)
    refusals: dict[int, str] = defaultdict(str)
    finish: dict[int, str] = {}
    calls: dict[int, dict[Any, list[str]]] = defaultdict(dict)
    for part in parts:
        reading.model = part.get("model") or reading.model
        usage = part.get("usage") or (part.get("x_groq") or {}).get("usage") or usage
        for choice in part.get("choices") or []:
            index = choice.get("index") or 0
            message = choice.get("message") or choice.get("delta") or {"content": choice.get("text")}
            finish[index] = choice.get("finish_reason") or finish.get(index, "")
            spoken = (message.get("audio") or {}).get("transcript")
            texts[index] += _text(message.get("content") or spoken)
            refusals[index] += message.get("refusal") or ""
            old = message.get("function_call") or {}
            asked = message.get("tool_calls") or ([{"function": old}] if any(old.values()) else [])
            for place, call in enumerate(asked):
                function = call.get("function") or call["custom"]
                pieces = calls[index].setdefault(call.get("index", place), ["", ""])
                pieces[0] = pieces[0] or function.get("name") or ""  # some repeat it in every chunk
                pieces[1] += function.get("arguments") or function.get("input") or ""
    for index in sorted(finish):
        named = [(name, _arguments(text)) for name, text in calls[index].values()]
        reading.choices.append((texts[index] or refusals[index], named, finish[index]))
    return reading.count(usage, "prompt_tokens", "completion_tokens")


def _responses(parts: list[Json]) -> Reading:
    """Read a response of OpenAI's, whole or as the last event of a stream that holds it."""
    answers = [part.get("response", part) for part in parts if "response" in part or "output" in part]
    answer = answers[-1] if answers else {}
    done = [part["item"] for part in parts if part.get("type") == "response.output_item.done"]
    text, refusal, calls = "", "", []
    for item in answer.get("output") or done:
        if item["type"] == "message":
            text += "".join(piece.get("text") or "" for piece in item["content"])
            refusal += "".join(piece.get("refusal") or "" for piece in item["content"])
        elif item["type"] in ("function_call", "custom_tool_call"):
            calls.append((item["name"], _arguments(item.get("arguments", item.get("input")))))
    finish = (answer.get("incomplete_details") or {}).get("reason") or answer.get("status") or ""
    reading = Reading([(text or refusal, calls, finish)], answer.get("model"))
    return reading.count(answer.get("usage") or {}, "input_tokens", "output_tokens")


def _messages(parts: list[Json]) -> Reading:
    """Read a message of Anthropic's, whole or in events."""
    message: Json = {}
    usage: Json = {}
    blocks: dict[int, Json] = {}
    for part in parts:
        changes = part if part["type"] == "message" else part.get("message") or part.get("delta") or {}
        message |= {name: value for name, value in changes.items() if value is not None}
        counts = changes.get("usage") or part.get("usage") or {}
        usage |= {name: value for name, value in counts.items() if value is not None}
        if part["type"] == "content_block_start":
            blocks[part["index"]] = {"text": "", "json": "", **part["content_block"]}
        elif part["type"] == "content_block_delta":
            blocks[part["index"]]["text"] += changes.get("text", "")
            blocks[part["index"]]["json"] += changes.get("partial_json", "")
    content = list(blocks.values()) or message.get("content") or []
    text = "".join(block["text"] for block in content if block["type"] == "text")
    uses = [block for block in content if block["type"] == "tool_use"]
    calls = [(block["name"], _arguments(block.get("json") or block["input"])) for block in uses]
    for name in ("cache_read_input_tokens", "cache_creation_input_tokens"):  # beside the input tokens
        usage["input_tokens"] = usage.get("input_tokens", 0) + usage.get(name, 0)
    reading = Reading([(text, calls, message.get("stop_reason") or "")], message.get("model"))
    return reading.count(usage, "input_tokens", "output_tokens")


def _embeddings(parts: list[Json]) -> Reading:
    """Read vectors, as their number and the length of the first one."""
    vectors = [item["embedding"] for item in parts[0].get("data") or []]
    first = vectors[0] if vectors else []
    length = len(base64.b64decode(first)) // 4 if isinstance(first, str) else len(first)
    reading = Reading([(f"{len(vectors)} x {length}", [], "")], parts[0].get("model"))
    return reading.count(parts[0].get("usage") or {}, "prompt_tokens", "completion_tokens")


def _text(content: Any) -> str:
    if isinstance(content, list):
        return "".join(block["text"] for block in content if block["type"] == "text")
    return content or ""


def _arguments(told: Any) -> Any:
    """Return the arguments of a tool call as values, as the text they are if that is no JSON."""
    try:
        return json.loads(told or "{}") if isinstance(told, str) else told
    except ValueError:
        return told
