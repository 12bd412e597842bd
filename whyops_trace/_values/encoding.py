"""
Any value at all to safe JSON: one line of UTF-8 that a server stores as it was meant.

Two paths lead to the same bytes. Nearly every value is made of exact builtin types and needs no mending: one scan
sees that, one call of the C encoder does the rest. Of anything else a mended copy is built, and that is encoded.

Guarantees of both paths:

- No :class:`Exception` leaves this module, not even ``RecursionError`` when the stack is nearly used up.
- No code of the value's own class runs. Objects are read below their class: by :func:`type`, the real ``__mro__``,
  the descriptors of builtin bases, slots, and the genuine instance ``__dict__``. A lazy proxy stays unresolved, a
  mock records nothing, an iterator keeps its items. Classes are told apart by identity alone, because a metaclass
  can override even ``==`` and ``hash`` of a class.
- What stands under the name of a secret, or has the form of one, is replaced, at any depth.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Final

import msgspec

from whyops_trace._guard import guarded
from whyops_trace._values.objects import REDACTED, REST, TOO_MANY, Pairs, Reader, name_of, opaque, reader_of
from whyops_trace._values.secrets import redacted

CIRCULAR: Final = "[circular]"
TOO_DEEP: Final = "[too deep]"
CHANGING: Final = "[changed while being read]"

#: Levels of containers. A server fails at thousands of them, a reader long before.
MAX_DEPTH: Final = 64
#: Nodes of a mended copy. What needs no mending is not copied, and has no such bound.
MAX_NODES: Final = 20_000
#: Integers beyond these come back from a JSON parser as other ones.
MIN_INT, MAX_INT = -(2**53), 2**53
#: How many bits all others have but those two.
MAX_BITS: Final = 53
#: What no float is beyond but the infinities, nor between if it is NaN; JSON has no numbers for those.
MIN_FLOAT, MAX_FLOAT = -sys.float_info.max, sys.float_info.max
_NOT_FINITE: Final = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}

_encode: Final = msgspec.json.Encoder().encode


def encoder(hides: Callable[[str], bool]) -> Callable[[object], bytes]:
    """
    Return a function that encodes any value as JSON: one line of UTF-8, without NUL and without secrets.

    Args:
        hides: Tells of the key of a mapping, or the name of an attribute, whether its value is a secret; it says so of
            every key with a NUL as well, which cannot be recorded as it is.
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
            # A lone surrogate, a stack nearly used up, or a container that another thread changes right now.
            pass
        try:
            return redacted(_encode(plain(value, hides)))
        except RecursionError:
            return b'"[too deep]"'

    return encode


#: Encodes what the user says of a program rather than what runs through it: no name in it stands for a secret.
encode: Final = encoder(lambda key: "\0" in key)


def plain(value: object, hides: Callable[[str], bool], *, shapes: bool = False) -> Any:
    """
    Return a mended copy of a value, made of dict, list, str, int, float, bool and None only.

    Args:
        value: Anything at all.
        hides: As for :func:`encode`.
        shapes: Whether lists of floats are told by their length, as large arrays are: ``{"shape": [1536]}``.
    """
    try:
        return _Mender(hides, shapes).mend(value, (), False)
    except RecursionError:
        return TOO_DEEP


def string(text: str) -> bytes:
    """Return a text as one JSON string, mended where UTF-8 or a server could not hold it."""
    return _encode(_text(text))


def _is_flawless(  # noqa: PLR0912 - flat, because every traced call pays for it
    container: Any, hides: Callable[[str], bool], depth: int
) -> bool:
    """Tell whether the encoder may have this dict, list or tuple as it is, down to the leaves."""
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
            # Looked for here and not in the encoded bytes, where finding its escape costs more than encoding.
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
    """Builds the mended copy of one value."""

    __slots__ = ("hides", "left", "shapes")

    def __init__(self, hides: Callable[[str], bool], shapes: bool) -> None:
        self.hides = hides
        self.shapes = shapes
        self.left = MAX_NODES

    def mend(self, value: Any, path: tuple[int, ...], inside: bool) -> Any:
        """
        Return the copy of one node.

        Args:
            value: The node.
            path: The ids of the objects around it, outermost first.
            inside: Whether one of those is an object of no known kind; more of that sort are only named.
        """
        self.left -= 1
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
        read, base = reader_of(type(value))
        if base is object:
            read, inside = (opaque if inside else read), True
        found = _simpler(read, value, base, self.left + 1)
        if found is None:
            return _text(f"<unencodable {name_of(type(value))}>")
        simpler: Any = found[0]
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
            if self.left <= 0:
                mended.append(TOO_MANY)
                break
            mended.append(self.mend(item, path, inside))
        return mended

    def _mapping(self, pairs: Pairs, path: tuple[int, ...], inside: bool) -> Any:
        mended = {}
        for key, item in pairs:
            if self.left <= 0:
                mended[REST] = TOO_MANY
                break
            name = _text(key) if type(key) is str else self._key(key, path)
            hidden = self.hides(name) and item is not None and type(item) is not bool
            mended[name] = self.mend(REDACTED if hidden else item, path, inside)
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
    except ValueError:  # more of them than sys.get_int_max_str_digits() allows
        return hex(number)


@guarded("reading a value")
def _simpler(read: Reader, value: object, base: type, limit: int) -> tuple[object]:
    """Return what a reader says, in a tuple that tells ``None`` from a failure."""
    for _ in range(3):
        try:
            return (read(value, base, limit),)
        except RecursionError:
            return (TOO_DEEP,)
        except RuntimeError:  # a container that another thread, or a finaliser, has just changed
            continue
    return (CHANGING,)
