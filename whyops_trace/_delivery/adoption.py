"""
Records of dead processes, taken over by a worker beside those of its own process.

An :class:`Adoption` looks for them when the worker starts, and again from time to time: the workers of a pool, for
example, may die while the program goes on. A large backlog is taken over in parts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from whyops_trace._delivery.flag import Flag
from whyops_trace._guard import attempt
from whyops_trace._journal.journal import Journal
from whyops_trace.exporters.base import Exporter

#: Seconds between two looks for segments of dead processes.
ADOPT_EVERY: Final = 10.0
#: Seconds a destination waits for another one, which has to pass what is held before more can be taken over.
PATIENCE: Final = 1.0
#: Seconds of each step of that wait.
PATIENCE_STEP: Final = 0.05


class Told(Protocol):
    """A destination, or the way to one, that is told of processes that are gone."""

    name: str

    def process_ended(self, process: str) -> None:
        """Note that a process is gone."""


class Adoption:
    """
    The schedule by which one worker takes over the segments of dead processes.

    Args:
        journal: Takes the segments over, and holds them.
        exporters: The worker's destinations.
        listeners: Called when segments were taken over, because other workers have them to deliver as well.
    """

    def __init__(
        self, journal: Journal, exporters: Sequence[Exporter], listeners: Sequence[Callable[[], None]]
    ) -> None:
        self._journal = journal
        self._exporters = exporters
        self._listeners = listeners
        #: Time of the next look, as :func:`time.monotonic` tells it.
        self._next_look = 0.0
        #: Time at which a wait for another destination ends; None if there was none since the last look.
        self._patient_until: float | None = None
        #: Names of exporters, and the ended processes that they were told of.
        self._told_ends: set[tuple[str, str]] = set()

    def look(self, stop: Flag) -> bool:
        """
        Take over the segments of processes that died since the last look, if it is time.

        Args:
            stop: Ends a wait for another destination, once set.

        Returns:
            True if there may be more to take over after the next delivery.
        """
        if time.monotonic() < self._next_look and not self._journal.backlog:
            return False
        if self._journal.adopt():
            self._patient_until = None
            for notify in self._listeners:
                notify()
            return True
        if self._journal.backlog and (self._is_behind() or self._is_patient(stop)):
            return True
        self._next_look = time.monotonic() + ADOPT_EVERY
        return False

    def look_soon(self) -> None:
        """Make the next delivery begin with a look."""
        self._next_look = 0.0

    def _is_behind(self) -> bool:
        """Tell whether something that was taken over is left to deliver."""
        adopted = [segment for segment in tuple(self._journal.segments) if segment.adopted]
        return any(not segment.passed(exporter.name) for exporter in self._exporters for segment in adopted)

    def _is_patient(self, stop: Flag) -> bool:
        """Wait a moment for another destination to pass what is held; return False if that took too long already."""
        now = time.monotonic()
        if self._patient_until is None:
            self._patient_until = now + PATIENCE
        if now >= self._patient_until:
            return False
        stop.wait(PATIENCE_STEP)
        return True

    def tell_ends(self, exporter: Told) -> None:
        """
        Tell an exporter once of each process that is gone, when nothing of it is left to deliver.

        The segments of such a process may stay for a long time for another exporter, or be gone before this one looks.
        """
        untold = [
            token for token in tuple(self._journal.ended) if (exporter.name, token) not in self._told_ends
        ]
        if untold:
            segments = tuple(self._journal.segments)
            pending = {segment.header.token for segment in segments if not segment.passed(exporter.name)}
            for token in untold:
                if token not in pending and attempt(exporter.process_ended, token)[1] is None:
                    self._told_ends.add((exporter.name, token))
