"""
One answer, assembled from the items of a stream.

Everything here works on plain data, in the shapes that OpenAI and Anthropic stream, and in those of the events of
their packages. Each item is read once, none is modified, and no shape raises.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from whyops_trace._models.answers import error_of, is_thought, thought_of
from whyops_trace._models.frameworks import assemble_chunks, chunk_of
from whyops_trace._shapes import dict_of, dicts_of, list_of, text_of

#: The id of the chunk that the WhyOps proxy adds to a stream.
_SIGNATURE: Final = "gen-signature"
#: Members whose text comes in pieces. Any other member comes whole.
_GROWING: Final = (
    "content", "text", "refusal", "reasoning_content", "reasoning", "thinking", "arguments", "input",
    "partial_json", "transcript", "data",
)  # fmt: skip
#: Members of a chat message, or of its tool calls, that are objects with texts in pieces.
_NESTED: Final = ("function", "custom", "function_call", "audio")
#: Members of a choice that come in pieces.
_PIECES: Final = ("delta", "message", "text", "logprobs")
_MESSAGE_EVENTS: Final = frozenset(
    {"message_start", "content_block_start", "content_block_delta", "content_block_stop", "message_delta",
     "message_stop", "ping"}
)  # fmt: skip
#: Members of the event that ends a message which are not the message's own.
_ABOUT_DELTA: Final = ("type", "delta", "usage")
#: The text of a response's item that an event extends, in the item itself or in a part of a list. By the type of the
#: event: the list, the name of the index in it, the type of the part, and the member that grows.
_DELTAS: Final = {
    "response.custom_tool_call_input.delta": ("", "", "", "input"),
    "response.function_call_arguments.delta": ("", "", "", "arguments"),
    "response.output_text.delta": ("content", "content_index", "output_text", "text"),
    "response.reasoning_summary_text.delta": ("summary", "summary_index", "summary_text", "text"),
    "response.reasoning_text.delta": ("content", "content_index", "reasoning_text", "text"),
    "response.refusal.delta": ("content", "content_index", "refusal", "refusal"),
}


def assemble(items: Sequence[Any]) -> Any:
    """
    Return the answer of the same call without streaming, as far as ``read_response`` reads it.

    Texts are joined. Chunks and events of OpenAI and Anthropic become an answer, as far as the stream came. Repetitions
    in a package's own events are not counted twice. Items of any other kind are returned as a list.

    If the stream reported an error, the answer has a non-empty dict under ``error``, whose ``message``, ``type`` and
    ``code`` are the provider's. It has nothing else if only the error came.
    """
    if items and all(_piece(item) is not None for item in items):
        return "".join(_piece(item) or "" for item in items)
    for item in items:
        build = _builder(item)
        if build is not None:
            return build(items)
    errors = [error_of(item) for item in items]
    return {"error": errors[0]} if errors and all(errors) else list(items)


def first_token(items: Sequence[Any]) -> int | None:
    """Return the index of the first item with text, thinking or a tool call, None if there is none."""
    return next((index for index, item in enumerate(items) if _brings_output(item)), None)


def is_complete(items: Sequence[Any]) -> bool:
    """Return True if the stream marked the answer, and each of its choices, as complete."""
    choices: dict[int, bool] = {}
    for item in items:
        kind = _kind(item)
        if kind in ("message_stop", "response.completed", "response.incomplete"):
            return True
        if kind == "message_delta" and dict_of(item.get("delta")).get("stop_reason"):
            return True
        for choice in dicts_of(_chunk(item).get("choices")):
            index = _index(choice)
            choices[index] = choices.get(index, False) or bool(choice.get("finish_reason"))
    return bool(choices) and all(choices.values())


def _piece(item: Any) -> str | None:
    """
    Return the text of an item that is nothing else, None for any other item.

    Writer streams objects with the text alone: https://dev.writer.com/home/streaming
    """
    text = item["value"] if isinstance(item, dict) and item.keys() == {"value"} else item
    return text if isinstance(text, str) else None


def _builder(item: Any) -> Callable[[Sequence[Any]], dict[str, Any]] | None:
    """Return the function that builds the answer of a stream with such an item, None if the item does not decide it."""
    kind = _kind(item)
    if isinstance(_chunk(item).get("choices"), list):
        return _build_chat
    if chunk_of(item):
        return assemble_chunks
    if kind.startswith("response."):
        return _build_response
    return _build_message if kind in _MESSAGE_EVENTS else None


def _brings_output(item: Any) -> bool:
    if (piece := _piece(item)) is not None:
        return bool(piece)
    if message := chunk_of(item):
        return _holds_output(message) or bool(dicts_of(message.get("tool_call_chunks")))
    kind = _kind(item)
    if kind in _DELTAS:
        return bool(text_of(item.get("delta")))
    if kind == "response.output_item.added":
        return _kind(item.get("item")).endswith("_call")
    if kind == "content_block_start":
        block = dict_of(item.get("content_block"))
        return _holds_output(block) or _kind(block) not in ("text", "thinking", "")
    if kind == "content_block_delta":
        return _holds_output(dict_of(item.get("delta")))
    chunk = _chunk(item)
    return _holds_output(chunk) or any(
        _holds_output(_delta(choice)) for choice in dicts_of(chunk.get("choices"))
    )


def _holds_output(fields: dict[str, Any]) -> bool:
    """Return True if an object holds a piece of text, or of a tool call."""
    nested = [dict_of(fields.get(name)) for name in _NESTED]
    return (
        any(text_of(part.get(name)) for part in (fields, *nested) for name in _GROWING)
        or any(text_of(part.get("name")) for part in nested)
        or bool(dicts_of(fields.get("tool_calls")))
        or bool(dicts_of(fields.get("content")))
    )


def _kind(item: Any) -> str:
    return text_of(dict_of(item).get("type"))


def _index(item: dict[str, Any], name: str = "index") -> int:
    index = item.get(name)
    return index if isinstance(index, int) else 0


def _filled(fields: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the members that are not empty. Another chunk or event may leave them empty."""
    return ((name, value) for name, value in fields.items() if value is not None and value != "")


class _Draft:
    """A growing object: texts as their pieces, anything else as it came last."""

    __slots__ = ("fields", "pieces")

    def __init__(self, fields: Mapping[str, Any]) -> None:
        self.fields = dict(fields)
        self.pieces: dict[str, list[str]] = {}

    def grow(self, name: str, piece: Any) -> None:
        """Add a piece to a text."""
        self.pieces.setdefault(name, []).append(text_of(piece))

    def add(self, delta: Mapping[str, Any]) -> None:
        """Add the content of a delta."""
        for name, value in delta.items():
            if value is not None:
                self.put(name, value)

    def put(self, name: str, value: Any) -> None:
        """Add one member of a delta."""
        if name in _GROWING and isinstance(value, str):
            self.grow(name, value)
        elif name == "content" and isinstance(value, list):
            for block in dicts_of(value):
                self.grow("thinking", thought_of(block))
                self.grow("content", "" if is_thought(block) else block.get("text"))
        elif value != "":
            self.fields[name] = value

    def finished(self) -> dict[str, Any]:
        """Return the object so far."""
        texts = {name: text_of(self.fields.get(name)) + "".join(some) for name, some in self.pieces.items()}
        return self.fields | texts


class _Nest(_Draft):
    """A draft with members that are drafts themselves."""

    __slots__ = ("nested",)

    def __init__(self) -> None:
        super().__init__({})
        self.nested: dict[str, _Draft] = {}

    def put(self, name: str, value: Any) -> None:
        """Add one member of a delta, to a nested draft if it is an object."""
        if name in _NESTED and isinstance(value, dict):
            self.nested.setdefault(name, _Draft({})).add(value)
        else:
            super().put(name, value)

    def finished(self) -> dict[str, Any]:
        """Return the object so far."""
        return super().finished() | {name: draft.finished() for name, draft in self.nested.items()}


def _chunk(item: Any) -> dict[str, Any]:
    """Return the chat chunk of an item or of a package's event, an empty dict for other items."""
    chunk = dict_of(item.get("chunk")) if _kind(item) == "chunk" else dict_of(item)
    return {} if chunk.get("id") == _SIGNATURE else chunk


def _delta(choice: dict[str, Any]) -> dict[str, Any]:
    """Return the delta of a choice, the message of an answer that came whole, or the text of a text completion."""
    return dict_of(choice.get("delta")) or dict_of(choice.get("message")) or {"text": choice.get("text")}


class _Choice:
    """One choice of a chat completion."""

    def __init__(self) -> None:
        self.rest: dict[str, Any] = {}
        self.logprobs: dict[str, list[Any]] = {}
        self.message = _Nest()
        self.calls: list[_Nest] = []
        self.open: dict[int, _Nest] = {}

    def add(self, choice: dict[str, Any]) -> None:
        """Add the content of a chunk."""
        self.rest.update((name, value) for name, value in _filled(choice) if name not in _PIECES)
        for name, values in dict_of(choice.get("logprobs")).items():
            self.logprobs.setdefault(name, []).extend(list_of(values))
        delta = _delta(choice)
        self.message.add(delta)
        for call in dicts_of(delta.get("tool_calls")):
            self._call(call).add(call)

    def _call(self, piece: dict[str, Any]) -> _Nest:
        """Return the tool call of a piece. Some servers give all calls the same index, others give none."""
        index = _index(piece)
        call = self.open.get(index)
        has_name = any(text_of(dict_of(piece.get(part)).get("name")) for part in ("function", "custom"))
        if call is None or (has_name and piece.get("id") not in (None, "", call.fields.get("id"))):
            call = self.open[index] = _Nest()
            self.calls.append(call)
        return call

    def finished(self, index: int) -> dict[str, Any]:
        """Return the choice so far."""
        message = self.message.finished()
        if self.calls:
            message["tool_calls"] = [_without_index(call.finished()) for call in self.calls]
        choice = {"finish_reason": None, **self.rest, "index": index, "message": message}
        return choice | {"logprobs": self.logprobs} if self.logprobs else choice


def _without_index(call: dict[str, Any]) -> dict[str, Any]:
    """Return a tool call without its place among the pieces of a stream."""
    return {name: value for name, value in call.items() if name != "index"}


def _build_chat(items: Sequence[Any]) -> dict[str, Any]:
    answer: dict[str, Any] = {}
    choices: dict[int, _Choice] = {}
    for item in items:
        chunk = _chunk(item)
        if error := error_of(chunk):
            answer["error"] = error
        if "type" not in chunk:
            answer.update((name, value) for name, value in _filled(chunk) if name not in ("choices", "error"))
            for choice in dicts_of(chunk.get("choices")):
                choices.setdefault(_index(choice), _Choice()).add(choice)
    answer["object"] = text_of(answer.get("object")).removesuffix(".chunk")
    answer["choices"] = [choices[index].finished(index) for index in sorted(choices)]
    return answer


class _Block(_Draft):
    """One block of a message's content."""

    __slots__ = ("citations",)

    def __init__(self, fields: Mapping[str, Any]) -> None:
        super().__init__(fields)
        self.citations: list[Any] = []

    def put(self, name: str, value: Any) -> None:
        """Add one member of a delta. Its type is left out, since it is not the block's."""
        if name == "citation":
            self.citations.append(value)
        elif name != "type":
            super().put(name, value)

    def finished(self) -> dict[str, Any]:
        """Return the block so far. Its input is decoded, or kept as text if the JSON is cut or wrong."""
        block = super().finished()
        if json := block.pop("partial_json", ""):
            try:
                block["input"] = msgspec.json.decode(json)
            except (msgspec.DecodeError, ValueError, RecursionError):
                block["input"] = json
        if self.citations:
            block["citations"] = [*list_of(block.get("citations")), *self.citations]
        return block


class _Item:
    """One item of a response's output."""

    def __init__(self, fields: Mapping[str, Any]) -> None:
        self.draft = _Draft(fields)
        self.parts: dict[tuple[str, int], _Draft] = {}

    def add(self, event: dict[str, Any]) -> None:
        """Add the content of a delta."""
        member, index, kind, text = _DELTAS[_kind(event)]
        draft = self.draft
        if member:
            draft = self.parts.setdefault((member, _index(event, index)), _Draft({"type": kind}))
        draft.grow(text, event.get("delta"))

    def finished(self) -> dict[str, Any]:
        """Return the item so far."""
        lists: dict[str, list[Any]] = {}
        for (member, _), part in self.parts.items():
            lists.setdefault(member, []).append(part.finished())
        return self.draft.finished() | lists


def _build_response(items: Sequence[Any]) -> dict[str, Any]:
    answer: dict[str, Any] = {}
    output: dict[int, _Item] = {}
    for item in items:
        kind, index = _kind(item), _index(dict_of(item), "output_index")
        if kind in ("response.output_item.added", "response.output_item.done"):
            output[index] = _Item(dict_of(item.get("item")))
        elif kind in _DELTAS:
            output.setdefault(index, _Item({})).add(item)
        elif error := error_of(item):
            answer["error"] = error
        elif kind.startswith("response."):
            answer.update(_filled(dict_of(item.get("response"))))
    if answer.get("status") == "failed" and not error_of(answer):
        answer["error"] = {"message": "The response failed, and the provider does not say why."}
    # A finished response lists its output itself, but some servers leave the list empty.
    if not answer.get("output"):
        answer["output"] = [output[index].finished() for index in sorted(output)]
    return answer


def _build_message(items: Sequence[Any]) -> dict[str, Any]:
    answer: dict[str, Any] = {}
    usage: dict[str, Any] = {}
    blocks: dict[int, _Block] = {}
    for item in items:
        kind = _kind(item)
        if kind == "message_start":
            answer.update(dict_of(item.get("message")))
            usage.update(dict_of(answer.get("usage")))
        elif kind == "content_block_start":
            blocks[_index(item)] = _Block(dict_of(item.get("content_block")))
        elif kind == "content_block_delta":
            blocks.setdefault(_index(item), _Block({})).add(dict_of(item.get("delta")))
        elif kind == "message_delta":
            answer.update((name, value) for name, value in _filled(item) if name not in _ABOUT_DELTA)
            answer.update(_filled(dict_of(item.get("delta"))))
            # Its counts cover the whole message so far. Missing counts stay as they were at the start.
            usage.update(_filled(dict_of(item.get("usage"))))
        elif error := error_of(item):
            answer["error"] = error
    answer["usage"] = usage
    answer["content"] = [blocks[index].finished() for index in sorted(blocks)]
    return answer
