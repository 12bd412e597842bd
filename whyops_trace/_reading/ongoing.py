"""Calls of a trace whose records come a few at a time: only those that may still change are kept."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from whyops_trace._reading.halves import Half
from whyops_trace._reading.pairing import Call, pair
from whyops_trace._reading.summary import Tally, TraceSummary

#: Calls that are kept besides open ones, and errors of no call. A record of another SDK that arrives more than so many
#: calls late is counted as a call of its own.
_OTHERS: Final = 64
#: Calls that are open and kept; of more the oldest stay open for good.
_OPEN: Final = 1_000

_decode: Final = msgspec.json.Decoder(list[Half]).decode


class Ongoing:
    """
    The calls of one trace that may still change.

    Args:
        kept: Result of the last :meth:`keep`, None if nothing was kept.
    """

    def __init__(self, kept: str | None = None) -> None:
        self._kept = _decode(kept) if kept else []
        self._new: list[Half] = []

    def add(self, half: Half) -> None:
        """Take what of a record tells which others it belongs to."""
        self._new.append(half)

    def count(self, summary: TraceSummary) -> None:
        """Bring the counts of a summary up to date."""
        if self._new or (self._kept and summary.ended):
            halves = [*self._kept, *self._new]
            calls = pair(halves)
            summary.count(Tally.of(pair(self._kept)), Tally.of(calls))
            self._kept, self._new = _unsettled(halves, calls, ended=summary.ended), []

    def keep(self) -> str | None:
        """Return what has to be kept until more records come, None if that is nothing."""
        return msgspec.json.encode(self._kept).decode() if self._kept else None


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
