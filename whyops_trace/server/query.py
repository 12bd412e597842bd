"""
The language of the search box: words, ``"exact words"``, and conditions on traces.

::

    refund "exceeds express fee" tool:charge_card model:gpt-4o agent:shop user:42 tag:beta score:correct<0.5
    error:yes failed:no looping:yes running:yes answer:no >30s <5m since:2d until:2026-11-20

Any text is a query. A part that is not understood is reported, and a name that is not known is searched for as a word.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

from whyops_trace._clock import wire_time
from whyops_trace.store import Filter, ScoreTest

#: Largest number of characters of a query that are read; nobody types more.
_MAX_LENGTH: Final = 1_000
#: Largest number of terms that are searched for, since each takes time.
_MAX_TERMS: Final = 20

_PARTS: Final = re.compile(r'(?P<name>[a-z]+):(?P<value>"[^"]*"?|\S+)|"(?P<exact>[^"]*)"?|(?P<word>\S+)')
_DURATION: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,3})?)(ms|s|m|h|d|w)?")
_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0, "w": 604_800.0}
_YES_NO: Final = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}


class Term(NamedTuple):
    """
    A term that a trace has to hold.

    Attributes:
        text: Its words, which follow one another.
        column: The column to search: ``tool``, ``model``, or "" for all.
        begins: True if the last word may be the beginning of a longer one.
    """

    text: str
    column: str = ""
    begins: bool = False


class Query(NamedTuple):
    """
    A parsed query.

    Attributes:
        terms: Terms for the index.
        where: Filter for the store.
        problems: The parts that were not understood, in sentences.
    """

    terms: tuple[Term, ...]
    where: Filter
    problems: tuple[str, ...]


def parse(text: str, now: datetime | None = None) -> Query:
    """
    Return a query, parsed.

    Args:
        text: The typed text.
        now: The time that ``since:2d`` counts from; the current time if left out.
    """
    reader = _Reader(now or datetime.now(UTC))
    for part in _PARTS.finditer(text[:_MAX_LENGTH]):
        reader.read(part)
    # While a word is typed, its beginning finds traces already.
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
            if self.terms:  # only the last term may be incomplete
                self.terms[-1] = self.terms[-1]._replace(begins=False)
            self.terms.append(term)

    def _read_named(self, name: str, value: str, whole: str) -> None:
        if name in ("tool", "model"):
            self._add(Term(value, name, begins=True))
        elif name in ("agent", "user", "tag"):
            self.where[name] = value
        elif name == "score":
            self._read_score(value)
        elif name in _FLAGS:
            self._read_flag(name, value, whole)
        elif name in ("since", "until"):
            self._read_time(name, value)
        else:  # for example an address
            self._add(Term(whole, begins=True))

    def _read_flag(self, name: str, value: str, whole: str) -> None:
        holds = _YES_NO.get(value.lower())
        if holds is None:
            self.problems.append(f"{whole} is not understood: it is {name}:yes or {name}:no.")
        else:
            field, means = _FLAGS[name]
            self.where[field] = means(holds)

    def _read_score(self, value: str) -> None:
        try:
            test = ScoreTest.of(value)
            self.where["scores"] = [*self.where.get("scores", ()), test]
        except ValueError as error:
            self.problems.append(str(error))

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
    Return a date or time. Without a time zone it is local, like the times in the list.

    Raises:
        ValueError: if it is not a date or time.
    """
    return datetime.fromisoformat(value).astimezone()


def _seconds(text: str) -> float | None:
    match = _DURATION.fullmatch(text)
    return float(match[1]) * _SECONDS[match[2] or "s"] if match else None


#: For a name with yes or no: the field of the filter, and the function from a yes or no to its value.
_FLAGS: Final[dict[str, tuple[str, Callable[[bool], bool]]]] = {
    "error": ("errors", bool),
    "failed": ("failed", bool),
    "looping": ("looping", bool),
    "running": ("running", bool),
    "stopped": ("stopped", bool),
    "answer": ("unanswered", lambda holds: not holds),
}
