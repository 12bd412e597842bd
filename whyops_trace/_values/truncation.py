"""
Values too large for a record, cut down to what fits: long texts first, then long lists, then large objects.

What is cut keeps its head and its tail, and says in between how much is missing. Short texts, numbers and the members
of objects of a usual size stay, so a record that was cut is still one that readers of the protocol understand.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from typing import Any, Final

import msgspec

#: Characters of a text, and items of a list and members of an object, that are kept as long as anything else can go:
#: more than any name of the protocol has, and more members than its metadata.
MIN_TEXT: Final = 256
MIN_ITEMS: Final = 16
MIN_MEMBERS: Final = 64
#: Characters that saying how much was cut takes at most.
_NOTE: Final = 64
_ALL: Final = 1 << 62
#: What is never cut.
_ATOMS: Final = frozenset({bool, float, int, type(None)})

_encode: Final = msgspec.json.Encoder().encode


def truncated(text: bytes, limit: int) -> bytes:
    """
    Return JSON cut down to a size.

    Args:
        text: The JSON of any value.
        limit: Bytes it may have; with fewer than about 100 even saying what was cut may not fit.
    """
    if len(text) <= limit:
        return text
    value = msgspec.json.decode(text)
    for bounds in _bounds(value, len(text), len(text) - limit):
        text = _encode(_cut(value, *bounds))
        if len(text) <= limit:
            break
    return text


def _bounds(value: Any, size: int, excess: int) -> Iterator[tuple[int, int, int]]:
    """
    Yield how many characters, items and members are kept of each text, list and object, from most to least.

    Args:
        value: What is to be cut.
        size: Its bytes as JSON.
        excess: How many of them are too many.
    """
    texts, lists, objects = _measured(value)
    long = [length for length in texts if length > MIN_TEXT + _NOTE]
    # A character is a byte or more: first as if these had no more than their share of them, then to be sure.
    for wanted in (excess * sum(texts) // size, excess):
        kept = _level(long, wanted)
        if kept > MIN_TEXT:
            yield kept, _ALL, _ALL
    if long:
        yield MIN_TEXT, _ALL, _ALL
    yield from ((MIN_TEXT, items, _ALL) for items in _halves(max(lists), MIN_ITEMS))
    yield from ((MIN_TEXT, MIN_ITEMS, members) for members in _halves(max(objects), MIN_MEMBERS))
    yield from ((MIN_TEXT >> step, MIN_ITEMS >> step, MIN_MEMBERS >> step) for step in range(1, 7))
    yield 0, 0, 0


def _measured(value: Any) -> tuple[list[int], list[int], list[int]]:
    """Return the lengths of all texts, keys included, of all lists, and of all objects, and a 0 of each."""
    texts, lists, objects = [0], [0], [0]
    left: list[Any] = [[value]]
    while left:
        node = left.pop()
        items = node
        if type(node) is dict:
            objects.append(len(node))
            texts += map(len, node)
            items = node.values()
        else:
            lists.append(len(node))
        for item in items:
            kind = type(item)
            if kind is str:
                texts.append(len(item))
            elif kind is list or kind is dict:
                left.append(item)
    return texts, lists, objects


def _level(lengths: list[int], wanted: int) -> int:
    """Return the largest length that, if no text is longer, saves as many characters as wanted; -1 if none does."""

    def missing(length: int) -> int:
        return wanted - sum(each - length - _NOTE for each in lengths if each > length + _NOTE)

    return bisect_right(range(max(lengths, default=0)), 0, key=missing) - 1


def _halves(length: int, least: int) -> Iterator[int]:
    while length > least:
        length = max(length // 2, least)
        yield length


def _cut(value: Any, texts: int, items: int, members: int) -> Any:
    kind = type(value)
    if kind is str:
        return _cut_text(value, texts)
    if kind is list:
        missing = len(value) - items
        if missing > 1:
            head, tail = value[: items - items // 2], value[len(value) - items // 2 :]
            value = [*head, f"[cut {missing:,} items]", *tail]
        return [item if type(item) in _ATOMS else _cut(item, texts, items, members) for item in value]
    if kind is dict:
        pairs = list(value.items())
        missing = len(pairs) - members
        if missing > 1:
            head, tail = pairs[: members - members // 2], pairs[len(pairs) - members // 2 :]
            pairs = [*head, ("...", f"[cut {missing:,} members]"), *tail]
        return {_cut_text(key, texts): _cut(item, texts, items, members) for key, item in pairs}
    return value


def _cut_text(text: str, kept: int) -> str:
    missing = len(text) - kept
    if missing <= _NOTE:
        return text
    head, tail = text[: kept - kept // 2], text[len(text) - kept // 2 :]
    return f"{head} ... [cut {missing:,} of {len(text):,} characters] ... {tail}"
