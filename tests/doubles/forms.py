"""The wire formats of OpenAI and Anthropic: a reply at once and as a stream of server-sent events."""

from __future__ import annotations

import base64
import itertools
import json
import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from replies import Failure, Json, Reply, Thinking, compact

#: When every answer was made, in seconds since 1970.
CREATED = 1_795_300_200
ANTHROPIC_STOPS = {
    "stop": "end_turn",
    "tool_calls": "tool_use",
    "length": "max_tokens",
    "content_filter": "refusal",
}
INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}


@dataclass(frozen=True)
class Frame:
    """One event of a stream; *piece* says whether it carries a piece of the answer."""

    data: Json | str
    event: str | None = None
    piece: bool = False

    @property
    def encoded(self) -> bytes:
        """The event as it goes over the wire."""
        data = self.data if isinstance(self.data, str) else compact(self.data)
        name = f"event: {self.event}\n" if self.event else ""
        return f"{name}data: {data}\n\n".encode()


class Form:
    """A wire format: one reply to one request, the *number*-th of its provider."""

    def __init__(self, reply: Reply, body: Json, number: int) -> None:
        self.reply = reply
        self.body = body
        self.number = number
        self.model: str = reply.model or body["model"]

    def whole(self) -> Json:
        """Return the answer at once."""
        raise NotImplementedError

    def frames(self) -> Iterator[Frame]:
        """Yield the answer as a stream."""
        raise NotImplementedError

    def broken(self, failure: Failure, sent: int) -> Iterator[Frame]:
        """Yield how a stream says that it fails after *sent* frames."""
        raise NotImplementedError


class Chat(Form):
    """``POST /v1/chat/completions``."""

    def whole(self) -> Json:
        choices = [
            {
                "index": index,
                "message": self._message(text),
                "logprobs": None,
                "finish_reason": self.reply.reason,
            }
            for index, text in enumerate(self._texts())
        ]
        return {**self._head("chat.completion"), "choices": choices, "usage": self._usage()}

    def frames(self) -> Iterator[Frame]:
        texts = self._texts()
        for index, text in enumerate(texts):
            start = {"role": "assistant", "content": None if text is None else "", "refusal": None}
            yield self._chunk(index, start)
        for turn in itertools.zip_longest(*map(self._deltas, texts)):
            for index, delta in enumerate(turn):
                if delta is not None:
                    opening = "id" in delta.get("tool_calls", [{}])[0]
                    yield self._chunk(index, delta, piece=not opening)
        for index in range(len(texts)):
            yield self._chunk(index, {}, finish=self.reply.reason)
        if self._counted:
            yield Frame({**self._head("chat.completion.chunk"), "choices": [], "usage": self._usage()})
        yield Frame("[DONE]")

    def broken(self, failure: Failure, sent: int) -> Iterator[Frame]:
        yield Frame(failure.openai)

    @property
    def _counted(self) -> bool:
        return bool((self.body.get("stream_options") or {}).get("include_usage"))

    def _texts(self) -> list[str | None]:
        """Return the text of each choice."""
        count = self.body.get("n") or 1
        texts = [self.reply.text, *self.reply.others]
        return (texts + texts[:1] * count)[:count]

    def _head(self, kind: str) -> Json:
        about = {"created": CREATED, "model": self.model, "service_tier": "default"}
        return {"id": f"chatcmpl-{self.number:029d}", "object": kind, **about, "system_fingerprint": "fp_0"}

    def _message(self, text: str | None) -> Json:
        calls = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.json}}
            for call in self.reply.tool_calls
        ]
        content = None if self.reply.refusal is not None else text
        message: Json = {
            "role": "assistant",
            "content": content,
            "refusal": self.reply.refusal,
            "annotations": [],
        }
        return message | ({"tool_calls": calls} if calls else {})

    def _deltas(self, text: str | None) -> Iterator[Json]:
        """Yield what the model says, piece by piece."""
        if self.reply.refusal is not None:
            yield from ({"refusal": word} for word in _words(self.reply.refusal))
        else:
            yield from ({"content": word} for word in _words(text or ""))
        for index, call in enumerate(self.reply.tool_calls):
            function = {"name": call.name, "arguments": ""}
            yield {"tool_calls": [{"index": index, "id": call.id, "type": "function", "function": function}]}
            for part in _slices(call.json):
                yield {"tool_calls": [{"index": index, "function": {"arguments": part}}]}

    def _chunk(self, index: int, delta: Json, *, finish: str | None = None, piece: bool = False) -> Frame:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}
        usage = {"usage": None} if self._counted else {}
        return Frame({**self._head("chat.completion.chunk"), "choices": [choice], **usage}, piece=piece)

    def _usage(self) -> Json:
        usage = self.reply.usage
        return {
            "prompt_tokens": usage.input,
            "completion_tokens": usage.output,
            "total_tokens": usage.input + usage.output,
            "prompt_tokens_details": {"cached_tokens": usage.cached, "audio_tokens": 0},
            "completion_tokens_details": {
                "reasoning_tokens": usage.reasoning,
                "audio_tokens": 0,
                "accepted_prediction_tokens": 0,
                "rejected_prediction_tokens": 0,
            },
        }


class Responses(Form):
    """``POST /v1/responses``."""

    def whole(self) -> Json:
        reason = INCOMPLETE.get(self.reply.reason)
        status = "incomplete" if reason else "completed"
        details = {"reason": reason} if reason else None
        return self._response(status, self._items(), usage=self._usage(), incomplete_details=details)

    def frames(self) -> Iterator[Frame]:
        for number, frame in enumerate(self._unnumbered()):
            assert isinstance(frame.data, dict)

            data = {"type": frame.event, "sequence_number": number, **frame.data}
            yield Frame(data, frame.event, frame.piece)

    def broken(self, failure: Failure, sent: int) -> Iterator[Frame]:
        error = failure.openai["error"]
        about = {"code": error["code"] or error["type"], "message": error["message"]}
        yield Frame({"type": "error", "sequence_number": sent, **about, "param": error["param"]}, "error")
        failed = {"type": "response.failed", "response": self._response("failed", [], error=about)}
        yield Frame({**failed, "sequence_number": sent + 1}, "response.failed")

    def _unnumbered(self) -> Iterator[Frame]:
        for event in ("response.created", "response.in_progress"):
            yield Frame({"response": self._response("in_progress", [])}, event)
        for index, item in enumerate(self._items()):
            where = {"output_index": index, "item_id": item["id"]}
            kinds: dict[str, tuple[Json, Callable[[Json, Json], Iterator[Frame]]]] = {
                "reasoning": ({"summary": []}, self._summaries),
                "message": ({"content": [], "status": "in_progress"}, self._contents),
                "function_call": ({"arguments": "", "status": "in_progress"}, self._arguments),
            }
            started, parts = kinds[item["type"]]
            yield Frame({"output_index": index, "item": item | started}, "response.output_item.added")
            yield from parts(item, where)
            yield Frame({"output_index": index, "item": item}, "response.output_item.done")
        response = self.whole()
        yield Frame({"response": response}, f"response.{response['status']}")

    def _items(self) -> list[Json]:
        """Return the output: reasoning, message, calls."""
        reply = self.reply
        ids = (f"{self.number:024x}{index:024x}" for index in itertools.count())
        items: list[Json] = []
        for thought in reply.thinking:
            summary = (
                [{"type": "summary_text", "text": thought.text}] if isinstance(thought, Thinking) else []
            )
            items.append({"id": f"rs_{next(ids)}", "type": "reasoning", "summary": summary})
        content: list[Json] = []
        if reply.refusal is not None:
            content = [{"type": "refusal", "refusal": reply.refusal}]
        elif reply.text is not None:
            content = [{"type": "output_text", "annotations": [], "logprobs": [], "text": reply.text}]
        if content:
            status = "incomplete" if reply.reason in INCOMPLETE else "completed"
            about = {"type": "message", "status": status, "role": "assistant"}
            items.append({"id": f"msg_{next(ids)}", **about, "content": content})
        for call in reply.tool_calls:
            about = {"type": "function_call", "status": "completed"}
            told = {"call_id": call.id, "name": call.name, "arguments": call.json}
            items.append({"id": f"fc_{next(ids)}", **about, **told})
        return items

    def _summaries(self, item: Json, where: Json) -> Iterator[Frame]:
        event = "response.reasoning_summary_"
        for index, part in enumerate(item["summary"]):
            place = where | {"summary_index": index}
            yield Frame({**place, "part": part | {"text": ""}}, f"{event}part.added")
            for word in _words(part["text"]):
                yield Frame({**place, "delta": word}, f"{event}text.delta", piece=True)
            yield Frame({**place, "text": part["text"]}, f"{event}text.done")
            yield Frame({**place, "part": part}, f"{event}part.done")

    def _contents(self, item: Json, where: Json) -> Iterator[Frame]:
        for index, part in enumerate(item["content"]):
            place = where | {"content_index": index}
            name = "text" if part["type"] == "output_text" else "refusal"
            logprobs: Json = {"logprobs": []} if name == "text" else {}
            yield Frame({**place, "part": part | {name: ""}}, "response.content_part.added")
            for word in _words(part[name]):
                yield Frame(
                    {**place, "delta": word, **logprobs}, f"response.{part['type']}.delta", piece=True
                )
            yield Frame({**place, name: part[name], **logprobs}, f"response.{part['type']}.done")
            yield Frame({**place, "part": part}, "response.content_part.done")

    def _arguments(self, item: Json, where: Json) -> Iterator[Frame]:
        event = "response.function_call_arguments."
        for part in _slices(item["arguments"]):
            yield Frame({**where, "delta": part}, f"{event}delta", piece=True)
        yield Frame({**where, "name": item["name"], "arguments": item["arguments"]}, f"{event}done")

    def _response(self, status: str, output: list[Json], **about: Any) -> Json:
        echoed: Json = {
            "instructions": None,
            "max_output_tokens": None,
            "metadata": {},
            "parallel_tool_calls": True,
            "previous_response_id": None,
            "reasoning": {"effort": None, "summary": None},
            "store": True,
            "temperature": 1.0,
            "text": {"format": {"type": "text"}},
            "tool_choice": "auto",
            "tools": [],
            "top_p": 1.0,
            "truncation": "disabled",
            "user": None,
        }
        asked = {name: self.body[name] for name in echoed if self.body.get(name) is not None}
        head = {
            "id": f"resp_{self.number:048x}",
            "object": "response",
            "created_at": CREATED,
            "status": status,
        }
        empty = {"error": None, "incomplete_details": None, "usage": None}
        return {**head, **empty, "model": self.model, "output": output, **echoed, **asked, **about}

    def _usage(self) -> Json:
        usage = self.reply.usage
        return {
            "input_tokens": usage.input,
            "input_tokens_details": {"cached_tokens": usage.cached, "cache_write_tokens": usage.written},
            "output_tokens": usage.output,
            "output_tokens_details": {"reasoning_tokens": usage.reasoning},
            "total_tokens": usage.input + usage.output,
        }


class Messages(Form):
    """``POST /v1/messages``."""

    #: What the end of a stream says again of the usage.
    _cumulative = (
        "input_tokens",
        "cache_creation_input_tokens",
        "cache_read_input_tokens",
        "output_tokens",
        "output_tokens_details",
    )

    def whole(self) -> Json:
        refused = self.reply.refusal is not None and self.reply.finish is None
        reason = "refusal" if refused else ANTHROPIC_STOPS.get(self.reply.reason, self.reply.reason)
        return self._message(self._blocks(), reason, self.reply.usage.output)

    def frames(self) -> Iterator[Frame]:
        whole = self.whole()
        yield _named("message_start", message=self._message([], None, 1))
        for index, block in enumerate(whole["content"]):
            empty, deltas = self._opened(block)
            yield _named("content_block_start", index=index, content_block=empty)
            if index == 0:
                yield _named("ping")
            for delta in deltas:
                piece = delta["type"] != "signature_delta" and delta.get("partial_json") != ""
                yield _named("content_block_delta", piece=piece, index=index, delta=delta)
            yield _named("content_block_stop", index=index)
        ending = {"stop_reason": whole["stop_reason"], "stop_sequence": None}
        usage = {name: tokens for name, tokens in whole["usage"].items() if name in self._cumulative}
        yield _named("message_delta", delta=ending, usage=usage)
        yield _named("message_stop")

    def broken(self, failure: Failure, sent: int) -> Iterator[Frame]:
        yield Frame(failure.anthropic, "error")

    def _message(self, content: list[Json], reason: str | None, output: int) -> Json:
        usage = self.reply.usage
        head = {"id": f"msg_{self.number:024d}", "type": "message", "role": "assistant", "model": self.model}
        lifetimes = {
            "ephemeral_5m_input_tokens": usage.written_5m,
            "ephemeral_1h_input_tokens": usage.written_1h,
        }
        tokens = {
            "input_tokens": usage.fresh,
            "cache_creation_input_tokens": usage.written,
            "cache_read_input_tokens": usage.cached,
            "cache_creation": lifetimes,
            "output_tokens": output,
            "output_tokens_details": {"thinking_tokens": min(usage.reasoning, output)},
            "service_tier": "standard",
        }
        return {**head, "content": content, "stop_reason": reason, "stop_sequence": None, "usage": tokens}

    def _blocks(self) -> list[Json]:
        """Return the content: thinking, text, calls."""
        blocks: list[Json] = []
        for thought in self.reply.thinking:
            if isinstance(thought, Thinking):
                told = {"thinking": thought.text, "signature": thought.signature}
                blocks.append({"type": "thinking", **told})
            else:
                blocks.append({"type": "redacted_thinking", "data": thought.data})
        text = self.reply.text if self.reply.refusal is None else self.reply.refusal
        if text is not None:
            blocks.append({"type": "text", "text": text})
        for call in self.reply.tool_calls:
            about = {"id": call.id, "name": call.name}
            blocks.append({"type": "tool_use", **about, "input": json.loads(call.json)})
        return blocks

    @staticmethod
    def _opened(block: Json) -> tuple[Json, list[Json]]:
        """Return a block as it starts, and what is added to it."""
        match block["type"]:
            case "text":
                words = [{"type": "text_delta", "text": word} for word in _words(block["text"])]
                return block | {"text": ""}, words
            case "thinking":
                words = [{"type": "thinking_delta", "thinking": word} for word in _words(block["thinking"])]
                signed = {"type": "signature_delta", "signature": block["signature"]}
                return block | {"thinking": "", "signature": ""}, [*words, signed]
            case "tool_use":
                parts = ["", *_slices(compact(block["input"]))]
                return block | {"input": {}}, [
                    {"type": "input_json_delta", "partial_json": part} for part in parts
                ]
        return block, []


class Embeddings(Form):
    """``POST /v1/embeddings``, which has no stream."""

    def whole(self) -> Json:
        asked = self.body["input"]
        one = isinstance(asked, str) or (bool(asked) and isinstance(asked[0], int))  # a text, or its tokens
        data = [self._embedding(index) for index in range(1 if one else len(asked))]
        tokens = self.reply.usage.fresh
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return {"object": "list", "data": data, "model": self.model, "usage": usage}

    def _embedding(self, index: int) -> Json:
        """Return a vector whose first number is its index, as numbers or as the base64 of their bytes."""
        size = self.body.get("dimensions") or 3
        vector = [index + place / 4 for place in range(size)]  # numbers that 32 bits hold exactly
        packed = base64.b64encode(struct.pack(f"<{size}f", *vector)).decode()
        coded = packed if self.body.get("encoding_format") == "base64" else vector
        return {"object": "embedding", "index": index, "embedding": coded}


def _named(event: str, *, piece: bool = False, **members: Any) -> Frame:
    """Return an event of Anthropic's, which says its name twice."""
    return Frame({"type": event, **members}, event, piece)


def _words(text: str) -> list[str]:
    return re.findall(r"\s*\S+\s*$|\s*\S+|\s+", text)


def _slices(text: str, size: int = 7) -> list[str]:
    return [text[start : start + size] for start in range(0, len(text), size)]
