"""Secrets in a column: of CSV, of a table of a database or of Markdown, whose first line has the name of a secret."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Final

from whyops_trace._values.secrets import repeats
from whyops_trace._values.secrets.finds import Place, note
from whyops_trace._values.secrets.plausible import OF_PEOPLE, is_plausible

#: Names that are looked at as those of a column, and bytes of a line.
_MOST, _LONGEST = 32, 1024
_LINE: Final = re.compile(rb"(?:\\++r)?\\++n")
_LINE_BEGINS: Final = re.compile(rb"(?:^|[^\\])\"|[:\[,][ ]?\\++\"(?!,)|\\[nr]")
#: The signs between columns, the bytes between two of them, and if blanks may stand around. A bar of a box is 3 bytes.
_SEPARATORS: Final = (
    (rb"\\++t", rb"[^\"\\]++|\\++(?![\\nrt])[\"\w]?", False),
    (rb"[|]", rb"[^|\"\\]++|\\++(?![\\nr])[\"\w]?", True),
    (rb"(?:\xe2\x94\x82|\\++u2502)", rb"[^\xe2\"\\]++|\\++(?![\\nr]|u2502)[\"\w]?|\xe2(?!\x94\x82)", True),
    (b",", rb"[^,\"\\]++|\\++(?![\\nr])[\"\w]?", False),
    (b";", rb"[^;\"\\]++|\\++(?![\\nr])[\"\w]?", False),
)
#: The title of a column, and a line below the titles.
_TITLE: Final = re.compile(rb"(?:\\++\")?([A-Za-z_][\w.-]{0,39})(?:\\++\")?")
_PADDED: Final = re.compile(rb"[ ]*+(?:[*`]{1,2})?([A-Za-z_](?:[ ]?[\w.-]){0,39})?(?:[*`]{1,2})?[ ]*+")
#: The content of a cell, without quotes and signs of Markdown.
_CELL: Final = re.compile(rb"(?:[ '`*]|\\++\")*+(.*?)(?:[ '`*]|\\++\")*", re.DOTALL)
_RULE: Final = re.compile(
    rb"(?:\\++r)?\\++n[|+:= -]*-{2}[|+:= -]*(?=\\)|(?:\\++r)?\\++n(?:\xe2[\x94-\x95][\x80-\xbf])+(?=\\)"
)


def find_in_columns(
    text: bytes, hides: Callable[[str], bool], places: list[Place], ends: Iterable[int]
) -> None:
    """
    Note where such secrets are in encoded JSON.

    Args:
        text: The JSON.
        hides: Function from a name to True if the value under it is a secret.
        places: Where the places are noted.
        ends: Where the names of secrets end that may be those of columns. A few are looked at.
    """
    done = -1
    for end in islice(sorted(ends), _MOST):
        start = _start_of_line(text, end)
        if start <= done:
            continue  # a line of the table before, or the same
        done = start
        for name, row, rows in _columns(text, start, end, hides):
            at = rows
            while found := row.match(text, at):
                _note(text, name, found, places)
                at = found.end()
            done = max(done, at + 1)


def _start_of_line(text: bytes, at: int) -> int:
    first = max(0, at - _LONGEST)
    start = first
    for begin in _LINE_BEGINS.finditer(text, first, at):
        start = begin.end()
    return start


def _columns(
    text: bytes, start: int, end: int, hides: Callable[[str], bool]
) -> Iterator[tuple[bytes, re.Pattern[bytes], int]]:
    """Yield the columns of secrets: their names, the expression of a row, and where the rows begin."""
    ends = _LINE.search(text, end, end + _LONGEST)
    if ends is None:
        return
    line = text[start : ends.start()]
    for separator, between, is_padded in _SEPARATORS:
        parts = re.split(separator, line)
        if len(parts) > 1:
            titles = [(_PADDED if is_padded else _TITLE).fullmatch(part) for part in parts]
            if None in titles:
                return
            rule = _RULE.match(text, ends.start())
            at = rule.end() if rule else ends.start()
            for number, title in enumerate(titles):
                name = (title and title[1]) or b""
                if name and hides(name.decode("ascii", "replace")):
                    cells = [b"(?:%b)*+" % between] * len(titles)
                    cells[number] = b"(%b)" % cells[number]
                    row = _LINE.pattern + separator.join(cells) + rb"(?=\\++[nr]|\\*+\")"
                    yield name, re.compile(row), at
            return


def _note(text: bytes, name: bytes, row: re.Match[bytes], places: list[Place]) -> None:
    """Note what is in the cell of a row, without the quotes around it."""
    cell = _CELL.fullmatch(row[1])
    if cell and is_plausible(name, cell[1], is_quoted=OF_PEOPLE.search(name) is not None):
        start = row.start(1) + cell.start(1)
        note(places, text, start, start + len(cell[1]))
        repeats.note_found(name, cell[1])
