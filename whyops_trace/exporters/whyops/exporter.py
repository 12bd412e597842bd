"""Delivers records to a WhyOps server, and makes sure that it stores them as they were meant."""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Final

import msgspec

from whyops_trace._clock import give_way
from whyops_trace._home import REJECTED_FILE, SERVER_FILE
from whyops_trace._recording.line import LOCAL, texts_for_others
from whyops_trace._recording.recorder import Offsets
from whyops_trace.exceptions import DeliveryError
from whyops_trace.exporters._http import READ_TIMEOUT, Answer, Http, NoAnswerError
from whyops_trace.exporters.base import Batch, Exporter, Outcome
from whyops_trace.exporters.whyops.fates import Fates
from whyops_trace.exporters.whyops.holds import Holds
from whyops_trace.exporters.whyops.listing import step_of
from whyops_trace.exporters.whyops.numbering import Event, Renumbering, is_plain
from whyops_trace.exporters.whyops.registration import Registration, keep_more
from whyops_trace.exporters.whyops.retry import GiveUp, Split, Wait, decide
from whyops_trace.exporters.whyops.state import ServerState
from whyops_trace.exporters.whyops.turns import ProxiedTurns
from whyops_trace.settings import DEFAULT_ANALYSE_URL, DEFAULT_PROXY_URL, Settings
from whyops_trace.types import AgentMetadata, Audience

#: Largest numbers of events and of bytes in one request. A server stores 200 events in about three seconds, and a
#: proxy or load balancer before it often takes no body above a megabyte.
MAX_EVENTS: Final = 200
MAX_BYTES: Final = 1_000_000
#: Largest number of events in one request beside a proxy: a request to a model may have to wait for that one.
MAX_EVENTS_BESIDE_PROXY: Final = 8
#: Fewest bytes of records that are read for a request.
MIN_BYTES: Final = 64 << 10
#: Number of other events that a server is tried with, when it fails with a 500 at one event alone.
WITNESSES: Final = 3
#: Seconds until a forked child looks again for the numbering of the trace that it shares with its parent.
NUMBERED_SOON: Final = 0.25
#: Seconds to wait for the list of a trace's events.
LOOK_TIMEOUT: Final = 5.0
#: Seconds between two looks whether the numbering of a trace is known, for one who waits for it.
NUMBERED_PAUSE: Final = 0.005


class _Stored(msgspec.Struct, rename="camel"):
    """The server's answer for one event. Its status is "saved", "skipped" (it is stored already) or "sampled_out"."""

    status: str
    step_id: int | None = None
    message: str | None = None


#: Outcomes of events that may be sent: not sent yet, or stored already, so that sending them again does no harm.
_SENDABLE: Final = (None, Outcome.DELIVERED)

_FOR_OTHERS: Final = texts_for_others(Audience.SERVER)

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
        turns: The turns that the proxy reports. Records that come after one wait for its events.
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
        self._with_raw = settings.send_raw_responses
        self._state = ServerState(settings.home / SERVER_FILE)
        self._renumbering = Renumbering(
            self._state, lambda trace, key: step_of(self._http, trace, key, LOOK_TIMEOUT)
        )
        self._fates = Fates(settings.home / REJECTED_FILE, self.remedy)
        self.turns: ProxiedTurns = ProxiedTurns(self._http)
        self.registration: Registration = Registration(
            settings.agent_name,
            settings.stream(()),
            agent,
            servers,
            self._state,
        )
        #: True if a proxy sends the server events of the same traces.
        self.beside_proxy = False
        #: The offsets of numberings on the server, for recorders.
        self.offsets: Offsets = self._state
        #: Largest number of events in a request at present.
        self._limit = MAX_EVENTS
        #: Number of requests in a row after which nothing was stored.
        self._attempt = 0
        #: The error that came after some events of a batch had been taken. It is raised with the next batch.
        self._late_error: DeliveryError | None = None
        #: Time of :func:`time.monotonic` from which a server that answered 429 may be asked again.
        self._due = 0.0
        #: Number of events that the server did not keep, since they were counted last.
        self._sampled_out = 0
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
        holds = Holds(self.turns, batch)
        events = self._read(batch, holds)
        ready = [event for event in events if not event.held]
        try:
            if any(event.outcome is None for event in ready):
                self._wait_until_due()
                self.registration.ensure(backlog=batch.adopted)
                self._number(ready, batch, map(self._event, batch.lines[len(events) :]), holds)
                numbered = [event for event in ready if event.sent and event.outcome is None]
                holds.date(numbered)
                self._send(numbered)
        except DeliveryError as error:
            late_error = error
        outcomes: list[Outcome] = []
        for event in events:
            if event.outcome is None:
                break
            outcomes.append(event.outcome)
        self._fates.note_ahead(
            event.line for event in events[len(outcomes) :] if event.outcome is Outcome.DELIVERED
        )
        if not outcomes:
            raise late_error or DeliveryError("", holds.pause or NUMBERED_SOON)
        self._late_error = late_error
        self._sampled_out += outcomes.count(Outcome.SAMPLED_OUT)
        self._fates.forget(batch.lines[: len(outcomes)])
        # Records beyond one request would be read again for the next.
        size = sum(map(len, batch.lines)) // len(batch.lines)
        self.batch_bytes: int = min(max(size * MAX_EVENTS, MIN_BYTES), MAX_BYTES)
        return outcomes

    def remedy(self) -> str:
        """Return the way to have the server keep more traces of this agent."""
        return keep_more(self._url, self.registration.agent_id)

    def close(self) -> None:
        """Close the connections and the file."""
        self._late_error = None
        self.registration.count_sampled_out(self._sampled_out)
        self._sampled_out = 0
        self._http.close()
        self._proxy.close()
        self._state.close()

    def _read(self, batch: Batch, holds: Holds) -> list[Event]:
        """Return the first events of a batch: those that fit into a request together, and all that wait before them."""
        most = min(self._limit, MAX_EVENTS_BESIDE_PROXY if holds else MAX_EVENTS)
        plain = not self._fates.are_known
        events: list[Event] = []
        size, count = 1, 0
        for line in batch.lines:
            event = Event(line, True) if plain and is_plain(line) else self._event(line)
            if not holds or not holds.hold(event):
                size += len(line) + 1
                if count and (count >= most or size > MAX_BYTES):
                    break
                count += 1
            events.append(event)
        return events

    def _event(self, line: bytes) -> Event:
        event = Event(line, with_raw=self._with_raw)
        self._fates.decide(event)
        return event

    def _number(self, events: Sequence[Event], batch: Batch, later: Iterator[Event], holds: Holds) -> None:
        """
        Number each event, as far as that is possible now. The events that begin a numbering are sent for it.

        Args:
            events: The events.
            batch: The batch that they are from.
            later: The events after them, which may begin theirs as well.
            holds: The events that wait.
        """
        ahead = (event for event in later if not holds.hold(event)) if holds else later
        while first_events := self._renumbering.number(events, batch.process, ahead):
            first_events = first_events[: self._count_fitting(event.sent for event in first_events)]
            holds.date(first_events)
            try:
                self._send(first_events, _others(events, first_events))
            finally:
                self._renumbering.learn(first_events)

    def _count_fitting(self, texts: Iterable[bytes]) -> int:
        """Return the number of texts that fit into a request together, at least one."""
        size = 1
        count = 0
        for text in texts:
            size += len(text) + 1
            if count and (count >= self._limit or size > MAX_BYTES):
                break
            count += 1
        return count

    # A record ahead of others

    def takes(self, line: bytes) -> bool:
        """Return True if a record is one that the server gets."""
        return not line.endswith(_FOR_OTHERS) and Event(line).head.type not in LOCAL

    def store_ahead(
        self, line: bytes, process: str, deadline: float, gives_up: Callable[[], bool] = lambda: False
    ) -> bool:
        """
        Store one record of this process, if need be before those that were recorded earlier. Any thread may call this.

        Args:
            line: The record.
            process: The token of this process.
            deadline: The :func:`time.monotonic` time to stop waiting at: for a turn of the proxy that comes before it,
                for the number that its trace has on the server, and for the answer.
            gives_up: Returns True if waiting is in vain.

        Returns:
            True if it is stored, or never will be.
        """
        event = Event(line, with_raw=self._with_raw)
        trace, step = event.head.trace, event.head.numbers.step
        if self._fates.of(line, trace) is not None:
            return True
        while not self._renumbering.number_known(event, process):
            # The event that begins the numbering waits for turns as well.
            if not self.turns.wait(process, trace, step, deadline, gives_up):
                return False
            if time.monotonic() >= deadline or gives_up():
                return False
            time.sleep(NUMBERED_PAUSE)
        with self.turns.settling(process, trace):
            if not self.turns.wait(process, trace, step, deadline, gives_up):
                return False
            event.date_from(self.turns.time_before(process, trace, event.step))
            return self._fates.of(line, trace) is not None or self._store_one(event, deadline)

    def _store_one(self, event: Event, deadline: float) -> bool:
        """Store a record whose number is known. Return False if the server did not say what became of it in time."""
        try:
            answer = self._http.post("/events", _array([event.sent]), timeout=deadline - time.monotonic())
        except NoAnswerError:
            return False
        stored = _read(answer)
        if stored is None or len(stored) != 1:
            return False
        if stored[0].status != "sampled_out":
            self._fates.note_ahead((event.line,))
        return True

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
            if self._fates.are_known:  # from the answer for an earlier chunk
                chunk = [event for event in chunk if not self._fates.decide(event)]
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
                    self._fates.refuse(chunk[place], why)
                    if _status(answer) == 409:
                        self._fates.refuse_trace(chunk[place], why, events)
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
                if self._fates.sample_out(event, stored.message or ""):
                    event.offset = 0  # no steps of the trace precede the numbering
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
                second = Event(event.line, with_raw=event.with_raw)
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
