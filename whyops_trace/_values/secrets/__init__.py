"""
Secrets, removed from encoded JSON: those that have a name in a text, and those that are recognised by their form.

Guarantees: JSON stays JSON, and only texts and keys that hold a secret differ. The time is linear in the size, for
any content. A text so full of what may be secrets that to look at each would hold up the call is replaced as a whole.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from whyops_trace._values.secrets.commands import has_statement
from whyops_trace._values.secrets.finds import MARK, Place, TooManyError, replaced
from whyops_trace._values.secrets.leads import may_be_led
from whyops_trace._values.secrets.texts import COLON_IN_TEXT, TextSearch, has_elements
from whyops_trace._values.secrets.tokens import LONG, MASK, find_tokens

__all__ = ["redacted", "remover"]

#: Numbers of bytes up to which JSON holds no secret, and no token; what else it may hold has one of two signs in it.
_SHORTEST: Final = 9
_SHORT: Final = 16
_EQUALS: Final = ord("=")
_BLANK: Final = ord(" ")


def remover(hides: Callable[[str], bool], extra: tuple[str, ...] = ()) -> Callable[[bytes], bytes]:
    """
    Return a function that removes secrets from JSON, or from a part of it that begins and ends outside of texts.

    Args:
        hides: Function from a name in a text to True if the value under it is a secret.
        extra: Names that it knows beside the usual ones.
    """
    find_named = TextSearch(hides, extra).find

    def removed(text: bytes) -> bytes:
        size = len(text)
        if size <= _SHORTEST or (size <= _SHORT and _EQUALS not in text and _BLANK not in text):
            return text
        # Nearly every value of a call has nothing that the two searches look for.
        is_plain = not (61 in text or 64 in text or 91 in text or 40 in text or 45 in text or 124 in text)
        is_plain = is_plain and text.translate(MASK).rfind(LONG) < 0 and not COLON_IN_TEXT.search(text)
        is_plain = (
            is_plain and not (60 in text and has_elements(text)) and not (37 in text and b"%3D" in text)
        )
        if is_plain and not has_statement(text) and not may_be_led(text):
            return text
        places: list[Place] = []
        try:
            find_tokens(text, places)
            find_named(text, places)
        except TooManyError:
            return _whole(text)
        return replaced(text, places) if places else text

    return removed


def redacted(text: bytes) -> bytes:
    """Return JSON, or a part as for :func:`remover`, without the secrets that are recognised by their form."""
    places: list[Place] = []
    try:
        find_tokens(text, places)
    except TooManyError:
        return _whole(text)
    return replaced(text, places) if places else text


def _whole(text: bytes) -> bytes:
    """Return a value of the same type with nothing of a text but the mark."""
    return {b"{": b'{"...":"%b"}', b"[": b'["%b"]'}.get(text[:1], b'"%b"') % MARK
