"""
Values too large for a record, cut to fit: long texts first, then long lists, then large objects.

A cut value keeps its head and its tail, with a note of the missing amount in between. Short texts, numbers and the
members of objects of a usual size stay, so readers of the protocol still understand a cut record. What is cut twice,
first about and then exactly, has one note, which is about the whole.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from typing import Any, Final, Literal

import msgspec

#: Characters of a text, items of a list and members of an object that are cut last: more characters than any name of
#: the protocol, and more members than its metadata.
MIN_TEXT: Final = 256
MIN_ITEMS: Final = 16
MIN_MEMBERS: Final = 64
#: Largest number of characters of the note about a cut.
MAX_NOTE: Final = 64
_ALL: Final = 1 << 62
#: Types that are never cut.
_ATOMS: Final = frozenset({bool, float, int, type(None)})

#: Shares of the characters that have to go if all are as long in JSON, to be tried where some are longer.
_SHARES: Final = (1, 15 / 16, *(0.75**power for power in range(1, 24)))
_TEXT_NOTE: Final = re.compile(r" \.\.\. \[cut ([\d,]+) of ([\d,]+) (characters|bytes)\] \.\.\. ")
_LIST_NOTE: Final = re.compile(r"\[cut ([\d,]+) items?\]")

#: Units of the length of a text.
Unit = Literal["characters", "bytes"]

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
    for bounds in _bounds(value, len(text), limit):
        text = _encode(_cut(value, *bounds))
        if len(text) <= limit:
            break
    return text


def level(lengths: Iterable[int], room: int) -> int:
    """Return the largest length to which texts can be cut so that they take *room* characters, -1 if none is."""
    lengths = sorted(lengths)

    def size(length: int) -> int:
        fits = bisect_right(lengths, length + MAX_NOTE)
        return sum(lengths[:fits]) + (len(lengths) - fits) * (length + MAX_NOTE)

    return bisect_right(range(max(lengths, default=0)), room, key=size) - 1


def without_middle(head: str, tail: str, length: int, unit: Unit) -> str:
    """Return head and tail of a text of a length, with the note between them."""
    return f"{head} ... [cut {length - _length(head + tail, unit):,} of {length:,} {unit}] ... {tail}"


def without_items(items: list[Any], count: int) -> list[Any]:
    """Return the first and last items of a list, *count* in all, with the note between them; or a list that fits."""
    surplus = len(items) - count
    if surplus <= 1:
        return items
    middle = items[len(items) // 2]
    before = _LIST_NOTE.fullmatch(middle) if type(middle) is str else None
    surplus += _number(before[1]) - 1 if before else 0
    return [*items[: count - count // 2], note_of_items(surplus), *items[len(items) - count // 2 :]]


def note_of_items(count: int) -> str:
    """Return the item that stands for missing ones."""
    return f"[cut {count:,} item{'s' if count > 1 else ''}]"


def _bounds(value: Any, size: int, limit: int) -> Iterator[tuple[int, int, int]]:
    """
    Yield the numbers of characters, items and members to keep of each text, list and object, the largest first.

    Args:
        value: The value to cut.
        size: Its size as JSON, in bytes.
        limit: Largest size.
    """
    texts, lists, objects = _measured(value)
    long = [length for length in texts if length > MIN_TEXT + MAX_NOTE]
    short = sum(texts) - sum(long)
    # A character is a byte or more, and other values than texts take bytes as well.
    proportional = sum(texts) * limit // size
    rooms = {sum(texts) - (size - limit), *(round(proportional * share) for share in _SHARES)}
    for room in sorted(rooms, reverse=True):
        length_kept = level(long, room - short)
        if length_kept > MIN_TEXT:
            yield length_kept, _ALL, _ALL
    if long:
        yield MIN_TEXT, _ALL, _ALL
    share = limit / size
    yield from ((MIN_TEXT, items, _ALL) for items in _fewer(max(lists), share, MIN_ITEMS))
    yield from ((MIN_TEXT, MIN_ITEMS, members) for members in _fewer(max(objects), share, MIN_MEMBERS))
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


def _fewer(length: int, share: float, least: int) -> Iterator[int]:
    """Yield lengths, from a share of one down to the least."""
    kept = int(length * share)
    while kept > least:
        yield kept
        kept = kept * 3 // 4
    yield least


def _cut(value: Any, texts: int, items: int, members: int) -> Any:
    kind = type(value)
    if kind is str:
        return _cut_text(value, texts)
    if kind is list:
        value = without_items(value, items)
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
    if len(text) - limit <= MAX_NOTE:
        return text
    head, tail = text[: limit - limit // 2], text[len(text) - limit // 2 :]
    return without_middle(head, tail, *_length_before(text, len(head), len(text) - len(tail)))


def _length_before(text: str, start: int, end: int) -> tuple[int, Unit]:
    """Return the length of a text before it was cut, if the part from *start* to *end* has the note about that."""
    note = _TEXT_NOTE.search(text, start, end)
    if note is not None:
        unit: Unit = "characters" if note[3] == "characters" else "bytes"
        if _length(text, unit) - len(note[0]) == _number(note[2]) - _number(note[1]):
            return _number(note[2]), unit
    return len(text), "characters"


def _length(text: str, unit: Unit) -> int:
    return len(text) if unit == "characters" else len(text.encode(errors="replace"))


def _number(digits: str) -> int:
    return int(digits.replace(",", ""))
