"""
The conversations of the latest turns, so that the next turn costs what is new in it.

A list of messages begins with a conversation as it was, or with a part of it: see
:mod:`whyops_trace._models.sameness`. Only the messages behind that are read and encoded.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import Any, Final, NamedTuple

from whyops_trace._models.sameness import LONG, Likeness, Reader
from whyops_trace._values.memory import Memory, NoKeyError, Trial
from whyops_trace._values.objects import model_fields
from whyops_trace._values.truncation import truncated

#: Conversations that are remembered at most, and those among them that begin alike: branches, or an evaluation.
MAX_CONVERSATIONS: Final = 64
MAX_ALIKE: Final = 4
#: Messages at the beginning of a list by which conversations are told apart at first.
_BEGINNING: Final = 2
#: Bytes that a message takes beside its JSON.
_MESSAGE_BYTES: Final = 1_000
#: Shares of the room that the first message and the last one may take where not all fit, and bytes of the note on that.
_FIRST, _LAST, _NOTE = 4, 2, 40


class Messages(NamedTuple):
    """
    The JSON of a list of messages.

    Attributes:
        parts: The JSON of those that follow each other, without the brackets around it.
        sizes: Number of bytes of each message, for each part.
    """

    parts: Sequence[bytes]
    sizes: Sequence[Sequence[int]]

    @classmethod
    def joined(cls, fragments: Sequence[bytes]) -> Messages:
        """Return messages from the JSON of each."""
        return cls((b",".join(fragments),), ([*map(len, fragments)],))

    @property
    def size(self) -> int:
        """Number of bytes."""
        return sum(map(len, self.parts)) + max(len(self.parts) - 1, 0)

    @property
    def chunks(self) -> Sequence[bytes]:
        """The JSON without the brackets around it, in pieces that follow each other."""
        return [chunk for part in self.parts for chunk in (b",", part)][1:]

    def within(self, room: int) -> Sequence[bytes]:
        """
        Return the JSON in pieces, of *room* bytes at most.

        The first message and the newest ones are kept, and cut if they alone are too large; an item between them says
        how many are missing.
        """
        if self.size <= room:
            return self.chunks
        messages = self._messages()
        if len(messages) == 1:
            return (truncated(messages[0], room),)
        first, last = truncated(messages[0], room // _FIRST), truncated(messages[-1], room // _LAST)
        newest = [last]
        room -= len(first) + len(last) + _NOTE
        for message in reversed(messages[1:-1]):
            room -= len(message) + 1
            if room < 0:
                break
            newest.append(message)
        missing = len(messages) - 1 - len(newest)
        note = [f'"[cut {missing:,} items]"'.encode()] if missing else []
        return (b",".join([first, *note, *reversed(newest)]),)

    def _messages(self) -> list[bytes]:
        messages = []
        for part, sizes in zip(self.parts, self.sizes, strict=True):
            start = 0
            for size in sizes:
                messages.append(part[start : start + size])
                start += size + 1
        return messages


class _Run:
    """
    Messages that follow each other, as they were, and their JSON.

    Attributes:
        likeness: The messages.
        json: The JSON, without the brackets around it.
        sizes: Number of bytes of each dict that they were read as.
    """

    __slots__ = ("json", "likeness", "sizes")

    def __init__(self, likeness: Likeness, json: bytes, sizes: list[int]) -> None:
        self.likeness = likeness
        self.json = json
        self.sizes = sizes

    @property
    def weight(self) -> int:
        """The number of bytes that it takes, about."""
        return len(self.json) + self.likeness.characters + len(self.sizes) * _MESSAGE_BYTES

    def followed_by(self, other: _Run) -> _Run:
        """Return these messages and others."""
        return _Run(
            self.likeness.followed_by(other.likeness),
            b",".join((self.json, other.json)),
            self.sizes + other.sizes,
        )


class _Conversation:
    """
    The messages of one list as they were, and their JSON.

    Attributes:
        count: Number of messages.
        weight: Number of bytes that it takes, about.

    Args:
        runs: The messages, in runs each of which is larger than the next: none is copied often.
    """

    __slots__ = ("_runs", "count", "weight")

    def __init__(self, runs: Sequence[_Run] = ()) -> None:
        self._runs = runs
        self.count = sum(run.likeness.count for run in runs)
        self.weight = sum(run.weight for run in runs)

    @property
    def messages(self) -> Messages:
        """The JSON."""
        return Messages([run.json for run in self._runs], [run.sizes for run in self._runs])

    @property
    def are_same(self) -> bool:
        """True unless the messages were made anew for a later turn."""
        return not self._runs or self._runs[-1].likeness.are_same

    def common(self, messages: list[Any], read: Reader, checked: dict[_Run, bool]) -> _Conversation:
        """
        Return the part of the conversation with which a list begins.

        Args:
            messages: The list.
            read: Function that reads messages.
            checked: The runs that the list was compared with before, and if they are in it; others are added.
        """
        end = 0
        for place, run in enumerate(self._runs):
            start, end = end, end + run.likeness.count
            if run not in checked:
                checked[run] = end <= len(messages) and run.likeness.holds(messages[start:end], read)
            if not checked[run]:
                return _Conversation(self._runs[:place])
        return self

    def followed_by(self, run: _Run) -> _Conversation:
        """Return the conversation that goes on with further messages."""
        runs = [*self._runs, run]
        while len(runs) > 1 and len(runs[-2].json) <= 2 * len(runs[-1].json):
            last = runs.pop()
            runs[-1] = runs[-1].followed_by(last)
        return _Conversation(runs)


class History:
    """
    The conversations of the latest turns. Any thread may use it.

    Args:
        encode: Function from a message to its JSON.
        memory: The same function, which remembers single messages.
        max_bytes: Bytes that conversations take at most, about; 0 keeps none.
    """

    def __init__(self, encode: Callable[[Any], bytes], memory: Memory, max_bytes: int) -> None:
        self._encode_new = encode
        self._memory = memory
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._trial = Trial()
        self._table: OrderedDict[tuple[Any, ...], list[_Conversation]] = OrderedDict()
        self._bytes = 0

    def encode(self, messages: list[Any], translate: Reader = list) -> Messages:
        """
        Return the JSON of messages: the same as if each were encoded by itself.

        Args:
            messages: The messages.
            translate: Function from messages to those that are encoded in their place, each by itself.
        """

        def read(messages: list[Any]) -> list[Any]:
            return [
                message if type(message) is dict else _as_dict(message) for message in translate(messages)
            ]

        if self._max_bytes and self._trial.begins():
            try:
                return self._encode([*messages], read)
            except (NoKeyError, RuntimeError, RecursionError):
                pass
        return Messages.joined([self._memory.encode(message) for message in read(messages)])

    def _encode(self, messages: list[Any], read: Reader) -> Messages:
        key = tuple(chain.from_iterable(map(_outline, messages[:_BEGINNING])))
        before, known = self._find(key, messages, read)
        new = messages[known.count :]
        if not new:
            return known.messages
        likeness = Likeness(new, read, are_same=known.are_same)
        encode = self._encode_new if known.count else self._memory.encode
        fragments = [encode(message) for message in likeness.copies or ()]
        likeness.settle(new)
        longer = known.followed_by(_Run(likeness, b",".join(fragments), [*map(len, fragments)]))
        if len(messages) >= _BEGINNING:
            self._keep(key, before, longer)
        return longer.messages

    def _find(
        self, key: tuple[Any, ...], messages: list[Any], read: Reader
    ) -> tuple[_Conversation | None, _Conversation]:
        """
        Return what the messages begin with.

        Returns:
            The conversation that the messages go on with, with another end perhaps, None if there is none; and that as
            far as they have it in common.
        """
        checked: dict[_Run, bool] = {}
        before, longest = None, _Conversation()
        for known in self._table.get(key, ()):
            common = known.common(messages, read, checked)
            if common.count > longest.count:
                before, longest = known, common
        if longest.count:
            self._trial.hit()
        # A conversation with another half is a branch, and may be met again.
        return (before if before and longest.count > before.count // 2 else None), longest

    def _keep(self, key: tuple[Any, ...], before: _Conversation | None, longer: _Conversation) -> None:
        """Keep a conversation in the place of that which it goes on with."""
        if longer.weight > self._max_bytes // 2 or not self._lock.acquire(blocking=False):
            return
        try:
            if self._trial.failed():
                self._table.clear()
                self._bytes = 0
            alike = self._table.pop(key, [])
            kept = [longer, *(each for each in alike if each is not before)][:MAX_ALIKE]
            self._table[key] = kept
            self._bytes += _weight(kept) - _weight(alike)
            while self._bytes > self._max_bytes or len(self._table) > MAX_CONVERSATIONS:
                self._bytes -= _weight(self._table.popitem(last=False)[1])
        finally:
            self._lock.release()


def _weight(conversations: Iterable[_Conversation]) -> int:
    return sum(conversation.weight for conversation in conversations)


def _outline(message: Any) -> Iterator[Any]:
    """Yield what tells the beginnings of conversations apart quickly: the texts of a message, and no more."""
    fields = message if type(message) is dict else model_fields(message)
    if fields is None:
        raise NoKeyError
    for name, value in fields.items():
        if type(name) is type(value) is str:
            yield name
            yield value if len(value) <= LONG else hash(value)


def _as_dict(message: Any) -> Any:
    """Return a message that is no dict with its pydantic models as dicts, or as it is if it has no end, or changes."""
    try:
        return _unwrapped(message)
    except RuntimeError:  # also without an end
        return message


def _unwrapped(value: Any) -> Any:
    """Return a value with its pydantic models as dicts, at any depth."""
    kind = type(value)
    if kind is list:
        return [_unwrapped(item) for item in value]
    fields = value if kind is dict else model_fields(value)
    if fields is None:
        return value
    return {name: item if type(item) is str else _unwrapped(item) for name, item in fields.items()}
