"""A text of many pieces, fitted into a size: long pieces are shortened evenly, and all others stay complete."""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from whyops_trace._reading.excerpt import clean

#: Characters of the note about a missing part, by estimate.
_MARK: Final = 40
#: Smallest length, in characters, to which a piece is shortened.
LEAST: Final = 60


@dataclass(slots=True)
class Piece:
    """
    A piece of a text.

    Attributes:
        text: The piece.
        long: True if it may be shortened.
        fenced: True if it is written as a block of code of its own.
        inline: True if it is written within a line, as text without markup.
    """

    text: str
    long: bool = False
    fenced: bool = False
    inline: bool = False

    def text_within(self, limit: int) -> str:
        """Return the text of the piece. A long piece is shortened to about *limit* characters."""
        text = shortened(self.text, limit) if self.long else self.text
        if self.inline:
            return inline(text)
        return fence(text) if self.fenced else text


@dataclass(slots=True)
class Part:
    """
    A part of a text, which is kept or left out as a whole.

    Attributes:
        pieces: Its pieces.
        vital: True if it is among the last to be left out.
    """

    pieces: list[Piece] = field(default_factory=list)
    vital: bool = False

    def text_within(self, limit: int) -> str:
        """Return its text. Long pieces are shortened to about *limit* characters."""
        return "".join(piece.text_within(limit) for piece in self.pieces)


def shortened(text: str, limit: int) -> str:
    """Return the head and the tail of a text, with a note of the missing characters in between."""
    surplus = len(text) - limit
    if surplus <= _MARK:
        return text
    tail = limit // 4
    return f"{text[: limit - tail]} […{surplus:,} characters…] {text[len(text) - tail :]}"


def lines(text: str) -> str:
    """Return a text with clean lines: no character moves a cursor or changes the direction of a line."""
    return "\n".join(map(clean, text.splitlines()))


def inline(text: str) -> str:
    """Return a text for a line of Markdown, in which nothing becomes markup, a link or an image."""
    return clean(text).replace("<", "&lt;").replace("](", "]&#40;")


def fence(text: str) -> str:
    """Return a text as a block of code, in a fence longer than any in it."""
    ticks = "`" * max(3, *(len(run) + 1 for run in re.findall("`{3,}", text)), 3)
    return f"{ticks}\n{text}\n{ticks}\n"


def fitted(head: Part, parts: Sequence[Part], size: int) -> str:
    """
    Return parts as one text of at most *size* characters.

    Long pieces are shortened as far as needed, all to the same length. If that is not enough, parts are left out: those
    in the middle first, and vital ones last.

    Args:
        head: The part before them. It is never left out, and takes half of the size at most.
        parts: The parts.
        size: Largest length of the text, in characters.
    """
    (first,) = _texts_within([head], size // 2)
    room = size - len(first)
    texts = _texts_within(parts, room)
    lengths = list(map(len, texts))
    chosen = set(range(len(parts))) if sum(lengths) <= room else _chosen_parts(parts, lengths, room)
    return first + "".join(_with_gaps(texts, chosen))


def _texts_within(parts: Sequence[Part], size: int) -> list[str]:
    """Return the texts of parts, shortened to *size* characters together, or as far as possible."""
    limit = _limit(parts, size)
    while True:
        texts = [part.text_within(limit) for part in parts]
        if limit <= LEAST or sum(map(len, texts)) <= size:
            return texts
        limit = max(LEAST, limit * 9 // 10)


def _limit(parts: Iterable[Part], size: int) -> int:
    """Return the length to shorten pieces to, so that all of them together take *size* characters."""
    lengths = sorted(len(piece.text) for part in parts for piece in part.pieces if piece.long)
    room = size - sum(len(piece.text) for part in parts for piece in part.pieces if not piece.long)
    for place, length in enumerate(lengths):
        share = room // (len(lengths) - place)
        if length > share:
            return max(LEAST, share)
        room -= length
    return max(LEAST, size)


def _chosen_parts(parts: Sequence[Part], lengths: Sequence[int], room: int) -> set[int]:
    """Return the indexes of the parts to keep, if not all of them fit."""
    middle = len(parts) / 2
    # A part that takes half of the room alone would push out too many others.
    order = [place for place, length in enumerate(lengths) if length <= max(room // 2, LEAST)]
    order.sort(key=lambda place: (not parts[place].vital, -abs(place + 0.5 - middle)))

    def fits(count: int) -> bool:
        chosen = set(order[:count])
        gaps = sum(place not in chosen and (place == 0 or place - 1 in chosen) for place in range(len(parts)))
        return sum(lengths[place] for place in chosen) + gaps * _MARK <= room

    count = bisect.bisect_left(range(len(order) + 1), True, key=lambda count: not fits(count))
    return set(order[: max(0, count - 1)])


def _with_gaps(texts: Sequence[str], chosen: set[int]) -> Iterator[str]:
    """Yield the chosen texts, and a note with the number of parts in each gap."""
    gap = 0
    for place, text in enumerate(texts):
        if place in chosen:
            if gap:
                yield _gap(gap)
            gap = 0
            yield text
        else:
            gap += 1
    if gap:
        yield _gap(gap)


def _gap(count: int) -> str:
    return f"[…{count:,} part{'s' if count > 1 else ''} left out…]\n"
