"""
What happens to a record before it touches disk or network: secrets are taken out, what is too large is cut.

A secret is recognised by the name it stands under (a mapping's key, an argument's, field's or attribute's name), by a
well-known form of its own, or by a pattern of the user's.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable
from typing import Any, Final

import msgspec

from whyops_trace._values import encoding
from whyops_trace._values.objects import REDACTED
from whyops_trace._values.truncation import truncated
from whyops_trace.exceptions import ConfigurationError

__all__ = ["REDACTED", "Processor", "Redactor"]

#: What a record may need beside metadata and content: all its ids and names at their longest, in any script.
_RESERVE: Final = 8_192

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


class Processor:
    """
    What is done to the metadata and content of each record, and to which traces.

    Guarantees: what is :attr:`encoded <encode>` holds no secret of a form in :mod:`whyops_trace._values.secrets`, and
        what
    is :meth:`fitted <fit>` nothing that one of the user's patterns finds in a text; it makes no record larger than
    *max_event_bytes*.

    Attributes:
        encode: Returns any value as JSON, without what it has under the names of secrets and what has a secret's form.
        hides: ``hides(key)`` tells whether what stands under a key is a secret.
        fitting: Bytes of metadata and content together that need no :meth:`fit`; -1 if all do.
        samples: Whether some traces are left out.

    Args:
        redact: More keys to hide, and patterns whose matches are replaced in every text and key.
        keep: Keys never to hide.
        max_event_bytes: The largest record; 10,000 or more.
        sample_rate: The share of traces that are recorded, 0 to 1.

    Raises:
        ConfigurationError: if *redact* or *keep* hold something else.
    """

    __slots__ = (
        "_most_told",
        "_patterns",
        "_room",
        "_sampled_below",
        "encode",
        "fitting",
        "hides",
        "samples",
    )

    hides: Callable[[str], bool]

    def __init__(
        self,
        redact: Iterable[str | re.Pattern[str]] = (),
        keep: Iterable[str] = (),
        *,
        max_event_bytes: int,
        sample_rate: float,
    ) -> None:
        redact = _listed("redact", redact)
        names = [each for each in redact if isinstance(each, str)]
        self._patterns = [each for each in redact if isinstance(each, re.Pattern)]
        for pattern in self._patterns:
            if not isinstance(pattern.pattern, str):
                raise ConfigurationError(
                    f"redact has {pattern!r:.80}; it must be a pattern of text, not of bytes."
                )
        if len(names) + len(self._patterns) < len(redact):
            raise ConfigurationError(
                "redact has something else than names of keys and what re.compile() returns."
            )
        self.hides = Redactor(names, _listed("redact_keep", keep)).hides
        self.encode = encoding.encoder(self.hides)
        room = max_event_bytes - _RESERVE
        self._most_told = room // 10
        self._room = room - self._most_told
        self.fitting = -1 if self._patterns else self._room
        self._sampled_below = round(sample_rate * 2**64)
        self.samples = sample_rate < 1

    def fit(self, metadata: bytes, content: bytes) -> tuple[bytes, bytes]:
        """Return the metadata members, each led by a comma, and the content of a record as they may be written."""
        if self._patterns:
            metadata, content = self._matched(metadata), _encode(self._without_matches(_decode(content)))
        if len(metadata) + len(content) > self._room:
            metadata = _truncated_members(metadata, max(self._room // 2, self._room - len(content)))
            content = truncated(content, self._room - len(metadata))
        return metadata, content

    def told(self, about: bytes) -> bytes:
        """Return the metadata member that tells of a trace as it may be written, cut to a tenth of a record."""
        if self._patterns:
            about = self._matched(about)
        return _truncated_members(about, self._most_told)

    def keeps(self, trace_id: str) -> bool:
        """
        Tell whether a trace is recorded.

        The SHA-256 of its id, read as a fraction, is below the rate: the same in every process, on every machine and
        in every version of Python, so a trace is recorded whole or not at all.
        """
        digest = hashlib.sha256(trace_id.encode("utf-8", "surrogatepass")).digest()
        return int.from_bytes(digest[:8], "big") < self._sampled_below

    def _matched(self, members: bytes) -> bytes:
        """Return metadata members without what the user's patterns find."""
        return _members(_encode(self._without_matches(_decode(_object(members)))))

    def _without_matches(self, value: Any) -> Any:
        kind = type(value)
        if kind is str:
            for pattern in self._patterns:
                value = pattern.sub(_mark, value)
        elif kind is list:
            return [self._without_matches(item) for item in value]
        elif kind is dict:
            return {self._without_matches(key): self._without_matches(item) for key, item in value.items()}
        return value


_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder().decode


def _listed(name: str, values: Iterable[Any]) -> list[Any]:
    if isinstance(values, (str, re.Pattern)):
        example = f"[{values!r}]" if isinstance(values, str) else "[re.compile(...)]"
        raise ConfigurationError(f"{name} is {values!r}; it must be a list of names such as {example}.")
    return list(values)


def _mark(match: re.Match[str]) -> str:
    return REDACTED if match[0] else ""


def _object(members: bytes) -> bytes:
    return b"{%b}" % members[1:]


def _members(json: bytes) -> bytes:
    return b"," + json[1:-1] if len(json) > 2 else b""


def _truncated_members(members: bytes, limit: int) -> bytes:
    if len(members) <= limit:
        return members
    return _members(truncated(_object(members), limit))


class Redactor:
    """
    Tells by a key whether the value under it must not be recorded.

    Case and the separators ``_``, ``-``, ``.`` and space make no difference. Hidden is what is named after a password,
    passphrase, secret, credential, cookie, card number, card code or social security number, after an API, access,
    private or signing key, after authorization, and every key that ends in "token". Not hidden are ``tokens``,
    ``maxTokens``, ``token_count``, ``tokenizer`` and the like, nor ``author`` and ``secretary``.

    When in doubt a key is hidden: of ``cookies_accepted`` or ``password_changed`` nothing is lost, because ``True``,
    ``False`` and ``None`` are recorded under any key, while a cookie's value under an unforeseen name would be.

    A key with a NUL cannot be recorded as it is, so that it is hidden as well; what it becomes is judged anew.

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
        verdict = "\0" in key or (name not in self.keep and (name in self.extra or _is_secret(key, name)))
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
