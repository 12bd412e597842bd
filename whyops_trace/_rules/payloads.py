"""Credentials that stand in a trace for everybody to read."""

from __future__ import annotations

import contextlib
import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import takewhile
from typing import Any, Final, TypeAlias

import msgspec

from whyops_trace._reading.excerpt import counted
from whyops_trace._rules.finding import Finding, Severity, named
from whyops_trace._rules.views import View
from whyops_trace._values.processor import Redactor
from whyops_trace._values.secrets import redacted

#: The keys and numbers that lead to a value.
_Path: TypeAlias = tuple[str | int, ...]
#: What was found, where, and how much it matters: a name proves less than a form.
_Place: TypeAlias = tuple[str, str, Severity]

#: Characters of the shortest value that is taken for a secret because of its name; shorter ones are flags and types.
SHORTEST: Final = 6

#: What credentials of known forms begin with, and what they are; longer beginnings first.
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
#: Keys with a text under them in compact JSON.
_NAMED: Final = re.compile(rb'"([^"\\]{1,128})":"(?!\[redacted\]")[^"]')
#: Values that stand for a secret and are none.
_PLACEHOLDER: Final = re.compile(
    r"[*x\u2022.]+|[\[<{(].*[\])}>]|\$\{?\w+\}?|env:\w+|string|secret|password", re.IGNORECASE
)


def secrets(events: Sequence[View]) -> Iterator[Finding]:
    """
    Yield credentials that were not redacted, each kind at each place once, with the steps of all records it is in.

    A credential is what :mod:`whyops_trace._values.secrets` knows by its form. In records of other programs it is also
    a text under the name of a secret, as this library records none unless it is told to. The value is never shown.
    """
    seen: dict[tuple[str, str, Severity], list[int]] = defaultdict(list)
    hides = Redactor().hides
    for event in events:
        payload = {"metadata": event.metadata, "content": event.content}
        text = _encoded(payload)
        places = set(_by_form(text))
        if not event.process and any(
            hides(key.decode(errors="replace")) for key in set(_NAMED.findall(text))
        ):
            places |= set(_by_name(payload, hides))
        for place in sorted(places):
            seen[place].append(event.step)
    for (kind, where, severity), steps in seen.items():
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


def _encoded(value: object) -> bytes:
    try:
        return msgspec.json.encode(value)
    except (OverflowError, RecursionError, TypeError, UnicodeEncodeError):
        # What JSON can hold and msgspec does not write: huge integers, lone surrogates.
        with contextlib.suppress(RecursionError, TypeError, ValueError):
            return json.dumps(value, separators=(",", ":")).encode()
        return b"null"


def _by_form(text: bytes) -> Iterator[_Place]:
    """Yield what has the form of a credential: where the text differs from what redaction makes of it."""
    shown = redacted(text)
    if shown == text:
        return
    for path, before, after in _texts(json.loads(text), json.loads(shown)):
        if before != after:
            start = sum(
                1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(before, after, strict=False))
            )
            yield _kind(before[:start], before[start:]), _where(path), "critical"


def _kind(before: str, secret: str) -> str:
    """Return what a credential is, by what it begins with and what stands before it."""
    if before.endswith(":") and "://" in before:
        return "a password in a URL"
    known = (kind for beginning, kind in _KINDS if secret.startswith(beginning))
    return next(known, "a credential")


def _by_name(payload: Mapping[str, Any], hides: Callable[[str], bool]) -> Iterator[_Place]:
    """Yield texts that stand under the name of a secret."""
    for path, text, _ in _texts(payload, payload):
        name = path[-1]
        if (
            isinstance(name, str)
            and hides(name)
            and len(text) >= SHORTEST
            and not _PLACEHOLDER.fullmatch(text)
        ):
            yield f"a secret (by its name {named(name)})", _where(path), "medium"


def _texts(one: Any, other: Any) -> Iterator[tuple[_Path, str, str]]:
    """Yield each text, and each key, with its counterpart in a value of the same shape, and the path to it."""
    waiting: list[tuple[_Path, Any, Any]] = [((), one, other)]
    while waiting:
        path, one, other = waiting.pop()
        if isinstance(one, str) and isinstance(other, str):
            yield path, one, other
        elif isinstance(one, list) and isinstance(other, list):
            pairs = zip(one, other, strict=False)
            waiting += [((*path, number), mine, theirs) for number, (mine, theirs) in enumerate(pairs)]
        elif isinstance(one, dict) and isinstance(other, dict):
            for (key, mine), (shown, theirs) in zip(one.items(), other.items(), strict=False):
                if key != shown:
                    yield (*path, "a key"), key, shown
                waiting.append(((*path, shown), mine, theirs))


def _where(path: _Path) -> str:
    """Return a path as one reads it: ``content.messages[3].content``."""
    steps = (f"[{step}]" if isinstance(step, int) else f".{named(step)}" for step in path)
    return "".join(steps).removeprefix(".")
