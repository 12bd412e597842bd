"""Fits a text of many pieces into a size: the long pieces are shortened evenly, and all others stay whole."""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from whyops_trace._reading.excerpt import clean

#: Characters that the words take which say how much is missing.
_MARK: Final = 40
#: No piece is shortened to less.
LEAST: Final = 60


@dataclass(slots=True)
class Piece:
    """
    A piece of a text.

    Attributes:
        text: The piece.
        long: Whether it may be shortened.
        fenced: Whether it stands in a block of code of its own.
        inline: Whether it stands on a line, and is no Markdown.
    """

    text: str
    long: bool = False
    fenced: bool = False
    inline: bool = False

    def shown(self, limit: int) -> str:
        """Return the piece, if it may be shortened with at most about *limit* characters."""
        text = shortened(self.text, limit) if self.long else self.text
        if self.inline:
            return inline(text)
        return fence(text) if self.fenced else text


@dataclass(slots=True)
class Part:
    """
    A part of a text that is there or left out as a whole.

    Attributes:
        pieces: What it consists of.
        vital: Whether it is among the last to be left out.
    """

    pieces: list[Piece] = field(default_factory=list)
    vital: bool = False

    def shown(self, limit: int) -> str:
        """Return its text."""
        return "".join(piece.shown(limit) for piece in self.pieces)


def shortened(text: str, limit: int) -> str:
    """Return the head and the tail of a text, and between them how much is missing."""
    missing = len(text) - limit
    if missing <= _MARK:
        return text
    tail = limit // 4
    return f"{text[: limit - tail]} […{missing:,} characters…] {text[len(text) - tail :]}"


def lines(text: str) -> str:
    """Return a text whose lines are clean: nothing in it moves a cursor or turns a line around."""
    return "\n".join(map(clean, text.splitlines()))


def inline(text: str) -> str:
    """Return a text for a line of Markdown, in which it makes no markup, no links and no images."""
    return clean(text).replace("<", "&lt;").replace("](", "]&#40;")


def fence(text: str) -> str:
    """Return a text as a block of code, in a fence longer than any in it."""
    ticks = "`" * max(3, *(len(run) + 1 for run in re.findall("`{3,}", text)), 3)
    return f"{ticks}\n{text}\n{ticks}\n"


def fitted(head: Part, parts: Sequence[Part], size: int) -> str:
    """
    Return parts as one text of at most *size* characters.

    Long pieces are shortened as much as is needed, all to the same length. If that is not enough parts are left out,
    those in the middle first, and vital ones last.

    Args:
        head: What stands before them, is never left out, and takes half of the size at most.
        parts: The parts.
        size: How long the text may be.
    """
    (first,) = _shown([head], size // 2)
    room = size - len(first)
    texts = _shown(parts, room)
    lengths = list(map(len, texts))
    kept = set(range(len(parts))) if sum(lengths) <= room else _kept(parts, lengths, room)
    return first + "".join(_with_gaps(texts, kept))


def _shown(parts: Sequence[Part], size: int) -> list[str]:
    """Return the texts of parts, shortened until they take *size* characters, or cannot get shorter."""
    limit = _limit(parts, size)
    while True:
        texts = [part.shown(limit) for part in parts]
        if limit <= LEAST or sum(map(len, texts)) <= size:
            return texts
        limit = max(LEAST, limit * 9 // 10)


def _limit(parts: Iterable[Part], size: int) -> int:
    """Return the length to which pieces are to be shortened so that all of them take *size* characters."""
    lengths = sorted(len(piece.text) for part in parts for piece in part.pieces if piece.long)
    room = size - sum(len(piece.text) for part in parts for piece in part.pieces if not piece.long)
    for place, length in enumerate(lengths):
        share = room // (len(lengths) - place)
        if length > share:
            return max(LEAST, share)
        room -= length
    return max(LEAST, size)


def _kept(parts: Sequence[Part], lengths: Sequence[int], room: int) -> set[int]:
    """Return the places of the parts that stay, if all of them do not fit."""
    middle = len(parts) / 2
    # What takes half of the room for itself would push out too much else.
    order = [place for place, length in enumerate(lengths) if length <= max(room // 2, LEAST)]
    order.sort(key=lambda place: (not parts[place].vital, -abs(place + 0.5 - middle)))

    def fits(count: int) -> bool:
        kept = set(order[:count])
        gaps = sum(place not in kept and (place == 0 or place - 1 in kept) for place in range(len(parts)))
        return sum(lengths[place] for place in kept) + gaps * _MARK <= room

    count = bisect.bisect_left(range(len(order) + 1), True, key=lambda count: not fits(count))
    return set(order[: max(0, count - 1)])


def _with_gaps(texts: Sequence[str], kept: set[int]) -> Iterator[str]:
    """Yield the texts that stay, and for each row of others how many they are."""
    missing = 0
    for place, text in enumerate(texts):
        if place in kept:
            if missing:
                yield _gap(missing)
            missing = 0
            yield text
        else:
            missing += 1
    if missing:
        yield _gap(missing)


def _gap(count: int) -> str:
    return f"[…{count:,} part{'s' if count > 1 else ''} left out…]\n"
