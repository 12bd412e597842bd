"""The result of a rule: :class:`Finding`."""

from __future__ import annotations

from typing import Any, Final, Literal

import msgspec

from whyops_trace._reading.excerpt import clean, excerpt

Severity = Literal["low", "medium", "high", "critical"]

#: Severities, the least first.
SEVERITIES: Final[tuple[Severity, ...]] = ("low", "medium", "high", "critical")

#: Largest number of characters of a name or message in a title.
_NAME_LENGTH: Final = 80


class Finding(msgspec.Struct, frozen=True):
    """
    Something that is wrong with a trace, or worth knowing; its texts are single lines, safe to print.

    Attributes:
        code: Name of the rule that found it.
        severity: Weight of the problem.
        title: The problem in a sentence.
        steps: Step numbers of its events; the first is the one to show. Empty if it concerns the whole trace.
        why: The reason that it matters.
        advice: The remedy.
        evidence: Names, counts and numbers that the finding is based on.
    """

    code: str
    severity: Severity
    title: str
    steps: list[int]
    why: str
    advice: str
    evidence: dict[str, Any] = {}


def rank(severity: Severity) -> int:
    """Return 0 for the least severity, 3 for the greatest."""
    return SEVERITIES.index(severity)


def named(text: object, otherwise: str = "") -> str:
    """Return the first 80 characters of a name or message as one safe line; *otherwise* if it is no text or empty."""
    line = clean(excerpt(text, _NAME_LENGTH)) if isinstance(text, str) else ""
    return line or otherwise
