"""Delivers records to a WhyOps server, and makes sure that it stores them as they were meant."""

from __future__ import annotations

import random
import time
from collections import OrderedDict, deque
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Final

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

#: Largest numbers of events and of bytes in one request. A server stores 200 events in about three seconds, and a
#: proxy or load balancer before it often takes no body above a megabyte.
MAX_EVENTS: Final = 200
MAX_BYTES: Final = 1_000_000
#: Fewest bytes of records that are read for a request.
MIN_BYTES: Final = 64 << 10
#: Number of other events that a server is tried with, when it fails with a 500 at one event alone.
WITNESSES: Final = 3
#: Seconds until a forked child looks again for the numbering of the trace that it shares with its parent.
NUMBERED_SOON: Final = 0.25
#: Number of remembered traces whose events a server refuses, because it knows them under another agent.
MAX_BOUND_ELSEWHERE: Final = 10_000


class _Stored(msgspec.Struct, rename="camel"):
    """The server's answer for one event. Its status is "saved", "skipped" (it is stored already) or "sampled_out"."""

    status: str
    step_id: int | None = None
    message: str | None = None


#: Outcomes of events that may be sent: not sent yet, or stored already, so that sending them again does no harm.
_SENDABLE: Final = (None, Outcome.DELIVERED)

_answers: Final = msgspec.json.Decoder(list[_Stored])


class WhyOpsExporter(Exporter):
    """
    Posts records to ``/events`` of a WhyOps server, which answers with the outcome of each.

    Each record carries an idempotency key, so a record that is sent again, because an answer was lost, is stored once.
    A trace id that the user chose continues from the last step that the server has of it, in another process too. The
    first event of a numbering is sent without a number. The number that the server gives it tells the offset of all
    others, which is on disk before they leave.
    The agent is registered before its first event. Events that the server refuses for good go to a file in the home.

    Args:
        settings: The URLs of the server, the key, the agent's name and the home.
        agent: The agent's metadata to register, as ``WhyOps(agent_metadata=...)`` has checked it; None registers
            nothing.
        read_timeout: Seconds to wait for each part of an answer.

    Attributes:
        registration: Registers the agent with the server.
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
        # An agent of a server that the user named is none of the hosted server's business.
        if (settings.analyse_url == DEFAULT_ANALYSE_URL) is (settings.proxy_url == DEFAULT_PROXY_URL):
            servers.append((self._proxy, "/v1/agents/init"))
        self._url = settings.analyse_url
        self._state = ServerState(settings.home / SERVER_FILE)
        self._renumbering = Renumbering(self._state)
        self._dead_letters = DeadLetters(settings.home / REJECTED_FILE)
        self.registration: Registration = Registration(
            settings.agent_name,
            settings.stream(()),
            agent,
            servers,
            self._state,
        )
        #: True if a proxy sends the server events of the same traces.
        self.beside_proxy = False
        #: Largest number of events in a request at present.
        self._limit = MAX_EVENTS
        #: Number of requests in a row after which nothing was stored.
        self._attempt = 0
        #: The error that came after some events of a batch had been taken. It is raised with the next batch.
        self._late_error: DeliveryError | None = None
        #: Time of :func:`time.monotonic` from which a server that answered 429 may be asked again.
        self._due = 0.0
        #: Records given up, until their place in the journal is passed.
        self._given_up: set[bytes] = set()
        #: Traces whose events are all refused, each with the reason.
        self._bound_elsewhere: OrderedDict[bytes, str] = OrderedDict()
        #: Takes each number from the operating system, so that forked children do not choose alike.
        self._random = random.SystemRandom()

    def prepare(self) -> None:
        """Load the HTTP library and the trusted certificates."""
        self._http.prepare()

    def on_start(self) -> None:
        """
        Register the agent before the proxy's events do, which would make another version of it.

        If the server took this version before, that may wait for the first event.

        Raises:
            DeliveryError: if that failed.
        """
        if self.beside_proxy and not self.registration.is_known:
            self.registration.ensure()

    def export(self, batch: Batch) -> Sequence[Outcome]:
        """
        Send the first records of a batch, as many as fit into a request.

        Raises:
            DeliveryError: if none was taken. Its message says what to check.
        """
        late_error, self._late_error = self._late_error, None
        if late_error is not None:
            raise late_error
        events = self._events(batch.lines[: self._count_fitting(batch.lines)])
        try:
            if any(event.outcome is None for event in events):
                self._wait_until_due()
                self.registration.ensure(backlog=batch.adopted)
                self._number(events, batch)
                self._send([event for event in events if event.sent and event.outcome is None])
        except DeliveryError as error:
            late_error = error
        outcomes: list[Outcome] = []
        for event in events:
            if event.outcome is None:
                break
            outcomes.append(event.outcome)
        if not outcomes:
            raise late_error or DeliveryError("", NUMBERED_SOON)
        self._late_error = late_error
        if self._given_up:
            self._given_up.difference_update(batch.lines[: len(outcomes)])
        # Records beyond one request would be read again for the next.
        size = sum(map(len, batch.lines)) // len(batch.lines)
        self.batch_bytes: int = min(max(size * MAX_EVENTS, MIN_BYTES), MAX_BYTES)
        return outcomes

    def close(self) -> None:
        """Close the connections and the file."""
        self._late_error = None
        self._http.close()
        self._proxy.close()
        self._state.close()

    def _count_fitting(self, lines: Iterable[bytes]) -> int:
        """Return the number of lines that fit into a request together, at least one."""
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
        """Number each event, as far as that is possible now. The events that begin a numbering are sent for it."""
        rest = batch.lines[len(events) :]
        while first_events := self._renumbering.number(events, batch.process, map(self._event, rest)):
            first_events = first_events[: self._count_fitting(event.sent for event in first_events)]
            try:
                self._send(first_events, _others(events, first_events))
            finally:
                self._renumbering.learn(first_events)

    # Sending

    def _send(self, events: Sequence[Event], others: Sequence[Event] = ()) -> None:
        """
        Send events in their order, and note the outcome of each.

        Args:
            events: The events. Their numbers are known, or left to the server.
            others: Further events that may be sent, to see whether the server works.

        Raises:
            DeliveryError: if the server takes nothing more. Events without an outcome have to come again.
        """
        attempt = self._attempt + 1
        chunks = deque([events])
        suspect: Event | None = None
        while chunks:
            give_way()
            chunk = [event for event in chunks.popleft() if event.outcome is None]
            answer = self._post(chunk) if chunk else None
            if answer is None:
                continue
            decision = decide(
                answer,
                attempt=attempt,
                events=len(chunk),
                now=datetime.now(UTC),
                chance=self._random.random(),
                neighbour_accepted=chunk[0] is suspect,
            )
            if isinstance(decision, Split):
                half = len(chunk) // 2
                chunks.extendleft((chunk[half:], chunk[:half]))
            elif isinstance(decision, GiveUp):
                for place, why in decision.which.items():
                    self._give_up(chunk[place], why)
                    if _status(answer) == 409:
                        self._note_conflict(chunk[place], why, events)
                chunks.appendleft(chunk)
            elif decision.doubtful and self._takes_another((*events, *others), chunk[0]):
                suspect = chunk[0]
                chunks.appendleft(chunk)  # once more, to see whose fault it is
            else:
                self._wait(answer, decision)

    def _takes_another(self, events: Iterable[Event], than: Event) -> bool:
        """Return True if the server stores another event. One that it has stored already will do."""
        others = [event for event in events if event is not than and event.outcome in _SENDABLE]
        some = self._random.sample(others, min(WITNESSES, len(others)))
        return any(self._post([event]) is None for event in some)

    def _post(self, events: Sequence[Event]) -> Answer | NoAnswerError | None:
        """Send events. Return None if the server gave the outcome of each, otherwise its answer or the error."""
        try:
            answer = self._http.post("/events", _array(event.sent for event in events))
        except NoAnswerError as error:
            return error
        results = _read(answer)
        if results is None or len(results) != len(events):
            return answer
        for event, stored in zip(events, results, strict=True):
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

    def _wait(self, answer: Answer | NoAnswerError, decision: Wait) -> None:
        """Raise the error that keeps the events waiting."""
        self._attempt += 1
        if decision.smaller:
            self._limit = max(1, self._limit // 2)
        if _status(answer) == 429:
            self._due = time.monotonic() + decision.seconds
        where = "" if isinstance(answer, NoAnswerError) else f"{self._url}: "
        raise DeliveryError(f"{where}{decision.why}", decision.seconds)

    def _wait_until_due(self) -> None:
        seconds = self._due - time.monotonic()
        if seconds > 0:
            raise DeliveryError("", seconds)

    # Events that the server does not store

    def _note_conflict(self, event: Event, why: str, events: Iterable[Event]) -> None:
        """Give up the other events of a trace as well, later ones included: the server takes none of them."""
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
            event.offset = 0  # the server keeps nothing of the trace, so no steps precede the numbering
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


def _others(events: Iterable[Event], first_events: Sequence[Event]) -> list[Event]:
    """
    Return events to try a server with, if it fails at the one event that begins a numbering.

    These are events whose numbers are known. Without any, the numbering may as well begin with its next event.
    """
    begins = set(first_events)
    waiting = [event for event in events if event.outcome is None and event not in begins]
    ready = [event for event in waiting if event.sent]
    if not ready:
        keys = {event.key for event in first_events}
        for event in waiting:
            if event.key in keys and not event.head.given:
                second = Event(event.line)
                second.leave_to_server()
                return [second]
    return ready


def _array(records: Iterable[bytes]) -> bytes:
    """Return records as one JSON array. Each record is copied once."""
    parts = [part for record in records for part in (b",", record)]
    parts[0] = b"["
    parts.append(b"]")
    return b"".join(parts)


def _read(answer: Answer) -> list[_Stored] | None:
    """Return the server's answer for each event, None if that is not what it answered."""
    if answer.status not in (200, 201):
        return None
    try:
        results = _answers.decode(answer.body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    are_known = all(stored.status in ("saved", "skipped", "sampled_out") for stored in results)
    return results if are_known else None


def _status(answer: Answer | NoAnswerError) -> int:
    return answer.status if isinstance(answer, Answer) else 0
