"""
The way of spans from the inbox into the store: each trace is read from all of its spans, and written anew.

A small trace is there before its request is answered. A larger one that grows by a few spans at a time waits until it
is quiet, or for some seconds, since it would be read whole each time.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Any, Final, NamedTuple

from whyops_trace._guard import attempt, report, say
from whyops_trace._otel.events import agent_of, events_of, is_complete
from whyops_trace._otel.records import lines_of
from whyops_trace._otel.scores import Judged, score_events, take_scores
from whyops_trace._otel.trace import read_trace
from whyops_trace._shapes import dict_of
from whyops_trace._values.processor import Processor
from whyops_trace.exceptions import StoreError, TraceNotFoundError
from whyops_trace.server.inbox import Inbox, Waiting
from whyops_trace.settings import Retention
from whyops_trace.store import Store
from whyops_trace.store.faults import DamagedTraceError
from whyops_trace.store.forwards import PATIENCE, Forwards
from whyops_trace.store.statements import slices

#: Largest number of spans of a trace that is always read at once, and of spans in a request of which any is.
_AT_ONCE: Final = 64
_REQUEST: Final = 256
#: Seconds of quiet after which a trace is read, and seconds after which it is read in any case.
_QUIET: Final = 0.5
_LATEST: Final = 5.0
#: Seconds without a span after which nothing more is expected of a trace whose root is not there.
GIVEN_UP: Final = 60.0
#: Seconds between two searches for what is kept in vain.
SWEEP: Final = 60.0
#: Traces, and records, that are written at a time.
_TRACES: Final = 50
_LINES: Final = 2_000
#: The end that the id of a trace has in the store, if a trace of other clients has that id.
_BESIDE: Final = "-otel"


class _Joined(NamedTuple):
    """
    A trace that was read from its spans.

    Attributes:
        trace: The trace as it was found in the inbox.
        name: The id that it has in the store, "" if it is not there.
        lines: Its records.
        replaces: The store has earlier ones.
        is_open: More of it is expected.
    """

    trace: Waiting
    name: str
    lines: list[bytes]
    replaces: bool
    is_open: bool


class Joiner:
    """
    The only one who writes traces of spans into a store.

    Args:
        inbox: The spans.
        store: The store, with a connection of its own.
        processor: Redaction and truncation.
        retention: Limits of the store; None deletes nothing.
        now: Function that returns the seconds since the epoch.
        given_up: Seconds without a span after which nothing more is expected of a trace whose root is not there.
    """

    def __init__(
        self,
        inbox: Inbox,
        store: Store,
        processor: Processor,
        retention: Retention | None = None,
        now: Callable[[], float] = time.time,
        given_up: float = GIVEN_UP,
    ) -> None:
        self._inbox = inbox
        self._store = store
        self._processor = processor
        self._retention = retention
        self._now = now
        self._given_up = given_up
        self._lock = threading.Lock()
        self._swept = now()
        self._forwards = Forwards(store.path.parent)

    def arrived(self, new: dict[str, int]) -> bool:
        """
        Read those traces at once that are small, or to which a request brought most of their spans.

        Args:
            new: The number of new spans of each trace.

        Returns:
            True if some have to wait.

        Raises:
            StoreError: if a file cannot be read or written.
        """
        if not new:
            return False
        if sum(new.values()) > _REQUEST:
            return True
        found = filter(None, map(self._inbox.find, new))
        now = [trace.trace_id for trace in found if trace.spans <= max(_AT_ONCE, 2 * new[trace.trace_id])]
        self.join(now)
        return len(now) < len(new)

    def join_all(self, seconds: float) -> None:
        """Read traces that wait, as many as that many seconds allow."""
        deadline = time.monotonic() + seconds
        with contextlib.suppress(StoreError):  # they are read when the next server starts
            for trace in self._inbox.waiting():
                if time.monotonic() < deadline:
                    self.join([trace.trace_id])

    def join_due(self) -> bool:
        """
        Read the traces that have become quiet, or wait for long.

        Returns:
            True if some still wait.
        """
        try:
            waiting = self._inbox.waiting()
            now = self._now()
            due = [
                trace for trace in waiting if now - trace.arrived >= _QUIET or now - trace.first >= _LATEST
            ]
            self.join(trace.trace_id for trace in due)
            if now - self._swept >= SWEEP:
                self._swept = now
                self.join(trace.trace_id for trace in self._inbox.open_since(now - self._given_up))
                self._inbox.sweep(self._store.known)
                if self._retention is not None:
                    self._store.prune(*self._retention)
                    self._bound_outgoing(*self._retention)
            return len(due) < len(waiting)
        except StoreError as error:
            say(30, "Traces of OpenTelemetry wait, since a file cannot be used: %s", error)
            return True

    def _bound_outgoing(self, max_age: float, max_bytes: int) -> None:
        """Delete what waits in vain to be forwarded, and the receivers that no server forwards to any more."""
        self._forwards.forget(self._now() - max_age)
        numbers = self._inbox.trim_outgoing(PATIENCE * max_age, max_bytes)
        if numbers:
            self._forwards.note_dropped(
                [(each.url, sum(number > each.items for number in numbers)) for each in self._forwards.all()]
            )

    def join(self, trace_ids: Iterable[str]) -> None:
        """
        Read traces from their spans and write them, unless another thread has done so, some at a time.

        Raises:
            StoreError: if a file cannot be read or written.
        """
        for some in slices(list(trace_ids), _TRACES):
            with self._lock:
                began = self._now()
                found = (self._inbox.find(trace_id) for trace_id in some)
                traces = [trace for trace in found if trace is not None and (trace.first or trace.is_open)]
                there = self._store.known([trace.name or trace.trace_id for trace in traces])
                joined = [self._read_safely(trace, there, began) for trace in traces]
                for each in joined:
                    if each.replaces:
                        with contextlib.suppress(TraceNotFoundError):
                            self._store.delete(each.name, scores_of="otel")
                for lines in slices([line for each in joined for line in each.lines], _LINES):
                    self._store.ingest(("", lines))
                self._inbox.note_joined([(each.trace, each.name, each.is_open) for each in joined], began)

    def _read_safely(self, trace: Waiting, there: set[str], now: float) -> _Joined:
        """Read a trace from its spans. One that cannot be read stays as it is in the store."""
        joined, error = attempt(self._read, trace, there, now)
        if isinstance(error, DamagedTraceError):
            say(30, "New spans of a trace are not stored: %s", error)
        elif isinstance(error, StoreError):
            raise error
        elif error is not None:
            report(f"reading the trace {trace.trace_id} from its spans", error)
        return joined or _Joined(trace, trace.name, [], replaces=False, is_open=False)

    def _read(self, trace: Waiting, there: set[str], now: float) -> _Joined:
        """Read a trace from its spans. *there* are the ids of those traces that the store has."""
        # Others may record under the id of a new trace.
        name = trace.name or trace.trace_id + (_BESIDE if trace.trace_id in there else "")
        if trace.name and not trace.is_settled and name not in there:
            # Whoever deleted the trace wants nothing of it back but what comes later.
            self._inbox.forget([trace.trace_id], trace.joined)
        spans, logs, scores = take_scores(*self._inbox.spans(trace.trace_id))
        roots = read_trace(spans, logs)
        ended = now - trace.arrived >= self._given_up or is_complete(roots)
        first = 1 + (self._last_step(name) if trace.is_settled else 0)
        events = events_of(roots, first, ended=ended)
        if scores and (events or name in there):
            known = self._stored(name) if trace.is_settled else []
            judged = Judged(chain(known, ((each.step, each.within, each.metadata) for each in events)))
            events += score_events(scores, judged)
        lines = lines_of(name, agent_of(roots), events, self._processor)
        # Log records may come before all spans. Then nothing of the trace is in the store yet.
        stored_as = name if lines else trace.name
        return _Joined(trace, stored_as, lines, name in there and not trace.is_settled, not ended)

    def _last_step(self, name: str) -> int:
        return max((step for step, _, _ in self._stored(name)), default=0)

    def _stored(self, name: str) -> Iterator[tuple[int, int, dict[str, Any]]]:
        """Yield step, enclosing step and metadata of each event of a trace that the store has."""
        for event in self._store.events(name):
            step, metadata = event.get("stepId"), dict_of(event.get("metadata"))
            within = metadata.get("within")
            if isinstance(step, int):
                yield step, within if isinstance(within, int) else 0, metadata
