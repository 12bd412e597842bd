"""
References from records to blobs, and what they stand for.

They are kept as a text such as ``0:17 2,18-21,25``: the hole, a sign, and the ranges of the numbers of its blobs. The
sign is a colon before the blob of a value, a comma before those of a list, and a semicolon before those of a list with
a space after each of its commas. ``4:17@31+640`` is a text of 640 characters in a blob, from the 31st on.
"""

from __future__ import annotations

import json
import sqlite3
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from whyops_trace.store.packing import HOLES, decompressed, without_holes

#: The member that each hole stands for, as a path in the record.
PATHS: Final = (
    ("metadata", "tools"),
    ("metadata", "systemPrompt"),
    ("content", "messages"),
    ("content",),
    ("content", "output"),
)
#: The sign before the ranges, by the separator between the items.
_SIGNS: Final = {"": ":", ",": ",", ", ": ";"}
_SEPARATORS: Final = {sign: separator for separator, sign in _SIGNS.items()}


class Part(NamedTuple):
    """
    The content of one hole.

    Attributes:
        hole: Its number in :data:`PATHS`.
        separator: The text between the items of a list, "" for what is no list.
        numbers: The numbers of the blobs.
        part: The first character and the number of characters, if it is a part of the only blob.
    """

    hole: int
    separator: str
    numbers: Sequence[int]
    part: tuple[int, int] | None = None


def written(parts: Iterable[Part]) -> str | None:
    """Return references as they are stored, None if there are none."""
    texts = [
        f"{hole}{_SIGNS[separator]}{_ranges(numbers)}" + (f"@{part[0]}+{part[1]}" if part else "")
        for hole, separator, numbers, part in parts
    ]
    return " ".join(texts) or None


def read(references: str | None) -> list[Part]:
    """Return stored references."""
    return [*map(_part, references.split(" "))] if references else []


def _part(text: str) -> Part:
    ranges, _, part = text[2:].partition("@")
    start, _, size = part.partition("+")
    numbers = list(_numbers(ranges))
    return Part(int(text[0]), _SEPARATORS[text[1]], numbers, (int(start), int(size)) if part else None)


class Shelf:
    """
    The blobs of some records, each of which is read and decoded once.

    Args:
        stored: Their data as it is stored, by their numbers.
    """

    def __init__(self, stored: Mapping[int, str | bytes] = MappingProxyType({})) -> None:
        self._stored = stored
        self._texts: dict[int, str] = {}
        self._values: dict[int, Any] = {}

    @classmethod
    def of(cls, connection: sqlite3.Connection, references: Iterable[str]) -> Shelf:
        """Return what records with these references need."""
        numbers = {each for text in references for part in read(text) for each in part.numbers}
        if not numbers:
            return cls()
        rows = connection.execute(
            "SELECT id, data FROM blobs WHERE id IN (SELECT value FROM json_each(?))",
            (json.dumps([*numbers]),),
        )
        return cls(dict(rows.fetchall()))

    def line(self, text: str, references: str | None) -> str:
        """Return a line with its holes filled."""
        for each in read(references):
            items = each.separator.join(map(self._text, each.numbers))
            filled = f"[{items}]" if each.separator else _cut(items, each.part)
            text = text.replace(HOLES[each.hole], filled, 1)
        return text

    def event(self, text: str, references: str | None) -> dict[str, Any]:
        """Return a line decoded, with its holes filled. Records share the values of their blobs."""
        record: dict[str, Any] = _value_of(without_holes(text) if references else text)
        for each in read(references):
            *path, last = PATHS[each.hole]
            place = record
            for name in path:
                place = place[name]
            if each.part is not None:
                place[last] = _value_of(_cut(self._text(each.numbers[0]), each.part))
            else:
                values = [self._value(number) for number in each.numbers]
                place[last] = values if each.separator else values[0]
        return record

    def _text(self, number: int) -> str:
        if number not in self._texts:
            self._texts[number] = decompressed(self._stored[number])
        return self._texts[number]

    def _value(self, number: int) -> Any:
        if number not in self._values:
            self._values[number] = _value_of(decompressed(self._stored[number]))
        return self._values[number]


def _value_of(text: str) -> Any:
    """Return the value of JSON, with a whole number that is too long for Python as its digits."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        raise
    except ValueError:
        return json.loads(text, parse_int=_whole)


def _whole(digits: str) -> int | str:
    return int(digits) if len(digits) <= sys.get_int_max_str_digits() else digits


def _cut(text: str, part: tuple[int, int] | None) -> str:
    """Return a part of a text, all of it if no part is named."""
    return text if part is None else text[part[0] : sum(part)]


def _ranges(numbers: Sequence[int]) -> str:
    """Return numbers as ranges: [5, 6, 7, 9] as ``5-7,9``."""
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges)


def _numbers(ranges: str) -> Iterator[int]:
    for part in ranges.split(","):
        first, _, last = part.partition("-")
        yield from range(int(first), int(last or first) + 1)
