"""
Any value to safe JSON: one line of UTF-8 that a server stores unchanged.

Two paths lead to the same bytes. Nearly every value is made of exact builtin types and needs no mending: one scan
finds that out, and one call of the C encoder does the rest. Any other value is copied and mended, then encoded.

Guarantees of both paths:

- No :class:`Exception` leaves this module, not even ``RecursionError`` when the stack is nearly used up.
- No code of the value's own class runs. Objects are read below their class: by :func:`type`, the real ``__mro__``,
  the descriptors of builtin bases, slots, and the genuine instance ``__dict__``. A lazy proxy stays unresolved, a
  mock records nothing, an iterator keeps its items. Classes are told apart by identity alone, because a metaclass
  can override even ``==`` and ``hash`` of a class.
- A value under the name of a secret, or with the form of one, is replaced, at any depth.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Final

import msgspec

from whyops_trace._guard import guarded
from whyops_trace._values.attachments import digest
from whyops_trace._values.objects import reader_of
from whyops_trace._values.reflection import REDACTED, REST, TOO_MANY, Pairs, Reader, name_of, opaque
from whyops_trace._values.secrets import redacted

CIRCULAR: Final = "[circular]"
TOO_DEEP: Final = "[too deep]"
CHANGING: Final = "[changed while being read]"

#: Largest number of nested containers. A server fails at thousands of them, a reader long before.
MAX_DEPTH: Final = 64
#: Largest number of nodes of a mended copy. A value that needs no mending is not copied, and has no such bound.
MAX_NODES: Final = 20_000
#: Smallest and largest integers that a JSON parser reads back unchanged.
MIN_INT, MAX_INT = -(2**53), 2**53
#: Number of bits of all integers between those two.
MAX_BITS: Final = 53
#: Smallest and largest finite floats. JSON has no numbers for infinities and NaN, which are not between them.
MIN_FLOAT, MAX_FLOAT = -sys.float_info.max, sys.float_info.max
_NOT_FINITE: Final = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}

_encode: Final = msgspec.json.Encoder().encode


def encoder(hides: Callable[[str], bool]) -> Callable[[object], bytes]:
    """
    Return a function that encodes any value as JSON: one line of UTF-8, without NUL and without secrets.

    Args:
        hides: Function from the key of a mapping, or the name of an attribute, to True if its value is a secret. It is
            also True for every key with a NUL, which cannot be recorded as it is.
    """

    def encode(value: object) -> bytes:
        try:
            kind = type(value)
            if kind is dict or kind is list or kind is tuple:
                flawless = _is_flawless(value, hides, 1)
            elif type(value) is str:
                flawless = "\0" not in value
            else:
                flawless = _is_flawless((value,), hides, 0)
            if flawless:
                return redacted(_encode(value))
        except (RuntimeError, TypeError, ValueError):
            # A lone surrogate, a stack nearly used up, or a container that another thread is changing.
            pass
        try:
            return redacted(_encode(plain(value, hides)))
        except RecursionError:
            return b'"[too deep]"'

    return encode


#: Encoder for the user's description of a program, rather than its data: no name in it marks a secret.
encode: Final = encoder(lambda key: "\0" in key)


def plain(value: object, hides: Callable[[str], bool], *, shapes: bool = False, digests: bool = False) -> Any:
    """
    Return a mended copy of a value, made of dict, list, str, int, float, bool and None only.

    Args:
        value: Any value.
        hides: As for :func:`encode`.
        shapes: True to replace lists of floats by their length, as for large arrays: ``{"shape": [1536]}``.
        digests: True to replace long attachments by their size and hash, see
            :func:`whyops_trace._values.attachments.digest`.
    """
    try:
        return _Mender(hides, shapes, digests).mend(value, (), False)
    except RecursionError:
        return TOO_DEEP


def string(text: str) -> bytes:
    """Return a text as one JSON string, mended where UTF-8 or a server cannot hold it."""
    return _encode(_text(text))


def _is_flawless(  # noqa: PLR0912 - flat, because every traced call pays for it
    container: Any, hides: Callable[[str], bool], depth: int
) -> bool:
    """Return True if the encoder can take this dict, list or tuple as it is, down to the leaves."""
    if type(container) is dict:
        for key in container:
            if type(key) is not str:
                return False
            if hides(key):
                hidden = container.get(key)
                if "\0" in key or (hidden is not None and type(hidden) is not bool):
                    return False
        container = container.values()
    for item in container:
        kind = type(item)
        if kind is str:
            # The NUL is searched for here: finding its escape in the encoded bytes costs more than encoding.
            if "\0" in item:
                return False
        elif kind is int:
            if item.bit_length() > MAX_BITS:
                return False
        elif kind is float:
            if not MIN_FLOAT <= item <= MAX_FLOAT:  # a NaN neither
                return False
        elif kind is dict or kind is list or kind is tuple:
            if depth >= MAX_DEPTH or not _is_flawless(item, hides, depth + 1):
                return False
        elif item is not None and kind is not bool:
            return False
    return True


class _Mender:
    """The mended copy of one value, while it is built."""

    __slots__ = ("digests", "hides", "nodes_left", "shapes")

    def __init__(self, hides: Callable[[str], bool], shapes: bool, digests: bool) -> None:
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
                return _text(value)
            if value is None or kind is bool:
                return value
            if kind is int:
                return value if MIN_INT <= value <= MAX_INT else _digits(value)
            if kind is float:
                return value if MIN_FLOAT <= value <= MAX_FLOAT else _NOT_FINITE[str(value)]
            if id(value) in path:
                return CIRCULAR
            return self._mend_object(value, (*path, id(value)), inside)
        except RecursionError:
            return TOO_DEEP

    def _mend_object(self, value: Any, path: tuple[int, ...], inside: bool) -> Any:
        reader, base = reader_of(type(value))
        if base is object:
            reader, inside = (opaque if inside else reader), True
        result = _simpler(reader, value, base, self.nodes_left + 1)
        if result is None:
            return _text(f"<unencodable {name_of(type(value))}>")
        simpler: Any = result[0]
        if type(simpler) is list:
            return self._array(simpler, path, inside) if len(path) <= MAX_DEPTH else TOO_DEEP
        if type(simpler) is Pairs:
            return self._mapping(simpler, path, inside) if len(path) <= MAX_DEPTH else TOO_DEEP
        return self.mend(simpler, path, inside)

    def _array(self, items: list[Any], path: tuple[int, ...], inside: bool) -> Any:
        if self.shapes and items and type(items[0]) is float:
            return {"shape": [len(items)]}
        mended = []
        for item in items:
            if self.nodes_left <= 0:
                mended.append(TOO_MANY)
                break
            mended.append(self.mend(item, path, inside))
        return mended

    def _mapping(self, pairs: Pairs, path: tuple[int, ...], inside: bool) -> Any:
        mended: dict[str, Any] = {}
        for key, item in pairs:
            if self.nodes_left <= 0:
                mended[REST] = TOO_MANY
                break
            name = _text(key) if type(key) is str else self._key(key, path)
            hidden = self.hides(name) and item is not None and type(item) is not bool
            about = digest(name, item) if self.digests and type(item) is str and not hidden else None
            mended[name] = about or self.mend(REDACTED if hidden else item, path, inside)
        return mended

    def _key(self, key: object, path: tuple[int, ...]) -> str:
        mended = self.mend(key, path, True)
        return mended if type(mended) is str else _encode(mended).decode()


def _text(text: str) -> str:
    text = str.__str__(text).replace("\0", "\ufffd")
    try:
        text.encode()
    except UnicodeEncodeError:
        # Through UTF-16, where two surrogates that belong together are one character.
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


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
