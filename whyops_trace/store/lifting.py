"""
The large members of a record, taken out of its line: the messages of a conversation, the tools on offer, the prompt.

Each turn of a conversation repeats all that was said before. The conversations of the latest records are remembered, so
that of the next turn only what is new is read.
"""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from typing import Final, Literal, NamedTuple

import msgspec
from msgspec import Raw

from whyops_trace.store.packing import HOLES, without_holes

#: Bytes of tools, a prompt or messages below which they stay where they are.
SMALL: Final = 256
#: Bytes of the result of a tool below which it stays where it is, though a message has it as well.
SMALL_RESULT: Final = 64
#: Conversations that are remembered, and bytes that they take together at most, about: their JSON, and their hashes.
MAX_CONVERSATIONS: Final = 64
MAX_BYTES: Final = 8 << 20
_HASH_BYTES: Final = 64

#: The kinds of values. Only messages are searched, so another value of the same text is another blob. A result is no
#: blob, but a part of the message that gives it to the model.
Kind = Literal["message", "tools", "system", "result"]

_MESSAGES: Final = b'"messages":'
_SEPARATORS: Final = (b",", b", ")
#: Stands for the messages of a conversation that are known. No record holds it, since it is random.
_KNOWN: Final = b"%d" % secrets.randbits(63)


class _Metadata(msgspec.Struct, rename="camel", gc=False):
    tools: Raw = msgspec.field(default_factory=Raw)
    system_prompt: Raw = msgspec.field(default_factory=Raw)


class _Record(msgspec.Struct, gc=False):
    metadata: _Metadata = msgspec.field(default_factory=_Metadata)
    content: Raw = msgspec.field(default_factory=Raw)


class _Content(msgspec.Struct, gc=False):
    messages: Raw = msgspec.field(default_factory=Raw)
    output: Raw = msgspec.field(default_factory=Raw)


_records: Final = msgspec.json.Decoder(_Record)
_contents: Final = msgspec.json.Decoder(_Content)
_lists: Final = msgspec.json.Decoder(list[Raw])


class Blob(NamedTuple):
    """
    A value that is stored once.

    Attributes:
        kind: What it is.
        data: Its JSON.
        hash: What tells it from others.
    """

    kind: Kind
    data: bytes
    hash: bytes

    @classmethod
    def of(cls, kind: Kind, data: bytes) -> Blob:
        """Return the blob of a value."""
        return cls(kind, data, blake2b(data, digest_size=16, person=kind.encode()).digest())


class Place(NamedTuple):
    """
    A hole in a line.

    Attributes:
        hole: Its number among :data:`~whyops_trace.store.packing.HOLES`.
        separator: The text between the items, if a list belongs there, else "".
        hashes: The hashes of the blobs that belong there.
        part: The first character and the number of characters, if a part of the only blob belongs there.
    """

    hole: int
    separator: str
    hashes: Sequence[bytes]
    part: tuple[int, int] | None = None


class Lifted(NamedTuple):
    """
    A line without its large members.

    Attributes:
        text: The line with holes.
        places: The holes.
        new: The blobs in it that may not be stored yet.
    """

    text: str
    places: Sequence[Place] = ()
    new: Sequence[Blob] = ()

    @property
    def light(self) -> str:
        """The line as JSON with null in its holes."""
        return without_holes(self.text) if self.places else self.text


class _Conversation(NamedTuple):
    """
    The messages of a record.

    Attributes:
        json: Their JSON without the brackets.
        separator: The text between two of them.
        hashes: Their hashes.
    """

    json: bytes
    separator: bytes
    hashes: Sequence[bytes]

    @property
    def weight(self) -> int:
        """Number of bytes that it takes, about."""
        return len(self.json) + _HASH_BYTES * len(self.hashes)


class Lifter:
    """Takes the large members out of records that come one after the other."""

    def __init__(self) -> None:
        self._conversations: deque[_Conversation] = deque()
        self._bytes = 0

    def forget(self) -> None:
        """Forget the conversations: their messages may have been deleted."""
        self._conversations.clear()
        self._bytes = 0

    def lift(self, line: bytes) -> Lifted:
        """
        Return a record without its large members, or anything else as it is.

        Raises:
            UnicodeDecodeError: if it is no UTF-8.
        """
        find = line.find  # in half of the time that `in` takes for bytes
        if len(line) < SMALL or (
            find(_MESSAGES) < 0
            and find(b'"tools":') < 0
            and find(b'"systemPrompt":') < 0
            and find(b'"content":[') < 0
        ):
            return Lifted(line.decode())
        start = line.find(_MESSAGES) + len(_MESSAGES)
        start += line.startswith(b" ", start)
        known = self._known(line, start + 1) if line.startswith(b"[", start) else None
        if known is not None:
            rest = line[start + 1 + len(known.json) :]
            lifted = self._lift(b"".join((line[: start + 1], _KNOWN, rest)), known)
            if lifted is not None:
                return lifted
        return self._lift(line, None) or Lifted(line.decode())

    def _known(self, line: bytes, start: int) -> _Conversation | None:
        """Return the conversation that goes on at that place in a line, None if none does."""
        for known in self._conversations:
            if line.startswith(known.json, start):
                end = start + len(known.json)
                if line[end : end + 1] in (b",", b"]"):
                    return known
        return None

    def _lift(self, line: bytes, known: _Conversation | None) -> Lifted | None:
        """
        Do what :meth:`lift` does; return None if it is no record, or something cannot be put back into its place.

        Args:
            line: The record, with a number in the place of the messages of *known*.
            known: The conversation that its messages begin with.
        """
        line.decode()  # what is skipped is not checked to be UTF-8
        try:
            members = [*_members(line)]
        except (msgspec.DecodeError, RecursionError):
            return None
        text = line
        places: list[Place] = []
        new: list[Blob] = []
        said: _Conversation | None = None
        for hole, kind, data in members:
            if kind == "result":
                place = _in_last(data, said, new)
                if place is None:
                    continue
                places.append(place)
                at = text.find(data)
            elif kind == "message":
                conversation = _followed(known if hole == 2 else None, data, new)
                if conversation is None:
                    continue
                said = conversation if hole == 2 else said
                places.append(Place(hole, conversation.separator.decode(), conversation.hashes))
                at = text.rfind(data)
            elif len(data) < SMALL:
                continue
            else:
                new.append(Blob.of(kind, data))
                places.append(Place(hole, "", [new[-1].hash]))
                at = text.find(data)
            text = b"".join((text[:at], HOLES[hole].encode(), text[at + len(data) :]))
        if known is not None and said is None:
            return None
        lifted = Lifted(text.decode(), places, new)
        empty = {hole for hole, _, data in _members(lifted.light.encode()) if data == b"null"}
        if not empty.issuperset(place.hole for place in places):
            return None
        if said is not None:
            self._remember(said, known)
        return lifted

    def _remember(self, said: _Conversation, known: _Conversation | None) -> None:
        """Remember a conversation in the place of what it goes on with."""
        if known is not None:
            self._conversations.remove(known)
            self._bytes -= known.weight
        if said.weight <= MAX_BYTES:
            self._conversations.appendleft(said)
            self._bytes += said.weight
        while self._bytes > MAX_BYTES or len(self._conversations) > MAX_CONVERSATIONS:
            self._bytes -= self._conversations.pop().weight


def _members(line: bytes) -> Iterator[tuple[int, Kind, bytes]]:
    """
    Yield the members of a record that may be large: the number of the hole, what it is, and its JSON.

    Raises:
        msgspec.DecodeError: if it is no record.
        RecursionError: if it is nested too deeply.
    """
    record = _records.decode(line)
    yield 0, "tools", bytes(record.metadata.tools)
    yield 1, "system", bytes(record.metadata.system_prompt)
    content = bytes(record.content)
    if content[:1] == b"{" and content.find(_MESSAGES) >= 0:
        conversation = _contents.decode(content)
        yield 2, "message", bytes(conversation.messages)
        yield 4, "result", bytes(conversation.output)
    elif content[:1] in (b"[", b"n"):
        yield 3, "message", content


def _followed(known: _Conversation | None, data: bytes, new: list[Blob]) -> _Conversation | None:
    """
    Return the conversation in a list of messages, and add the blobs in it that may be new.

    Args:
        known: The conversation that it goes on with.
        data: The list, with a number in the place of the messages of *known*.
        new: The blobs.

    Returns:
        None if the messages are small, no list, or written in an unusual way.
    """
    if data[:1] != b"[" or (known is None and len(data) < SMALL):
        return None
    items = [bytes(item) for item in _lists.decode(data)]
    if not items or (known is not None and items[0] != _KNOWN):
        return None
    for separator in _SEPARATORS if known is None else (known.separator,):
        if b"[" + separator.join(items) + b"]" == data:
            blobs = [Blob.of("message", item) for item in (items if known is None else items[1:])]
            new += blobs
            hashes = [blob.hash for blob in blobs]
            if known is None:
                return _Conversation(data[1:-1], separator, hashes)
            return _Conversation(known.json + data[1 + len(_KNOWN) : -1], separator, [*known.hashes, *hashes])
    return None


def _in_last(data: bytes, said: _Conversation | None, new: Sequence[Blob]) -> Place | None:
    """Return the place of the result of a tool, a text, as far as the last and new message of a conversation has it."""
    if (
        said is None
        or len(data) < SMALL_RESULT
        or data[:1] != b'"'
        or not new
        or new[-1].hash != said.hashes[-1]
    ):
        return None
    start = new[-1].data.decode().find(data.decode())
    return None if start < 0 else Place(4, "", [new[-1].hash], (start, len(data.decode())))
