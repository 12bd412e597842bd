"""
The conversations of the latest turns, so that the next turn costs what is new in it.

That a list of messages begins with a conversation as it was is found out by the loops of Python itself. Most lists
grow: they hold the very same dicts and lists as before, and these the very same keys, texts and numbers. Where messages
were made anew they are compared by value, level by level through the containers, after their types and sizes were: no
code of a value runs, and 1 is not True.
"""

from __future__ import annotations

import threading
from array import array
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, compress
from operator import is_
from typing import Any, Final, NamedTuple

from whyops_trace._values.memory import Memory, NoKeyError, Trial
from whyops_trace._values.objects import model_fields
from whyops_trace._values.truncation import truncated

#: Conversations that are remembered at most, and those among them that begin alike: branches, or an evaluation.
MAX_CONVERSATIONS: Final = 64
MAX_ALIKE: Final = 4
#: Messages at the beginning of a list by which conversations are told apart at first.
_BEGINNING: Final = 2
#: Nested containers in messages, and values at one place of them, of conversations that are remembered.
_MAX_DEPTH: Final = 20
_MAX_VALUES: Final = 200_000
#: Characters from which on a text is known by its hash.
_LONG: Final = 65_536
#: Bytes that a message takes beside its JSON.
_MESSAGE_BYTES: Final = 1_000
#: Shares of the room that the first message and the last one may take where not all fit, and bytes of the note on that.
_FIRST, _LAST, _NOTE = 4, 2, 40

_ATOMS: Final = frozenset(map(id, (str, int, float, bool, type(None))))
_KNOWN: Final = _ATOMS | {id(dict), id(list)}
_is_atom: Final = _ATOMS.__contains__


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


class _Identity:
    """
    The containers of messages themselves, and what was in them: nothing that is still there was changed.

    Args:
        messages: The messages, of exact builtin types down to the last value.
    """

    __slots__ = ("_dicts", "_items", "_keys", "_lists", "_messages", "_sizes", "_values")

    def __init__(self, messages: list[Any]) -> None:
        self._messages = messages
        self._dicts: list[dict[Any, Any]] = []
        self._lists: list[list[Any]] = []
        containers = [*messages]
        for container in containers:  # which grows meanwhile
            is_mapping = type(container) is dict
            (self._dicts if is_mapping else self._lists).append(container)
            values = container.values() if is_mapping else container
            containers += [value for value in values if type(value) is dict or type(value) is list]
        self._sizes = [*map(len, self._dicts), *map(len, self._lists)]
        self._keys = [*chain.from_iterable(self._dicts)]
        self._values = [*chain.from_iterable(map(dict.values, self._dicts))]
        self._items = [*chain.from_iterable(self._lists)]

    def holds(self, messages: list[Any]) -> bool:
        """Return True if messages are these, and nothing in them was replaced, added or taken away."""
        dicts, lists = self._dicts, self._lists
        return (
            all(map(is_, messages, self._messages))
            and [*map(len, dicts), *map(len, lists)] == self._sizes
            and all(map(is_, chain.from_iterable(dicts), self._keys))
            and all(map(is_, chain.from_iterable(map(dict.values, dicts)), self._values))
            and all(map(is_, chain.from_iterable(lists), self._items))
        )

    def followed_by(self, other: _Identity) -> _Identity:
        """Return these messages and others."""
        both = _Identity.__new__(_Identity)
        both._messages = self._messages + other._messages
        both._dicts = self._dicts + other._dicts
        both._lists = self._lists + other._lists
        both._sizes = [*map(len, both._dicts), *map(len, both._lists)]
        both._keys = self._keys + other._keys
        both._values = self._values + other._values
        both._items = self._items + other._items
        return both


class _Group:
    """
    Containers of one type at one place in the structure of messages, as they were, with all that is in them.

    A long text, such as an image, is known by its length and its hash, so that it does not live on here.

    Attributes:
        characters: Number of characters of the texts that are kept.
        has_long: True if a long text is among them.

    Args:
        kind: Their type, dict or list.
        containers: The containers.
        depth: Number of containers around each.

    Raises:
        NoKeyError: if what is in them cannot be compared without running its code.
    """

    __slots__ = (
        "_are_atoms",
        "_atoms",
        "_inner",
        "_keys",
        "_kind",
        "_long",
        "_sizes",
        "_types",
        "characters",
        "has_long",
    )

    def __init__(self, kind: type[Any], containers: list[Any], depth: int = 0) -> None:
        self._kind = kind
        self._sizes = [*map(len, containers)]
        self._keys, values = self._contents(containers)
        types = _types(values)
        self._are_atoms = [*map(_is_atom, types)]
        self._atoms = [*compress(values, self._are_atoms)]
        #: The lengths and hashes of the long texts, by their places among the atoms, which have None there.
        self._long = {
            place: (len(atom), hash(atom))
            for place, atom in enumerate(self._atoms)
            if type(atom) is str and len(atom) > _LONG
        }
        self.has_long = bool(self._long)
        for place in self._long:
            self._atoms[place] = None
        self._types = _types(self._atoms)
        #: The dicts and the lists in them: for each value if it is one, and the group.
        self._inner: dict[type[Any], tuple[list[bool], _Group]] = {}
        if depth > _MAX_DEPTH or len(values) > _MAX_VALUES or not _KNOWN.issuperset(types):
            raise NoKeyError
        has_zero = any(type(atom) is float and not atom for atom in self._atoms)  # 0.0 is equal to -0.0
        if has_zero or not {str}.issuperset(map(type, self._keys)):
            raise NoKeyError
        self.characters = sum([len(atom) for atom in self._atoms if type(atom) is str])
        for inner in (dict, list):
            are_inner = [*map(id(inner).__eq__, types)]
            if True in are_inner:
                group = _Group(inner, [*compress(values, are_inner)], depth + 1)
                self._inner[inner] = are_inner, group
                self.characters += group.characters
                self.has_long = self.has_long or group.has_long

    def holds(self, containers: list[Any]) -> bool:
        """Return True if containers are the same as these, down to the last value."""
        if {*map(id, map(type, containers))} != {id(self._kind)} or [*map(len, containers)] != self._sizes:
            return False
        keys, values = self._contents(containers)
        if len(values) != len(self._are_atoms) or not _are_equal(keys, self._keys):
            return False
        atoms = [*compress(values, self._are_atoms)]
        for place, known in self._long.items():
            text = atoms[place]
            if type(text) is not str or len(text) != known[0] or hash(text) != known[1]:
                return False
            atoms[place] = None
        return _are_equal(atoms, self._atoms, self._types) and all(
            group.holds([*compress(values, are_inner)]) for are_inner, group in self._inner.values()
        )

    def followed_by(self, other: _Group) -> _Group:
        """Return a group of these containers and those of another group."""
        group = _Group.__new__(_Group)
        group.characters = self.characters + other.characters
        group.has_long = self.has_long or other.has_long
        group._kind = self._kind
        group._sizes = self._sizes + other._sizes
        group._keys = self._keys + other._keys
        group._are_atoms = self._are_atoms + other._are_atoms
        group._atoms = self._atoms + other._atoms
        count = len(self._atoms)
        group._long = self._long | {count + place: known for place, known in other._long.items()}
        group._types = self._types + other._types
        group._inner = {}
        for kind in {**self._inner, **other._inner}:
            ours, theirs = self._inner.get(kind), other._inner.get(kind)
            flags = (ours[0] if ours else [False] * len(self._are_atoms)) + (
                theirs[0] if theirs else [False] * len(other._are_atoms)
            )
            groups = [each[1] for each in (ours, theirs) if each]
            group._inner[kind] = flags, groups[0].followed_by(groups[1]) if len(groups) > 1 else groups[0]
        return group

    def _contents(self, containers: list[Any]) -> tuple[list[Any], list[Any]]:
        """Return the keys and the values in containers of this type."""
        if self._kind is dict:
            return [*chain.from_iterable(containers)], [*chain.from_iterable(map(dict.values, containers))]
        return [], [*chain.from_iterable(containers)]


def _outline(message: Any) -> Iterator[Any]:
    """Yield what tells the beginnings of conversations apart quickly: the texts of a message, and no more."""
    if type(message) is not dict:
        raise NoKeyError
    for name, value in message.items():
        if type(name) is type(value) is str:
            yield name
            yield value if len(value) <= _LONG else hash(value)


def _types(values: Iterable[Any]) -> array[int]:
    # By their ids, since a class may have an equality of its own.
    return array("Q", map(id, map(type, values)))


def _are_equal(values: list[Any], known: list[Any], types: array[int] | None = None) -> bool:
    """
    Return True if values are the known ones, or equal to them in type and value.

    Args:
        values: The values.
        known: Others, of exact builtin types.
        types: The types of the known ones; None if all are texts.
    """
    if len(values) != len(known):
        return False
    if all(map(is_, values, known)):
        return True
    if types is None:
        return {*map(id, map(type, values))} == {id(str)} and values == known
    return _types(values) == types and values == known


class _Run:
    """
    Messages that follow each other, as they were, and their JSON.

    Attributes:
        json: The JSON, without the brackets around it.
        sizes: Number of bytes of each message.
    """

    __slots__ = ("_group", "_identity", "json", "sizes")

    def __init__(self, group: _Group, identity: _Identity | None, json: bytes, sizes: list[int]) -> None:
        self._group = group
        # Whoever remembers a message itself keeps its texts alive.
        self._identity = None if group.has_long else identity
        self.json = json
        self.sizes = sizes

    @property
    def weight(self) -> int:
        """The number of bytes that it takes, about."""
        return len(self.json) + self._group.characters + len(self.sizes) * _MESSAGE_BYTES

    def holds(self, messages: list[Any]) -> bool:
        """Return True if messages are the same as these, down to the last value."""
        if self._identity is not None:
            if self._identity.holds(messages):
                return True
            self._identity = None  # they were made anew, and will be again
        return self._group.holds(messages)

    def followed_by(self, other: _Run) -> _Run:
        """Return these messages and others."""
        ours, theirs = self._identity, other._identity
        return _Run(
            self._group.followed_by(other._group),
            None if ours is None or theirs is None else ours.followed_by(theirs),
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
        self.count = sum(len(run.sizes) for run in runs)
        self.weight = sum(run.weight for run in runs)

    @property
    def messages(self) -> Messages:
        """The JSON."""
        return Messages([run.json for run in self._runs], [run.sizes for run in self._runs])

    def begins(self, messages: list[Any]) -> bool:
        """Return True if a list begins with these messages."""
        end = 0
        for run in self._runs:
            start, end = end, end + len(run.sizes)
            if not run.holds(messages[start:end]):
                return False
        return True

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

    def encode(self, messages: list[Any]) -> Messages:
        """Return the JSON of messages: the same as if each were encoded by itself."""
        messages = [message if type(message) is dict else _as_dict(message) for message in messages]
        if self._max_bytes and self._trial.begins():
            try:
                return self._encode(messages)
            except (NoKeyError, RuntimeError, RecursionError):
                pass
        return Messages.joined([self._memory.encode(message) for message in messages])

    def _encode(self, messages: list[Any]) -> Messages:
        key = tuple(chain.from_iterable(map(_outline, messages[:_BEGINNING])))
        known = self._find(key, messages)
        new = messages[known.count :]
        if not new:
            return known.messages
        if {*map(type, new)} != {dict}:
            raise NoKeyError
        group = _Group(dict, new)
        encode = self._encode_new if known.count else self._memory.encode
        fragments = [encode(message) for message in new]
        run = _Run(group, _Identity(new), b",".join(fragments), [*map(len, fragments)])
        if not group.holds(new):  # another thread changed a message meanwhile
            raise NoKeyError
        longer = known.followed_by(run)
        if len(messages) >= _BEGINNING:
            self._keep(key, known, longer)
        return longer.messages

    def _find(self, key: tuple[Any, ...], messages: list[Any]) -> _Conversation:
        """Return the longest conversation that the messages begin with, an empty one if there is none."""
        candidates = sorted(self._table.get(key, ()), key=lambda known: known.count, reverse=True)
        for known in candidates:
            if known.count <= len(messages) and known.begins(messages):
                self._trial.hit()
                return known
        return _Conversation()

    def _keep(self, key: tuple[Any, ...], known: _Conversation, longer: _Conversation) -> None:
        """Keep a conversation in the place of that which it goes on with."""
        if longer.weight > self._max_bytes // 2 or not self._lock.acquire(blocking=False):
            return
        try:
            if self._trial.failed():
                self._table.clear()
                self._bytes = 0
            before = self._table.pop(key, [])
            alike = [longer, *(each for each in before if each is not known)][:MAX_ALIKE]
            self._table[key] = alike
            self._bytes += _weight(alike) - _weight(before)
            while self._bytes > self._max_bytes or len(self._table) > MAX_CONVERSATIONS:
                self._bytes -= _weight(self._table.popitem(last=False)[1])
        finally:
            self._lock.release()


def _weight(conversations: Iterable[_Conversation]) -> int:
    return sum(conversation.weight for conversation in conversations)


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
