"""The records of one span: its begin, and its end."""

from __future__ import annotations

import time
from itertools import chain
from typing import Final

from whyops_trace._clock import iso
from whyops_trace._models.links import AskedTool
from whyops_trace._otel.asking import plain_name, stops_for_tools
from whyops_trace._otel.events import Event, begin_of, ends_of
from whyops_trace._otel.node import Node
from whyops_trace._recording.line import LAST, ROOT, TOP, USUAL, Draft, Ending
from whyops_trace._recording.recorder import BEGINS, ENDS
from whyops_trace._recording.state import TraceState
from whyops_trace.context import Scope, advance
from whyops_trace.types import EventOptions

#: Metadata of a score that says where it was given.
_FROM_SPAN: Final = b',"source":"otel"'
#: Nanoseconds that a time which a span tells may be away from now without being written down.
_NOW_NS: Final = 20_000_000


def asked_by(state: TraceState, node: Node) -> AskedTool | None:
    """Return the request of a turn that a tool call, a step that may be one, or an agent was made for."""
    reading, tools = node.reading, state.asked_tools
    if tools is None:
        return None
    if node.kind == "agent":
        return tools.take(reading.name)
    arguments = {} if reading.input is None else reading.input
    names = dict.fromkeys((reading.name, plain_name(reading.name)))
    matches = (tools.match(name, arguments, reading.call_id, state.recorder.hides) for name in names)
    is_bare = node.kind == "tool" and reading.input is None and not (reading.call_id or reading.may_be_tool)
    by_name = map(tools.take, names if is_bare else ())
    return next(filter(None, chain(matches, by_name)), tools.untold)


class Records:
    """
    The records of a span.

    Attributes:
        state: The trace.
        ends_trace: True if the trace ends with it.
        has_ended: True once the end is recorded.
    """

    __slots__ = ("_begin_ns", "_span", "_step", "ends_trace", "has_ended", "state")

    def __init__(self, state: TraceState) -> None:
        self.state: TraceState = state
        self.ends_trace: bool = False
        self.has_ended: bool = False
        self._step = 0
        self._span = b""
        self._begin_ns = 0

    def keep_step(self) -> None:
        """Take the step of the begin, which is recorded later. A numbering begins with what is recorded first."""
        state = self.state
        if state.on and (state.first or not state.numbering):
            with state.recorder.lock:
                self._step = state.take_step(None)

    def begin(self, node: Node, place: Scope, *, is_called: bool = True) -> Scope:
        """
        Record the begin of what a span tells of. Return the place inside.

        Args:
            node: What it is.
            place: Where it is.
            is_called: Of an agent, whether a turn may have asked for it.
        """
        state, reading = self.state, node.reading
        if not state.on:
            return place
        recorder = state.recorder
        self._begin_ns = node.span.start_ns
        may_be_asked = node.kind == "tool" or (node.kind == "agent" and is_called)
        asked = asked_by(state, node) if may_be_asked else None
        if asked is not None:
            reading.call_id = reading.call_id or asked.id
            if node.kind == "tool" and reading.input is None and state.asked_tools is not None:
                reading.input = state.asked_tools.arguments(asked)
            elif node.kind == "tool" and not isinstance(reading.input, dict):
                reading.input = asked.named(reading.input) or reading.input
        event = begin_of(node, self._begin_ns)
        if asked is not None:
            event.metadata = {"requestedBy": asked.step, **event.metadata}
        if event.user and event.user != state.user:
            state.tell(event.user, b"")
        self._span = recorder.open_span()
        self._step = step = self._write(event, place.parent, place.within, opens=BEGINS, step=self._step)
        return Scope(state, step, step, place.enclosing)

    def end(self, node: Node, place: Scope) -> None:
        """Record the end."""
        state, step = self.state, self._step
        if not state.on:
            return
        last = 0
        *before, end = ends_of(node, self._begin_ns)
        for event in before:
            self._write(event, step, step)
        ending = LAST if self.ends_trace else USUAL
        if end.is_local:
            self._write(end, place.parent, place.within, ending=ending, opens=ENDS, step=step)
            last = step
        else:
            last = self._write(end, step, step, ending=ending, opens=ENDS)
        state.recorder.close_span(self._span)
        self.has_ended = True
        reading = node.reading
        if node.kind == "llm" and reading.error is None:
            calls = [call for turn in (reading.answer, *reading.answer.others) for call in turn.tool_calls]
            if calls or stops_for_tools(node):
                state.note_asked(last, calls)
            state.note_turn(last, (reading.model, reading.answer.model), reading.answer.content)
        if not place.within:
            state.last = last
            advance(state, last)

    def score(self, node: Node, place: Scope) -> None:
        """
        Record the scores that a span tells of: of what is recorded here, of what that is in, or of the trace.

        Args:
            node: The span, or another one that tells of the same.
            place: Where that is.
        """
        state = self.state
        for score in node.reading.scores if state.on else ():
            is_own = score.span_id == node.span.span_id
            step = self._step if is_own and self._step else place.within
            if not score.span_id or (is_own and self.ends_trace):  # what is around everything is the trace
                step = 0
            aside, content = state.aside(step), state.recorder.encode(score.content)
            state.recorder.record_draft(
                Draft(aside, b"score", ROOT, TOP, _FROM_SPAN, content, ending=Ending.LOCAL, step=step)
            )

    def _write(
        self, event: Event, parent: int, within: int, *, ending: Ending = USUAL, opens: int = 0, step: int = 0
    ) -> int:
        """Record an event, under a step that was taken before if there is one, at its own time unless that is now."""
        state = self.state
        recorder = state.recorder
        metadata = b"," + recorder.encode(event.metadata)[1:-1] if event.metadata else b""
        content, kind = recorder.encode(event.content), event.type.encode()
        is_now = abs(time.time_ns() - event.time_ns) < _NOW_NS
        if is_now and not step:
            return recorder.record(state, kind, parent, within, metadata, content, self._span, ending, opens)
        given = None if is_now and event.is_local else EventOptions(timestamp=iso(event.time_ns))
        return recorder.record_draft(
            Draft(state, kind, parent, within, metadata, content, self._span, ending, opens, given, step)
        )
