"""The state of a trace in this process: its identity, and how far its numbering has come."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from itertools import count
from typing import TYPE_CHECKING, Any, Final

from whyops_trace._checks import MAX_STEP
from whyops_trace._models.links import AskedTools, ReportedTurns
from whyops_trace._recording.gate import Gate
from whyops_trace._values import encoding
from whyops_trace._values.secrets.repeats import NOTED, Repeats

if TYPE_CHECKING:
    from whyops_trace._recording.recorder import Recorder

#: The end of a trace that may go on at any time: it is open in another process, or each request names it.
UNENDING: Final = -1
#: Number of traces without anything open whose links to earlier turns are remembered.
LINKED_TRACES: Final = 64


class TraceState:
    """
    The state of one trace in this process: its identity, and how far its numbering has come.

    Attributes:
        id: The trace id, 1 to 128 characters.
        recorder: The recorder of its records.
        on: True if it is recorded at all: tracing is on, and the trace is not sampled out.
        numbering: The name of its numbering if the user chose the id or a proxy reports to the same trace, else None.
        head: The fixed start of its records, ``"traceId":...,["run":...,]"stepId":``, where ``run`` is the numbering.
        tail: The fixed part after the key, ``"agentName":...[,"externalUserId":...]``.
        agent: The name of the agent of the trace, which began it.
        steps: The next step numbers, *stride* apart; taken under the recorder's lock.
        stride: The distance between two steps.
        end: The step after those that this process may give others a share of.
        first: The step of its first event.
        root: The step of its first event that a server has as well. It is the parent of an event that follows from no
            other.
        root_key: The idempotency key of that event; "" before it, and if the user chose the key.
        last: The step of the last event at the top that was recorded outside any with-block. The next one there follows
            from it.
        last_ms: The latest timestamp of a record, in milliseconds since the epoch.
        ended_ms: The time when nothing of it was open any more, in milliseconds since the epoch; 0 while something is,
            :data:`UNENDING` if it may go on at any time.
        form: The form of its usual records; None if the next record is an unusual one: the first of its trace, the
            first after :meth:`tell`, any after a step that the user chose.
        token: The process that the numbering belongs to.
        blocks: Number of open with-blocks of the trace.
        open: Number of open decorated calls and steps of the trace.
        gate: What stands before its calls and records; None as long as nothing does.
        asked_tools: The tool calls that models asked for in it; None if there were none.
        reported: The turns of it that clients of providers made, and so report; None if there were none.
        repeats: The secrets of it that are hidden where they come up again; None if there were none.
        shared: True if it is for the turns of any client: it was opened without naming one.
        user: The user that it acts for, "" if none was named.
        remote: The span of another program that it is in, 16 hexadecimal digits; "" for none.
        when: The recorder's text for the time of its last record, by identity. Another text means that time has passed,
            or that this is a forked process.
        about: The metadata member, led by a comma, that tells of the trace as a whole; empty once an event carried it.
        given: The steps that the user chose, if any.
        open_tools: The manual tool calls without a response, by span id: the request's step, the step of the call that
            encloses it, and the span id again if the library made it.
    """

    __slots__ = (
        "about", "agent", "asked_tools", "blocks", "end", "ended_ms", "first", "form", "gate", "given", "head", "id",
        "last", "last_ms", "numbering", "on", "open", "open_tools", "recorder", "remote", "repeats", "reported", "root",
        "root_key", "shared", "steps", "stride", "tail", "token", "user", "when",
    )  # fmt: skip

    def __init__(
        self,
        recorder: Recorder,
        trace_id: str,
        numbering: str | None = None,
    ) -> None:
        self.id: str = trace_id
        self.recorder: Recorder = recorder
        self.on: bool = recorder.keeps(trace_id) if recorder.processor.samples else recorder.on
        self.name_numbering(numbering)
        self.tail: bytes = recorder.tail
        self.agent: str = recorder.agent_name
        self.stride: int = recorder.stride
        self.steps: Iterator[int] = count(1, self.stride)
        self.end: int = MAX_STEP
        self.first: int = 0
        self.root: int = 0
        self.root_key: str = ""
        self.last: int = 0
        self.last_ms: int = 0
        self.ended_ms: int = 0
        self.when: bytes = b""
        self.form: bytes | None = None
        self.token: str = recorder.token
        self.shared: bool = True
        self.gate: Gate | None = None
        self.about: bytes = b""
        self.user: str = ""
        self.remote: str = ""
        self.asked_tools: AskedTools | None = None
        self.reported: ReportedTurns | None = None
        self.repeats: Repeats | None = None
        self.blocks: int = 0
        self.open: int = 0
        self.given: set[int] | None = None
        self.open_tools: dict[str, tuple[int, int, bytes]] = {}

    def name_numbering(self, numbering: str | None) -> None:
        """Name the numbering, before the first record: a store or server has to find out its offset."""
        self.numbering: str | None = numbering
        member = b',"run":' + encoding.string(numbering) if numbering else b""
        self.head: bytes = b'"traceId":%b%b,"stepId":' % (encoding.string(self.id), member)

    def open_gate(self) -> Gate:
        """Return what stands before its calls and records, made now if nothing did."""
        with self.recorder.lock:
            self.gate = self.gate or Gate()
            return self.gate

    def take_step(self, chosen: int | None) -> int:
        """Return the step of an event that may have a step chosen by the user. Later events count on above it."""
        step = next(self.steps)
        if chosen is None:
            return step
        self.steps = count(max(step, chosen + self.stride), self.stride)
        self.given = (self.given or set()) | {chosen}
        return chosen

    def aside(self, step: int) -> TraceState:
        """
        Return a state for one record about the trace, which is no event of it and may come long after its end.

        Args:
            step: The step that the record is about, 0 for the trace as a whole. One that was not taken here is the
                number that it has in the store, and stays as it is.
        """
        aside = TraceState(self.recorder, self.id, self.numbering)
        aside.tail, aside.repeats = self.tail, self.repeats
        aside.steps, aside.first, aside.ended_ms = count(step), 1, UNENDING
        with self.recorder.lock:
            # The next step tells which were taken here. It is left out, since to give it back might take two at once.
            is_own = step and self.first and step < next(self.steps) and step not in (self.given or ())
        aside.given = None if is_own else {step}
        return aside

    def note_asked(self, step: int, tool_calls: Any) -> None:
        """Remember the tool calls, plain data, that the answer of that step asks for; none if it does not tell them."""
        tools = self.asked_tools = self.asked_tools or AskedTools()
        tools.note(step, tool_calls)
        self.recorder.linked_traces.add(self)

    def note_turn(self, step: int, models: Iterable[str], text: str | None) -> None:
        """Remember that a turn is reported, by the step of its answer: the code that made it need not report it."""
        turns = self.reported = self.reported or ReportedTurns()
        turns.note(step, models, text)
        self.recorder.linked_traces.add(self)

    def note_repeats(self) -> None:
        """Remember the secrets that this thread has hidden since its last record."""
        if threading.get_ident() in NOTED:
            with self.recorder.lock:
                self.repeats = (self.repeats or Repeats()).and_noted()

    def without_repeats(self, json: bytes) -> bytes:
        """Return JSON of it, or metadata members, without the secrets that were hidden before."""
        self.note_repeats()
        return json if self.repeats is None else self.repeats.removed(json)

    def tell(self, external_user_id: str | None, about: bytes) -> None:
        """
        Set the facts about the trace as a whole, from its next event on.

        Args:
            external_user_id: The user that the agent acts for; None for the same as before.
            about: A metadata member, led by a comma, or nothing.
        """
        if about:
            about = self.recorder.processor.told(self.without_repeats(about))
        with self.recorder.lock:
            if external_user_id is not None:
                external_user_id = encoding.identifier(external_user_id)
                self.user = external_user_id
                self.tail = self._tail()
            if about and self.remote and not self.first:
                about = self._remote_parent() + about
            self.about = about or self.about
            self.form = None

    def be_in(self, remote: str) -> None:
        """Note the span of another program that the trace is in, before the first record, which tells of it."""
        self.remote = remote
        self.about = self._remote_parent() + self.about

    def _remote_parent(self) -> bytes:
        return b',"remoteParent":"%b"' % self.remote.encode()

    def belong_to(self, agent: str) -> None:
        """Say which agent the trace belongs to, before the first record. A server binds a trace to one agent."""
        self.agent = agent
        self.tail = self._tail()

    def _tail(self) -> bytes:
        recorder = self.recorder
        tail = recorder.tail
        if recorder.serves and self.agent != recorder.agent_name:
            tail = b'"agentName":' + encoding.string(self.agent)
        return b'%b,"externalUserId":%b' % (tail, encoding.string(self.user)) if self.user else tail


class LinkedTraces:
    """
    The traces that remember their turns, for the links of later events: all that are open, and the latest others.

    A trace that has ended may be entered again, so its links are forgotten only when enough others were made.
    """

    def __init__(self) -> None:
        self._states: OrderedDict[TraceState, None] = OrderedDict()

    def add(self, state: TraceState) -> None:
        """Note that a trace has a link. Have the one whose last link is the oldest forget all of its own."""
        with state.recorder.lock:
            self._states[state] = None
            self._states.move_to_end(state)
            # Two at a time, so that the number falls again once many were open.
            for _ in range(min(2, len(self._states) - LINKED_TRACES)):
                oldest, _ = self._states.popitem(last=False)
                if oldest.blocks or oldest.open:
                    self._states[oldest] = None
                else:
                    oldest.asked_tools = oldest.reported = None
