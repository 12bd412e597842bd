"""
What happens to a record before it touches disk or network: secrets are taken out.

A secret is recognised by the name it stands under: a mapping's key, an argument's, field's or attribute's name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Final

from whyops_trace._objects import REDACTED

__all__ = ["REDACTED", "Redactor"]

#: Keys whose verdict is remembered. A program has some hundred; one that makes up keys starts over.
MAX_REMEMBERED: Final = 4096
#: Characters of a key that is remembered. A longer one is no name but data.
MAX_KEY_LENGTH: Final = 128

_SEPARATORS: Final = str.maketrans("", "", "_-. ")
_WORD: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")

#: What is looked for in a key in lower case, without its separators.
_SECRET: Final = re.compile(
    r"passw(or)?d|passphrase|pwd|secret|credential|authori[sz]ation|bearer|cookie"
    r"|(api|access|private|signing)key|cardnumber|creditcard|cvv|cvc"
    # In the plural tokens are a number, unless it is said what they open.
    r"|token\d*$|(access|api|auth|csrf|refresh|session)tokens$"
)
#: What may stand before the word "token" where it is a piece of text, or counted: ``cost_per_token``, ``eosToken``.
_OF_TEXT: Final = frozenset({"bos", "eos", "first", "mask", "pad", "per", "stop", "unk"})
#: Words with a secret in them that is none.
_OFFICE: Final = frozenset({"secretarial", "secretariat", "secretaries", "secretary"})


class Redactor:
    """
    Tells by a key whether the value under it must not be recorded.

    Case and the separators ``_``, ``-``, ``.`` and space make no difference. Hidden is what is named after a password,
    passphrase, secret, credential, cookie, card number, card code or social security number, after an API, access,
    private or signing key, after authorization, and every key that ends in "token". Not hidden are ``tokens``,
    ``maxTokens``, ``token_count``, ``tokenizer`` and the like, nor ``author`` and ``secretary``.

    When in doubt a key is hidden: of ``cookies_accepted`` or ``password_changed`` nothing is lost, because ``True``,
    ``False`` and ``None`` are recorded under any key, while a cookie's value under an unforeseen name would be.

    Attributes:
        hides: ``hides(key)`` is the verdict, remembered for up to 4096 keys.

    Args:
        extra: More keys to hide: these and no others that contain them.
        keep: Keys never to hide, whatever else is said of them.
    """

    __slots__ = ("hides",)

    hides: Callable[[str], bool]

    def __init__(self, extra: Iterable[str] = (), keep: Iterable[str] = ()) -> None:
        # The bound method of a dict is a third of the cost of one written in Python; it is called for every key.
        self.hides = _Verdicts(extra, keep).__getitem__


class _Verdicts(dict[str, bool]):
    """Remembers of each key whether it is hidden, and finds out the first time."""

    __slots__ = ("extra", "keep")

    def __init__(self, extra: Iterable[str], keep: Iterable[str]) -> None:
        super().__init__()
        self.extra = frozenset(map(_squeezed, extra))
        self.keep = frozenset(map(_squeezed, keep))

    def __missing__(self, key: str) -> bool:
        name = _squeezed(key)
        verdict = name not in self.keep and (name in self.extra or _is_secret(key, name))
        if len(key) <= MAX_KEY_LENGTH:
            if len(self) >= MAX_REMEMBERED:
                self.clear()
            self[key] = verdict
        return verdict


def _squeezed(key: str) -> str:
    return key.lower().translate(_SEPARATORS)


def _is_secret(key: str, name: str) -> bool:
    words = [word.lower() for word in _WORD.findall(key)]
    if "ssn" in words:  # a word of its own: "className" has these letters too
        return True
    for word in _OFFICE.intersection(words):
        name = name.replace(word, "")
    if words[-1:] == ["token"] and not _OF_TEXT.isdisjoint(words[-2:]):
        name = name.removesuffix("token")
    return _SECRET.search(name) is not None
