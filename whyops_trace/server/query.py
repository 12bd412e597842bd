"""
The language of the search box: words, ``"exact words"``, and what a trace is like.

::

    refund "exceeds express fee" tool:charge_card model:gpt-4o agent:shop user:42 tag:beta
    error:yes failed:no looping:yes running:yes answer:no >30s <5m since:2d until:2026-11-20

Any text is a query. What is not understood is said, and looked for as it stands.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

from whyops_trace._clock import wire_time
from whyops_trace.store import Filter

#: Characters of a query that are read; nobody types more.
_MAX_LENGTH: Final = 1_000
#: Terms that are looked up in the index; each takes its time.
_MAX_TERMS: Final = 20

_PARTS: Final = re.compile(r'(?P<name>[a-z]+):(?P<value>"[^"]*"?|\S+)|"(?P<exact>[^"]*)"?|(?P<word>\S+)')
_DURATION: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,3})?)(ms|s|m|h|d|w)?")
_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0, "w": 604_800.0}
_YES_NO: Final = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}


class Term(NamedTuple):
    """
    Something that a trace has to hold.

    Attributes:
        text: Its words, which follow one another.
        column: Where: ``tool``, ``model``, or "" for anywhere.
        begins: Whether the last word may be the beginning of one.
    """

    text: str
    column: str = ""
    begins: bool = False


class Query(NamedTuple):
    """
    A query, understood.

    Attributes:
        terms: What the index has to be asked for.
        where: What the store has to be asked for.
        problems: What was not understood, in sentences.
    """

    terms: tuple[Term, ...]
    where: Filter
    problems: tuple[str, ...]


def parse(text: str, now: datetime | None = None) -> Query:
    """
    Return what a query means.

    Args:
        text: What was typed.
        now: What ``since:2d`` counts from; the time it is if left out.
    """
    reader = _Reader(now or datetime.now(UTC))
    for part in _PARTS.finditer(text[:_MAX_LENGTH]):
        reader.read(part)
    # Whoever types sees what the word so far finds.
    if reader.terms and reader.terms[-1].begins and text[-1:].isspace():
        reader.terms[-1] = reader.terms[-1]._replace(begins=False)
    return Query(tuple(reader.terms[:_MAX_TERMS]), Filter(**reader.where), tuple(reader.problems))


class _Reader:
    def __init__(self, now: datetime) -> None:
        self._now = now
        self.terms: list[Term] = []
        self.where: dict[str, Any] = {}
        self.problems: list[str] = []

    def read(self, part: re.Match[str]) -> None:
        name, exact = part["name"], part["exact"]
        if exact is not None:
            self._add(Term(exact))
        elif name is not None:
            self._read_named(name, part["value"].strip('"'), part[0])
        elif part["word"][0] in "<>" and len(part["word"]) > 1:
            self._read_duration(part["word"])
        else:
            self._add(Term(part["word"], begins=True))

    def _add(self, term: Term) -> None:
        if term.text and not any(map(str.isalnum, term.text)):
            self.problems.append(f"{term.text} is no word: only letters and digits are searched for.")
        elif term.text:
            if self.terms:  # only the last one may still be going on
                self.terms[-1] = self.terms[-1]._replace(begins=False)
            self.terms.append(term)

    def _read_named(self, name: str, value: str, whole: str) -> None:
        if name in ("tool", "model"):
            self._add(Term(value, name, begins=True))
        elif name in ("agent", "user", "tag"):
            self.where[name] = value
        elif name in _FLAGS:
            self._read_flag(name, value, whole)
        elif name in ("since", "until"):
            self._read_time(name, value)
        else:  # an address, say
            self._add(Term(whole, begins=True))

    def _read_flag(self, name: str, value: str, whole: str) -> None:
        holds = _YES_NO.get(value.lower())
        if holds is None:
            self.problems.append(f"{whole} is not understood: it is {name}:yes or {name}:no.")
        else:
            field, means = _FLAGS[name]
            self.where[field] = means(holds)

    def _read_duration(self, word: str) -> None:
        seconds = _seconds(word[1:].removeprefix("="))
        if seconds is None:
            self.problems.append(f"{word} is not understood: times are written >30s, <500ms, >2m.")
        else:
            self.where["min_seconds" if word[0] == ">" else "max_seconds"] = seconds

    def _read_time(self, name: str, value: str) -> None:
        seconds = _seconds(value) if value[-1:].isalpha() else None
        try:
            time = self._now - timedelta(seconds=seconds) if seconds is not None else _moment(value)
            self.where[name] = wire_time(time)
        except (ValueError, OverflowError):
            self.problems.append(f"{name}:{value} is not understood: it is {name}:2d or {name}:2026-11-20.")


def _moment(value: str) -> datetime:
    """
    Return a date or time; local where it does not say of which zone it is, as the list shows local times.

    Raises:
        ValueError: if it is none.
    """
    return datetime.fromisoformat(value).astimezone()


def _seconds(text: str) -> float | None:
    found = _DURATION.fullmatch(text)
    return float(found[1]) * _SECONDS[found[2] or "s"] if found else None


#: For a name with yes or no, the field of the filter, and what it is for a yes.
_FLAGS: Final[dict[str, tuple[str, Callable[[bool], bool]]]] = {
    "error": ("errors", bool),
    "failed": ("failed", bool),
    "looping": ("looping", bool),
    "running": ("running", bool),
    "stopped": ("stopped", bool),
    "answer": ("unanswered", lambda holds: not holds),
}
