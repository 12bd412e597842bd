"""
The processing of a record before it touches disk or network: secrets are removed, and large values are cut.

A secret is recognised by the name above it (a mapping's key, an argument's, field's or attribute's name), by a
well-known form of its own, or by a pattern of the user's.
"""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Callable, Iterable
from typing import Any, Final

import msgspec

from whyops_trace._values import encoding
from whyops_trace._values.before import UsersProcessor
from whyops_trace._values.reflection import REDACTED
from whyops_trace._values.secrets.names import Redactor
from whyops_trace._values.truncation import truncated
from whyops_trace.exceptions import ConfigurationError
from whyops_trace.types import BeforeRecord

__all__ = ["REDACTED", "Processor", "Redactor"]

#: Bytes for a record's other members: all its ids and names at their longest, in any script.
_RESERVE: Final = 8_192


class Processor:
    """
    The redaction, truncation and sampling of records.

    Guarantees: an :attr:`encoded <encode>` value holds no secret of a form in :mod:`whyops_trace._values.secrets`. A
    :meth:`fitted <fit>` value holds no match of the user's patterns in a text, and makes no record larger than
    *max_event_bytes*.

    Attributes:
        encode: Function from any value to JSON, without values under the names of secrets or in the form of secrets.
        hides: ``hides(key)`` is True if the value under a key is a secret.
        fitting: Largest size of metadata and content together, in bytes, that needs no :meth:`fit`; -1 if all do.
        room: Largest size of both together in a record.
        samples: True if some traces are left out.
        asks: True if the user's own processor sees each record.

    Args:
        redact: More keys to hide, and patterns. The matches of patterns are replaced in every text and key.
        keep: Keys never to hide.
        before: The user's own processor of records, None for none.
        max_event_bytes: The largest record; 10,000 or more.
        sample_rate: The share of traces that are recorded, 0 to 1.

    Raises:
        ConfigurationError: if *redact* or *keep* hold something else, or *before* cannot be called.
    """

    __slots__ = (
        "_before",
        "_patterns",
        "_sampled_below",
        "_trace_room",
        "asks",
        "encode",
        "fitting",
        "hides",
        "room",
        "samples",
    )

    hides: Callable[[str], bool]
    encode: Callable[[object], bytes]
    fitting: int
    room: int
    samples: bool
    asks: bool

    def __init__(
        self,
        redact: Iterable[str | re.Pattern[str]] = (),
        keep: Iterable[str] = (),
        *,
        before: BeforeRecord | None = None,
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
        room = max_event_bytes - _RESERVE
        self._trace_room = room // 10
        self.room = room - self._trace_room
        self.asks = before is not None
        self.fitting = -1 if self._patterns or self.asks else self.room
        # A pattern may match anything, so it's given every text whole.
        self.encode = encoding.encoder(self.hides, sys.maxsize if self._patterns else self.room, tuple(names))
        self._before = UsersProcessor(before, self.encode) if before is not None else None
        self._sampled_below = round(sample_rate * 2**64)
        self.samples = sample_rate < 1

    def without_matches(self, json: bytes) -> bytes:
        """Return JSON without the matches of the user's patterns."""
        return _encode(self._without_matches(_decode(json))) if self._patterns else json

    def fit_beside(self, metadata: bytes) -> tuple[bytes, int]:
        """
        Return the metadata members of a record whose content holds no match, ready to be written.

        Returns:
            The members, cut to half a record, and the number of bytes that are left for the content.
        """
        metadata = _truncated_members(self._matched(metadata) if self._patterns else metadata, self.room // 2)
        return metadata, self.room - len(metadata)

    def fit(self, metadata: bytes, content: bytes, kind: bytes = b"") -> tuple[bytes, bytes]:
        """Return the metadata members, each led by a comma, and the content of a record, ready to be written."""
        if self._before is not None:
            metadata, content = self._before.process(kind.decode(), metadata, content)
        if self._patterns:
            metadata, content = self._matched(metadata), self.without_matches(content)
        if len(metadata) + len(content) > self.room:
            metadata = _truncated_members(metadata, max(self.room // 2, self.room - len(content)))
            content = truncated(content, self.room - len(metadata))
        return metadata, content

    def told(self, about: bytes) -> bytes:
        """Return the metadata member that describes a trace, ready to be written, cut to a tenth of a record."""
        if self._before is not None:
            about, _ = self._before.process("trace", about, b"null")
        if self._patterns:
            about = self._matched(about)
        return _truncated_members(about, self._trace_room)

    def keeps(self, trace_id: str) -> bool:
        """
        Return True if a trace is recorded.

        The SHA-256 of its id, read as a fraction, is below the rate: the same in every process, on every machine and
        in every version of Python, so a trace is recorded whole or not at all.
        """
        digest = hashlib.sha256(trace_id.encode("utf-8", "surrogatepass")).digest()
        return int.from_bytes(digest[:8], "big") < self._sampled_below

    def _matched(self, members: bytes) -> bytes:
        """Return metadata members without the matches of the user's patterns."""
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


#: Encoder for what a program tells of a call by itself, whatever its client.
encode_metadata: Final = encoding.encoder(Redactor().hides)
