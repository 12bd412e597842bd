"""
The one way into the journal: the recorder numbers and times each record and writes it, which counts it.

``record`` runs in the host program's threads. It takes one lock, never for longer than it takes to format a line and
copy it into a memory map, and runs no user code under it.
"""

from __future__ import annotations

import contextlib
import os
import random
import sys
import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from itertools import count
from typing import Final, Protocol

from whyops_trace._checks import MAX_STEP
from whyops_trace._clock import Clock, iso_seconds
from whyops_trace._locks import is_held_here
from whyops_trace._models.requests import Requests
from whyops_trace._recording import recorders
from whyops_trace._recording.line import NO_SPAN, USUAL, Content, Draft, Ending, usual_form
from whyops_trace._recording.shares import count_apart
from whyops_trace._recording.sink import Sink
from whyops_trace._recording.state import UNENDING, LinkedTraces, TraceState
from whyops_trace._values import encoding
from whyops_trace._values.outcomes import NONE, NotErrors
from whyops_trace._values.processor import Processor
from whyops_trace._values.secrets.repeats import NOTED
from whyops_trace.types import Audience

#: Number of distinct span ids of an agent. A self-hosted server stores at most 1,000 in an agent's whole life. The
#: processes of one agent share the same ids, and start at different places of the cycle.
SPANS: Final = 400
#: Number of traces whose numbering is remembered. An older one that comes back starts a new numbering.
REMEMBERED_TRACES: Final = 10_000
#: Milliseconds without a record after which a trace that comes back starts a new numbering as well, since another
#: process may have continued it. A trace that comes back sooner, as in a loop, goes on in its numbering, which would
#: otherwise have to be resolved each time.
IDLE_MS: Final = 1_000
#: Milliseconds after the end of a trace from which on a record in it is late.
LATE_MS: Final = 60_000
#: Number of open manual tool calls that are remembered for each trace.
OPEN_TOOLS: Final = 1_000
#: Change of the number of open calls and steps by an event that begins one, and by an event that ends one.
BEGINS: Final = 1
ENDS: Final = -1

#: Steps from one event to the next if a proxy adds events of its own to the trace, after the last step that it knows.
ROOM: Final = 1_000


class Offsets(Protocol):
    """The offsets of numberings on a WhyOps server, by the name of the numbering and the token of its process."""

    def remembered(self, numbering: str, process: str) -> int | None:
        """Return an offset that is in memory, None if it is not."""

    def remember(self, numbering: str, process: str, offset: int) -> None:
        """Remember an offset."""

    def expect(self, numbering: str, key: str, step: int) -> None:
        """Remember the key and the step of an event by which an offset can be found on the server."""


class Recorder:
    """
    Records events into a journal.

    Guarantees: within a trace, steps are unique and rise in the order of the journal, timestamps never fall, and a
    generated parent names a step that exists. A record may be made while this thread is inside ``record``, by a
    finaliser of the garbage collector or a signal handler. It is numbered at once and written directly after the outer
    one.

    Args:
        journal: The journal that takes the lines.
        agent_name: The name of the agent in every record.
        processor: The redaction, truncation and sampling of records before they are written.
        clock: The source of the time.
        on: False to record nothing at all.
        not_errors: Exceptions that are no failures, of any call or block.
    """

    # Instances of a class without slots take their attributes more slowly from the thirty-first on.
    __slots__ = (
        "__weakref__", "_append", "_append_pieces", "_deferred_drafts", "_fit", "_fitting", "_is_captured", "_keys",
        "_late", "_now", "_now_text", "_numberings", "_random", "_second_text", "_time_ns", "_token_bytes", "_when",
        "_writing", "after_fork", "agent_name", "clock", "encode", "free_spans", "hides", "journal", "linked_traces",
        "links", "listeners", "lock", "not_errors", "offsets", "on", "open_blocks", "outside", "perf_counter_ns",
        "processor", "requests", "secret", "serves", "stride", "tail", "token", "traces", "traces_clients", "wakeups",
    )  # fmt: skip

    def __init__(
        self,
        journal: Sink,
        *,
        agent_name: str,
        processor: Processor,
        clock: Clock,
        on: bool = True,
        max_history_bytes: int,
        not_errors: NotErrors = NONE,
    ) -> None:
        self.journal: Sink = journal
        self.agent_name: str = agent_name
        self.processor: Processor = processor
        self._fit, self._fitting = processor.fit, processor.fitting
        self.hides: Callable[[str], bool] = processor.hides
        self.encode: Callable[[object], bytes] = processor.encode
        self.requests: Requests = Requests(processor, max_history_bytes)
        #: The fixed part of records after the key.
        self.tail: bytes = b'"agentName":' + encoding.string(agent_name)
        self.clock: Clock = clock
        self._time_ns = clock.time_ns
        self.perf_counter_ns: Callable[[], int] = clock.perf_counter_ns
        self.on: bool = on
        self.not_errors: NotErrors = not_errors
        self.traces: OrderedDict[str, TraceState] = OrderedDict()
        self.linked_traces: LinkedTraces = LinkedTraces()
        #: Function that returns the trace and span of OpenTelemetry in which a new trace begins, None for none; None if
        #: spans are not exported.
        self.outside: Callable[[], tuple[str, str] | None] | None = None
        #: True if records go to a WhyOps server.
        self.serves: bool = False
        #: The key that signs the places in its traces that other programs are told, empty for no signature.
        self.secret: bytes = b""
        #: The offsets of numberings on a WhyOps server, as far as they are in memory; None if there is no server.
        self.offsets: Offsets | None = None
        #: True if traces go on where the headers of a request say.
        self.links: bool = True
        #: True if clients of providers are traced beside decorated calls. Then a call of a model may turn out to be a
        #: turn of theirs, which they report.
        self.traces_clients: bool = recorders.has_layers()
        #: Steps from one event of a trace to the next.
        self.stride: int = 1
        #: Number of open with-blocks of traces, by the thread that entered them.
        self.open_blocks: dict[int, int] = {}
        #: Functions that wake the resting workers. The next record empties the list and calls each once.
        self.wakeups: list[Callable[[], None]] = []
        #: Functions that wake the running workers. They are called when there are records to deliver that were not
        #: recorded here.
        self.listeners: list[Callable[[], None]] = []
        #: Functions that start the other parts of a client over in a forked child.
        self.after_fork: list[Callable[[], None]] = []
        self._renew()
        recorders.alive.add(self)

    def _renew(self) -> None:
        """Start as a process of its own, with its own locks, ids and key prefix."""
        self.lock: threading.RLock = threading.RLock()
        self.token: str = self.journal.token
        self._token_bytes = self.token.encode()
        self._random = random.Random(os.urandom(16))  # noqa: S311 - ids, not secrets
        self._keys = count(1)
        self._numberings = count(1)
        start = self._random.randrange(SPANS)
        #: Span ids without an open pair: taken from the left, given back on the right.
        self.free_spans: deque[bytes] = deque(b"span_%d" % (1 + (start + k) % SPANS) for k in range(SPANS))
        #: The time of the latest record: in milliseconds, as text, and as text with the beginning of a key. In a burst
        #: many records share it.
        self._now = 0
        self._now_text = self._second_text = self._when = b""
        self._writing = False
        #: Traces with a late record that nobody was told of.
        self._late: deque[TraceState] = deque()
        self._deferred_drafts: deque[Draft] = deque()
        self.redirect(recorders.sink())

    @property
    def is_writing(self) -> bool:
        """True while a record is being written: by any thread, or by this one if it holds the lock."""
        return self._writing

    def redirect(self, sink: Callable[[bytes], None] | None) -> None:
        """Send lines to *sink*, where they do not count as emitted. None sends them to the journal again."""
        self._append = sink or self.journal.append
        self._append_pieces = (
            self.journal.append_pieces if sink is None else lambda pieces: sink(b"".join(pieces))
        )
        self._is_captured = sink is not None

    # Traces

    def new_trace(self) -> TraceState:
        """
        Return the state of a new trace with an id of its own: 32 hexadecimal digits.

        Inside a span of OpenTelemetry, if spans are exported, it has the trace id of that span, which is its parent.
        """
        around = self.outside() if self.outside is not None else None
        if around is None:
            return TraceState(self, f"{self._random.getrandbits(128):032x}")
        with self.lock:
            state = self._begin_numbering(around[0])
        state.be_in(around[1])
        return state

    def trace(self, trace_id: str | None, *, is_new: bool = False, remote: str = "") -> TraceState:
        """
        Return the state of a trace: the present one of that id, or a new one.

        Args:
            trace_id: The id, None for one of its own.
            is_new: True if nobody else has recorded anything under that id.
            remote: The span of another program that the trace is in, "" for none.

        An id that the user chose may come back in another process. So its numbering has a name, and a store or server
        continues the steps of the trace. The same holds if it comes back in this process after a second in which
        nothing of it was open, or from another span while nothing is: what is recorded then is below that one.
        """
        trace_id = trace_id and encoding.identifier(trace_id)
        with self.lock:
            if trace_id is None:
                state = self.new_trace()
            elif is_new:
                state = TraceState(self, trace_id)
            else:
                state = self._present_state(trace_id, remote) or self._begin_numbering(trace_id)
                state.on = self.keeps(trace_id)
                if remote and not state.first and not state.remote:
                    state.be_in(remote)
            self.remember(state)
            return state

    def remember(self, state: TraceState) -> None:
        """Remember the state of a trace, the latest of that id, as long as there is room. The caller holds the lock."""
        self.traces[state.id] = state
        self.traces.move_to_end(state.id)  # the latest is the last to be forgotten
        if len(self.traces) > REMEMBERED_TRACES:
            self.traces.popitem(last=False)

    def _present_state(self, trace_id: str, remote: str) -> TraceState | None:
        state = self.traces.get(trace_id)
        if state is None or state.blocks or state.open or state.open_tools or not state.first:
            return state
        if remote and remote != state.remote:
            return None
        return state if self._time_ns() // 1_000_000 - state.last_ms < IDLE_MS else None

    def _begin_numbering(self, trace_id: str) -> TraceState:
        state = TraceState(self, trace_id)
        self.name_numbering(state)
        before = self.traces.pop(trace_id, None)
        if before is not None:
            state.tail, state.agent = before.tail, before.agent
            state.last_ms, state.repeats = before.last_ms, before.repeats
        return state

    def name_numbering(self, state: TraceState) -> None:
        """Name the numbering of a trace without a record, which others record in too: its offset is to be found out."""
        state.name_numbering(f"{self.token}-{next(self._numberings)}")

    def offset_of(self, numbering: str | None) -> int:
        """Return the offset of a numbering on a WhyOps server, -1 if it is not known. It never waits."""
        if self.offsets is None or numbering is None:
            return -1
        offset = self.offsets.remembered(numbering, numbering.partition("-")[0])
        return -1 if offset is None else offset

    def learn_offset(self, numbering: str | None, offset: int) -> None:
        """Take the offset of a numbering that another process tells, -1 for none: it may have another home."""
        if self.offsets is not None and numbering is not None and offset >= 0:
            self.offsets.remember(numbering, numbering.partition("-")[0], offset)

    def expect_offset(self, numbering: str | None, key: str, step: int) -> None:
        """Take the first event of a numbering that another process tells: its step on the server tells the offset."""
        if self.offsets is not None and numbering is not None and key and step:
            self.offsets.expect(numbering, key, step)

    def make_room(self, state: TraceState) -> None:
        """Leave room for a proxy's events between the next steps of a trace, if it began without that room."""
        with self.lock:
            if state.stride == 1:
                following = next(state.steps)
                state.stride = ROOM
                if state.end < MAX_STEP:  # beyond its share are those of others
                    count_apart(state)
                else:
                    state.steps = count((following + ROOM - 2) // ROOM * ROOM + 1, ROOM)
                if state.root:
                    self._leave_others_theirs(state)

    def _leave_others_theirs(self, state: TraceState) -> None:
        """
        Take the next steps of a trace at some place within each thousand, after the first event that a server has.

        Another process may go on with the trace at the same time, and no two events of it may have the same step.
        """
        if state.numbering and state.stride == ROOM:
            state.steps = count(next(state.steps) + self._random.randrange(ROOM), ROOM)

    def keeps(self, trace_id: str) -> bool:
        """Return True if a trace is recorded. During a capture, sampling is ignored."""
        return self.on and (self._is_captured or not self.processor.samples or self.processor.keeps(trace_id))

    def count_block(self, state: TraceState, change: int) -> int:
        """Note that a with-block of a trace was entered (1) or left (-1). Return the number of its open blocks."""
        with self.lock:
            thread = threading.get_ident()
            open_here = self.open_blocks.get(thread, 0) + change
            if open_here > 0:
                self.open_blocks[thread] = open_here
            else:
                self.open_blocks.pop(thread, None)
            state.blocks += change
            return state.blocks

    # Spans

    def open_span(self) -> bytes:
        """Return a span id that no open pair uses. If all are in use, return any of them."""
        try:
            return self.free_spans.popleft()
        except IndexError:
            return b"span_%d" % (1 + self._random.randrange(SPANS))

    def close_span(self, span: bytes) -> None:
        """Give back a span id of :meth:`open_span`."""
        if len(self.free_spans) < SPANS:
            self.free_spans.append(span)

    # Records

    def record(
        self,
        state: TraceState,
        kind: bytes,
        parent: int,
        within: int,
        metadata: bytes,
        content: Content,
        span: bytes = NO_SPAN,
        ending: Ending = USUAL,
        opens: int = 0,
    ) -> int:
        """
        Write an event that takes the next step of its trace and has no options. Return that step.

        The arguments are the first attributes of a :class:`~whyops_trace._recording.line.Draft`. Calls give them by
        position: by name, three of them make entering this 1.35 times as slow.
        """
        if type(content) is not bytes:
            return self.record_draft(
                Draft(state, kind, parent, within, metadata, content, span, ending, opens)
            )
        if NOTED or state.repeats is not None:
            metadata, content = state.without_repeats(metadata), state.without_repeats(content)
        if state.gate is not None:
            state.gate.pass_record(kind, metadata, content, span, ending, opens)
        if len(metadata) + len(content) > self._fitting:
            metadata, content = self._fit(metadata, content, kind)
        with self.lock:
            form = state.form
            if form is None or self._writing:
                step = self._add(Draft(state, kind, parent, within, metadata, content, span, ending, opens))
            else:
                state.open += opens
                time_ns, append = self._time_ns, self._append  # called as methods they would take longer
                try:
                    # Set before the step is taken: a signal handler right after that would take the next one and write
                    # it first. Set inside, or an interrupt here would leave it set for good.
                    self._writing = True
                    now = time_ns() // 1_000_000
                    if now != self._now or state.when is not self._when:
                        self._tick(state, now, opens)
                    step = next(state.steps)
                    append(form % (
                        kind, step, parent or state.root, within, metadata, span, state.when, next(self._keys),
                        content, ending.text,
                    ))  # fmt: skip
                    if self._deferred_drafts:
                        self._write_deferred()
                finally:
                    self._writing = False
        if self.wakeups:
            self._wake()
        return step

    def record_draft(self, draft: Draft) -> int:
        """Write an event of any kind. Return its step."""
        if NOTED or draft.state.repeats is not None:
            _remove_repeats(draft)
        if draft.state.gate is not None:
            draft.state.gate.pass_record(
                draft.kind, draft.metadata, draft.content, _span_of(draft), draft.ending, draft.opens
            )
        content = draft.content
        if type(content) is tuple and self.processor.asks:
            content = b"".join(content)
        if type(content) is bytes and len(draft.metadata) + len(content) > self._fitting:
            draft.metadata, draft.content = self._fit(draft.metadata, content, draft.kind)
        with self.lock:
            step = self._add(draft)
        if self.wakeups:
            self._wake()
        return step

    def _add(self, draft: Draft) -> int:
        """Number a record, and write it now or after the one that this thread is writing. Return its step."""
        state = draft.state
        state.open += draft.opens
        if self._writing and self._is_inside():
            self._tick(state, self._now)
            step = draft.step = draft.step or state.take_step((draft.given or {}).get("step_id"))
            self._deferred_drafts.append(draft)
            return step
        try:
            self._writing = True
            now = self._time_ns() // 1_000_000
            if now != self._now or state.when is not self._when:
                self._tick(state, now, draft.opens)
            step = draft.step = draft.step or state.take_step((draft.given or {}).get("step_id"))
            self._write(draft)
            if self._deferred_drafts:
                self._write_deferred()
        finally:
            self._writing = False
        return step

    def _is_inside(self) -> bool:
        """Tell whether this thread, which holds the lock, is in the middle of another record."""
        # The flag alone does not say it: an interrupt may come just before it is taken back.
        frame = sys._getframe(2).f_back
        while frame is not None:
            if frame.f_code in _WRITING and frame.f_locals.get("self") is self:
                return True
            frame = frame.f_back
        return False

    def _write_deferred(self) -> None:
        """Write the records that were made inside another one."""
        while self._deferred_drafts:
            draft = self._deferred_drafts.popleft()
            self._tick(draft.state, self._now)
            self._write(draft)

    def _write(self, draft: Draft) -> None:
        line = self._line(draft)
        if isinstance(line, bytes):
            self._append(line)
        else:
            self._append_pieces(line)

    def _line(self, draft: Draft) -> bytes | tuple[bytes, ...]:
        """Return the line of a draft, and note the first events of its trace."""
        state, key = draft.state, next(self._keys)
        is_local = draft.ending.audience is Audience.LOCAL
        if is_local and not state.first and not state.numbering:
            # The server gets this trace's first event from the proxy, and so has to number the later ones.
            self.name_numbering(state)
        line = draft.line(self._now_text.decode(), f"{self.token}-{key}")
        state.first = state.first or draft.step
        if not is_local:
            if not state.root:
                self._leave_others_theirs(state)
                state.root_key = "" if "idempotency_key" in (draft.given or ()) else f"{self.token}-{key}"
            state.root, state.about = state.root or draft.step, b""
            state.form = None if state.given else state.form or usual_form(state)
        return line

    def _tick(self, state: TraceState, now: int, opens: int = 0) -> None:
        """
        Set the time of a trace's next records. It is never before the last one, even if the clock was set back.

        Args:
            state: The trace.
            now: The time, in milliseconds since the epoch.
            opens: Change of the number of open calls and steps by the next record, which is counted already.
        """
        if state.token is not self.token:
            self._continue_in_child(state)
        now = state.last_ms = max(now, state.last_ms)
        if state.blocks:
            state.ended_ms = 0
        elif state.first and state.open <= (opens > 0) and state.ended_ms != UNENDING:
            if state.ended_ms and now - state.ended_ms > LATE_MS:
                self._late.append(state)
                self.wakeups.append(self._tell_late)
            state.ended_ms = state.ended_ms or now
        if now != self._now:
            second, milliseconds = divmod(now, 1000)
            if second != self._now // 1000:
                self._second_text = iso_seconds(second)
            self._now = now
            self._now_text = b"%b.%03dZ" % (self._second_text, milliseconds)
            self._when = b'"%b","idempotencyKey":"%b' % (self._now_text, self._token_bytes)
        state.when = self._when

    def _continue_in_child(self, state: TraceState) -> None:
        """Give this forked process steps of its own in an inherited trace, which both processes continue."""
        count_apart(state)
        state.token = self.token

    def _tell_late(self) -> None:
        while self._late:
            state = self._late.popleft()
            for tell in recorders.on_late:
                tell(state)

    def _wake(self) -> None:
        # A record made inside another one leaves it to that one: a wakeup may start a thread, and wait for it while a
        # finaliser waits for the lock in that thread.
        if (self._is_captured and not self._late) or is_held_here(self.lock):
            return
        self._tell_late()
        while self.wakeups and not self._is_captured:
            with contextlib.suppress(IndexError, ValueError):  # another thread woke it
                wake = self.wakeups[-1]
                try:
                    self.wakeups.remove(wake)
                    wake()
                except BaseException:  # an interrupt: the next record wakes it
                    if wake not in self.wakeups:
                        self.wakeups.append(wake)
                    raise

    # Fork

    def renew(self) -> None:
        """Start over in a forked child, which owns nothing of its parent's files, locks and threads."""
        self.journal.renew()
        self._renew()
        self.wakeups.clear()
        self.open_blocks.clear()
        for renew in self.after_fork:
            renew()


#: The code in the middle of which a record is written.
_WRITING: Final = (Recorder.record.__code__, Recorder._add.__code__)


def _remove_repeats(draft: Draft) -> None:
    """Remove the secrets from a record that were hidden in its trace before. What was made to fit may not fit then."""
    content = draft.content
    json = content if isinstance(content, bytes) else b"".join(content)
    safe = draft.state.without_repeats(json)
    draft.metadata = draft.state.without_repeats(draft.metadata)
    draft.content = content if safe is json else safe


def _span_of(draft: Draft) -> bytes:
    """Return the span id of a record, which the user may have given."""
    given = (draft.given or {}).get("span_id")
    return given.encode() if given else draft.span
