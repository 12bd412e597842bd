"""The places of secrets in a text."""

from __future__ import annotations

from typing import Final, TypeAlias

from whyops_trace._values.reflection import REDACTED

#: Replacement for a secret.
MARK: Final = REDACTED.encode()

#: Places that are looked at more closely in any text, and bytes for each further one.
_LEAST, _BYTES = 256, 256

#: Start and end of a secret, and its replacement. A place that was looked at and has no secret is empty.
Place: TypeAlias = tuple[int, int, bytes]


class TooManyError(Exception):
    """A text is so full of what may be a secret that to look at each would hold up the call."""


def most_places(size: int) -> int:
    """Return the number of places that are looked at in some bytes of a text at most."""
    return _LEAST + size // _BYTES


def note(places: list[Place], text: bytes, start: int, end: int, mark: bytes = MARK) -> None:
    """
    Add a place.

    Raises:
        TooManyError: if there are too many for a text of that length.
    """
    places.append((start, end, mark))
    if len(places) > most_places(len(text)):
        raise TooManyError


def note_try(places: list[Place], text: bytes, start: int) -> None:
    """
    Add an empty place.

    Raises:
        TooManyError: if there are too many for a text of that length.
    """
    note(places, text, start, start, b"")


def replaced(text: bytes, places: list[Place]) -> bytes:
    """Return a text with the marks in all places."""
    pieces: list[bytes] = []
    done = 0
    for start, end, mark in sorted(places):
        if start >= done:
            pieces += (text[done:start], mark)
        done = max(done, end)
    pieces.append(text[done:])
    return b"".join(pieces)
