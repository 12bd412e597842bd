"""
The mended copy of a value that is too large to be recorded whole, at the cost of what is recorded of it.

Texts and lists are cut before they are encoded. Secrets are hidden first: in what is kept, and so far beyond that no
secret that a cut goes through can begin or end outside of it.
"""

from __future__ import annotations

import binascii
import codecs
from collections.abc import Callable
from typing import Any, Final

import msgspec

from whyops_trace._values.mending import TOO_DEEP, Mender, are_numbers, mended_text
from whyops_trace._values.objects import is_text, read_bytes
from whyops_trace._values.reflection import Reader
from whyops_trace._values.truncation import MAX_NOTE, MIN_TEXT, Unit, level, without_middle

#: Characters beyond a cut in which secrets are looked for: where words end, where none does for long, and where a
#: private key may be, which has 12,700 in PEM for RSA with 16,384 bits. A token travels in a header of HTTP, for which
#: servers have 8 KiB.
_WORD_MARGIN, _TOKEN_MARGIN, _KEY_MARGIN = 512, 8_320, 16_384
#: Characters of the word that tells a token of any form, with the space between them: "Bearer ".
_LEAD: Final = 7
#: The words in the first and last lines of a private key.
_KEY: Final = "PRIVATE KEY"
#: Bytes that no character begins with in UTF-8.
_INNER: Final = bytes(range(0x80, 0xC0))
#: Numbers of a list by whose length in JSON the length of the others is guessed.
_SAMPLE: Final = 1_000
#: Items that are kept of a list of numbers that there is no room for.
_LEAST: Final = 16
_UNBOUNDED: Final = 1 << 62

_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(str).decode


def shortened(
    value: object, hides: Callable[[str], bool], removed: Callable[[bytes], bytes], room: int
) -> Any:
    """
    Return a mended copy of a value in which texts and lists are cut until it has about a size.

    Args:
        value: Any value.
        hides: As for :func:`whyops_trace._values.mending.plain`.
        removed: Function that removes the secrets from JSON.
        room: The size, in characters.
    """
    try:
        try:
            return _Shortener(hides, removed, room, room, room).mend(value, (), False)
        except _TooLargeError:
            measure = _Measure(hides)
            measure.mend(value, (), False)
            longest = max(MIN_TEXT, level(measure.lengths, room))
            return _Shortener(hides, removed, room, longest, _UNBOUNDED).mend(value, (), False)
    except RecursionError:
        return TOO_DEEP


class _TooLargeError(Exception):
    """The texts of a value have more characters than there is room for."""


class _Measure(Mender):
    """
    The measure of one value.

    Attributes:
        lengths: Lengths of its texts, in characters.
    """

    __slots__ = ("lengths",)

    def __init__(self, hides: Callable[[str], bool]) -> None:
        super().__init__(hides)
        self.lengths: list[int] = []

    def text(self, text: str) -> str:
        """Note the length of a text."""
        self.lengths.append(len(text))
        return ""

    def reader(self, reader: Reader) -> Reader:
        """Return the reader to be used for objects of the class that one is for."""
        return self._measure_bytes if reader is read_bytes else reader

    def _measure_bytes(self, value: Any, base: Any, limit: int) -> object:
        self.lengths.append(_byte_count(value, base))
        return None


class _Shortener(Mender):
    """
    The mended copy of one value, with texts and lists cut.

    Args:
        hides: Function that tells the keys of secrets.
        removed: Function that removes the secrets from JSON.
        room: Characters that there is room for in all.
        longest: Characters of a text that are kept.
        left: Characters of texts after which there is no room left: :class:`_TooLargeError` is raised then.
    """

    __slots__ = ("_left", "_longest", "_removed", "_room")

    def __init__(
        self,
        hides: Callable[[str], bool],
        removed: Callable[[bytes], bytes],
        room: int,
        longest: int,
        left: int,
    ) -> None:
        super().__init__(hides)
        self._removed = removed
        self._room: float = room  # what the numbers so far leave of it
        self._longest = longest
        self._left = left

    def text(self, text: str) -> str:
        """Return the copy of a text, head and tail of a long one."""
        self._left -= min(len(text), self._longest)
        if self._left < 0:
            raise _TooLargeError
        if len(text) <= self._longest:
            return mended_text(text)
        return self._ends(text, text, self._half, self._half, len(text), "characters")

    def reader(self, reader: Reader) -> Reader:
        """Return the reader to be used for objects of the class that one is for."""
        return self._read_bytes if reader is read_bytes else reader

    def most_numbers(self, numbers: list[Any]) -> int:
        """Return the number of items for which there is room if all are as long as some, and a few at least."""
        if self._room <= 0:
            return _LEAST
        sample = numbers[:: len(numbers) // _SAMPLE]
        if not are_numbers(sample):
            return 0
        size = len(_encode(sample)) / len(sample)
        most = max(_LEAST, int(self._room / size))
        self._room -= size * min(most, len(numbers))
        return most

    @property
    def _half(self) -> int:
        """Characters of a head or a tail."""
        return max(0, self._longest - MAX_NOTE) // 2

    def _read_bytes(self, value: Any, base: Any, limit: int) -> object:
        try:
            size = _byte_count(value, base)
            data = value.cast("B") if base is memoryview else value
        except (TypeError, ValueError):  # a memoryview with gaps, or a released one
            return read_bytes(value, base, limit)
        if size <= self._longest:
            return read_bytes(value, base, limit)
        half = self._half
        reach = half + _KEY_MARGIN
        first, last = (bytes(base.__getitem__(data, part)) for part in (slice(reach), slice(-reach, None)))
        try:
            head, tail = _head_in(first), _tail_in(last)
        except UnicodeDecodeError:
            head = tail = "\0"
        if is_text(head) and is_text(tail):
            kept = len(_head_in(first[:half])), len(_tail_in(last[len(last) - half :]))
            return self._ends(head, tail, *kept, size, "bytes")
        third = (self._longest - MAX_NOTE) // 8 * 3
        rest = size // 3 * 3 - third
        parts = (bytes(base.__getitem__(data, part)) for part in (slice(third), slice(rest, None)))
        head, tail = (binascii.b2a_base64(part, newline=False).decode() for part in parts)
        return {"base64": without_middle(head, tail, (size + 2) // 3 * 4, "characters"), "bytes": size}

    def _ends(self, first: str, last: str, head: int, tail: int, length: int, unit: Unit) -> str:
        """
        Return what is kept of a text.

        Args:
            first: Its beginning, with what may be looked at beyond the cut.
            last: Its end, likewise.
            head: Characters of the beginning that are kept at most.
            tail: Characters of the end that are kept at most.
            length: The length of all of it.
            unit: The unit of that.
        """
        cut = len(last) - tail
        margin = max(
            _margin(first, (0, head), head, head + _WORD_MARGIN, head + _KEY_MARGIN),
            _margin(
                last, (cut, len(last)), max(0, cut - _WORD_MARGIN + _LEAD), cut, max(0, cut - _KEY_MARGIN)
            ),
        )
        first, last = self._hidden(first[: head + margin], last[max(0, cut - margin) :])
        margin = margin if length > min(head, tail) + margin else 0
        start, end = max(0, min(head, len(first) - margin)), max(margin, len(last) - tail)
        return without_middle(first[:start], last[end:], length, unit)

    def _hidden(self, head: str, tail: str) -> tuple[str, str]:
        """Return two mended texts without secrets."""
        head, tail = mended_text(head), mended_text(tail)
        json = b"%b\n%b" % (_encode(head), _encode(tail))  # one search takes less time than two
        safe = self._removed(json)
        if safe is json:
            return head, tail
        first, _, last = safe.partition(b"\n")
        return _decode(first), _decode(last or first)


def _byte_count(value: Any, base: Any) -> int:
    """
    Return the number of bytes of bytes, or of the like.

    Raises:
        ValueError: if it is a memoryview that was released.
    """
    return int(value.nbytes if base is memoryview else base.__len__(value))


def _head_in(data: bytes) -> str:
    """Return the text that bytes begin with; the last character may be incomplete."""
    return codecs.getincrementaldecoder("utf-8")().decode(data)


def _tail_in(data: bytes) -> str:
    """Return the text that bytes end with; the first character may be incomplete."""
    return data.lstrip(_INNER).decode()


def _margin(text: str, kept: tuple[int, int], start: int, end: int, furthest: int) -> int:
    """
    Return the number of characters beyond a cut in which a secret may end that it goes through.

    Args:
        text: The text.
        kept: Beginning and end of the part that is kept.
        start: Beginning of the part next to the cut that is looked at for the end of a word.
        end: Its end.
        furthest: Place up to which, or from which on, the lines around a private key are looked for.
    """
    # A private key of which something is kept has one of its lines there as well, or is all that is.
    is_long = kept[1] - kept[0] > _KEY_MARGIN
    may_have_key = is_long or text.find(_KEY, *kept) >= 0 or text.find(" ", *kept) < 0
    if may_have_key and text.find(_KEY, min(start, furthest), max(end, furthest)) >= 0:
        return _KEY_MARGIN
    return _WORD_MARGIN if text.find(" ", start, end) >= 0 else _TOKEN_MARGIN
