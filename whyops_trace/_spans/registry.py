"""The open spans of this process, and the places that they are to the code in them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final, TypeAlias

from whyops_trace._forks import at_fork
from whyops_trace._frames import running
from whyops_trace._recording.line import LAST, ROOT, TOP, Draft
from whyops_trace._recording.recorder import Recorder
from whyops_trace._recording.state import TraceState
from whyops_trace._spans.source import Source
from whyops_trace._spans.span import Moment, OpenSpan
from whyops_trace.context import (
    PLACES,
    UNSETTLED,
    Enclosing,
    Loan,
    Scope,
    own_scope,
    turn_at,
)

#: Largest number of open spans. One that never ends is shown as running.
MAX_SPANS: Final = 10_000
#: Number of traces whose spans may go on after all that were open have ended.
_TRACES: Final = 1_000

#: The libraries whose spans tell of runs that an adapter records, by the identity of its attachment.
ADAPTED: Final[dict[int, tuple[str, ...]]] = {}

_Key: TypeAlias = tuple[int, int]


class _Trace:
    """
    A trace of spans.

    Attributes:
        state: The trace that they are in.
        is_own: True if it was made for them.
        open: Its spans that are open.
    """

    __slots__ = ("is_own", "open", "state")

    def __init__(self, state: TraceState, *, is_own: bool) -> None:
        self.state = state
        self.is_own = is_own
        self.open: dict[_Key, OpenSpan] = {}


class Visit(Loan):
    """The place inside a span, as long as that is the one that the SDK's context names, or around it."""

    __slots__ = ("_spans", "span")

    def __init__(self, spans: Spans, span: OpenSpan, inside: Scope, covered: Scope | None) -> None:
        super().__init__(inside, covered)
        self._spans = spans
        self.span = span
        self.unsettle()

    def is_over(self) -> bool:
        """Tell whether the code that runs is not in the span any more."""
        if self.span.is_over:
            return True
        active = self._spans.active()
        if active is not None and active.is_in(self.span):
            return False
        # In another task or thread it was inherited, by what may not have inherited the context of the SDK.
        return self.place() is running()


class Spans:
    """
    The open spans.

    Args:
        current: Function that returns the ids of the span that the SDK's context names; None if it names none.
    """

    def __init__(self, current: Callable[[], _Key | None]) -> None:
        self._current = current
        self._moment = Moment()
        self._open: dict[_Key, OpenSpan] = {}
        self._traces: OrderedDict[int, _Trace] = OrderedDict()
        PLACES.append(self.place)
        at_fork(after_in_child=self._forget)

    def active(self) -> OpenSpan | None:
        """Return the span that the SDK's context names, if it is known."""
        key = self._current()
        return None if key is None else self._open.get(key)

    def place(self, scope: Scope | None) -> Scope | None:
        """Return the scope of the code that runs: inside the active span, unless *scope* is so already."""
        span = self.active() if self._open else None
        if span is None:
            return scope
        visit = _visit_of(scope)
        if visit is not None and visit.span.is_in(span):
            return scope
        self._moment.number += 1
        inside = span.room()
        return Scope(inside.trace, inside.within, inside.parent, Visit(self, span, inside, scope))

    def start(self, source: Source, recorder: Callable[[], Recorder | None]) -> None:
        """
        Take a span that has begun, unless it tells of what an adapter records.

        Args:
            source: The span.
            recorder: Function that returns the recorder of a trace for it, None for none.
        """
        self._moment.number += 1
        context, above = source.context, source.parent
        key = (context.trace_id, context.span_id)
        if key in self._open or (ADAPTED and _is_adapted(source)):
            return
        scope = own_scope()
        turn = turn_at(scope)
        if turn is not None and turn.by_client:
            return  # the client tells of its request, whatever else does
        parent = None if above is None else self._open.get((above.trace_id, above.span_id))
        if parent is not None and not _is_deeper(scope, parent):
            scope = None
        if parent is not None and parent.runs_agent():
            parent.begin()  # the agent has its number before what is in it
        trace = self._trace_of(source, parent, scope, recorder)
        if trace is None:
            return
        state = trace.state if parent is None else parent.records.state
        if scope is not None:
            state = scope.trace
        elif parent is None:
            scope = Scope(state, TOP, state.last)
        span = OpenSpan(source, parent, state, scope, self._moment)
        trace.open[key] = self._open[key] = span
        if parent is not None:
            parent.children[id(span)] = span
        UNSETTLED[id(self)] = self
        if len(self._open) > MAX_SPANS:
            self._open.pop(next(iter(self._open)), None)
        if span.tells_enough():
            span.begin()
        else:
            span.records.keep_step()

    def _trace_of(
        self,
        source: Source,
        parent: OpenSpan | None,
        scope: Scope | None,
        recorder: Callable[[], Recorder | None],
    ) -> _Trace | None:
        """Return the trace that a span belongs to, None if it is not recorded."""
        trace_id: int = source.context.trace_id
        trace = self._traces.get(trace_id)
        if trace is None:
            if scope is not None:
                trace = _Trace(scope.trace, is_own=False)
            elif parent is not None:
                trace = _Trace(parent.records.state, is_own=False)
            else:
                own = recorder()
                if own is None or not own.on:
                    return None
                # Others may record in the trace of a span whose parent is not here.
                trace = _Trace(own.trace(f"{trace_id:032x}", is_new=source.parent is None), is_own=True)
            self._traces[trace_id] = trace
            if len(self._traces) > _TRACES:
                self._traces.popitem(last=False)
        return trace

    def end(self, source: Source) -> None:
        """Record the end of a span that was taken, if any."""
        self._moment.number += 1
        context = source.context
        key = (context.trace_id, context.span_id)
        span = self._open.pop(key, None)
        if span is None:
            return
        if not self._open:
            UNSETTLED.pop(id(self), None)
        span.source, span.is_over = source, True
        if span.parent is not None:
            span.parent.children.pop(id(span), None)
        own_scope()  # that of the span is behind
        trace = self._traces.get(context.trace_id)
        if trace is None:
            span.end()
            return
        trace.open.pop(key, None)
        span.records.ends_trace = trace.is_own and not trace.open
        span.end()
        if span.records.ends_trace and not span.records.has_ended and trace.state.first:
            _end_trace(trace.state)

    def _forget(self) -> None:
        self._open.clear()
        self._traces.clear()
        UNSETTLED.pop(id(self), None)


def _is_adapted(source: Source) -> bool:
    """Tell whether a library made a span whose runs an adapter records."""
    scope = source.instrumentation_scope
    return scope is not None and any(scope.name in names for names in list(ADAPTED.values()))


def _end_trace(state: TraceState) -> None:
    """Record the end of a trace whose outermost span has no record."""
    if state.on and state.first:
        state.recorder.record_draft(
            Draft(state, b"trace_end", ROOT, TOP, b"", b"{}", ending=LAST, step=state.first)
        )


def _visit_of(scope: Scope | None) -> Visit | None:
    """Return the innermost visit that a scope is part of."""
    enclosing: Enclosing | None = None if scope is None else scope.enclosing
    while enclosing is not None and not isinstance(enclosing, Visit):
        enclosing = enclosing.outer
    return enclosing


def _is_deeper(scope: Scope | None, span: OpenSpan) -> bool:
    """Tell whether a scope is that of a call or step of ours inside a span."""
    visit = _visit_of(scope)
    return visit is not None and visit.span is span and scope is not None and scope.within != visit.step
