"""Searchable words of a record: the texts in it, and the names of its tool and model."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import msgspec

from whyops_trace._shapes import is_number, text_of

# Letters that are written without spaces between words; each is a word here, and a text of them a phrase.
_UNSPACED: Final = re.compile(
    r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)
# Pictures and the like, which nobody searches for.
_BLOB: Final = re.compile(r"\S{300,}")


class _About(msgspec.Struct, gc=False):
    tool: Any = None
    model: Any = None


class _Record(msgspec.Struct, gc=False):
    # Not a StoredRecord: only what is searched is decoded, which takes a fifth of the time of a small record.
    metadata: _About = msgspec.field(default_factory=_About)
    content: Any = None


_decoder: Final = msgspec.json.Decoder(_Record)


class Words(NamedTuple):
    """The texts of a record, by the columns of the index."""

    text: str
    tool: str = ""
    model: str = ""


def words_of_record(line: str) -> Words:
    """Return the words of a record; what cannot be read has none."""
    try:
        record = _decoder.decode(line)
    except (msgspec.DecodeError, RecursionError, UnicodeEncodeError):
        return Words("")
    about = record.metadata
    return Words(_words(record.content), spaced(text_of(about.tool)), spaced(text_of(about.model)))


def words_of_message(message: str) -> Words:
    """Return the words of a message that records share, as JSON."""
    try:
        return Words(_words(msgspec.json.decode(message)))
    except (msgspec.DecodeError, RecursionError, UnicodeEncodeError):
        return Words("")


def _words(content: Any) -> str:
    return spaced(_BLOB.sub(" ", "\n".join(texts(content))))


def texts(thing: Any) -> Iterator[str]:
    """Yield the texts and numbers in plain data, from first to last."""
    stack = [thing]
    while stack:
        value = stack.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict):
            stack.extend(reversed(value.values()))
        elif isinstance(value, list):
            stack.extend(reversed(value))
        elif is_number(value):
            yield str(value)


def spaced(text: str) -> str:
    """Return *text* with spaces around letters that are words of their own."""
    return text if text.isascii() else _UNSPACED.sub(r" \g<0> ", text)
