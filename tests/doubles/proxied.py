"""What the WhyOps proxy reads from LLM requests and answers, what it reports of them, and how it edits them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from replies import Json, compact

START, ONE, ZERO, END = "\u200b", "\u200c", "\u200d", "\u200e"
SIGNATURE = re.compile(f"{START}([{ONE}{ZERO}]+){END}")
TEXTS = ("text", "input_text", "output_text")


def signature(trace_id: str) -> str:
    """Return a trace id in characters of no width: at least eight for each of its UTF-16 code units, and a frame."""
    raw = trace_id.encode("utf-16-be", "surrogatepass")
    units = (int.from_bytes(raw[start : start + 2]) for start in range(0, len(raw), 2))
    bits = "".join(f"{unit:08b}" for unit in units)
    return START + bits.translate({ord("0"): ZERO, ord("1"): ONE}) + END


def signed(text: str) -> str | None:
    """Return the trace id that a text carries, read as the server does: eight characters make one of the id."""
    if (found := SIGNATURE.search(text)) is None:
        return None
    bits = found[1].translate({ord(ZERO): "0", ord(ONE): "1"})
    return "".join(chr(int(bits[start : start + 8].ljust(8, "0"), 2)) for start in range(0, len(bits), 8))


def unsigned(value: Any) -> Any:
    """Return a value of JSON without the signatures in its strings."""
    if isinstance(value, str):
        return SIGNATURE.sub("", value)
    if isinstance(value, list):
        return [unsigned(item) for item in value]
    return {name: unsigned(item) for name, item in value.items()} if isinstance(value, dict) else value


def given(**members: Any) -> Json:
    """Return the members that are there."""
    return {name: value for name, value in members.items() if value is not None}


@dataclass(frozen=True)
class Said:
    """What a model said, as it is reported."""

    content: Json
    usage: Json | None = None
    thinking: tuple[Json, ...] = ()
    model: str | None = None


class Route:
    """An endpoint of the proxy that takes LLM requests; this one is OpenAI's form of it."""

    provider = "openai"
    #: The types of the events of a request and of its answer.
    kinds = ("user_message", "llm_response")
    #: The members of a request that are reported as ``params``, under the names there.
    params: ClassVar[Json] = {}
    #: Whether the events of request and answer share a span, and those of failures name the model.
    paired = False
    #: Whether its answers name the trace in a header, besides those of streams.
    named = True

    def kind(self, body: Json) -> str:
        """Return the type of a request's event."""
        return self.kinds[0]

    def content(self, body: Json) -> Any:
        """Return the content of a request's event."""
        return body["messages"]

    def about(self, body: Json) -> Json:
        """Return the metadata of a request's event, besides model and provider."""
        params = given(**{name: body.get(theirs) for name, theirs in self.params.items()})
        return given(tools=body.get("tools"), systemPrompt=self.prompt(body), params=params)

    def prompt(self, body: Json) -> Any:
        """Return the system prompt."""
        return None

    def history(self, body: Json) -> Iterable[Json]:
        """Yield the messages of a request that may carry a signature, latest first."""
        return ()

    def edit(self, answer: Json, trace_id: str) -> None:
        """Edit an answer on its way to the client."""

    def read(self, answer: Json) -> Said:
        """Read an answer."""
        raise NotImplementedError

    def heard(self, events: list[Json]) -> Said:
        """Read an answer from the events of its stream."""
        raise NotImplementedError

    def trace_id(self, body: Json) -> str | None:
        """Return the trace id in the last assistant message that carries one."""
        for message in self.history(body):
            content = message.get("content") or ""
            parts = [content] if isinstance(content, str) else [part.get("text") or "" for part in content]
            if found := next(filter(None, map(signed, parts)), None):
                return found
        return None


class ChatRoute(Route):
    """``POST /v1/chat/completions``."""

    named = False
    params: ClassVar[Json] = {
        "temperature": "temperature",
        "maxTokens": "max_completion_tokens",
        "topP": "top_p",
        "frequencyPenalty": "frequency_penalty",
        "presencePenalty": "presence_penalty",
        "reasoningEffort": "reasoning_effort",
    }

    def kind(self, body: Json) -> str:
        roles = [message["role"] for message in body["messages"] if message["role"] != "system"]
        return "tool_result" if roles and roles[-1] in ("tool", "function") else "user_message"

    def prompt(self, body: Json) -> Any:
        prompts = [each["content"] for each in body["messages"] if each["role"] in ("system", "developer")]
        return _text(prompts[0]) if prompts else None

    def history(self, body: Json) -> Iterable[Json]:
        return (message for message in reversed(body["messages"]) if message["role"] == "assistant")

    def edit(self, answer: Json, trace_id: str) -> None:
        message = answer["choices"][0]["message"]
        if message.get("content"):
            message["content"] += signature(trace_id)
        for call in message.get("tool_calls") or ():
            _mark(call["function"], trace_id)

    def read(self, answer: Json) -> Said:
        choice = answer["choices"][0]
        message = choice["message"]
        content = given(
            content=message.get("content") or None,
            toolCalls=message.get("tool_calls"),
            finishReason=choice["finish_reason"],
            refusal=message.get("refusal") or None,
            annotations=message.get("annotations") or None,
        )
        return Said(content, _usage(answer.get("usage"), "prompt", "completion"))

    def heard(self, events: list[Json]) -> Said:
        text, finish, usage = "", None, None
        calls: dict[int, Json] = {}
        for event in events:
            usage = event.get("usage") or usage
            for choice in event.get("choices", ())[:1]:
                delta = choice["delta"]
                text += (delta.get("content") or "") + (delta.get("refusal") or "")
                finish = choice.get("finish_reason") or finish
                for part in delta.get("tool_calls") or ():
                    begun = {"id": part.get("id"), "type": "function", "function": {"arguments": ""}}
                    function = calls.setdefault(part["index"], begun)["function"]
                    function |= given(name=part["function"].get("name"))
                    function["arguments"] += part["function"].get("arguments") or ""
        content = given(content=text, toolCalls=list(calls.values()), finishReason=finish)
        return Said(content, _usage(usage, "prompt", "completion"))


class ResponsesRoute(Route):
    """``POST /v1/responses``."""

    params: ClassVar[Json] = {
        "temperature": "temperature",
        "maxOutputTokens": "max_output_tokens",
        "topP": "top_p",
        "truncation": "truncation",
        "reasoning": "reasoning",
        "toolChoice": "tool_choice",
        "parallelToolCalls": "parallel_tool_calls",
    }

    def kind(self, body: Json) -> str:
        items = [item for item in _items(body) if item.get("role") != "system"]
        latest = items[-1] if items else {}
        called = latest.get("type") == "function_call_output" or latest.get("role") == "tool"
        return "tool_result" if called else "user_message"

    def content(self, body: Json) -> Any:
        return body.get("input") or body.get("conversation")

    def prompt(self, body: Json) -> Any:
        return body.get("instructions") or None

    def history(self, body: Json) -> Iterable[Json]:
        return (item for item in reversed(_items(body)) if item.get("role") == "assistant")

    def edit(self, answer: Json, trace_id: str) -> None:
        parts = [part for item in answer["output"] for part in item.get("content") or ()]
        texts = [part for part in parts if part["type"] == "output_text"]
        for part in texts[:1]:
            part["text"] += signature(trace_id)
        for item in answer["output"]:
            if item["type"] == "function_call":
                _mark(item, trace_id)

    def read(self, answer: Json) -> Said:
        parts = [part for item in answer["output"] for part in item.get("content") or ()]
        text = "".join(part["text"] for part in parts if part["type"] == "output_text")
        refused = any(part["type"] == "refusal" for part in parts)
        content = given(
            content=text or None,
            toolCalls=[_called(item) for item in answer["output"] if item["type"] == "function_call"] or None,
            finishReason="refusal" if refused else answer["status"],
        )
        return Said(content, _usage(answer.get("usage"), "input", "output"))

    def heard(self, events: list[Json]) -> Said:
        responses = [event["response"] for event in events if "response" in event]
        deltas = [
            event
            for event in events
            if event["type"] in ("response.output_text.delta", "response.refusal.delta")
        ]
        done = [event["item"] for event in events if event["type"] == "response.output_item.done"]
        content = {
            "content": "".join(event["delta"] for event in deltas),
            "toolCalls": [_called(item) for item in done if item["type"] == "function_call"],
            "finishReason": responses[-1]["status"] if responses else "stop",
        }
        return Said(content, _usage(responses[-1]["usage"] if responses else None, "input", "output"))


class EmbeddingsRoute(Route):
    """``POST /v1/embeddings``."""

    kinds = ("embedding_request", "embedding_response")
    params: ClassVar[Json] = {"dimensions": "dimensions", "encodingFormat": "encoding_format", "user": "user"}

    def content(self, body: Json) -> Any:
        return {"input": body["input"]}

    def read(self, answer: Json) -> Said:
        first = answer["data"][0]["embedding"] if answer["data"] else None
        coded = isinstance(first, str)
        content = given(
            object=answer["object"],
            embeddingCount=len(answer["data"]),
            firstEmbeddingDimensions=None if coded or first is None else len(first),
            encodingFormat="base64" if coded else "float",
        )
        return Said(content, answer["usage"], model=answer["model"])


class MessagesRoute(Route):
    """``POST /v1/messages``."""

    provider = "anthropic"
    paired = True
    named = False
    params: ClassVar[Json] = {
        "temperature": "temperature",
        "maxTokens": "max_tokens",
        "topP": "top_p",
        "topK": "top_k",
        "stopSequences": "stop_sequences",
        "toolChoice": "tool_choice",
        "thinking": "thinking",
    }

    def kind(self, body: Json) -> str:
        content = body["messages"][-1]["content"] if body["messages"] else ""
        answered = not isinstance(content, str) and any(part["type"] == "tool_result" for part in content)
        return "tool_result" if answered else "user_message"

    def about(self, body: Json) -> Json:
        params = given(**{name: body.get(theirs) for name, theirs in self.params.items()})
        return given(tools=body.get("tools"), systemPrompt=body.get("system"), **params)

    def read(self, answer: Json) -> Said:
        blocks: list[Json] = answer["content"]
        text = "".join(block["text"] for block in blocks if block["type"] == "text")
        calls = [
            _call(block["id"], block["name"], compact(block["input"]))
            for block in blocks
            if block["type"] in ("tool_use", "server_tool_use")
        ]
        content = given(content=text or None, finishReason=answer["stop_reason"], toolCalls=calls or None)
        thinking = tuple(block for block in blocks if block["type"] in ("thinking", "redacted_thinking"))
        return Said(content, _anthropic_usage(answer["usage"]), thinking)

    def heard(self, events: list[Json]) -> Said:
        message: Json = {"content": [], "stop_reason": None, "usage": {}}
        for event in events:
            match event["type"]:
                case "message_start":
                    message = event["message"]
                case "content_block_start":
                    message["content"].append(event["content_block"] | {"json": ""})
                case "content_block_delta":
                    block, delta = message["content"][event["index"]], event["delta"]
                    name = {"input_json_delta": "json"}.get(
                        delta["type"], delta["type"].removesuffix("_delta")
                    )
                    block[name] += delta.get("partial_json", delta.get(name))
                case "message_delta":
                    message["stop_reason"] = event["delta"]["stop_reason"]
                    message["usage"]["output_tokens"] = event["usage"]["output_tokens"]
                case "error":
                    message["stop_reason"] = "error"
        for block in message["content"]:
            parts = block.pop("json")
            block |= {"input": _loaded(parts)} if parts else {}
        said = self.read(message)
        return Said({"content": "", **said.content}, said.usage, said.thinking)


ROUTES: dict[str, Route] = {
    "/v1/chat/completions": ChatRoute(),
    "/v1/responses": ResponsesRoute(),
    "/v1/embeddings": EmbeddingsRoute(),
    "/v1/messages": MessagesRoute(),
}


def rewritten(kind: str, content: Any, provider: str) -> Any:
    """Return the content of a request's event as the server stores it: only texts, however long the history."""
    if kind != "user_message" or isinstance(content, str):
        return content
    if provider == "anthropic":
        texts = [each["content"] for each in content if isinstance(each["content"], str)]
    else:
        texts = [_text(each["content"]) or "" for each in content if each.get("role") == "user"]
    return "\n".join(filter(None, texts)) or content


def datas(stream: bytes) -> Iterator[str]:
    """Yield what the events of a stream of server-sent events carry."""
    for event in stream.decode().split("\n\n"):
        lines = [line.removeprefix("data:").strip() for line in event.split("\n") if line.startswith("data:")]
        if lines:
            yield "\n".join(lines)


def _text(content: Any) -> str | None:
    """Return the text of a message of OpenAI's."""
    if isinstance(content, str):
        return content
    return "\n".join(part["text"] for part in content if part["type"] in TEXTS) or None


def _items(body: Json) -> list[Json]:
    return body["input"] if isinstance(body.get("input"), list) else []


def _mark(function: Json, trace_id: str) -> None:
    """Add the trace id to the arguments of a call, if they are JSON."""
    arguments = _loaded(function["arguments"])
    if isinstance(arguments, dict):
        function["arguments"] = compact(arguments | {"_whyops_trace_id": trace_id})


def _loaded(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _called(item: Json) -> Json:
    return _call(item["call_id"], item["name"], item["arguments"])


def _call(id: str, name: str, arguments: str) -> Json:
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


def _usage(usage: Json | None, before: str, after: str) -> Json | None:
    """Return the usage of OpenAI's, whose prompt includes what was cached."""
    if usage is None:
        return None
    details = usage.get(f"{before}_tokens_details") or {}
    return given(
        promptTokens=usage[f"{before}_tokens"],
        completionTokens=usage[f"{after}_tokens"],
        totalTokens=usage["total_tokens"],
        cacheReadTokens=details.get("cached_tokens") or None,
    )


def _anthropic_usage(usage: Json) -> Json:
    fresh, output = usage.get("input_tokens", 0), usage.get("output_tokens", 0)
    written, read = usage.get("cache_creation_input_tokens") or 0, usage.get("cache_read_input_tokens") or 0
    lifetimes = usage.get("cache_creation") or {}
    return given(
        promptTokens=fresh,
        completionTokens=output,
        totalTokens=fresh + written + read + output,
        cacheWrite5mTokens=lifetimes.get("ephemeral_5m_input_tokens"),
        cacheWrite1hTokens=lifetimes.get("ephemeral_1h_input_tokens"),
        cacheCreationTokens=written or None,
        cacheReadTokens=read or None,
    )
