"""
Values too large for a record, cut to fit: long texts first, then long lists, then large objects.

A cut value keeps its head and its tail, with a note of the missing amount in between. Short texts, numbers and the
members of objects of a usual size stay, so readers of the protocol still understand a cut record.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from typing import Any, Final

import msgspec

#: Characters of a text, items of a list and members of an object that are cut last: more characters than any name of
#: the protocol, and more members than its metadata.
MIN_TEXT: Final = 256
MIN_ITEMS: Final = 16
MIN_MEMBERS: Final = 64
#: Largest number of characters of the note about a cut.
_NOTE: Final = 64
_ALL: Final = 1 << 62
#: Types that are never cut.
_ATOMS: Final = frozenset({bool, float, int, type(None)})

_encode: Final = msgspec.json.Encoder().encode


def truncated(text: bytes, limit: int) -> bytes:
    """
    Return JSON cut down to a size.

    Args:
        text: The JSON of any value.
        limit: Largest size in bytes. Below about 100 even the note about the cut may not fit.
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
    Yield the numbers of characters, items and members to keep of each text, list and object, the largest first.

    Args:
        value: The value to cut.
        size: Its size as JSON, in bytes.
        excess: Number of bytes to remove.
    """
    texts, lists, objects = _measured(value)
    long = [length for length in texts if length > MIN_TEXT + _NOTE]
    # A character is a byte or more. The first try assumes that texts have their share of the excess, the second that
    # they have all of it.
    for saving in (excess * sum(texts) // size, excess):
        length_kept = _level(long, saving)
        if length_kept > MIN_TEXT:
            yield length_kept, _ALL, _ALL
    if long:
        yield MIN_TEXT, _ALL, _ALL
    yield from ((MIN_TEXT, items, _ALL) for items in _halves(max(lists), MIN_ITEMS))
    yield from ((MIN_TEXT, MIN_ITEMS, members) for members in _halves(max(objects), MIN_MEMBERS))
    yield from ((MIN_TEXT >> step, MIN_ITEMS >> step, MIN_MEMBERS >> step) for step in range(1, 7))
    yield 0, 0, 0


def _measured(value: Any) -> tuple[list[int], list[int], list[int]]:
    """Return the lengths of all texts including keys, of all lists and of all objects, each list led by a 0."""
    texts, lists, objects = [0], [0], [0]
    pending: list[Any] = [[value]]
    while pending:
        node = pending.pop()
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
                pending.append(item)
    return texts, lists, objects


def _level(lengths: list[int], saving: int) -> int:
    """Return the largest length of a text at which a cut saves *saving* characters, -1 if none does."""

    def shortfall(length: int) -> int:
        return saving - sum(each - length - _NOTE for each in lengths if each > length + _NOTE)

    return bisect_right(range(max(lengths, default=0)), 0, key=shortfall) - 1


def _halves(length: int, least: int) -> Iterator[int]:
    while length > least:
        length = max(length // 2, least)
        yield length


def _cut(value: Any, texts: int, items: int, members: int) -> Any:
    kind = type(value)
    if kind is str:
        return _cut_text(value, texts)
    if kind is list:
        surplus = len(value) - items
        if surplus > 1:
            head, tail = value[: items - items // 2], value[len(value) - items // 2 :]
            value = [*head, f"[cut {surplus:,} items]", *tail]
        return [item if type(item) in _ATOMS else _cut(item, texts, items, members) for item in value]
    if kind is dict:
        pairs = list(value.items())
        surplus = len(pairs) - members
        if surplus > 1:
            head, tail = pairs[: members - members // 2], pairs[len(pairs) - members // 2 :]
            pairs = [*head, ("...", f"[cut {surplus:,} members]"), *tail]
        return {_cut_text(key, texts): _cut(item, texts, items, members) for key, item in pairs}
    return value


def _cut_text(text: str, limit: int) -> str:
    surplus = len(text) - limit
    if surplus <= _NOTE:
        return text
    head, tail = text[: limit - limit // 2], text[len(text) - limit // 2 :]
    return f"{head} ... [cut {surplus:,} of {len(text):,} characters] ... {tail}"
