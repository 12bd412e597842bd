"""Events whose fate is known without asking a server: stored ahead of others, refused for good, or not kept."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final, TypeVar

from whyops_trace._guard import warn_once
from whyops_trace._recording.line import LOCAL
from whyops_trace.exporters.base import Outcome
from whyops_trace.exporters.whyops.dead_letters import DeadLetters
from whyops_trace.exporters.whyops.numbering import Event

T = TypeVar("T")

#: Number of remembered traces whose events a server refuses, because it knows them under another agent.
MAX_BOUND_ELSEWHERE: Final = 10_000
#: Number of remembered records that were stored ahead; one that is forgotten is sent again, which changes nothing.
MAX_AHEAD: Final = 10_000
#: Number of remembered traces that a server does not keep.
MAX_SAMPLED_OUT: Final = 100_000


class Fates:
    """
    The known fates of events.

    Args:
        path: The file for events that the server refuses.
        remedy: Returns the way to have the server keep more traces.
    """

    def __init__(self, path: Path, remedy: Callable[[], str]) -> None:
        self._dead_letters = DeadLetters(path)
        self._remedy = remedy
        #: Records that were given up, until their place in the journal is passed.
        self._refused: set[bytes] = set()
        #: Records that were stored before earlier ones, until their place in the journal is passed.
        self._ahead: OrderedDict[bytes, None] = OrderedDict()
        #: Traces whose events are all refused, each with the reason.
        self._bound_elsewhere: OrderedDict[bytes, str] = OrderedDict()
        #: Traces of which the server keeps nothing.
        self._not_kept: OrderedDict[bytes, None] = OrderedDict()

    @property
    def are_known(self) -> bool:
        """True if any event may have a known fate beside the ones that its own line tells of."""
        return bool(self._refused or self._ahead or self._bound_elsewhere or self._not_kept)

    def of(self, line: bytes, trace: bytes) -> Outcome | None:
        """Return the known fate of a record, None if the server has to be asked. Any thread may call this."""
        if line in self._refused or trace in self._bound_elsewhere:
            return Outcome.REJECTED
        if line in self._ahead:
            return Outcome.DELIVERED
        return Outcome.SAMPLED_OUT if trace in self._not_kept else None

    def decide(self, event: Event) -> bool:
        """Give an event its outcome if that is known. Return True if it has one."""
        if event.outcome is not None:
            return True
        if event.line in self._refused:
            event.outcome = Outcome.REJECTED
        elif event.line in self._ahead:
            event.outcome = Outcome.DELIVERED
        elif not event.is_record:
            self.refuse(event, "it is no record of this version")
        elif event.head.type in LOCAL:
            event.outcome = Outcome.WITHHELD
        elif event.head.trace in self._bound_elsewhere:
            self.refuse(event, self._bound_elsewhere[event.head.trace])
        elif event.head.trace in self._not_kept:
            event.outcome = Outcome.SAMPLED_OUT
        return event.outcome is not None

    def note_ahead(self, lines: Iterable[bytes]) -> None:
        """Note that records are stored, though earlier ones are not. Any thread may call this."""
        for line in lines:
            _remember(self._ahead, line, None, MAX_AHEAD)

    def forget(self, lines: Iterable[bytes]) -> None:
        """Forget the records whose place in the journal is passed."""
        if self._refused:
            self._refused.difference_update(lines)
        for line in lines if self._ahead else ():
            self._ahead.pop(line, None)

    def refuse(self, event: Event, why: str) -> None:
        """Give up an event that the server refuses for good. It goes to a file."""
        event.outcome = Outcome.REJECTED
        self._refused.add(event.line)
        self._dead_letters.add(event.line, why)
        warn_once(
            f"whyops: refused: {why}",
            "The server refuses an event for good, %s; it is kept in %s, and others like it will be, without a word.",
            why,
            self._dead_letters.path,
        )

    def refuse_trace(self, event: Event, why: str, others: Iterable[Event]) -> None:
        """Give up the other events of a trace as well, later ones included: the server takes none of them."""
        _remember(self._bound_elsewhere, event.head.trace, why, MAX_BOUND_ELSEWHERE)
        for other in others:
            if other.outcome is None and other.head.trace == event.head.trace:
                self.refuse(other, why)

    def sample_out(self, event: Event, why: str) -> bool:
        """
        Note that the server does not keep an event.

        Returns:
            True if it keeps nothing of the trace: then the other events of it need not be sent.
        """
        event.outcome = Outcome.SAMPLED_OUT
        is_span = why.startswith("Span")
        if not is_span:
            _remember(self._not_kept, event.head.trace, None, MAX_SAMPLED_OUT)
        warn_once(
            f"whyops: sampled out: {is_span}",
            "The server did not keep an event (%s): %s Further ones are counted as sampled_out.",
            why,
            "it takes no further span ids of this agent: raise the agent's max_spans."
            if is_span
            else f"it keeps a part of the traces. {self._remedy()}",
        )
        return not is_span


def _remember(known: OrderedDict[bytes, T], key: bytes, value: T, most: int) -> None:
    known[key] = value
    if len(known) > most:
        known.popitem(last=False)
