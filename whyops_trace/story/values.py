"""
The comparison of values: which of them are evidence, and how one stands in another.

A number is the same in whatever form it is written. A text is the same whatever its case and spaces.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final, Literal

from whyops_trace._reading.excerpt import value

#: The ways in which a value stands somewhere: in the same characters, written otherwise, or in a longer text.
Stand = Literal["exact", "normalised", "part"]

#: Largest numbers of characters and words of a value. A longer one is a text that somebody wrote.
_LONG: Final = 200
_WORDS: Final = 6
#: Fewest characters of a value, and of a word without a digit.
_SHORT: Final = 3
_WORD: Final = 5
#: Largest number of words of a value that nobody but its source would know, and of digits of a number.
_NAMED: Final = 2
_DIGITS: Final = 30
#: Smallest whole number that is evidence.
_LEAST: Final = 100

#: Words and numbers in a text.
TOKEN: Final = re.compile(r"\w+")
_DIGIT: Final = re.compile(r"\d")
_NUMBER: Final = re.compile(r"[^\w.-]{0,3}(-?\d[\d,]*(?:\.\d+)?)\s?[^\w.]{0,3}")
#: Numbers that programs and people choose rather than copy.
_ROUND: Final = re.compile(r"-?(?:[1-9]0*|[1-9][05]0+|(?:19|20)\d\d|9+|128|255|256|512|1024|2048|4096|8192)")
_DATE: Final = re.compile(
    r"\d{4}-\d\d(?:-\d\d)?(?:[T ][\d:.+Z-]*)?|\d{1,2}:\d\d(?::\d\d)?|\d{1,2}[./]\d{1,2}[./]\d{2,4}"
)
#: Words that stand everywhere.
_COMMON: Final = frozenset(
    {"auto", "default", "desc", "english", "false", "json", "latest", "medium", "none", "normal", "null", "other",
     "standard", "string", "test", "text", "true", "unknown", "user", "utf-8"}
)  # fmt: skip


@dataclass(slots=True, eq=False)
class Needle:
    """
    A value that is looked for.

    Attributes:
        value: The value.
        text: Its characters.
        forms: The ways to write it, in small letters.
        tokens: The words and numbers in each of these.
    """

    value: Any
    text: str
    forms: tuple[str, ...]
    tokens: tuple[frozenset[str], ...]

    @property
    def keys(self) -> list[str]:
        """The word or number of each form that tells most, with a digit if there is one."""
        return [max(sorted(words), key=_weight) for words in self.tokens]


def _weight(word: str) -> tuple[bool, int]:
    return bool(_DIGIT.search(word)), len(word)


def needle_of(one: Any) -> Needle | None:
    """Return what looks for a value, None for one that is short or common, and so no evidence."""
    if type(one) is bool or not isinstance(one, (int, float, str)):
        return None
    text = one.strip() if isinstance(one, str) else value(one)
    lowered = text.lower()
    number = _number(text)
    if number is not None:
        if len(text) < _SHORT or not _is_number_evidence(number):
            return None
        forms = _written(number)
    else:
        words = lowered.split()
        has_digit = bool(_DIGIT.search(text))
        if not _SHORT <= len(text) <= _LONG or len(words) > _WORDS or lowered in _COMMON:
            return None
        if not has_digit and len(text) < _WORD:
            return None
        forms = (" ".join(words),)
    tokens = tuple(frozenset(TOKEN.findall(form)) for form in forms)
    return Needle(one, text, forms, tokens) if all(tokens) else None


def _number(text: str) -> Decimal | None:
    """Return a text as a number, whatever marks of thousands and currency it has; None if it is none."""
    match = _NUMBER.fullmatch(text)
    if match is None:
        return None
    digits = match[1].replace(",", "")
    is_code = len(digits) > 1 and digits[0] == "0" and "." not in digits
    return None if is_code or len(digits) > _DIGITS else Decimal(digits)


def _is_number_evidence(number: Decimal) -> bool:
    plain = _plain_number(number)
    if "." in plain:
        return abs(number) >= 1 and len(plain) > _SHORT
    return abs(number) >= _LEAST and not _ROUND.fullmatch(plain)


def _plain_number(number: Decimal) -> str:
    text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _written(number: Decimal) -> tuple[str, ...]:
    """Return the usual ways to write a number."""
    plain = _plain_number(number)
    forms = {plain, f"{number:,}", f"{number:.2f}", f"{number:,.2f}", f"{number:.1f}"}
    return tuple(form for form in sorted(forms) if Decimal(form.replace(",", "")) == number)


def is_telling(one: Any) -> bool:
    """Tell whether a value that is nowhere is worth a word: a model or a program may choose most others."""
    text = one.strip() if isinstance(one, str) else value(one)
    if type(one) is float or (_number(text) is not None and len(text) <= _SHORT):
        return False  # it may be counted
    if _DATE.fullmatch(text) or len(text.split()) > _NAMED:
        return False
    return bool(_DIGIT.search(text)) or "@" in text or "://" in text


def match_of(one: Any, needle: Needle) -> Stand | None:
    """Return how a member has a value, None if it does not."""
    if type(one) is type(needle.value) and one == needle.value:
        return "exact"
    if not isinstance(one, str):
        plain = repr(one) if type(one) in (int, float) else value(one)  # which is the same, and takes longer
        return "normalised" if " ".join(plain.lower().split()) in needle.forms else None
    text = one.strip()
    folded = " ".join(text.lower().split())
    if folded in needle.forms:
        return "normalised"
    return None if match_in(text, needle, folded) is None else "part"


def match_in(text: str, needle: Needle, folded: str) -> Stand | None:
    """
    Return how a text has a value as whole words: "part" in the same characters, None if it does not have it.

    Args:
        text: The text.
        needle: What looks for the value.
        folded: The text in small letters, with one space between words.
    """
    if _stands_in(text, needle.text):
        return "part"
    return "normalised" if any(_stands_in(folded, form) for form in needle.forms) else None


def _stands_in(text: str, part: str) -> bool:
    """Tell whether a text has another one in it as whole words and whole numbers."""
    start = text.find(part)
    while start >= 0:
        end = start + len(part)
        before, after = text[start - 1 : start], text[end : end + 1]
        is_number = part[-1].isdigit() and part[0].isdigit()
        longer = is_number and (
            (before in (".", ",") and text[start - 2 : start - 1].isdigit())
            or (after in (".", ",") and text[end + 1 : end + 2].isdigit())
        )
        if (
            not (before.isalnum() and part[0].isalnum())
            and not (after.isalnum() and part[-1].isalnum())
            and not longer
        ):
            return True
        start = text.find(part, start + 1)
    return False
