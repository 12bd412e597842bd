"""Calls of a trace whose records come a few at a time: only those that may still find a partner are kept."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from whyops_trace._reading.pairing import Call, Half, pair
from whyops_trace._reading.summary import Tally, TraceSummary

#: Halves that are kept because they might still pair better, or at all; more would make every record dearer.
_LOOSE: Final = 64
#: Calls that are open and kept; of more the oldest stay open for good.
_OPEN: Final = 1_000

_decode: Final = msgspec.json.Decoder(list[Half]).decode


class Ongoing:
    """
    The calls of one trace.

    Args:
        kept: Result of the last :meth:`keep`, None if nothing was kept.
    """

    def __init__(self, kept: str | None = None) -> None:
        self._halves = _decode(kept) if kept else []
        self._counted = Tally.of(pair(self._halves)) if self._halves else Tally()
        self._grown = False

    def add(self, half: Half) -> None:
        """Take what of a record tells which others it belongs to."""
        self._halves.append(half)
        self._grown = True

    def count(self, summary: TraceSummary) -> None:
        """Bring the counts of a summary up to date."""
        if self._grown:
            calls = pair(self._halves)
            summary.count(self._counted, Tally.of(calls))
            self._halves = _left(calls)
            self._counted = Tally.of(pair(self._halves)) if self._halves else Tally()
            self._grown = False

    def keep(self) -> str | None:
        """Return what has to be kept until more records come, None if that is nothing."""
        return msgspec.json.encode(self._halves).decode() if self._halves else None


def _left(calls: Iterable[Call]) -> list[Half]:
    """Return the halves that may still pair, or pair better."""
    loose: list[Call] = []
    open_: list[Call] = []
    for call in calls:
        if call.response is None:
            (open_ if call.is_open else loose).append(call)
        elif call.means != "span" and not _is_settled(call):
            loose.append(call)
    kept = [*open_[-_OPEN:], *loose[-_LOOSE:]]
    return [half for call in kept for half in (call.request, call.response, call.error) if half is not None]


def _is_settled(call: Call) -> bool:
    """Tell whether no later record can change a call: ours come in order, and name their requests exactly."""
    return bool(call.first.run) or call.first.kind in ("llm", "step")
