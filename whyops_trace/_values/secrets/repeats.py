"""
Secrets that come up again: a value that was hidden for its name is hidden as a text of the same trace, too.

Values are hidden where no trace is known, so the texts are noted by thread; the next record takes them into its trace.
They are kept in memory only.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import groupby
from typing import Any, Final

from whyops_trace._values.secrets.finds import MARK
from whyops_trace._values.secrets.plausible import is_distinct

#: Numbers of characters of a text that is remembered.
_SHORTEST, _LONGEST = 8, 4096
#: Texts that are remembered of a trace at most, and threads with texts that no record took yet.
MAX_TEXTS, _MAX_THREADS = 64, 256
#: Levels and items of a hidden container in which texts are looked for.
_DEPTH, _ITEMS = 4, 64
#: Bytes of a text without anything to escape for which it is worthwhile to search at first.
_CORE: Final = 4

#: The texts that were hidden by each thread since its last record. Every record asks if it is empty.
NOTED: Final[dict[int, list[str]]] = {}

_AUTHORIZATION: Final = re.compile(r"(?:bearer|basic|token|negotiate|api-?key|key) +(\S+)", re.IGNORECASE)
_PLAIN: Final = re.compile(r"[^\W_]|[ !#$%()*+,.:;=?@\[\]^_`{|}~-]", re.ASCII)
_ESCAPES: Final = {"\b": "b", "\f": "f", "\n": "n", "\r": "r", "\t": "t"}
_STRING: Final = re.compile(rb'"((?:[^"\\]|\\.)*+)"')
_ESCAPE: Final = re.compile(rb'\\(?:u[0-9a-fA-F]{4}|[bfnrtu"/])')
_ESCAPE_LENGTH: Final = 6


def note(name: str, value: Any) -> None:
    """
    Note what was hidden for its name.

    Texts of 8 to 4,096 characters are noted, also those in lists; no placeholders, and no common words unless the name
    is that of a password.

    Args:
        name: The name; empty if the user said that this is a secret, whatever its name.
        value: The value under it, of any type; no code of its class is run.
    """
    # A quote or backslash at an end may belong to the JSON around it, and stays.
    texts = [text.strip('\\"') for text in _texts(value, _DEPTH) if len(text) <= _LONGEST]
    texts = [text for text in texts if len(text) >= _SHORTEST and is_distinct(name, text)]
    if texts:
        if len(NOTED) > _MAX_THREADS:
            NOTED.clear()
        noted = NOTED.setdefault(threading.get_ident(), [])
        noted += texts
        del noted[:-MAX_TEXTS]


def note_found(name: bytes, value: bytes) -> None:
    """Note what was hidden in a text, where it has a name; nothing that is escaped there, as it would be in doubt."""
    if b"\\" not in value and value != MARK:
        note(name.decode("utf-8", "replace"), value.decode("utf-8", "replace"))


def _texts(value: Any, depth: int) -> Iterator[str]:
    """Yield the texts of a value."""
    kind = type(value)
    if kind is bytes and len(value) <= _LONGEST:
        value, kind = value.decode("latin-1"), str
    if kind is str:
        authorization = _AUTHORIZATION.fullmatch(value) if len(value) <= _LONGEST else None
        yield authorization[1] if authorization else value
    elif depth and (kind is list or kind is tuple):
        for item in value[:_ITEMS]:
            yield from _texts(item, depth - 1)


class Repeats:
    """
    The texts that are hidden wherever they are in a trace. It never changes.

    Args:
        texts: The texts, of which the last 64 count.
    """

    __slots__ = ("_searches", "_texts")

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self._texts = tuple(dict.fromkeys(texts))[-MAX_TEXTS:]
        # The longest first: one may be a part of another.
        self._searches = [_search(text) for text in sorted(self._texts, key=len, reverse=True)]

    def and_noted(self) -> Repeats:
        """Return these with the texts that this thread has noted, which are noted no more."""
        noted = NOTED.pop(threading.get_ident(), ())
        return self if {*self._texts}.issuperset(noted) else Repeats((*self._texts, *noted))

    def removed(self, json: bytes) -> bytes:
        """Return JSON, or a part that begins and ends outside of texts, without any of the texts."""
        for core, pattern in self._searches:
            if core in json:
                json = _STRING.sub(partial(_without, pattern), json)
        return json


def _without(pattern: re.Pattern[bytes], string: re.Match[bytes]) -> bytes:
    return b'"%b"' % pattern.sub(_masked, string[1])


def _search(text: str) -> tuple[bytes, re.Pattern[bytes]]:
    """Return a part of a text that is the same in JSON, and the expression of all of it, escaped however often."""
    runs = [(is_plain, "".join(run)) for is_plain, run in groupby(text, _is_plain)]
    core = max((run for is_plain, run in runs if is_plain), key=len, default="")
    pattern = b"".join(re.escape(run.encode()) if is_plain else _escaped(run) for is_plain, run in runs)
    return core.encode() if len(core) >= _CORE else b"", re.compile(pattern)


def _is_plain(letter: str) -> bool:
    return _PLAIN.match(letter) is not None


def _escaped(run: str) -> bytes:
    """Return the expression of characters that may be escaped. Backslashes are one with those of what follows."""
    parts: list[bytes] = []
    backslashes = 0
    for letter in run:
        if letter == "\\":
            backslashes += 1
            continue
        if letter == '"' or letter in _ESCAPES:
            led = rb"\\{%d,}+" % (2 * backslashes + 1)
        else:
            led = rb"(?:\\\\){%d,}+\\?+" % backslashes if backslashes else rb"\\*+"
        shown = _ESCAPES.get(letter, letter).encode("utf-8", "surrogatepass")
        units = letter.encode("utf-16-be", "surrogatepass").hex()
        coded = rb"\\++".join(b"u" + units[at : at + 4].encode() for at in range(0, len(units), 4))
        parts.append(rb"%b(?:%b|(?i:%b))" % (led, re.escape(shown), coded))
        backslashes = 0
    if backslashes:
        parts.append(rb"(?:\\\\){%d,}+" % backslashes)
    return b"".join(parts)


def _masked(match: re.Match[bytes]) -> bytes:
    """Return the mark, after the end of an escape that the match begins with: without it, the rest would be no JSON."""
    start, text = match.start(), match.string
    for at in range(max(0, start - _ESCAPE_LENGTH + 1), start):
        escape = _ESCAPE.match(text, at)
        if escape and escape.end() > start:
            return text[start : escape.end()] + MARK
    return MARK
