"""
The bytes of records: lines as they stand in a segment, and the intact ones among damaged ones.

A record is one line of JSON. In a checked segment eight hexadecimal digits stand before it: the Adler-32 of the line
with its newline, begun with the segment's own number. It is the cheapest sum that finds each byte that is changed.

A page that never reached the disk reads as NUL, which no JSON text holds. Reading goes on behind it.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from typing import Final

import msgspec

from whyops_trace._journal.header import Header

#: The version of the format in which each record has a sum.
CHECKED: Final = 2
#: The bytes of a sum.
SUM: Final = 8

_json = msgspec.json.Decoder(msgspec.Raw).decode


class Form:
    """
    The form of a segment's records.

    Args:
        header: The first page of the segment.
        strict: True to believe no line that is not JSON, since nobody knows what happened to the file.

    Attributes:
        checked: True if each record has a sum.
    """

    __slots__ = ("_seed", "_strict", "checked", "overhead")

    def __init__(self, header: Header, *, strict: bool = False) -> None:
        self.checked: bool = header.version == CHECKED
        self._seed = header.seed
        self._strict = strict
        #: Bytes that a record takes beside its line without the newline.
        self.overhead = 1 + SUM * self.checked

    def summing(self, write: Callable[[bytes], int]) -> Callable[[bytes], int]:
        """Return a way to write a line with its newline, by a way to write bytes."""
        if not self.checked:
            return write
        adler32, seed = zlib.adler32, self._seed
        return lambda line: write(b"%08x%b" % (adler32(line, seed), line))

    def line(self, text: bytes) -> bytes | None:
        """Return the line that stands in a record's bytes without their newline, None if they are damaged."""
        if self.checked:
            line = text[SUM:]
            sum_ = b"%08x" % zlib.adler32(b"\n", zlib.adler32(line, self._seed))
            return line if text.startswith(sum_) else None
        if not (text.startswith(b"{") and text.endswith(b"}")) or b"\0" in text:
            return None
        return text if not self._strict or _is_json(text) else None

    def intact(self, data: bytes) -> tuple[list[bytes], int]:
        """Return the intact lines at the beginning of records, and the number of bytes they take."""
        lines: list[bytes] = []
        size = 0
        for text in _texts(data):
            line = self.line(text)
            if line is None:
                break
            lines.append(line)
            size += len(text) + 1
        return lines, size

    def damaged(self, data: bytes) -> int:
        """Return the number of bytes at the beginning that hold no intact record."""
        offset = 0
        for text in _texts(data):
            behind_hole = text.rfind(b"\0") + 1
            if self.line(text[behind_hole:]) is not None:
                return offset + behind_hole
            offset += len(text) + 1
        return len(data)

    def records(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Yield each intact line with the offset of its record."""
        offset = 0
        for text in _texts(data):
            behind_hole = text.rfind(b"\0") + 1
            line = self.line(text[behind_hole:])
            if line is not None:
                yield offset + behind_hole, line
            offset += len(text) + 1


def _texts(data: bytes) -> Iterator[bytes]:
    """Yield what stands before each newline."""
    # To split a line of a conversation off takes CPython ten times as long: it looks at each byte by itself.
    start = 0
    while (end := data.find(b"\n", start)) >= 0:
        yield data[start:end]
        start = end + 1


def lines_in(data: bytes) -> int:
    """Return the number of records in some bytes, damaged ones as far as something of them is left."""
    return max(data.count(b"\n"), bool(data.strip(b"\0")))


def _is_json(text: bytes) -> bool:
    try:
        text.decode()  # what is skipped by the decoder is not checked to be UTF-8
        _json(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True
