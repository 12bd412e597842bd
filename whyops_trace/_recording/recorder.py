"""
The one door through which every record goes: numbers it, times it, writes it to the journal, counts it.

``record`` runs in the host program's threads. It takes one lock, never for longer than it takes to format a line
and copy it into a memory map, and never over user code.
"""

from __future__ import annotations

import contextlib
import os
import random
import threading
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable
from itertools import count
from typing import Final, Protocol

from whyops_trace._clock import Clock, iso_seconds
from whyops_trace._recording.line import NO_SPAN, USUAL, Draft, Ending, usual_form
from whyops_trace._recording.state import TraceState
from whyops_trace._values import encoding
from whyops_trace._values.processor import Processor
from whyops_trace.types import Audience, EventOptions

#: Distinct span ids an agent uses: a self-hosted server stores at most 1,000 in an agent's whole life, and the
#: processes of one agent start at different places of the cycle but share the same names.
SPANS: Final = 400
#: Traces whose numbering is remembered; an older one that comes back starts a new numbering.
REMEMBERED_TRACES: Final = 10_000
#: Milliseconds without a record after which a trace that comes back starts a new numbering as well: another process may
#: have gone on with it. Who comes back sooner, as a loop does, need not have its numbering resolved anew each time.
IDLE_MS: Final = 1_000
#: Open manual tool calls remembered for each trace.
OPEN_TOOLS: Final = 1_000
#: Steps of a forked child's share of a trace it inherits: children of one parent have neighbouring process ids.
CHILD_BAND: Final = 100_000
CHILD_BANDS: Final = 20_000

#: What an event adds to the number of calls and steps that are open, with which one begins or ends.
BEGINS: Final = 1
ENDS: Final = -1

#: Steps from one event to the next where a proxy adds events of its own to the trace, after the last step it knows.
ROOM: Final = 1_000


class Sink(Protocol):
    """
    Where finished lines go: the journal.

    Attributes:
        token: Name of the recording process: twelve hexadecimal digits.
        lock: Held while files are opened and closed; taken before a fork.
    """

    token: str
    lock: threading.RLock

    def append(self, line: bytes) -> None:
        """Take one line that ends in a newline; the caller holds the recorder's lock."""
        ...

    def renew(self) -> None:
        """Start over in a forked child."""
        ...


class Recorder:
    """
    Records events into a journal.

    Guarantees: within a trace, steps are unique and rise in the order of the journal, timestamps never fall, and a
    generated parent names a step that exists. A record made while this thread is inside ``record`` (a finaliser run
    by the garbage collector, a signal handler) is numbered at once and written directly after the outer one.

    Args:
        journal: Where lines go.
        agent_name: Stands in every record.
        processor: What is done to metadata and content before they are written, and to which traces.
        clock: Time.
        on: Whether anything is recorded at all.
    """

    # Instances of a class without slots take their attributes more slowly from the thirty-first on.
    __slots__ = (
        "__weakref__", "_append", "_captured", "_deferred", "_fit", "_fitting", "_keys", "_now", "_now_text",
        "_numberings", "_random", "_second_text", "_time_ns", "_token_bytes", "_when", "_writing", "after_fork",
        "agent_name", "clock", "encode", "free_spans", "hides", "journal", "listeners", "lock", "on", "open_blocks",
        "perf_counter_ns", "processor", "serves", "stride", "tail", "token", "traces", "traces_clients", "wakeups",
    )  # fmt: skip

    def __init__(
        self,
        journal: Sink,
        *,
        agent_name: str,
        processor: Processor,
        clock: Clock,
        on: bool = True,
    ) -> None:
        self.journal = journal
        self.agent_name = agent_name
        self.processor = processor
        self._fit, self._fitting = processor.fit, processor.fitting
        self.hides, self.encode = processor.hides, processor.encode
        #: The fixed part of records after the key.
        self.tail = b'"agentName":' + encoding.string(agent_name)
        self.clock = clock
        self._time_ns = clock.time_ns
        self.perf_counter_ns = clock.perf_counter_ns
        self.on = on
        self.traces: OrderedDict[str, TraceState] = OrderedDict()
        #: Whether records go to a WhyOps server, and whether clients of providers are traced beside decorated calls:
        #: then a call of a model may turn out to be a turn of theirs, which they report.
        self.serves = False
        self.traces_clients = False
        #: Steps from one event of a trace to the next.
        self.stride = 1
        #: With-blocks of traces that are open.
        self.open_blocks = 0
        #: Called once each by the next record, which empties the list: they wake the workers that rest.
        self.wakeups: list[Callable[[], None]] = []
        #: Called when there is something to deliver that was not recorded here: they wake the workers that run already.
        self.listeners: list[Callable[[], None]] = []
        #: What else must start over in a forked child.
        self.after_fork: list[Callable[[], None]] = []
        self._renew()
        _recorders.add(self)

    def _renew(self) -> None:
        """Start as a process of its own: locks, ids, key prefix."""
        self.lock = threading.RLock()
        self.token = self.journal.token
        self._token_bytes = self.token.encode()
        self._random = random.Random(os.urandom(16))  # noqa: S311 - ids, not secrets
        self._keys = count(1)
        self._numberings = count(1)
        start = self._random.randrange(SPANS)
        #: Span ids that pair nothing at present: taken from the left, given back on the right.
        self.free_spans = deque(b"span_%d" % (1 + (start + k) % SPANS) for k in range(SPANS))
        #: The time of the latest record in milliseconds, and as it is written, alone and with the beginning of a key:
        #: in a burst many share it.
        self._now = 0
        self._now_text = self._second_text = self._when = b""
        self._writing = False
        self._deferred: deque[Draft] = deque()
        self.redirect(_capture)

    @property
    def is_writing(self) -> bool:
        """Whether a record is being written; to the thread that holds the lock, whether by itself."""
        return self._writing

    def redirect(self, sink: Callable[[bytes], None] | None) -> None:
        """Send lines to *sink*, where they do not count as emitted; None: back to the journal."""
        self._append = sink or self.journal.append
        self._captured = sink is not None

    # Traces

    def new_trace(self) -> TraceState:
        """Return the state of a new trace with an id of its own: 32 hexadecimal digits."""
        return TraceState(self, f"{self._random.getrandbits(128):032x}")

    def trace(self, trace_id: str | None) -> TraceState:
        """
        Return the state of a trace: the one known by that id, or a new one.

        An id the user chose may come back in another process, so its numbering is named: whoever stores the records
        continues where the trace stopped. The same holds where it comes back in this one after a while in which
        nothing of it was open.
        """
        with self.lock:
            if trace_id is None:
                state = self.new_trace()
            else:
                state = self._known(trace_id) or self._begin_numbering(trace_id)
                state.on = self.keeps(trace_id)
            self.traces[state.id] = state
            self.traces.move_to_end(state.id)  # the latest is the last to be forgotten
            if len(self.traces) > REMEMBERED_TRACES:
                self.traces.popitem(last=False)
            return state

    def _known(self, trace_id: str) -> TraceState | None:
        known = self.traces.get(trace_id)
        if known is None or known.blocks or known.open or known.open_tools or not known.first:
            return known
        return known if self._time_ns() // 1_000_000 - known.last_ms < IDLE_MS else None

    def _begin_numbering(self, trace_id: str) -> TraceState:
        state = TraceState(self, trace_id, f"{self.token}-{next(self._numberings)}")
        before = self.traces.pop(trace_id, None)
        if before is not None:
            state.tail, state.last_ms = before.tail, before.last_ms
        return state

    def make_room(self, state: TraceState) -> None:
        """Leave room for a proxy's events between the next steps of a trace, if it was begun without."""
        with self.lock:
            if state.stride == 1:
                following = next(state.steps)
                state.stride = ROOM
                state.steps = count((following + ROOM - 2) // ROOM * ROOM + 1, ROOM)

    def keeps(self, trace_id: str) -> bool:
        """Tell whether a trace is recorded: while lines go elsewhere, sampling is ignored."""
        return self.on and (self._captured or not self.processor.samples or self.processor.keeps(trace_id))

    def count_block(self, state: TraceState, change: int) -> int:
        """Note that a with-block of a trace was entered (1) or left (-1); return how many of it are open."""
        with self.lock:
            self.open_blocks += change
            state.blocks += change
            return state.blocks

    # Spans

    def open_span(self) -> bytes:
        """Return a span id no open pair uses, unless all are in use."""
        try:
            return self.free_spans.popleft()
        except IndexError:
            return b"span_%d" % (1 + self._random.randrange(SPANS))

    def close_span(self, span: bytes) -> None:
        """Give back what :meth:`open_span` returned."""
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
        content: bytes,
        span: bytes = NO_SPAN,
        ending: Ending = USUAL,
        opens: int = 0,
    ) -> int:
        """
        Write an event that takes the next step of its trace and has no options; return that step.

        The arguments are the first attributes of a :class:`~whyops_trace._recording.line.Draft`. Calls give them by
        position: by name, three of them make entering this 1.35 times as slow.
        """
        if state.untold:
            _tell(state, ending)
        if len(metadata) + len(content) > self._fitting:
            metadata, content = self._fit(metadata, content)
        with self.lock:
            form = state.form
            if form is None or self._writing:
                step = self._add(Draft(state, kind, parent, within, metadata, content, span, ending, opens))
            else:
                state.open += opens
                # Before the step is taken: a signal handler right after that would take the next one and write first.
                self._writing = True
                time_ns, append = self._time_ns, self._append  # called as methods they would take longer
                try:
                    now = time_ns() // 1_000_000
                    if now != self._now or state.when is not self._when:
                        self._tick(state, now)
                    step = next(state.steps)
                    append(form % (
                        kind, step, parent or state.root, within, metadata, span, state.when, next(self._keys),
                        content, ending.text,
                    ))  # fmt: skip
                    if self._deferred:
                        self._write_deferred()
                finally:
                    self._writing = False
        if self.wakeups:
            self._wake()
        return step

    def record_draft(self, draft: Draft) -> int:
        """Write an event of any kind; return its step."""
        if draft.state.untold:
            _tell(draft.state, draft.ending)
        if len(draft.metadata) + len(draft.content) > self._fitting:
            draft.metadata, draft.content = self._fit(draft.metadata, draft.content)
        with self.lock:
            step = self._add(draft)
        if self.wakeups:
            self._wake()
        return step

    def _add(self, draft: Draft) -> int:
        """Number a record, and write it now, or after the one that this thread is writing; return its step."""
        state = draft.state
        state.open += draft.opens
        if self._writing:
            self._tick(state, self._now)
            step = draft.step = draft.step or _take_step(state, draft.given)
            self._deferred.append(draft)
            return step
        self._writing = True
        try:
            now = self._time_ns() // 1_000_000
            if now != self._now or state.when is not self._when:
                self._tick(state, now)
            step = draft.step = draft.step or _take_step(state, draft.given)
            self._append(self._line(draft))
            if self._deferred:
                self._write_deferred()
        finally:
            self._writing = False
        return step

    def _write_deferred(self) -> None:
        """Write what was recorded inside another record."""
        while self._deferred:
            draft = self._deferred.popleft()
            self._tick(draft.state, self._now)
            self._append(self._line(draft))

    def _line(self, draft: Draft) -> bytes:
        """Return a record of any kind, and note what its trace has begun with."""
        state, key = draft.state, next(self._keys)
        is_local = draft.ending.audience is Audience.LOCAL
        if is_local and not state.first and not state.numbering:
            # The server gets this trace's first event from the proxy, so that it has to number what comes after.
            state.name_numbering(f"{self.token}-{next(self._numberings)}")
        line = draft.line(self._now_text.decode(), f"{self.token}-{key}")
        state.first = state.first or draft.step
        if not is_local:
            state.root, state.about = state.root or draft.step, b""
            state.form = None if state.given else usual_form(state)
        return line

    def _tick(self, state: TraceState, now: int) -> None:
        """Set the time of a trace's next records: not before its last one, should the clock be set back."""
        if state.token is not self.token:
            self._continue_in_child(state)
        now = state.last_ms = max(now, state.last_ms)
        if now != self._now:
            second, milliseconds = divmod(now, 1000)
            if second != self._now // 1000:
                self._second_text = iso_seconds(second)
            self._now = now
            self._now_text = b"%b.%03dZ" % (self._second_text, milliseconds)
            self._when = b'"%b","idempotencyKey":"%b' % (self._now_text, self._token_bytes)
        state.when = self._when

    def _continue_in_child(self, state: TraceState) -> None:
        """Give this forked process steps of its own in a trace it inherited: both go on with it at the same time."""
        wide = 1 if state.stride == 1 else 10
        state.steps = count((os.getpid() % (CHILD_BANDS // wide) + 1) * CHILD_BAND * wide, state.stride)
        state.token = self.token

    def _wake(self) -> None:
        while self.wakeups and not self._captured:
            with contextlib.suppress(IndexError):  # another thread woke it
                self.wakeups.pop()()

    # Fork

    def renew(self) -> None:
        """Start over in a forked child, which owns nothing of its parent's files, locks and threads."""
        self.journal.renew()
        self._renew()
        self.wakeups.clear()
        for renew in self.after_fork:
            renew()


def _tell(state: TraceState, ending: Ending) -> None:
    """Record the requests that were held back from a server, before something that it gets as well."""
    if ending.audience is Audience.LOCAL:
        return
    untold, state.untold = state.untold, []
    for tell in untold:
        tell()


def _take_step(state: TraceState, given: EventOptions | None) -> int:
    """Return the step of an event with options, and let later ones count on above it."""
    step = next(state.steps)
    chosen = given.get("step_id") if given else None
    if chosen is None:
        return step
    state.steps = count(max(step, chosen + state.stride), state.stride)
    state.given = (state.given or set()) | {chosen}
    return chosen


#: Every recorder alive, for forks and captures.
_recorders: weakref.WeakSet[Recorder] = weakref.WeakSet()
#: Where lines go instead of the journals while a capture is on.
_capture: Callable[[bytes], None] | None = None


def capture(sink: Callable[[bytes], None] | None) -> Callable[[bytes], None] | None:
    """
    Send the lines of every recorder, also of ones made later, to *sink*; None: to their journals.

    Returns:
        What *sink* was before.
    """
    global _capture
    before, _capture = _capture, sink
    for recorder in list(_recorders):
        with recorder.lock:
            recorder.redirect(sink)
    return before


def _before_fork() -> None:
    # No fork in the middle of a record; the same order in every thread.
    for recorder in sorted(_recorders, key=id):
        recorder.lock.acquire()
        recorder.journal.lock.acquire()


def _after_fork_in_parent() -> None:
    for recorder in _recorders:
        recorder.journal.lock.release()
        recorder.lock.release()


def _after_fork_in_child() -> None:
    for recorder in _recorders:
        recorder.renew()


os.register_at_fork(
    before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child
)
