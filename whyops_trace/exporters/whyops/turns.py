"""
Turns of models that the WhyOps proxy reports, and the wait for them of records that come later in the same trace.

A server numbers the events of the proxy when it stores them, some time after the turn. A record of the same trace that
was made after the turn and is stored before it would have the lower number and the later time. So it waits until the
server shows the proxy's events, or for a bounded time.
"""

from __future__ import annotations

import contextlib
import threading
import time
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, TypeAlias

import msgspec

from whyops_trace._clock import iso
from whyops_trace.exporters._http import Http
from whyops_trace.exporters.whyops.listing import Listing, Row

#: Most seconds that records wait for the events of a turn, from its beginning or its end.
HOLD: Final = 5.0
#: The same from the end of a turn that failed: nobody knows of every failure that the proxy reports it.
HOLD_FAILED: Final = 1.0
#: The same from the moment when somebody waits for everything to be delivered.
HOLD_FLUSHED: Final = 1.0
#: Seconds between two looks at the events of a trace: at first, and at most, as each wait is twice the one before.
FIRST_PAUSE: Final = 0.01
LAST_PAUSE: Final = 0.25
#: Latest events that a look asks for: for each turn, and the most that a server gives at once.
EVENTS_OF_TURN: Final = 10
MAX_EVENTS: Final = 200
#: Traces of which turns are remembered, and turns of one trace.
MAX_TRACES: Final = 10_000
MAX_TURNS: Final = 100

#: Remembered reports of a trace; one that is forgotten costs a wait if it is repeated.
MAX_REPORTS: Final = 1_000
#: Milliseconds after the end of a turn after which an event of the proxy is of a later one.
LATE_MS: Final = 50

#: Types of the events with which the proxy reports that a turn begins.
PROMPTS: Final = frozenset({"user_message", "tool_result", "embedding_request"})
#: Types of those with which it reports that one has ended well.
ANSWERS: Final = frozenset({"llm_response", "embedding_response"})
#: The parts of a turn, by the types of the events with which the proxy reports them.
_PARTS: Final = {
    **dict.fromkeys(PROMPTS, "prompt"),
    **dict.fromkeys(ANSWERS, "answer"),
    "llm_thinking": "thought",
    "error": "error",
}


#: An event with which the proxy reports a part of a turn: "prompt", "answer", "thought" or "error", and a hash of the
#: content, None if that is unknown. A server stores equal events of a trace only once.
Report: TypeAlias = tuple[str, int | None]


class ProxiedTurn:
    """
    A turn that the proxy reports.

    Attributes:
        trace: The token of its process, as a forked child has turns of its own, and the trace id as it is in records.
        step: The step of its request here. What is recorded above it waits for the proxy's prompt, and from the end of
            the turn for the rest.
        began: Time of the request, as a server writes it.
        ended: Time from which events of the proxy are of later turns, as a server writes it; "" if that is unknown.
        last: The step of its last record here, 0 while it goes on.
        reports: All reports of it.
        due: The parts that the server stores an event of after the prompt.
        prompted: True if the server shows its prompt, or need not.
        answered: True if the server shows what is due.
        until: Time of :func:`time.monotonic` until which records wait for it at most.
    """

    __slots__ = ("answered", "began", "due", "ended", "last", "prompted", "reports", "step", "trace", "until")

    def __init__(self, trace: tuple[str, bytes], step: int, began_ms: int) -> None:
        self.trace: tuple[str, bytes] = trace
        self.step: int = step
        self.began: str = iso(began_ms * 1_000_000)
        self.ended: str = ""
        self.last: int = 0
        self.reports: list[Report] = []
        self.due: list[str] = []
        self.prompted: bool = False
        self.answered: bool = False
        self.until: float = time.monotonic() + HOLD

    def awaits(self, step: int) -> bool:
        """Return True if a record with that step has to wait for it."""
        if step <= self.step or self.until <= time.monotonic():
            return False
        return not (self.prompted and (self.answered or not self.last))

    def take(self, times: dict[str, list[str]]) -> None:
        """
        Take its events out of those that no other turn has taken.

        Args:
            times: The times of the events of each part, in order.
        """
        taken = [self._take(times[part]) for part in self.due]
        self.prompted = self._take(times["prompt"]) or any(taken) or self.prompted
        self.answered = bool(self.last) and all(taken)

    def _take(self, times: list[str]) -> bool:
        place = bisect_left(times, self.began)
        if place == len(times):
            return False
        del times[place]
        return True


class _Conversation:
    """The turns of one trace in this process that are not known to be stored."""

    __slots__ = ("after", "is_seen", "lock", "next_look", "pause", "reports", "since", "times", "turns")

    def __init__(self) -> None:
        #: Time of :func:`time.monotonic` of the first turn, and True once the server has shown any event of the trace.
        self.since = time.monotonic()
        self.is_seen = False
        #: Changed in place only, as several threads do it.
        self.turns: list[ProxiedTurn] = []
        #: The reports of all turns of which the content is known.
        self.reports: set[Report] = set()
        #: The steps and times of the events of the proxy that the server showed last.
        self.times: list[tuple[int, str]] = []
        #: The highest step of the events of earlier turns.
        self.after = 0
        #: Held during a look.
        self.lock = threading.Lock()
        self.pause = FIRST_PAUSE
        self.next_look = 0.0

    def look_soon(self) -> None:
        """Look again at once, and often at first."""
        self.pause, self.next_look = FIRST_PAUSE, 0.0

    def is_stored(self, turn: ProxiedTurn, report: Report) -> bool:
        """Note a report of a turn. Return True if the server stores it, False if it takes it for a repeat."""
        if report in self.reports:
            return False
        if report[1] is not None:
            if len(self.reports) >= MAX_REPORTS:
                self.reports.clear()
            self.reports.add(report)
        turn.reports.append(report)
        return True

    def awaits(self, step: int) -> bool:
        """Return True if a record with that step has to wait for a turn."""
        return any(turn.awaits(step) for turn in tuple(self.turns))

    def take(self, rows: list[Row]) -> None:
        """Find the events of the turns among the rows of the trace."""
        self.is_seen = self.is_seen or bool(rows)
        turns = tuple(self.turns)
        if not turns:
            return
        began = turns[0].began
        proxied = [row for row in rows if row.is_proxied]
        self.times = [(row.step_id or 0, row.timestamp) for row in proxied]
        mine = [row for row in proxied if (row.step_id or 0) > self.after and row.timestamp >= began]
        times: dict[str, list[str]] = {part: [] for part in _PARTS.values()}
        for row in sorted(mine, key=lambda row: row.timestamp):
            if row.event_type in _PARTS:
                times[_PARTS[row.event_type]].append(row.timestamp)
        # The turn that began last may have the fewest, and one that has its events keeps them.
        for turn in sorted(turns, key=lambda turn: (turn.answered, turn.began), reverse=True):
            turn.take(times)
        self._pass_over(turns, max((row.timestamp for row in mine), default=""))
        if all(turn.last for turn in turns) and not self.awaits(max(turn.last for turn in turns) + 1):
            self.after = max((row.step_id or 0 for row in mine), default=self.after)
            for turn in turns:
                self.drop(turn)

    @staticmethod
    def _pass_over(turns: Iterable[ProxiedTurn], latest: str) -> None:
        """Wait no longer for turns that ended before the latest event: the server stores events in their order."""
        for turn in turns:
            if turn.ended and turn.ended < latest:
                turn.until = 0.0

    def give_up(self) -> None:
        """Wait no longer for any turn so far."""
        for turn in tuple(self.turns):
            turn.until = 0.0

    def drop(self, turn: ProxiedTurn) -> None:
        """Forget a turn."""
        with contextlib.suppress(ValueError):  # another thread did
            self.turns.remove(turn)


class ProxiedTurns:
    """
    The turns of this process that the proxy reports, by trace. Any thread may use it.

    Args:
        http: The server that stores the proxy's events.
    """

    def __init__(self, http: Http) -> None:
        self._listing = Listing(http)
        self._conversations: OrderedDict[tuple[str, bytes], _Conversation] = OrderedDict()
        #: Traces of which one record is about to be stored ahead of the others, once for each thread that does it.
        self._settling: list[tuple[str, bytes]] = []

    def __bool__(self) -> bool:
        """Return True if the proxy has reported any turn."""
        return bool(self._conversations)

    def begin(self, process: str, trace: bytes, step: int, began_ms: int, prompt: Report) -> ProxiedTurn:
        """
        Note that a request leaves for the proxy.

        Args:
            process: The token of this process.
            trace: The trace id as JSON.
            step: The step of the request here.
            began_ms: Time of the request in milliseconds since the epoch.
            prompt: The report of the request.
        """
        key = (process, trace)
        turn = ProxiedTurn(key, step, began_ms)
        conversation = self._conversations.setdefault(key, _Conversation())
        self._conversations.move_to_end(key)  # the latest is the last to be forgotten
        turn.prompted = not conversation.is_stored(turn, prompt)
        conversation.turns.append(turn)
        if len(conversation.turns) > MAX_TURNS:
            conversation.drop(conversation.turns[0])
        conversation.look_soon()
        if len(self._conversations) > MAX_TRACES:
            self._conversations.popitem(last=False)
        return turn

    def end(self, turn: ProxiedTurn, last: int, ended_ms: int | None, reports: Sequence[Report]) -> None:
        """
        Note that a turn has ended.

        Args:
            turn: The turn.
            last: The step of its last record here.
            ended_ms: Time of its end in milliseconds since the epoch, None if the proxy goes on with it.
            reports: The reports that follow that of the prompt.
        """
        conversation = self._conversations.get(turn.trace)
        if conversation is not None:
            turn.due = [report[0] for report in reports if conversation.is_stored(turn, report)]
            conversation.look_soon()
        turn.answered = not turn.due
        turn.ended = "" if ended_ms is None else iso((ended_ms + LATE_MS) * 1_000_000)
        failed = any(part == "error" for part, _ in reports)
        turn.until = time.monotonic() + (HOLD_FAILED if failed else HOLD)
        turn.last = max(last, turn.step)

    def forget(self, turn: ProxiedTurn) -> None:
        """Note that the proxy reports nothing of a turn."""
        conversation = self._conversations.get(turn.trace)
        if conversation is not None:
            conversation.reports.difference_update(turn.reports)
            conversation.drop(turn)

    def reports(self, process: str, trace: bytes) -> bool:
        """Return True if the proxy has reported a turn of a trace, as JSON, or is about to."""
        return (process, trace) in self._conversations

    def hasten(self) -> None:
        """Let nothing wait much longer, because somebody waits for everything to be delivered."""
        until = time.monotonic() + HOLD_FLUSHED
        for conversation in tuple(self._conversations.values()):
            for turn in tuple(conversation.turns):
                turn.until = min(turn.until, until)

    def awaits(self, process: str, trace: bytes, step: int) -> bool:
        """Return True if a record of a trace with that step has to wait for a turn, as far as that is known."""
        conversation = self._conversations.get((process, trace))
        return conversation is not None and conversation.awaits(step) and not self._listing.is_off

    def time_before(self, process: str, trace: bytes, step: int | None) -> str:
        """
        Return the latest time of the proxy's events of a trace that have lower steps on the server.

        Args:
            process: The token of this process.
            trace: The trace id as JSON.
            step: The step on the server, None for one above all others.
        """
        conversation = self._conversations.get((process, trace))
        times = () if conversation is None else conversation.times
        return max((time for below, time in times if step is None or below < step), default="")

    @contextlib.contextmanager
    def settling(self, process: str, trace: bytes) -> Iterator[None]:
        """Keep the other records of a trace back while one of them is stored ahead: it would have to wait for them."""
        key = (process, trace)
        self._settling.append(key)
        try:
            yield
        finally:
            self._settling.remove(key)

    def is_settling(self, process: str, trace: bytes) -> bool:
        """Return True while one record of a trace is stored ahead of the others."""
        return (process, trace) in self._settling

    def look(self, process: str, trace: bytes, timeout: float = HOLD) -> float:
        """
        Ask the server for the events of a trace, unless somebody has just done so.

        Args:
            process: The token of this process.
            trace: The trace id as JSON.
            timeout: Seconds to wait for the answer.

        Returns:
            The seconds until the next look is worth it.
        """
        deadline = time.monotonic() + timeout
        conversation = self._conversations.get((process, trace))
        if conversation is None or not conversation.lock.acquire(timeout=timeout):
            return 0.0
        try:
            now = time.monotonic()
            if conversation.turns and now >= conversation.next_look:
                limit = min(EVENTS_OF_TURN * (1 + len(conversation.turns)), MAX_EVENTS)
                trace_id = msgspec.json.decode(trace, type=str)
                conversation.take(self._listing.latest(trace_id, limit, deadline - now))
                conversation.next_look = time.monotonic() + conversation.pause
                conversation.pause = min(2 * conversation.pause, LAST_PAUSE)
            return max(0.0, conversation.next_look - time.monotonic())
        finally:
            conversation.lock.release()

    def wait(
        self,
        process: str,
        trace: bytes,
        step: int,
        deadline: float,
        gives_up: Callable[[], bool] = lambda: False,
    ) -> bool:
        """
        Wait until a record of a trace has to wait for no turn.

        A trace of which the server shows nothing at all is one that it samples out, as a rule. It is waited for no
        longer than if the wait had begun with its first turn; then its records leave, and the server says if it is so.

        Args:
            process: The token of this process.
            trace: The trace id as JSON.
            step: The step of the record.
            deadline: The :func:`time.monotonic` time to stop waiting at.
            gives_up: Returns True if waiting is in vain.

        Returns:
            False if it still has to wait then.
        """
        began = time.monotonic()
        longest = deadline - began
        conversation = self._conversations.get((process, trace))
        while conversation is not None and self.awaits(process, trace, step):
            left = deadline - time.monotonic()
            if left <= 0 and conversation.is_seen:
                self._listing.note_vain(began)
            elif left <= 0:
                conversation.give_up()
            if left <= 0 or gives_up():
                return False
            pause = self.look(process, trace, left)
            if not conversation.is_seen:
                deadline = min(deadline, conversation.since + longest)
            if self.awaits(process, trace, step):
                time.sleep(max(0.0, min(pause, deadline - time.monotonic())))
        return True
