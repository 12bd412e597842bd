"""
The mended copy of any value: dict, list, str, int, float, bool and None, which JSON can hold and a server stores.

It is made level by level, below the classes of what it finds: see :mod:`whyops_trace._values.objects`.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable
from typing import Any, Final

import msgspec

from whyops_trace._guard import guarded
from whyops_trace._values.attachments import MAX_INLINE, digest
from whyops_trace._values.objects import reader_of
from whyops_trace._values.reflection import REDACTED, REST, TOO_MANY, Pairs, Reader, name_of, opaque
from whyops_trace._values.secrets.names import is_harmless, is_secret_pair, member_named_secret
from whyops_trace._values.secrets.repeats import note
from whyops_trace._values.truncation import note_of_items, without_items

CIRCULAR: Final = "[circular]"
TOO_DEEP: Final = "[too deep]"
CHANGING: Final = "[changed while being read]"

#: Largest number of nested containers. A server fails at thousands of them, a reader long before.
MAX_DEPTH: Final = 64
#: Largest number of nodes of a mended copy. A value that needs no mending is not copied, and has no such bound.
MAX_NODES: Final = 20_000
#: Number of items from which on a list of numbers is looked at as a whole, and not item by item.
_MANY: Final = 1_000
#: Number of its first items that tell whether it is likely to be one.
_FEW: Final = 16
#: Smallest and largest integers that a JSON parser reads back unchanged.
MIN_INT, MAX_INT = -(2**53), 2**53
#: Number of bits of all integers between those two.
MAX_BITS: Final = 53
#: Smallest and largest finite floats. JSON has no numbers for infinities and NaN, which are not between them.
MIN_FLOAT, MAX_FLOAT = -sys.float_info.max, sys.float_info.max
#: Types of parts in base64 that are no attachments: ``redacted_thinking`` of Anthropic, ``reasoning.encrypted`` of
#: OpenRouter, and the like.
_THOUGHT: Final = re.compile("thinking|reasoning")
_ATOMS: Final = frozenset(map(id, (str, bytes, bytearray, int, float)))
_NOT_FINITE: Final = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}

_encode: Final = msgspec.json.Encoder().encode


def plain(value: object, hides: Callable[[str], bool], *, shapes: bool = False, digests: bool = False) -> Any:
    """
    Return a mended copy of a value, made of dict, list, str, int, float, bool and None only.

    Args:
        value: Any value.
        hides: Function from the key of a mapping, or the name of an attribute, to True if its value is a secret.
        shapes: True to replace lists of floats by their length, as for large arrays: ``{"shape": [1536]}``.
        digests: True to replace long attachments by their size and hash, see
            :func:`whyops_trace._values.attachments.digest`.
    """
    try:
        return Mender(hides, shapes, digests).mend(value, (), False)
    except RecursionError:
        return TOO_DEEP


def plain_view(value: object, hides: Callable[[str], bool], *, digests: bool = False) -> Any:
    """Return what :func:`plain` does, or the value itself if that is the same: for those who only read it, at once."""
    if _is_plain(value, hides, MAX_INLINE if digests else sys.maxsize):
        return value
    return plain(value, hides, digests=digests)


def _is_plain(  # noqa: PLR0912 - flat, because every turn pays for it
    value: object, hides: Callable[[str], bool], longest: int
) -> bool:
    """
    Return True if a value is surely its own mended copy.

    Args:
        value: The value.
        hides: Function that tells the keys of secrets.
        longest: Characters of a text up to which it is no attachment.
    """
    nodes = 0
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        inner: list[Any] = []
        for node in level:
            kind = type(node)
            if kind is str:
                if len(node) > longest or "\0" in node or not (node.isascii() or mended_text(node) is node):
                    return False
            elif kind is dict:
                for key in node:
                    if type(key) is not str or not key.isascii() or hides(key):
                        return False
                if "value" in node or "Value" in node:  # it may have the name of a secret beside it
                    return False
                inner += node.values()
            elif kind is list:
                if (
                    len(node) == 2 and type(node[0]) is str
                ):  # they may be the name of a secret, and the secret
                    return False
                inner += node
            elif kind is int:
                if not MIN_INT <= node <= MAX_INT:
                    return False
            elif kind is float:
                if not MIN_FLOAT <= node <= MAX_FLOAT:  # a NaN neither
                    return False
            elif node is not None and kind is not bool:
                return False
        if not inner:
            return True
        level = inner
        nodes += len(inner)
        if nodes > _MANY:
            return False
    return False


class Mender:
    """The mended copy of one value, while it is built."""

    __slots__ = ("digests", "hides", "nodes_left", "shapes")

    def __init__(self, hides: Callable[[str], bool], shapes: bool = False, digests: bool = False) -> None:
        self.hides = hides
        self.shapes = shapes
        self.digests = digests
        self.nodes_left = MAX_NODES

    def mend(self, value: Any, path: tuple[int, ...], inside: bool) -> Any:
        """
        Return the copy of one node.

        Args:
            value: The node.
            path: The ids of the objects around it, outermost first.
            inside: True if one of those is an object of unknown kind. Further ones inside it are only named.
        """
        self.nodes_left -= 1
        try:
            kind = type(value)
            if kind is str:
                return self.text(value)
            if value is None or kind is bool:
                return value
            if kind is int:
                return value if MIN_INT <= value <= MAX_INT else self.text(_digits(value))
            if kind is float:
                return value if MIN_FLOAT <= value <= MAX_FLOAT else _NOT_FINITE[str(value)]
            if id(value) in path:
                return CIRCULAR
            if kind is tuple:
                value = self._paired(value)
            return self._mend_object(value, (*path, id(value)), inside)
        except RecursionError:
            return TOO_DEEP

    def _mend_object(self, value: Any, path: tuple[int, ...], inside: bool) -> Any:
        reader, base = reader_of(type(value))
        if base is object:
            reader, inside = (opaque if inside else reader), True
        result = _simpler(self.reader(reader), value, base, self.nodes_left + 1)
        if result is None:
            return f"<unencodable {mended_text(name_of(type(value)))}>"
        simpler: Any = result[0]
        if type(simpler) is list:
            return self.array(simpler, path, inside) if len(path) <= MAX_DEPTH else TOO_DEEP
        if type(simpler) is Pairs:
            return self._mapping(simpler, path, inside) if len(path) <= MAX_DEPTH else TOO_DEEP
        return self.mend(simpler, path, inside)

    def _paired(self, value: Any) -> Any:
        """Return a tuple or list, without the secret if it is one of the name of a secret and the secret."""
        if len(value) == 2 and is_secret_pair(value, self.hides):
            name = value[0] if type(value[0]) is str else value[0].decode("latin-1")
            note(name, value[1])
            return (value[0], REDACTED)
        return value

    def text(self, text: str) -> str:
        """Return the copy of a text."""
        return mended_text(text)

    def reader(self, reader: Reader) -> Reader:
        """Return the reader to be used for objects of the class that one is for."""
        return reader

    def most_numbers(self, numbers: list[Any]) -> int:
        """Return the largest number of items that are kept of a list that begins with numbers."""
        return len(numbers)

    def array(self, items: list[Any], path: tuple[int, ...], inside: bool) -> Any:
        """Return the copy of a list. If there are nodes left for a part of it only, that is its head and its tail."""
        if self.shapes and items and type(items[0]) is float:
            return {"shape": [len(items)]}
        if len(items) > _MANY and are_numbers(items[:_FEW]):
            most = min(len(items), self.most_numbers(items))
            if are_numbers(items[: most - most // 2]) and are_numbers(items[len(items) - most // 2 :]):
                return without_items(items, most)
        spare = self.nodes_left // 2
        head: list[Any] = []
        for item in items:
            if self.nodes_left <= spare:
                break
            head.append(self.mend(self._paired(item) if type(item) is list else item, path, inside))
        else:
            return head
        tail: list[Any] = []
        for item in reversed(items[len(head) :]):
            if self.nodes_left <= 0:
                break
            tail.append(self.mend(self._paired(item) if type(item) is list else item, path, inside))
        missing = len(items) - len(head) - len(tail)
        return [*head, *([note_of_items(missing)] if missing else ()), *reversed(tail)]

    def _mapping(self, pairs: Pairs, path: tuple[int, ...], inside: bool) -> Any:
        mended: dict[str, Any] = {}
        for key, item in pairs:
            if self.nodes_left <= 0:
                mended[REST] = TOO_MANY
                break
            name = mended_text(key) if type(key) is str else self._key(key, path)
            hidden = self.hides(name) and not is_harmless(name, item, (key for key, _ in pairs))
            if hidden:
                note(name, item)
                if id(type(item)) not in _ATOMS:  # what is secret in it by its own name is noted, too
                    self.mend(item, path, inside)
            about = None
            if self.digests and type(item) is str and len(item) > MAX_INLINE and not hidden:
                about = None if _is_thought(pairs) else digest(name, item)
            mended[name] = about or self.mend(REDACTED if hidden else item, path, inside)
        named = member_named_secret(mended, self.hides) if "value" in mended or "Value" in mended else None
        if named is not None:
            member, name = named
            note(name, mended[member])
            mended[member] = REDACTED
        return mended

    def _key(self, key: object, path: tuple[int, ...]) -> str:
        mended = self.mend(key, path, True)
        return mended if type(mended) is str else _encode(mended).decode()


def mended_text(text: str) -> str:
    """Return a text that UTF-8 and a server can hold."""
    text = str.__str__(text)
    if "\0" in text:
        text = text.replace("\0", "\ufffd")
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        # Through UTF-16, where two surrogates that belong together are one character.
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def are_numbers(items: list[Any]) -> bool:
    """Tell whether a list has nothing but numbers that need no mending, without a look at each by Python's own code."""
    kinds = {*map(id, map(type, items))}
    if kinds == {id(int)}:
        return bool(min(items) >= MIN_INT and max(items) <= MAX_INT)
    return kinds == {id(float)} and all(map(math.isfinite, items))


def _is_thought(pairs: Pairs) -> bool:
    """Tell whether a mapping is what a model thought, encrypted: the provider wants it back as it was."""
    return any(
        type(name) is str and name == "type" and type(item) is str and _THOUGHT.search(item)
        for name, item in pairs
    )


def _digits(number: int) -> str:
    try:
        return str(number)
    except ValueError:  # more digits than sys.get_int_max_str_digits() allows
        return hex(number)


@guarded("reading a value")
def _simpler(reader: Reader, value: object, base: type, limit: int) -> tuple[object]:
    """Return the result of a reader, in a tuple that tells ``None`` from a failure."""
    for _ in range(3):
        try:
            return (reader(value, base, limit),)
        except RecursionError:
            return (TOO_DEEP,)
        except RuntimeError:  # a container that another thread or a finaliser has just changed
            continue
    return (CHANGING,)
