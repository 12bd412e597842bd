"""What a rule says: :class:`Finding`."""

from __future__ import annotations

from typing import Any, Final, Literal

import msgspec

from whyops_trace._reading.excerpt import clean, excerpt

Severity = Literal["low", "medium", "high", "critical"]

#: From the least to the most.
SEVERITIES: Final[tuple[Severity, ...]] = ("low", "medium", "high", "critical")

#: Characters of a name or message that a title has room for.
_NAMED: Final = 80


class Finding(msgspec.Struct, frozen=True):
    """
    Something that is wrong with a trace, or worth knowing; its texts are single lines, safe to print.

    Attributes:
        code: Which rule found it.
        severity: How much it matters.
        title: What it is.
        steps: Where: the numbers of the events, the first of them is the place to show it. Empty for a whole trace.
        why: Why it matters.
        advice: What to do.
        evidence: Names, counts and numbers that the rule went by.
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
    """Return the beginning of a name or message of a trace as one safe line; *otherwise* if it is no text."""
    shown = clean(excerpt(text, _NAMED)) if isinstance(text, str) else ""
    return shown or otherwise
