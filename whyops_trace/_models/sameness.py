"""
Messages as they were, to find out whether others are the same.

Most conversations grow: their lists hold the very dicts and lists as before, and these the very same keys, texts and
numbers, which a :class:`Snapshot` compares by identity. Where messages were made anew, :class:`Values` compare them,
after their types and sizes. Both leave that to the loops of Python itself; no code of a value runs, and 1 is not True.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from gc import get_referents
from itertools import chain, compress, repeat
from operator import is_
from typing import Any, Final, TypeAlias

from whyops_trace._values.memory import NoKeyError
from whyops_trace._values.objects import model_state

#: Nested containers in messages, and containers or values at one place of them, that are compared.
MAX_DEPTH: Final = 20
_MAX_VALUES: Final = 200_000
#: Characters from which on a text is known by its hash.
LONG: Final = 65_536

#: Function from messages of any kind to what is encoded of them, dicts if they are to be remembered.
Reader: TypeAlias = Callable[[list[Any]], list[Any]]

_ATOMS: Final = frozenset(map(id, (str, int, float, bool, type(None))))
_KNOWN: Final = _ATOMS | {id(dict), id(list)}


class Likeness:
    """
    Messages as they were: they are known by identity, or by value once they were made anew.

    Attributes:
        copies: The dicts that they were read as, copied. None once they are known by value.
        count: Number of messages.
        characters: Number of characters of the texts that are kept.

    Args:
        messages: The messages.
        read: Function that reads them.
        are_same: False if they will be made anew for the next turn.

    Raises:
        NoKeyError: if nobody could tell later that others are the same.
        RuntimeError: if another thread changes them right now.
    """

    __slots__ = ("_snapshot", "_values", "characters", "copies", "count")

    def __init__(self, messages: list[Any], read: Reader, *, are_same: bool) -> None:
        # Made before they are read: a change in between shows when they are settled.
        snapshot = Snapshot(messages) if are_same else None
        copies = [_copied(message) for message in read(messages)]
        if not copies or not all(type(copy) is dict for copy in copies):
            raise NoKeyError
        self.count = len(messages)
        self.copies: list[dict[str, Any]] | None = copies
        self._snapshot: Snapshot | None = None
        self._values: Values | None = None
        if snapshot is not None and not snapshot.has_long:
            self._snapshot = snapshot
            self.characters: int = snapshot.characters
        else:
            self._values = Values(dict, copies)
            self.characters = self._values.characters

    @property
    def are_same(self) -> bool:
        """True unless the messages were made anew."""
        return self._snapshot is not None

    def settle(self, messages: list[Any]) -> None:
        """
        Be done with the copies for now.

        Raises:
            NoKeyError: if another thread has changed the messages since they were given.
        """
        if self._snapshot is None:
            self.copies = None
        elif not self._snapshot.holds(messages):
            raise NoKeyError

    def holds(self, messages: list[Any], read: Reader) -> bool:
        """Return True if messages are the same as these, down to the last value."""
        if self._snapshot is not None and self._snapshot.holds(messages):
            return True
        copies = self.copies
        if copies is not None and not _by_value(copies[-1:], read(messages[-1:])):
            return False  # they are others: to compare all of them takes long
        values = self._to_values()
        if values is None or not values.holds(read(messages)):
            return False
        self._snapshot = None  # they were made anew, and will be again
        return True

    def _to_values(self) -> Values | None:
        """Return the values of the messages, None if they cannot be compared; the copies are not needed any more."""
        copies = self.copies
        if copies is not None:
            with contextlib.suppress(NoKeyError):
                self._values = Values(dict, copies)
            self.copies = None
        return self._values

    def followed_by(self, other: Likeness) -> Likeness:
        """Return these messages and others."""
        both = Likeness.__new__(Likeness)
        both.count = self.count + other.count
        both.characters = self.characters + other.characters
        both._snapshot = both.copies = both._values = None
        if self._snapshot is not None and other._snapshot is not None:
            both._snapshot = self._snapshot.followed_by(other._snapshot)
        if self.copies is not None and other.copies is not None:
            both.copies = self.copies + other.copies
        else:
            ours, theirs = self._to_values(), other._to_values()
            if ours is not None and theirs is not None:
                both._values = ours.followed_by(theirs)
        return both


class Snapshot:
    """
    The containers of messages themselves, and what was in them: nothing that is still there was changed.

    The garbage collector reads them, which takes a quarter of the time of loops over each.

    Attributes:
        characters: Number of characters of the texts that are kept.
        has_long: True if a long text is among them.

    Args:
        messages: The messages: dicts, lists and pydantic models of atoms, down to the last value.

    Raises:
        NoKeyError: if something else is in them.
        RuntimeError: if another thread changes them right now.
    """

    __slots__ = (
        "_containers",
        "_dicts",
        "_keys",
        "_messages",
        "_referents",
        "_sized",
        "_sizes",
        "characters",
        "has_long",
    )

    def __init__(self, messages: list[Any]) -> None:
        self._messages = messages
        self._containers: list[Any] = []
        self._referents: list[Any] = []
        self._dicts: list[dict[Any, Any]] = []
        #: The dicts and lists.
        self._sized: list[Any] = []
        level = messages
        for _ in range(MAX_DEPTH):
            level = self._add(level)
            if not level:
                break
        else:
            raise NoKeyError
        self._sizes = [*map(len, self._sized)]
        self._keys = [*chain.from_iterable(self._dicts)]
        texts = [len(value) for value in self._referents if type(value) is str]
        self.characters = sum(texts)
        self.has_long = max(texts, default=0) > LONG

    def _add(self, containers: list[Any]) -> list[Any]:
        """Add the containers of one level, and return those in them."""
        plain: list[Any] = []
        models: list[Any] = []
        inner: list[Any] = []
        for container in containers:
            kind = type(container)
            if kind is dict:
                self._dicts.append(container)
            elif kind is not list:
                state = model_state(container)
                if state is None:
                    raise NoKeyError
                models.append(container)
                inner += state
                continue
            plain.append(container)
        values = get_referents(*plain)
        # A dict refers to its keys as well, unless all are exact texts.
        if len(values) != sum(map(len, plain)) or len(self._containers) > _MAX_VALUES:
            raise NoKeyError
        self._sized += plain
        self._containers += plain + models
        self._referents += values
        if models:
            self._referents += get_referents(*models)
        return inner + [value for value in values if id(type(value)) not in _ATOMS]

    def holds(self, messages: list[Any]) -> bool:
        """Return True if messages are these, and nothing in them was replaced, added or taken away."""
        if not all(map(is_, messages, self._messages)) or [*map(len, self._sized)] != self._sizes:
            return False
        referents = get_referents(*self._containers)
        return (
            len(referents) == len(self._referents)
            and all(map(is_, referents, self._referents))
            # All of them are texts: see above.
            and [*chain.from_iterable(self._dicts)] == self._keys
        )

    def followed_by(self, other: Snapshot) -> Snapshot:
        """Return these messages and others."""
        both = Snapshot.__new__(Snapshot)
        both._messages = self._messages + other._messages
        both._containers = self._containers + other._containers
        both._referents = self._referents + other._referents
        both._dicts = self._dicts + other._dicts
        both._sized = self._sized + other._sized
        both._sizes = self._sizes + other._sizes
        both._keys = self._keys + other._keys
        both.characters = self.characters + other.characters
        both.has_long = self.has_long or other.has_long
        return both


class Values:
    """
    Containers of one type at one place in the structure of messages, as they were, with all that is in them.

    A long text, such as an image, is known by its length and its hash, so that it does not live on here.

    Attributes:
        characters: Number of characters of the texts that are kept.

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
    )

    def __init__(self, kind: type[Any], containers: list[Any], depth: int = 0) -> None:
        self._kind = kind
        self._sizes = [*map(len, containers)]
        values = get_referents(*containers)
        # A dict refers to its keys as well, unless all are exact texts.
        if len(values) != sum(self._sizes) or len(values) > _MAX_VALUES or depth > MAX_DEPTH:
            raise NoKeyError
        self._keys = self._keys_in(containers)
        types = [id(type(value)) for value in values]
        self._are_atoms = [*map(_ATOMS.__contains__, types)]
        self._atoms = [*compress(values, self._are_atoms)]
        #: The lengths and hashes of the long texts, by their places among the atoms, which have None there.
        self._long = {
            place: (len(atom), hash(atom))
            for place, atom in enumerate(self._atoms)
            if type(atom) is str and len(atom) > LONG
        }
        for place in self._long:
            self._atoms[place] = None
        self._types = [*map(type, self._atoms)]
        self.characters = sum(len(atom) for atom in self._atoms if type(atom) is str)
        if any(type(atom) is float and not atom for atom in self._atoms):  # 0.0 is equal to -0.0
            raise NoKeyError
        #: The dicts and the lists in them: for each value if it is one, and all.
        self._inner: dict[type[Any], tuple[list[bool], Values]] = {}
        for inner in (dict, list):
            are_inner = [each == id(inner) for each in types]
            if True in are_inner:
                group = Values(inner, [*compress(values, are_inner)], depth + 1)
                self._inner[inner] = are_inner, group
                self.characters += group.characters
        if not _KNOWN.issuperset(types):
            raise NoKeyError

    def holds(self, containers: list[Any]) -> bool:
        """Return True if containers are the same as these, down to the last value."""
        if not all(map(is_, map(type, containers), repeat(self._kind))):
            return False
        values = get_referents(*containers)
        if (
            [*map(len, containers)] != self._sizes
            or len(values) != len(self._are_atoms)
            or self._keys_in(containers) != self._keys  # all of them are texts: see above
        ):
            return False
        atoms = [*compress(values, self._are_atoms)]
        for place, known in self._long.items():
            text = atoms[place]
            if type(text) is not str or len(text) != known[0] or hash(text) != known[1]:
                return False
            atoms[place] = None
        are_equal = all(map(is_, atoms, self._atoms)) or (
            # A class may have an equality of its own.
            all(map(is_, map(type, atoms), self._types)) and atoms == self._atoms
        )
        return are_equal and all(
            inner.holds([*compress(values, are_inner)]) for are_inner, inner in self._inner.values()
        )

    def followed_by(self, other: Values) -> Values:
        """Return these containers and others."""
        both = Values.__new__(Values)
        both.characters = self.characters + other.characters
        both._kind = self._kind
        both._sizes = self._sizes + other._sizes
        both._keys = self._keys + other._keys
        both._are_atoms = self._are_atoms + other._are_atoms
        both._atoms = self._atoms + other._atoms
        count = len(self._atoms)
        both._long = self._long | {count + place: known for place, known in other._long.items()}
        both._types = self._types + other._types
        both._inner = {}
        for kind in {**self._inner, **other._inner}:
            ours, theirs = self._inner.get(kind), other._inner.get(kind)
            flags = (ours[0] if ours else [False] * len(self._are_atoms)) + (
                theirs[0] if theirs else [False] * len(other._are_atoms)
            )
            inner = [each[1] for each in (ours, theirs) if each]
            both._inner[kind] = flags, inner[0].followed_by(inner[1]) if len(inner) > 1 else inner[0]
        return both

    def _keys_in(self, containers: list[Any]) -> list[Any]:
        return [*chain.from_iterable(containers)] if self._kind is dict else []


def _by_value(copies: list[Any], others: list[Any]) -> bool:
    try:
        return Values(dict, copies).holds(others)
    except NoKeyError:
        return False


def _copied(value: Any) -> Any:
    """Return a value with its dicts and lists copied."""
    kind = type(value)
    if kind is dict:
        return {name: item if type(item) is str else _copied(item) for name, item in value.items()}
    return [_copied(item) for item in value] if kind is list else value
