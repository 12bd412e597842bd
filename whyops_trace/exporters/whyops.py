"""Delivers records to a WhyOps server, and sees to it that they are stored there as they were meant."""

from __future__ import annotations

import itertools
import os
import random
import time
from collections import OrderedDict, deque
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from whyops_trace._checks import MAX_STEP
from whyops_trace._dead_letters import DeadLetters
from whyops_trace._guard import warn_once
from whyops_trace._home import REJECTED_FILE, SERVER_FILE
from whyops_trace._http import Answer, Http, NoAnswerError
from whyops_trace._numbers import Head, read_head, unrun
from whyops_trace._server_state import RunKey, ServerState
from whyops_trace._summary import LOCAL
from whyops_trace.exceptions import DeliveryError
from whyops_trace.exporters.base import Batch, Exporter, Outcome
from whyops_trace.registration import Registration
from whyops_trace.retry import GiveUp, Split, Wait, decide
from whyops_trace.settings import Settings
from whyops_trace.types import AgentMetadata

#: Events, and bytes, of one request. A server stores 200 events in about three seconds, and what stands before it
#: often takes no body above a megabyte.
MAX_EVENTS: Final = 200
MAX_BYTES: Final = 1_000_000
#: Events in a row that are suspected of a 500, before the server is.
MAX_SUSPECTS: Final = 3
#: Seconds a forked child leaves to its parent to find out how the trace they share is numbered.
PATIENCE: Final = 5.0
#: Traces remembered whose events a server refuses, because it knows them under another agent.
MAX_BOUND_ELSEWHERE: Final = 10_000


class _Stored(msgspec.Struct, rename="camel"):
    """What a server says of one event; ``status`` is "saved", "skipped" (it has it already) or "sampled_out"."""

    status: str
    step_id: int | None = None
    message: str | None = None


#: How the record that finishes a trace ends: `end` is its last key, so nothing a user wrote can look like it.
_END: Final = b',"end":true}'

_answers: Final = msgspec.json.Decoder(list[_Stored])


class _Event:
    """
    A record on its way.

    Attributes:
        line: The record.
        head: Its start.
        key: The run it belongs to, as the process numbers it that recorded it; None if it is never renumbered.
        sent: What the server gets; empty until its numbers are known.
        outcome: What became of it; None if it has to come again.
        step: The step the server gave it; 0 if it said none.
    """

    __slots__ = ("head", "key", "line", "outcome", "sent", "step")

    def __init__(self, line: bytes, head: Head | None) -> None:
        self.line = line
        self.head = head
        self.key: RunKey | None = None
        self.sent = b""
        self.outcome: Outcome | None = None
        self.step = 0


class WhyOpsExporter(Exporter):
    """
    Posts records to ``/events`` of a WhyOps server, whose answer says of each what became of it.

    Each record carries an idempotency key, so one that is sent again, because an answer was lost, is stored once.
    A trace id that the user chose goes on, in another process too, where the server has got to: the first event of a
    run is sent without a number, the server's number shifts all others, and the shift is on disk before they leave.
    The agent is registered before its first event. What the server refuses for good goes to a file in the home.

    Args:
        settings: Where the server is, the key, the agent's name and the home.
        agent: What :func:`whyops_trace.agent.check_metadata` returned, to be registered; None: nothing.
    """

    name = "whyops"
    remote = True

    def __init__(self, settings: Settings, *, agent: AgentMetadata | None = None) -> None:
        self._http = Http(settings.analyse_url, settings.api_key)
        self._proxy = Http(settings.proxy_url, settings.api_key)
        self._url = settings.analyse_url
        self._state = ServerState(settings.home / SERVER_FILE)
        self._dead_letters = DeadLetters(settings.home / REJECTED_FILE)
        self.registration = Registration(
            settings.agent_name,
            settings.stream(()),
            agent,
            ((self._http, "/entities/init"), (self._proxy, "/v1/agents/init")),
            self._state,
        )
        #: Events a request may hold at present.
        self._limit = MAX_EVENTS
        #: Times in a row that nothing was stored.
        self._attempt = 0
        #: What was wrong after some events of a batch had been taken; raised with the next batch.
        self._failed: DeliveryError | None = None
        #: When a server that asked to be left alone may be asked again, as :func:`time.monotonic` tells it.
        self._due = 0.0
        #: Records given up, until their place in the journal is passed.
        self._given_up: set[bytes] = set()
        #: Traces whose events are all refused, and why.
        self._bound_elsewhere: OrderedDict[bytes, str] = OrderedDict()
        #: Until when to wait for a parent's numbering.
        self._patience: dict[RunKey, float] = {}
        self._process = os.getpid()
        self._random = random.Random()  # noqa: S311 - jitter

    def export(self, batch: Batch) -> Sequence[Outcome]:
        """
        Send the first records of a batch, as many as fit into a request.

        Raises:
            DeliveryError: if none was taken; its message says what to check.
        """
        if self._process != os.getpid():
            self._process = os.getpid()
            self.registration.renew()
        failed, self._failed = self._failed, None
        if failed is not None:
            raise failed
        events = [self._event(line) for line in self._first(batch.lines)]
        try:
            if any(event.outcome is None for event in events):
                self._wait_until_due()
                self.registration.ensure(backlog=batch.adopted)
                self._number(events, batch.token)
                self._send([event for event in events if event.sent and event.outcome is None])
        except DeliveryError as error:
            failed = error
        taken = list(itertools.takewhile(lambda event: event.outcome is not None, events))
        if not taken:
            raise failed or DeliveryError("", PATIENCE / 20)  # a parent process numbers these
        self._failed = failed
        self._given_up.difference_update(event.line for event in taken)
        return [event.outcome for event in taken if event.outcome is not None]

    def close(self) -> None:
        """Close the connections and the file."""
        self._http.close()
        self._proxy.close()
        self._state.close()

    def _first(self, lines: Iterable[bytes]) -> Iterable[bytes]:
        """Return the first lines that fit into a request together, at least one."""
        size = 0
        for number, line in enumerate(lines):
            size += len(line) + 1
            if number and (number >= self._limit or size > MAX_BYTES):
                return
            yield line

    def _event(self, line: bytes) -> _Event:
        head = read_head(line)
        event = _Event(line, head)
        if line in self._given_up:
            event.outcome = Outcome.REJECTED
        elif head is None:
            self._give_up(event, "it is no record of this version")
        elif head.type in LOCAL:
            event.outcome = Outcome.WITHHELD
        elif head.trace in self._bound_elsewhere:
            self._give_up(event, self._bound_elsewhere[head.trace])
        return event

    # Numbers

    def _number(self, events: Sequence[_Event], process: str) -> None:
        """Find out what each event is numbered, as far as that is possible now; events that begin a run are sent."""
        begun: dict[RunKey, _Event] = {}
        runs: dict[bytes, str] = {}
        waiting: list[_Event] = []
        for event in events:
            head = event.head
            if head is None or event.outcome is not None:
                continue
            if not head.run:
                event.sent = unrun(event.line, head, head.numbers) if head.given else event.line
                continue
            key, shift = self._shift(head, process)
            if shift is None and "stepId" in head.given:
                shift = 0
                self._state.keep_shifts({key: shift})
            if shift is None and runs.setdefault(head.trace, head.run) != head.run:
                break  # it goes on with a trace whose events before it have to be stored first
            runs[head.trace] = head.run
            event.key = key
            if shift is not None:
                event.sent = _numbered(event.line, head, shift)
            elif key not in begun and self._may_begin(key, process):
                begun[key] = event
                event.sent = unrun(event.line, head, None)
            else:
                waiting.append(event)
        self._begin(begun)
        self._number_waiting(waiting, begun)

    def _shift(self, head: Head, process: str) -> tuple[RunKey, int | None]:
        """Return the shift of a record's run, None if it is not known, and what it is known by."""
        origin = head.run.partition("-")[0]
        key = (head.run, origin)
        shift = self._state.shift(key)
        if shift is None and origin != process:  # a forked child goes on with its parent's trace
            key = (head.run, process)
            shift = self._state.shift(key)
        return key, shift

    def _may_begin(self, key: RunKey, process: str) -> bool:
        """Tell whether an event may have its run numbered: its parent process's events should come first."""
        run, owner = key
        if run.startswith(owner):
            return True
        now = time.monotonic()
        return now >= self._patience.setdefault(key, now + PATIENCE)

    def _begin(self, begun: dict[RunKey, _Event]) -> None:
        """Have the server number the first event of each run, and keep the shifts."""
        if not begun:
            return
        try:
            self._send(list(begun.values()))
        finally:
            shifts = {
                key: event.step - event.head.numbers.step
                for key, event in begun.items()
                if event.step and event.head is not None
            }
            if shifts:
                self._state.keep_shifts(shifts)
            for key in shifts:
                self._patience.pop(key, None)

    def _number_waiting(self, waiting: Iterable[_Event], begun: dict[RunKey, _Event]) -> None:
        for event in waiting:
            if event.key is None or event.head is None or event.key not in begun:
                continue
            first = begun[event.key]
            if first.step and first.head is not None:
                event.sent = _numbered(event.line, event.head, first.step - first.head.numbers.step)
            elif first.outcome is Outcome.SAMPLED_OUT:  # as will this one be
                event.sent = _numbered(event.line, event.head, 0)

    # Sending

    def _send(self, events: Sequence[_Event]) -> None:
        """
        Send events in their order, and note what became of each.

        Raises:
            DeliveryError: if the server takes nothing more; events without an outcome have to come again.
        """
        left = deque([list(events)] if events else [])
        suspects: list[_Event] = []
        accepted = False
        while left:
            chunk = left.popleft()
            said = self._post(chunk)
            if said is None:
                accepted, self._attempt = True, 0
                left.extend([event] for event in suspects)
                suspects.clear()
                continue
            decision = decide(
                said,
                attempt=self._attempt + 1,
                events=len(chunk),
                now=datetime.now(UTC),
                chance=self._random.random(),
                neighbour_accepted=accepted,
            )
            if isinstance(decision, Split):
                half = len(chunk) // 2
                left.extendleft((chunk[half:], chunk[:half]))
            elif isinstance(decision, GiveUp):
                for place in decision.which:
                    self._give_up(chunk[place], decision.why)
                    if _status(said) == 409:
                        self._note_conflict(chunk[place], decision.why)
                rest = [event for event in chunk if event.outcome is None]
                if rest:
                    left.appendleft(rest)
            elif decision.doubtful and left and len(suspects) < MAX_SUSPECTS:
                suspects += chunk
            else:
                self._wait(said, decision)

    def _post(self, events: Sequence[_Event]) -> Answer | NoAnswerError | None:
        """Send events; return None if the server said what became of each, else what it said instead."""
        try:
            answer = self._http.post("/events", _array(event.sent for event in events))
        except NoAnswerError as error:
            return error
        found = _read(answer)
        if found is None or len(found) != len(events):
            return answer
        for event, stored in zip(events, found, strict=True):
            event.step = stored.step_id or 0
            event.outcome = Outcome.DELIVERED
            if stored.status == "sampled_out":
                event.outcome, event.step = Outcome.SAMPLED_OUT, 0
                self._say_sampled_out(event, stored.message or "")
        self._limit = min(MAX_EVENTS, self._limit * 2)
        return None

    def _wait(self, said: Answer | NoAnswerError, decision: Wait) -> None:
        """Raise what keeps the events waiting."""
        self._attempt += 1
        if decision.smaller:
            self._limit = max(1, self._limit // 2)
        if _status(said) == 429:
            self._due = time.monotonic() + decision.seconds
        where = "" if isinstance(said, NoAnswerError) else f"{self._url}: "
        raise DeliveryError(f"{where}{decision.why}", decision.seconds)

    def _wait_until_due(self) -> None:
        left = self._due - time.monotonic()
        if left > 0:
            raise DeliveryError("", left)

    # What is not stored

    def _note_conflict(self, event: _Event, why: str) -> None:
        if event.head is not None:
            self._bound_elsewhere[event.head.trace] = why
            if len(self._bound_elsewhere) > MAX_BOUND_ELSEWHERE:
                self._bound_elsewhere.popitem(last=False)

    def _give_up(self, event: _Event, why: str) -> None:
        event.outcome = Outcome.REJECTED
        self._given_up.add(event.line)
        self._dead_letters.add(event.line, why)
        warn_once(
            f"whyops: refused: {why}",
            "The server refuses an event for good, %s; it is kept in %s, and others like it will be, without a word.",
            why,
            self._dead_letters.path,
        )

    def _say_sampled_out(self, event: _Event, why: str) -> None:
        spans = why.startswith("Span")
        advice = (
            "it takes no further span ids of this agent: raise the agent's max_spans"
            if spans
            else "it keeps a part of the traces: raise the agent's samplingRate "
            "(PATCH /entities/{agentId}/sampling-rate) or its limit of traces"
        )
        warn_once(
            f"whyops: sampled out: {spans}",
            "The server did not keep an event (%s): %s. Further ones are counted as sampled_out.",
            why,
            advice,
        )


def _numbered(line: bytes, head: Head, shift: int) -> bytes:
    numbers = head.numbers.shifted(shift, head.given, begins=head.numbers.parent is None)
    return unrun(line, head, numbers if numbers.step <= MAX_STEP else None)


def _array(records: Iterable[bytes]) -> bytes:
    """Return records as one JSON array, without what says to local destinations that a trace has ended."""
    return (
        b"["
        + b",".join(record.removesuffix(_END) + b"}" * record.endswith(_END) for record in records)
        + b"]"
    )


def _read(answer: Answer) -> list[_Stored] | None:
    """Return what a server says of each event, None if it says no such thing."""
    if answer.status not in (200, 201):
        return None
    try:
        found = _answers.decode(answer.body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    known = all(stored.status in ("saved", "skipped", "sampled_out") for stored in found)
    return found if known else None


def _status(said: Any) -> int:
    return said.status if isinstance(said, Answer) else 0
