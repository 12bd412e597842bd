"""Requests to models as JSON: their conversation, and what is given beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final

from whyops_trace._models.answers import Request, conversation_in, read_request
from whyops_trace._models.frameworks import is_message, messages_of
from whyops_trace._models.history import History, Messages
from whyops_trace._values import mending
from whyops_trace._values.attachments import MAX_INLINE
from whyops_trace._values.memory import Memory
from whyops_trace._values.processor import Processor

#: Numbers of the latest messages among which the call of a tool is looked for whose result is the last one.
_RECENT: Final = (2, 16, 128)
#: Bytes of a content from which on its pieces are handed on as they are.
_LARGE: Final = 16_384
#: Types of items of a list that is no conversation, but a text in pieces or numbers of tokens.
_SCALARS: Final = frozenset(map(id, (str, int, float, bool, type(None))))


class Requests:
    """
    The requests that a program makes to models. Each costs what is new in it.

    Args:
        processor: The redaction and truncation of records.
        max_bytes: Bytes that earlier messages take in memory at most; 0 remembers none.
    """

    def __init__(self, processor: Processor, max_bytes: int) -> None:
        self._processor = processor
        encode = partial(_encode, processor)
        self._memory = Memory(encode, max_bytes // 2)
        self._history = History(encode, self._memory, max_bytes // 2)

    def encode(
        self, arguments: Mapping[str, Any], about: bytes
    ) -> tuple[bytes, bytes, bytes | tuple[bytes, ...]]:
        """
        Return the event type, metadata members and content of a request.

        Args:
            arguments: The arguments by name of the function that makes it.
            about: The metadata members that come first, each led by a comma.
        """
        hides = self._processor.hides
        name = conversation_in(arguments)
        messages = None if name is None or hides(name) else arguments[name]
        if type(messages) is list and messages and id(type(messages[-1])) not in _SCALARS:
            said = self._history.encode(messages, self._in_words_of_openai)
            others = {key: value for key, value in arguments.items() if key != name}
            tools = None if hides("tools") else others.pop("tools", None)
            request = self._read_beside(others, str(name), messages)
        else:
            tools = None
            request = read_request(mending.plain(arguments, hides, digests=True))
            said = Messages.joined([self._memory.encode(message) for message in request.messages])
        members = dict(request.metadata)
        metadata = about
        if tools:
            params = members.pop("params", None)
            members["tools"] = tools
            members |= {} if params is None else {"params": params}
        for key, value in members.items():
            metadata = b"".join((metadata, b',"%b":' % key.encode(), *self._pieces(value)))
        start = self._start(request)
        return b"tool_result" if request.tool else b"user_message", *self._fitted(metadata, start, said)

    def _in_words_of_openai(self, messages: list[Any]) -> list[Any]:
        """Return messages with those of frameworks in the form of OpenAI's; others stay as they are."""
        if {*map(type, messages)} == {dict}:
            return messages
        return [
            each
            for message in messages
            for each in (
                messages_of([mending.plain(message, self._processor.hides, digests=True)])
                if is_message(message)
                else [message]
            )
        ]

    def _read_beside(self, others: dict[str, Any], name: str, messages: list[Any]) -> Request:
        """Read a request without its earlier messages, as far as these do not tell the tool of the last one."""
        plain = mending.plain_view(others, self._processor.hides, digests=True)
        request = Request()
        for count in (*_RECENT, len(messages)):
            recent = self._in_words_of_openai(messages[-count:])
            recent = mending.plain_view(recent, self._processor.hides, digests=True)
            request = read_request({**plain, name: recent})
            if request.tool != "tool" or count >= len(messages):
                break
        return request

    def _pieces(self, value: Any) -> Sequence[bytes]:
        """Return the JSON of what is given beside the messages, in pieces. Tools are remembered as messages are."""
        if type(value) is list:
            return b"[", *self._history.encode(value).chunks, b"]"
        return (self._memory.encode(value),)

    def _start(self, request: Request) -> bytes:
        """Return the JSON of a content up to its first message."""
        if not request.tool:
            return b'{"messages":['
        encode = self._processor.encode
        about = b'"toolName":%b,"output":%b' % (encode(request.tool), encode(request.output))
        return self._processor.without_matches(b"{%b}" % about)[:-1] + b',"messages":['

    def _fitted(
        self, metadata: bytes, start: bytes, said: Messages
    ) -> tuple[bytes, bytes | tuple[bytes, ...]]:
        processor = self._processor
        size, chunks = len(metadata) + len(start) + said.size + 2, said.chunks
        if size <= min(processor.fitting, _LARGE):
            return metadata, b"".join((start, *chunks, b"]}"))
        if size > processor.fitting:
            metadata, room = processor.fit_beside(metadata)
            chunks = said.within(room - len(start) - 2)
        return metadata, (start, *chunks, b"]}")


def _encode(processor: Processor, value: Any) -> bytes:
    """Return the JSON of a message, or of what is given beside the messages, ready to be written."""
    json = processor.encode(value)
    if len(json) > MAX_INLINE:  # it may hold attachments
        json = processor.encode(mending.plain(value, processor.hides, digests=True))
    return processor.without_matches(json)
