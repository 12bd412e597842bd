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
- What can't be recorded for its size is not encoded: long texts and lists are cut first, which keep head and tail.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from itertools import islice
from typing import Any, Final

import msgspec

from whyops_trace._values.mending import MAX_BITS, MAX_DEPTH, MAX_FLOAT, MIN_FLOAT, mended_text
from whyops_trace._values.secrets import redacted, remover
from whyops_trace._values.secrets.names import is_harmless, is_secret_pair, member_named_secret
from whyops_trace._values.shortening import shortened

#: Bytes of JSON that an item of a list and a member of an object take at least, with a comma.
_ITEM, _MEMBER = 2, 5
#: Levels of containers, and items of each, by which the size of a value is guessed.
_GLANCE, _FEW = 2, 3

_ARRAYS: Final = (list, tuple)
#: Characters that are kept of an id with a secret in it.
_ID: Final = 100

#: Characters of a text and of a key in which no secret can be found, and the verdict on a dict that has no others.
_WORD, _NAME = 6, 12
_SHORT: Final = None

_encode: Final = msgspec.json.Encoder().encode


def encoder(
    hides: Callable[[str], bool], room: int = sys.maxsize, extra: tuple[str, ...] = ()
) -> Callable[[object], bytes]:
    """
    Return a function that encodes any value as JSON: one line of UTF-8, without NUL and without secrets.

    Args:
        hides: Function from the key of a mapping, or the name of an attribute, to True if its value is a secret. It is
            also True for every key with a NUL, which cannot be recorded as it is.
        room: Number of bytes that a record has for a value. What is surely larger is cut about to that size, or it
            would cost its whole size. Exactly it is cut by :func:`whyops_trace._values.truncation.truncated`.
        extra: Names that *hides* knows beside the usual ones.
    """
    removed = remover(hides, extra)
    most = 2 * room  # what is not larger takes less time if it is encoded whole

    def encode(value: Any) -> bytes:
        try:
            kind = type(value)
            flawless: bool | None
            if kind is dict:
                flawless = _is_flawless_and_small(value, hides, most)
            elif kind is str:
                flawless = len(value) <= most and "\0" not in value
            else:
                flawless = _size(value) <= most and _is_flawless(iter((value,)), hides, 0)
            if flawless is not False:
                json = _encode(value)
                if len(json) <= most:
                    return removed(json) if flawless else json
        except (RuntimeError, TypeError, ValueError):
            # A lone surrogate, a stack nearly used up, or a container that another thread is changing.
            pass
        try:
            return removed(_encode(shortened(value, hides, removed, room)))
        except RecursionError:
            return b'"[too deep]"'

    return encode


def string(text: str) -> bytes:
    """Return a text as one JSON string, mended where UTF-8 or a server cannot hold it."""
    return _encode(mended_text(text))


def identifier(text: str) -> str:
    """
    Return the id or the name of something, as it is unless there is a secret of a known form in it.

    That secret is hidden, and a part of the id's SHA-256 keeps it apart from others.
    """
    json = string(text)
    safe = redacted(json)
    if safe is json:
        return text
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{msgspec.json.decode(safe, type=str)[:_ID]}-{digest[:8]}"


def _is_flawless_and_small(value: dict[Any, Any], hides: Callable[[str], bool], most: int) -> bool | None:
    """
    Return True if the encoder can take this dict as it is, and no part of it is larger than *most* at a glance.

    It is :data:`_SHORT` if besides no text in it can hold a secret.
    """
    # Apart from :func:`_is_flawless`: to count the size at every level costs a call with 10 KB an eighth.
    verdict: bool | None = _SHORT
    for key, item in value.items():
        if type(key) is not str:
            return False
        if len(key) > _NAME:
            verdict = True
        if hides(key) and not is_harmless(key, item, value):
            return False
        kind = type(item)
        if kind is int:
            if item.bit_length() > MAX_BITS:
                return False
        elif kind is str:
            size = len(item)
            if size > most or "\0" in item:
                return False
            if size > _WORD:
                verdict = True
        elif _size(item) > most or not _is_flawless(iter((item,)), hides, 1):
            return False
        else:
            verdict = True
    if ("value" in value or "Value" in value) and member_named_secret(value, hides):
        return False
    return verdict


def _is_flawless(  # noqa: PLR0912 - flat, because every traced call pays for it
    container: Any, hides: Callable[[str], bool], depth: int
) -> bool:
    """
    Return True if the encoder can take a container as it is, down to the leaves.

    Args:
        container: A dict, list or tuple, or an iterator over one value.
        hides: Function that tells the keys of secrets.
        depth: Number of containers around it.
    """
    if type(container) is dict:
        for key in container:
            if type(key) is not str:
                return False
            if hides(key) and not is_harmless(key, container.get(key), container):
                return False
        if ("value" in container or "Value" in container) and member_named_secret(container, hides):
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
            # Two texts of a list are a pair only if they are in a list or tuple themselves.
            if (
                len(item) == 2
                and (kind is tuple or (kind is list and type(container) in _ARRAYS))
                and is_secret_pair(item, hides)
            ):
                return False
        elif item is not None and kind is not bool:
            return False
    return True


def _size(value: Any, depth: int = _GLANCE) -> int:
    """
    Return the size of a value in bytes, guessed from some of its parts; 0 for what no guess is made of.

    Of the items of a list the smallest counts for all, and of a dict the first members count: what seems large is.
    """
    kind = type(value)
    if kind is str or kind is bytes or kind is bytearray:
        return len(value)
    if kind is dict:
        size = _MEMBER * len(value)
        if depth:
            for part in islice(value.values(), _FEW):
                kind = type(
                    part
                )  # most are atoms: to enter a function for each takes longer than all the rest
                if kind is str:
                    size += len(part)
                elif kind is not int:
                    size += _size(part, depth - 1)
        return size
    if kind is not list and kind is not tuple:
        return 0
    count = len(value)
    if not count or not depth:
        return _ITEM * count
    sizes = [
        len(part) if type(part) is str else 0 if type(part) is int else _size(part, depth - 1)
        for part in (value if count <= _FEW else value[:: count // _FEW + 1])
    ]
    return count * (_ITEM + min(sizes))


#: Encoder for the user's description of a program, rather than its data: no name in it marks a secret.
encode: Final = encoder(lambda key: "\0" in key)
