"""Delivers records to a WhyOps server, and sees to it that they are stored there as they were meant."""

from __future__ import annotations

import random
import time
from collections import OrderedDict, deque
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from whyops_trace._clock import give_way
from whyops_trace._guard import warn_once
from whyops_trace._home import REJECTED_FILE, SERVER_FILE
from whyops_trace._recording.line import LOCAL
from whyops_trace.exceptions import DeliveryError
from whyops_trace.exporters.base import Batch, Exporter, Outcome
from whyops_trace.exporters.whyops.dead_letters import DeadLetters
from whyops_trace.exporters.whyops.http import READ_TIMEOUT, Answer, Http, NoAnswerError
from whyops_trace.exporters.whyops.numbering import Event, Renumbering, is_plain
from whyops_trace.exporters.whyops.registration import Registration
from whyops_trace.exporters.whyops.retry import GiveUp, Split, Wait, decide
from whyops_trace.exporters.whyops.state import ServerState
from whyops_trace.settings import DEFAULT_ANALYSE_URL, DEFAULT_PROXY_URL, Settings
from whyops_trace.types import AgentMetadata, Audience

#: Events, and bytes, of one request. A server stores 200 events in about three seconds, and what stands before it
#: often takes no body above a megabyte.
MAX_EVENTS: Final = 200
MAX_BYTES: Final = 1_000_000
#: Bytes of records read for a request, at least.
MIN_BYTES: Final = 64 << 10
#: Other events that a server is tried with, when it fails with a 500 at one event alone.
WITNESSES: Final = 3
#: Seconds until a forked child looks again how the trace it shares with its parent is numbered.
NUMBERED_SOON: Final = 0.25
#: Traces remembered whose events a server refuses, because it knows them under another agent.
MAX_BOUND_ELSEWHERE: Final = 10_000


class _Stored(msgspec.Struct, rename="camel"):
    """What a server says of one event; ``status`` is "saved", "skipped" (it has it already) or "sampled_out"."""

    status: str
    step_id: int | None = None
    message: str | None = None


#: What became of events that may be sent: they were not yet, or it does no harm.
_SENDABLE: Final = (None, Outcome.DELIVERED)

_answers: Final = msgspec.json.Decoder(list[_Stored])


class WhyOpsExporter(Exporter):
    """
    Posts records to ``/events`` of a WhyOps server, whose answer says of each what became of it.

    Each record carries an idempotency key, so one that is sent again, because an answer was lost, is stored once.
    A trace id that the user chose goes on, in another process too, where the server has got to: the first event of a
    numbering is sent without a number, the server's number tells the offset of all others, which is on disk before
    they leave.
    The agent is registered before its first event. What the server refuses for good goes to a file in the home.

    Args:
        settings: Where the server is, the key, the agent's name and the home.
        agent: The agent's metadata to register, as ``WhyOps(agent_metadata=...)`` has checked it; None registers
            nothing.
        read_timeout: Seconds to wait for each part of an answer.

    Attributes:
        registration: Tells the server of the agent.
    """

    name = "whyops"
    remote = True
    audience = Audience.SERVER

    def __init__(
        self, settings: Settings, *, agent: AgentMetadata | None = None, read_timeout: float = READ_TIMEOUT
    ) -> None:
        self._http = Http(settings.analyse_url, settings.api_key, read_timeout=read_timeout)
        self._proxy = Http(settings.proxy_url, settings.api_key, read_timeout=read_timeout)
        servers = [(self._http, "/entities/init")]
        # Nobody who named a server of their own wants the agent told to the hosted one.
        if (settings.analyse_url == DEFAULT_ANALYSE_URL) is (settings.proxy_url == DEFAULT_PROXY_URL):
            servers.append((self._proxy, "/v1/agents/init"))
        self._url = settings.analyse_url
        self._state = ServerState(settings.home / SERVER_FILE)
        self._renumbering = Renumbering(self._state)
        self._dead_letters = DeadLetters(settings.home / REJECTED_FILE)
        self.registration = Registration(
            settings.agent_name,
            settings.stream(()),
            agent,
            servers,
            self._state,
        )
        #: Whether a proxy tells the server of what is recorded here as well.
        self.beside_proxy = False
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
        #: Asks the operating system each time, so that forked children do not choose alike.
        self._random = random.SystemRandom()

    def prepare(self) -> None:
        """Load the HTTP library, and the certificates that are trusted."""
        self._http.prepare()

    def on_start(self) -> None:
        """
        Register the agent before the proxy's events do, which would make another version of it.

        Where the server knows this version already, as far as is known here, that may wait for the first event.

        Raises:
            DeliveryError: if that failed.
        """
        if self.beside_proxy and not self.registration.is_known:
            self.registration.ensure()

    def export(self, batch: Batch) -> Sequence[Outcome]:
        """
        Send the first records of a batch, as many as fit into a request.

        Raises:
            DeliveryError: if none was taken; its message says what to check.
        """
        failed, self._failed = self._failed, None
        if failed is not None:
            raise failed
        events = self._events(batch.lines[: self._fitting(batch.lines)])
        try:
            if any(event.outcome is None for event in events):
                self._wait_until_due()
                self.registration.ensure(backlog=batch.adopted)
                self._number(events, batch)
                self._send([event for event in events if event.sent and event.outcome is None])
        except DeliveryError as error:
            failed = error
        outcomes: list[Outcome] = []
        for event in events:
            if event.outcome is None:
                break
            outcomes.append(event.outcome)
        if not outcomes:
            raise failed or DeliveryError("", NUMBERED_SOON)
        self._failed = failed
        if self._given_up:
            self._given_up.difference_update(batch.lines[: len(outcomes)])
        # What is read beyond one request is read again for the next.
        size = sum(map(len, batch.lines)) // len(batch.lines)
        self.batch_bytes = min(max(size * MAX_EVENTS, MIN_BYTES), MAX_BYTES)
        return outcomes

    def close(self) -> None:
        """Close the connections and the file."""
        self._failed = None
        self._http.close()
        self._proxy.close()
        self._state.close()

    def _fitting(self, lines: Iterable[bytes]) -> int:
        """Return how many lines fit into a request together, at least one."""
        size = 1
        count = 0
        for line in lines:
            size += len(line) + 1
            if count and (count >= self._limit or size > MAX_BYTES):
                break
            count += 1
        return count

    def _events(self, lines: Iterable[bytes]) -> list[Event]:
        if self._given_up or self._bound_elsewhere:
            return list(map(self._event, lines))
        return [Event(line, True) if is_plain(line) else self._event(line) for line in lines]

    def _event(self, line: bytes) -> Event:
        event = Event(line)
        if line in self._given_up:
            event.outcome = Outcome.REJECTED
        elif not event.is_record:
            self._give_up(event, "it is no record of this version")
        elif event.head.type in LOCAL:
            event.outcome = Outcome.WITHHELD
        elif event.head.trace in self._bound_elsewhere:
            self._give_up(event, self._bound_elsewhere[event.head.trace])
        return event

    def _number(self, events: Sequence[Event], batch: Batch) -> None:
        """Number each event, as far as that is possible now; those that begin a numbering are sent for it."""
        rest = batch.lines[len(events) :]
        while begins := self._renumbering.number(events, batch.process, map(self._event, rest)):
            begins = begins[: self._fitting(event.sent for event in begins)]
            try:
                self._send(begins, _others(events, begins))
            finally:
                self._renumbering.learn(begins)

    # Sending

    def _send(self, events: Sequence[Event], others: Sequence[Event] = ()) -> None:
        """
        Send events in their order, and note what became of each.

        Args:
            events: What to send; their numbers are known, or left to the server.
            others: Further events that may be sent, to see whether the server works.

        Raises:
            DeliveryError: if the server takes nothing more; events without an outcome have to come again.
        """
        attempt = self._attempt + 1
        left = deque([events])
        suspect: Event | None = None
        while left:
            give_way()
            chunk = [event for event in left.popleft() if event.outcome is None]
            said = self._post(chunk) if chunk else None
            if said is None:
                continue
            decision = decide(
                said,
                attempt=attempt,
                events=len(chunk),
                now=datetime.now(UTC),
                chance=self._random.random(),
                neighbour_accepted=chunk[0] is suspect,
            )
            if isinstance(decision, Split):
                half = len(chunk) // 2
                left.extendleft((chunk[half:], chunk[:half]))
            elif isinstance(decision, GiveUp):
                for place, why in decision.which.items():
                    self._give_up(chunk[place], why)
                    if _status(said) == 409:
                        self._note_conflict(chunk[place], why, events)
                left.appendleft(chunk)
            elif decision.doubtful and self._takes_another((*events, *others), chunk[0]):
                suspect = chunk[0]
                left.appendleft(chunk)  # once more, to see whose fault it is
            else:
                self._wait(said, decision)

    def _takes_another(self, events: Iterable[Event], than: Event) -> bool:
        """Tell whether the server stores another event; one that is stored already does as well."""
        others = [event for event in events if event is not than and event.outcome in _SENDABLE]
        some = self._random.sample(others, min(WITNESSES, len(others)))
        return any(self._post([event]) is None for event in some)

    def _post(self, events: Sequence[Event]) -> Answer | NoAnswerError | None:
        """Send events; return None if the server said what became of each, else what it said instead."""
        try:
            answer = self._http.post("/events", _array(event.sent for event in events))
        except NoAnswerError as error:
            return error
        found = _read(answer)
        if found is None or len(found) != len(events):
            return answer
        for event, stored in zip(events, found, strict=True):
            if stored.status == "sampled_out":
                event.outcome = Outcome.SAMPLED_OUT
                self._note_sampled_out(event, stored.message or "")
            else:
                event.outcome = Outcome.DELIVERED
                event.offset = (
                    stored.step_id - event.head.numbers.step if event.key and stored.step_id else None
                )
        self._attempt = 0
        if len(events) >= self._limit:
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

    def _note_conflict(self, event: Event, why: str, events: Iterable[Event]) -> None:
        """Give up the others of a trace as well, those to come included: the server takes none of them."""
        self._bound_elsewhere[event.head.trace] = why
        if len(self._bound_elsewhere) > MAX_BOUND_ELSEWHERE:
            self._bound_elsewhere.popitem(last=False)
        for other in events:
            if other.outcome is None and other.head.trace == event.head.trace:
                self._give_up(other, why)

    def _give_up(self, event: Event, why: str) -> None:
        event.outcome = Outcome.REJECTED
        self._given_up.add(event.line)
        self._dead_letters.add(event.line, why)
        warn_once(
            f"whyops: refused: {why}",
            "The server refuses an event for good, %s; it is kept in %s, and others like it will be, without a word.",
            why,
            self._dead_letters.path,
        )

    def _note_sampled_out(self, event: Event, why: str) -> None:
        spans = why.startswith("Span")
        if not spans:
            event.offset = 0  # nothing is kept of the trace, and so nothing stands before the numbering
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


def _others(events: Iterable[Event], begins: Sequence[Event]) -> list[Event]:
    """
    Return what to try a server with that fails at the one event which begins a numbering.

    These are events whose numbers are known; where there are none, the numbering may as well begin with its next event.
    """
    first = set(begins)
    left = [event for event in events if event.outcome is None and event not in first]
    ready = [event for event in left if event.sent]
    if not ready:
        keys = {event.key for event in begins}
        for event in left:
            if event.key in keys and not event.head.given:
                second = Event(event.line)
                second.leave_to_server()
                return [second]
    return ready


def _array(records: Iterable[bytes]) -> bytes:
    """Return records as one JSON array, of which large ones are copied once."""
    parts = [part for record in records for part in (b",", record)]
    parts[0] = b"["
    parts.append(b"]")
    return b"".join(parts)


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
