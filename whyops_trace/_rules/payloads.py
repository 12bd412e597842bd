"""Credentials that are readable in a trace."""

from __future__ import annotations

import contextlib
import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from itertools import takewhile
from typing import Any, Final, TypeAlias

import msgspec

from whyops_trace._reading.excerpt import counted, get
from whyops_trace._reading.record import StoredRecord
from whyops_trace._rules.finding import Finding, Severity, named
from whyops_trace._values.processor import Redactor
from whyops_trace._values.secrets import redacted

#: Path of a value: keys of objects and indexes of lists.
_Path: TypeAlias = tuple[str | int, ...]
#: Kind, path and severity of a credential. A name proves less than a form.
_Found: TypeAlias = tuple[str, _Path, Severity]
#: The same with the path in words.
_Place: TypeAlias = tuple[str, str, Severity]

#: Fewest characters of a value that its name alone makes a secret. Shorter values are flags and types.
SHORTEST: Final = 6

#: Beginnings of known credentials with the kind of each, the longer beginnings first.
_KINDS: Final = (
    ("sk-ant-", "a key of Anthropic's"),
    ("sk-", "a key as OpenAI's and others are"),
    ("whyops_", "a WhyOps key"),
    ("YOPS-", "a WhyOps key"),
    ("gh", "a token of GitHub's"),
    ("glpat-", "a token of GitLab's"),
    ("xox", "a token of Slack's"),
    ("xapp-", "a token of Slack's"),
    ("AKIA", "an access key of AWS"),
    ("ASIA", "an access key of AWS"),
    ("AIza", "a key of Google's"),
    ("hf_", "a token of Hugging Face's"),
    ("npm_", "a token of npm's"),
    ("pypi-", "a token of PyPI's"),
    ("eyJ", "a JSON Web Token"),
    ("-----BEGIN", "a private key"),
)
#: Keys with a text value in compact JSON.
_NAMED: Final = re.compile(rb'"([^"\\]{1,128})":"(?!\[redacted\]")[^"]')
#: Placeholders for a secret.
_PLACEHOLDER: Final = re.compile(
    r"[*x\u2022.]+|[\[<{(].*[\])}>]|\$\{?\w+\}?|env:\w+|string|secret|password", re.IGNORECASE
)


def secrets(events: Sequence[StoredRecord]) -> Iterator[Finding]:
    """
    Yield credentials that were not redacted: one finding for each kind and place, with the steps of all its records.

    A credential is a text whose form :mod:`whyops_trace._values.secrets` knows. In records of other programs it is also
    any text under the name of a secret. This library records none of those unless told to. The value is never shown.
    """
    steps_by_place: dict[_Place, list[int]] = defaultdict(list)
    search = _Search()
    for event in events:
        for place in sorted(search.places(event)):
            steps_by_place[place].append(event.step)
    for (kind, where, severity), steps in steps_by_place.items():
        yield Finding(
            "SECRET_IN_PAYLOAD",
            severity,
            f"What looks like {kind} stands unredacted in {counted(len(steps), 'record')}: {where}",
            steps,
            "Whoever reads the trace, its exports or the database can use it.",
            "Revoke it, delete the trace, and keep it out: under a telling name such as api_key it is redacted, and "
            "WhyOps(redact=[...]) takes more names and patterns.",
            {"kind": kind, "where": where, "records": len(steps)},
        )


class _Search:
    """The search for credentials in records, which share many of their messages: each of those is searched once."""

    def __init__(self) -> None:
        self._hides = Redactor().hides
        #: The shared parts of records, and what was found in each, by their :func:`id` and whether names count.
        self._seen: dict[tuple[int, bool], tuple[object, list[_Found]]] = {}

    def places(self, event: StoredRecord) -> set[_Place]:
        """Return the places of credentials in a record."""
        by_name = not event.process
        metadata, content = event.metadata, event.content
        found: list[tuple[_Path, list[_Found]]] = []
        if isinstance(tools := metadata.get("tools"), list):
            metadata = {**metadata, "tools": None}
            found.append((("metadata", "tools"), self._shared(tools, by_name)))
        if isinstance(messages := get(content, "messages"), list):
            content = {**content, "messages": None}
            for number, message in enumerate(messages):
                found.append((("content", "messages", number), self._shared(message, by_name)))
        found.append(((), self._search({"metadata": metadata, "content": content}, by_name)))
        return {
            (kind, _where((*start, *path)), severity)
            for start, some in found
            for kind, path, severity in some
        }

    def _shared(self, part: object, by_name: bool) -> list[_Found]:
        key = id(part), by_name
        if key not in self._seen:
            self._seen[key] = part, self._search(part, by_name)
        return self._seen[key][1]

    def _search(self, value: object, by_name: bool) -> list[_Found]:
        text = _encoded(value)
        found = [*_by_form(text)]
        if by_name and any(self._hides(key.decode(errors="replace")) for key in set(_NAMED.findall(text))):
            found += _by_name(value, self._hides)
        return found


def _encoded(value: object) -> bytes:
    try:
        return msgspec.json.encode(value)
    except (OverflowError, RecursionError, TypeError, UnicodeEncodeError):
        # JSON can hold huge integers and lone surrogates, which msgspec does not write.
        with contextlib.suppress(RecursionError, TypeError, ValueError):
            return json.dumps(value, separators=(",", ":")).encode()
        return b"null"


def _by_form(text: bytes) -> Iterator[_Found]:
    """Yield the places of texts with the form of a credential: those that redaction changes."""
    after_redaction = redacted(text)
    if after_redaction == text:
        return
    for path, before, after in _texts(json.loads(text), json.loads(after_redaction)):
        if before != after:
            start = sum(
                1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(before, after, strict=False))
            )
            yield _kind(before[:start], before[start:]), path, "critical"


def _kind(before: str, secret: str) -> str:
    """Return the kind of a credential, from its beginning and the text before it."""
    if before.endswith(":") and "://" in before:
        return "a password in a URL"
    matches = (kind for beginning, kind in _KINDS if secret.startswith(beginning))
    return next(matches, "a credential")


def _by_name(payload: object, hides: Callable[[str], bool]) -> Iterator[_Found]:
    """Yield the places of texts under the name of a secret."""
    for path, text, _ in _texts(payload, payload):
        name = path[-1] if path else None
        if (
            isinstance(name, str)
            and hides(name)
            and len(text) >= SHORTEST
            and not _PLACEHOLDER.fullmatch(text)
        ):
            yield f"a secret (by its name {named(name)})", path, "medium"


def _texts(one: Any, other: Any) -> Iterator[tuple[_Path, str, str]]:
    """Yield each text and each key of a value with its path and its counterpart in a value of the same shape."""
    pending: list[tuple[_Path, Any, Any]] = [((), one, other)]
    while pending:
        path, one, other = pending.pop()
        if isinstance(one, str) and isinstance(other, str):
            yield path, one, other
        elif isinstance(one, list) and isinstance(other, list):
            pairs = zip(one, other, strict=False)
            pending += [((*path, number), mine, theirs) for number, (mine, theirs) in enumerate(pairs)]
        elif isinstance(one, dict) and isinstance(other, dict):
            for (key, mine), (other_key, theirs) in zip(one.items(), other.items(), strict=False):
                if key != other_key:
                    yield (*path, "a key"), key, other_key
                pending.append(((*path, other_key), mine, theirs))


def _where(path: _Path) -> str:
    """Return a path in readable form, such as ``content.messages[3].content``."""
    steps = (f"[{step}]" if isinstance(step, int) else f".{named(step)}" for step in path)
    return "".join(steps).removeprefix(".")
