"""The calls and the ending of a trace whose records come a few at a time: only what may still change is kept."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from whyops_trace._reading.ending import SUBMIT_BYTES, SUBMIT_SIGNS, Ending
from whyops_trace._reading.halves import Half, half_of_head
from whyops_trace._reading.pairing import Call, pair
from whyops_trace._reading.record import Head
from whyops_trace._reading.summary import EXCERPT, Tally, TraceSummary

#: Calls that are kept besides open ones, and errors of no call. A record of another SDK that arrives more than so many
#: calls late is counted as a call of its own.
_OTHERS: Final = 64
#: Calls that are open and kept; of more the oldest stay open for good.
_OPEN: Final = 1_000


class _Kept(msgspec.Struct, gc=False):
    """
    What is kept of a trace.

    Attributes:
        ending: What it ended with so far.
        errors: Errors of its calls.
        beside: True if a step failed, or the trace itself: such an error may only pass on one of a call.
        halves: Records whose calls may still change.
    """

    ending: Ending
    errors: int = 0
    beside: bool = False
    halves: list[Half] = []


_SUBMIT_SIGNS: Final = tuple(sign.encode() for sign in SUBMIT_SIGNS)
_decode: Final = msgspec.json.Decoder(_Kept | list[Half]).decode  # a list is all that formats up to 6 kept


class Ongoing:
    """
    The calls of one trace that may still change, and its ending.

    Args:
        summary: Its summary, which :meth:`count` brings up to date.
        last_step: Its largest step.
        kept: Result of the last :meth:`keep`, None if nothing was kept.
    """

    def __init__(self, summary: TraceSummary, last_step: int = 0, kept: str | None = None) -> None:
        self._summary = summary
        before = _decode(kept) if kept else []
        if isinstance(before, list):
            last = (last_step, summary.ended_with)
            ending = Ending(failure=last) if summary.failed else Ending(answer=last)
            before = _Kept(ending, summary.errors, False, before)
        self._kept = before
        self._new: list[Half] = []

    def add(self, record: Head) -> None:
        """Take what the record tells of its call and of the end of its trace."""
        kind, half = record.event_type, half_of_head(record)
        ends = kind == "trace_end" or (half is not None and half.part in ("response", "error"))
        error = record.error if ends else ""
        verdict = record.verdict if ends and not error else None
        content = record.plain() if kind == "llm_response" or _may_submit(record) else None
        self._kept.ending.add(
            kind,
            record.step_id,
            error,
            content=content,
            tool=record.metadata.tool,
            verdict=verdict,
            most=EXCERPT,
        )
        self._kept.beside = self._kept.beside or (bool(error) and kind in ("step_end", "trace_end"))
        if half is not None:
            half.failed = bool(error) and record.metadata.doubles is None
            half.said_failed = verdict is not None and verdict.kind == "failed"
            self._new.append(half)

    def count(self) -> None:
        """Bring the summary up to date."""
        kept, summary = self._kept, self._summary
        if self._new or (kept.halves and summary.ended):
            halves = [*kept.halves, *self._new]
            calls = pair(halves)
            before, after = Tally.of(kept.halves, pair(kept.halves)), Tally.of(halves, calls)
            summary.count(before, after)
            kept.errors += after.errors - before.errors
            kept.halves, self._new = _unsettled(halves, calls, ended=summary.ended), []
        summary.errors = max(kept.errors, int(kept.beside))
        summary.ending, summary.ended_with, _ = kept.ending.told()
        summary.failed = summary.ending == "error"

    def keep(self) -> str | None:
        """Return what has to be kept until more records come, None if the summary tells it all."""
        kept, summary = self._kept, self._summary
        is_answer = summary.ending in ("", "answer")
        if summary.ended and is_answer and not (kept.halves or kept.beside):
            return None
        return msgspec.json.encode(kept).decode()


def _may_submit(record: Head) -> bool:
    """Return True if a request of a tool may hand in the agent's work. Few are decoded to know it."""
    raw = bytes(record.content)
    is_short = record.event_type == "tool_call_request" and len(raw) <= SUBMIT_BYTES
    return is_short and any(sign in raw for sign in _SUBMIT_SIGNS)


def _unsettled(halves: Iterable[Half], calls: Sequence[Call], *, ended: bool) -> list[Half]:
    """Return the halves whose calls may still change. In a trace that has *ended* no other SDK records any more."""
    settled: set[int] = set()
    open_, others = _OPEN, _OTHERS
    for call in reversed(calls):
        first = call.first
        # A later record may still change which message an answer by hand belongs to.
        is_named = first.name or first.kind == "step"
        is_settled = call.means == "exact" and (first.run or ended) and is_named
        if call.is_open and open_:
            open_ -= 1
        elif others and not is_settled:
            others -= 1
        else:
            settled.update(id(half) for half in (call.request, call.response, call.error) if half)
    kept = [half for half in halves if half.part != "thought" and id(half) not in settled]
    alone = {id(half) for half in kept if half.part == "error" or half.fails}
    if len(alone) > _OTHERS:
        alone -= {id(half) for call in calls for half in (call.response, call.error)}
        oldest = set([id(half) for half in kept if id(half) in alone][:-_OTHERS])
        kept = [half for half in kept if id(half) not in oldest]
    return kept
