"""
Failures of many traces, grouped by what they have in common: where they happen, in which way, and in which words.

A group is a pattern, and no cause: what fails alike in two traces may fail for two reasons.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, Literal, NamedTuple

import msgspec

from whyops_trace._reading.excerpt import headline, milliseconds
from whyops_trace._reading.nodes import Node
from whyops_trace._reading.summary import TraceSummary
from whyops_trace.analysis import findings, rank
from whyops_trace.story import tell

__all__ = ["Pattern", "PatternKind", "gather_patterns"]

PatternKind = Literal["raised", "said", "model", "finding"]

#: Slices of time that a trend has.
SLICES: Final = 8
#: Characters of the words of a failure that count, and names of what is around it.
_WORDS: Final = 120
_DEEPEST: Final = 6
#: Least severity of a finding that is counted, and findings that only repeat failures which are counted by themselves.
_SEVERE: Final = "high"
_REPEATING: Final = frozenset({"REPEATED_FAILURE", "UNPAIRED_SPAN"})
#: Texts that differ from one failure to the next without telling them apart: quotations, ids, addresses, numbers.
_VARIABLE: Final = re.compile(
    r"'[^'\n]{1,80}'|\"[^\"\n]{1,80}\"|`[^`\n]{1,80}`|https?://[^\s,;)]{1,200}"
    r"|\b(?=[\w-]{0,80}\d)[\w-]{1,80}\b",
    re.ASCII,
)


class Pattern(msgspec.Struct, rename="camel"):
    """
    Failures that are alike.

    Attributes:
        kind: ``raised`` for calls that raised, ``said`` for calls of tools whose results say that they failed,
            ``model`` for turns of models that failed, ``finding`` for a finding.
        place: The five steps and tools around it and the tool, function or model, as in ``plan > refund``; of a finding
            its code.
        words: The words of the latest one, on one line; at most 120 characters, safe to print.
        failures: Number of such failures.
        recovered: Number of them that were tried again with success.
        traces: Number of traces that have one.
        first_at: Time of the beginning of the first trace that has one, ISO 8601.
        last_at: Time of the beginning of the last one.
        trend: Number of traces that have one in each eighth of the time of all traces, the earliest first.
        example: Id of the latest trace that has one.
        step: The step to look at there, 0 if there is none.
    """

    kind: PatternKind
    place: str
    words: str
    failures: int = 0
    recovered: int = 0
    traces: int = 0
    first_at: str = ""
    last_at: str = ""
    trend: list[int] = msgspec.field(default_factory=lambda: [0] * SLICES)
    example: str = ""
    step: int = 0


class _Failure(NamedTuple):
    kind: PatternKind
    place: str
    words: str
    step: int
    recovered: bool

    @property
    def signature(self) -> tuple[str, str, str]:
        """The part that it has in common with others that are alike."""
        return self.kind, self.place, _VARIABLE.sub("…", self.words)


def gather_patterns(
    traces: Iterable[TraceSummary],
    events: Callable[[str], Iterable[Mapping[str, Any]]],
    ended: Callable[[str], bool] = lambda _: True,
) -> list[Pattern]:
    """
    Return the patterns of the failures of some traces, those of the most traces first.

    Texts in quotes, addresses, and words with digits in them, such as ids and amounts, are taken for alike. Traces are
    read one after the other.

    Args:
        traces: Summaries, in any order.
        events: Function that returns the records of a trace by its id.
        ended: Function that takes the token of a process and returns True if that process is gone.
    """
    chosen = list(traces)
    times = [milliseconds(trace.started_at) or 0.0 for trace in chosen]
    first, span = min(times, default=0.0), max(times, default=0.0) - min(times, default=0.0)
    patterns: dict[tuple[str, str, str], Pattern] = {}
    for trace, time in zip(chosen, times, strict=True):
        seen: set[tuple[str, str, str]] = set()
        for failure in _failures(events(trace.trace_id), ended):
            pattern = patterns.setdefault(
                failure.signature, Pattern(failure.kind, failure.place, failure.words)
            )
            pattern.failures += 1
            pattern.recovered += failure.recovered
            if failure.signature not in seen:
                seen.add(failure.signature)
                _add_trace(pattern, trace, failure, int(SLICES * (time - first) / (span + 1)))
    return sorted(patterns.values(), key=lambda one: (-one.traces, -one.failures, one.place))


def _add_trace(pattern: Pattern, trace: TraceSummary, failure: _Failure, part: int) -> None:
    pattern.traces += 1
    pattern.trend[part] += 1
    pattern.first_at = min(pattern.first_at or trace.started_at, trace.started_at)
    if trace.started_at >= pattern.last_at:
        pattern.last_at, pattern.example = trace.started_at, trace.trace_id
        pattern.words, pattern.step = failure.words, failure.step


def _failures(events: Iterable[Mapping[str, Any]], ended: Callable[[str], bool]) -> Iterator[_Failure]:
    records = list(events)
    story = tell(records, ended)
    for call in story.failed_calls:
        node = call.node
        kind: PatternKind = "said" if node.said_failed else "model" if node.kind == "llm" else "raised"
        yield _Failure(kind, _place(node), headline(call.error, _WORDS), node.step, call.recovered)
    for found in findings(records, ended, story=story):
        if rank(found.severity) >= rank(_SEVERE) and found.code not in _REPEATING:
            step = found.steps[0] if found.steps else 0
            yield _Failure("finding", found.code, headline(found.title, _WORDS), step, recovered=False)


def _place(node: Node) -> str:
    """Return the names of the steps and tools around a call, the outermost first, and its own."""
    names = [node.name]
    while node.parent is not None and len(names) < _DEEPEST:
        node = node.parent
        if node.kind in ("step", "tool"):
            names.append(node.name)
    return " > ".join(reversed(names))
