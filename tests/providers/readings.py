"""
Facts of models' answers, read in the plainest way from the bytes of an answer, and from the records of a traced call.

The package under test reads answers as well. Nothing of that is used here, so a mistake there shows as a difference.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]
#: Name and arguments of a tool call.
ToolCall = tuple[str, Any]
#: Name of a tool that the provider ran, and every value of its input and output, in no order.
Ran = tuple[str, list[str]]
#: Items of a response that are no calls of a tool.
SAID = ("message", "reasoning", "compaction", "mcp_approval_request")
#: Calls that the agent runs, unless the response tells their output as well.
AGENTS = ("function", "custom_tool", "computer", "local_shell", "shell", "apply_patch")
#: Members of a call that are about the call.
ABOUT = ("id", "type", "status", "name", "call_id", "server_label", "execution", "index")


@dataclass
class Reading:
    """
    Facts of an answer.

    Attributes:
        choices: Text, tool calls and finish reason of each choice.
        thought: What the model thought, without spaces.
        ran: The tools that the provider ran.
        model: The model.
        prompt: Tokens of the prompt, with those of the cache.
        completion: Tokens of the completion.
        total: All tokens.
        error: Status or type of the error.
    """

    choices: list[tuple[str, list[ToolCall], str]] = field(default_factory=list)
    thought: str = ""
    ran: list[Ran] = field(default_factory=list)
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
        elif record["eventType"] == "llm_thinking":
            reading.thought += _plain(content.get("thinking") or content.get("data"))
        elif record["eventType"] == "tool_call_request":
            reading.ran.append((about["tool"], _values(content["toolCalls"][0].get("arguments"))))
        elif record["eventType"] == "tool_call_response":
            reading.ran[-1] = (about["tool"], sorted(reading.ran[-1][1] + _values(content["toolResults"])))
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
    ran: dict[Any, Ran] = {}
    for part in parts:
        reading.model = part.get("model") or reading.model
        if "value" in part:  # Writer streams text alone
            finish[0] = ""
            texts[0] += part["value"]
        usage = part.get("usage") or (part.get("x_groq") or {}).get("usage") or usage
        for choice in part.get("choices") or []:
            index = choice.get("index") or 0
            message = choice.get("message") or choice.get("delta") or {"content": choice.get("text")}
            finish[index] = choice.get("finish_reason") or finish.get(index, "")
            spoken = (message.get("audio") or {}).get("transcript")
            if not index:
                members = ("reasoning_content", "reasoning", "thinking")
                thoughts = [*map(_thoughts, [message.get("content")]), *map(message.get, members)]
                reading.thought += _plain(next(filter(None, thoughts), ""))
                for place, tool in enumerate(
                    message.get("executed_tools") or []
                ):  # told anew when it has ended
                    ran[tool.get("index", place)] = (tool.get("name") or tool["type"], _values(tool, ABOUT))
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
    reading.ran = list(ran.values())
    return reading.count(usage, "prompt_tokens", "completion_tokens")


def _responses(parts: list[Json]) -> Reading:
    """Read a response of OpenAI's, whole or as the last event of a stream that holds it."""
    answers = [part.get("response", part) for part in parts if "response" in part or "output" in part]
    answer = answers[-1] if answers else {}
    done = [part["item"] for part in parts if part.get("type") == "response.output_item.done"]
    text, refusal, thought, calls = "", "", "", []
    items = answer.get("output") or done
    for item in items:
        if item["type"] == "message":
            text += "".join(piece.get("text") or "" for piece in item["content"])
            refusal += "".join(piece.get("refusal") or "" for piece in item["content"])
        elif item["type"] in ("function_call", "custom_tool_call"):
            calls.append((item["name"], _arguments(item.get("arguments", item.get("input")))))
        elif item["type"] == "reasoning":
            thought += _plain(item.get("summary") or item.get("content"))
    finish = (answer.get("incomplete_details") or {}).get("reason") or answer.get("status") or ""
    reading = Reading([(text or refusal, calls, finish)], thought, _ran(items), answer.get("model"))
    return reading.count(answer.get("usage") or {}, "input_tokens", "output_tokens")


def _ran(items: list[Json]) -> list[Ran]:
    """Read the calls of a response that the provider ran. Each takes the first output of its own, or of its kind."""
    calls: list[tuple[str, Any, list[Json]]] = []
    for item in items:
        kind = item["type"].removesuffix("_output").removesuffix("_call")
        if item["type"].endswith("_output"):
            mine = [
                parts
                for of, key, parts in calls
                if (of, key) == (kind, item.get("call_id")) and len(parts) == 1
            ]
            mine[0].append(item)
        elif item["type"] not in SAID:
            calls.append((kind, item.get("call_id"), [item]))
    return [
        (parts[0].get("name") or kind, sorted(value for part in parts for value in _values(part, ABOUT)))
        for kind, _, parts in calls
        if len(parts) > 1 or (kind not in AGENTS and parts[0].get("execution") != "client")
    ]


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
            blocks[part["index"]] = {"text": "", "json": "", "thinking": "", **part["content_block"]}
        elif part["type"] == "content_block_delta":
            blocks[part["index"]]["text"] += changes.get("text", "")
            blocks[part["index"]]["json"] += changes.get("partial_json", "")
            blocks[part["index"]]["thinking"] += changes.get("thinking", "")
    text, thought, calls = "", "", []
    ran: dict[str, Ran] = {}
    for block in list(blocks.values()) or message.get("content") or []:
        told = _arguments(block.get("json") or block.get("input"))
        if block["type"] == "text":
            text += block["text"]
        elif block["type"] in ("thinking", "redacted_thinking"):
            thought += _plain(block.get("thinking") or block.get("data"))
        elif block["type"] == "tool_use":
            calls.append((block["name"], told))
        elif block["type"] in ("server_tool_use", "mcp_tool_use"):
            ran[block["id"]] = (block["name"], _values(told))
        elif block["type"].endswith("_tool_result"):
            name, values = ran.get(block["tool_use_id"], (block["type"].removesuffix("_tool_result"), []))
            ran[block["tool_use_id"]] = (name, sorted(values + _values(block["content"])))
    # Passes in which the conversation was compacted are billed beside the message's own, as the cached tokens are.
    passes = [usage, *(each for each in usage.get("iterations") or [] if each["type"] == "compaction")]
    read = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
    counts = {
        "input_tokens": sum(each.get(name) or 0 for each in passes for name in read),
        "output_tokens": sum(each.get("output_tokens") or 0 for each in passes),
    }
    choices = [(text, calls, message.get("stop_reason") or "")]
    reading = Reading(choices, thought, list(ran.values()), message.get("model"))
    return reading.count(counts, "input_tokens", "output_tokens")


def _embeddings(parts: list[Json]) -> Reading:
    """Read vectors, as their number and the length of the first one."""
    vectors = [item["embedding"] for item in parts[0].get("data") or []]
    first = vectors[0] if vectors else []
    length = len(base64.b64decode(first)) // 4 if isinstance(first, str) else len(first)
    reading = Reading([(f"{len(vectors)} x {length}", [], "")], model=parts[0].get("model"))
    return reading.count(parts[0].get("usage") or {}, "prompt_tokens", "completion_tokens")


def _text(content: Any) -> str:
    if isinstance(content, list):
        return "".join(block["text"] for block in content if block["type"] == "text")
    return content or ""


def _thoughts(content: Any) -> list[Any]:
    """Return the thinking among the blocks of a content."""
    return (
        [block for block in content if block["type"] in ("thinking", "reasoning")]
        if isinstance(content, list)
        else []
    )


def _plain(thought: Any) -> str:
    """Return the text of thinking without spaces: some is in parts, which everybody joins in another way."""
    if isinstance(thought, list):
        return "".join(map(_plain, thought))
    if isinstance(thought, dict):
        return _plain(thought.get("thinking") or thought.get("summary") or thought.get("text"))
    return "".join((thought or "").split())


def _values(told: Any, but: Collection[str] = ()) -> list[str]:
    """
    Return the values in the input or output of a tool, in order: of a file only the hash.

    Args:
        told: The input or output.
        but: Names of the members that are left out.
    """
    if isinstance(told, list):
        return sorted(value for part in told for value in _values(part))
    if isinstance(told, dict) and "sha256" in told:
        return [told["sha256"]]
    if isinstance(told, dict):
        members = {name: _arguments(part) if name == "arguments" else part for name, part in told.items()}
        return sorted(value for name, part in members.items() if name not in but for value in _values(part))
    if isinstance(told, str) and (encoded := _file(told)):
        return [hashlib.sha256(base64.b64decode(encoded)).hexdigest()]
    return [] if told is None else [str(told)]


def _file(text: str) -> str:
    """Return the base64 of a file, "" for any other text."""
    _, _, encoded = text.partition(";base64,")
    return encoded or (text if text.startswith(("iVBOR", "/9j/", "UklGR")) else "")


def _arguments(told: Any) -> Any:
    """Return the arguments of a tool call as values, as the text they are if that is no JSON."""
    try:
        return json.loads(told or "{}") if isinstance(told, str) else told
    except ValueError:
        return told
