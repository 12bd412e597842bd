"""Events of a batch that wait for a turn of the WhyOps proxy."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from whyops_trace.exporters.base import Batch
from whyops_trace.exporters.whyops.numbering import Event
from whyops_trace.exporters.whyops.turns import ProxiedTurns

#: Seconds until the other records of a trace are looked at again, while one of them is stored ahead.
SETTLING_PAUSE: Final = 0.02


class Holds:
    """
    The events of a batch that wait. It is false if none can.

    Args:
        turns: The turns.
        batch: The batch.

    Attributes:
        pause: Seconds until one of them may go, 0 if none waits.
    """

    def __init__(self, turns: ProxiedTurns, batch: Batch) -> None:
        self.pause: float = 0.0
        self._turns = turns
        self._process = batch.process
        self._is_used = bool(turns) and not batch.adopted
        self._looked: set[bytes] = set()

    def __bool__(self) -> bool:
        return self._is_used

    def hold(self, event: Event) -> bool:
        """Hold an event back if it has to wait. Return True if it has."""
        if event.outcome is None and self._waits(event):
            trace = event.head.trace
            if trace not in self._looked:
                self._looked.add(trace)
                settles = self._turns.is_settling(self._process, trace)
                pause = SETTLING_PAUSE if settles else self._turns.look(self._process, trace)
                self.pause = min(pause, self.pause or pause)
            event.held = self._waits(event)
        return event.held

    def date(self, events: Iterable[Event]) -> None:
        """
        Date events no earlier than the events of the proxy that have lower steps on the server.

        Otherwise a record that was made while a model thought, and stored after its answer, would be out of order.
        """
        for event in events if self._is_used else ():
            event.date_from(self._turns.time_before(self._process, event.head.trace, event.step))

    def _waits(self, event: Event) -> bool:
        head, process = event.head, self._process
        return "stepId" not in head.given and (
            self._turns.is_settling(process, head.trace)
            or self._turns.awaits(process, head.trace, head.numbers.step)
        )
