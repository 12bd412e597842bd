"""
The blocks of traces and steps, from the ``with`` statement to its end.

Both set the scope of the code inside and record what local destinations need to know of the end.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import FrameType
from typing import Any

from whyops_trace._clock import iso
from whyops_trace._guard import guarded
from whyops_trace._recording.line import LAST, ROOT, TOP, USUAL, Draft, Ending
from whyops_trace._recording.recorder import BEGINS, ENDS
from whyops_trace._recording.state import TraceState
from whyops_trace._values.failures import ending
from whyops_trace._values.outcomes import NONE, NotErrors
from whyops_trace.context import (
    UNSETTLED,
    Arrival,
    HeldBlock,
    Scope,
    advance,
    enter_scope,
    get_scope,
    leave_scope,
    settle,
)


class StepRun:
    """
    One run of a step, from its begin to its end.

    Attributes:
        scope: The scope around the step.
        output: The output of the step as JSON; empty if none is set.
        step: The step that it took, 0 before its begin.

    Args:
        name: The name of the step.
        scope: The scope around it.
    """

    def __init__(self, name: str, scope: Scope) -> None:
        self.scope = scope
        self.output = b""
        self.step = 0
        self._name = encode(scope.trace, name)

    def begin(self, about: Mapping[str, Any]) -> Scope:
        """Record the begin, and return the scope of what runs in the step."""
        scope = self.scope
        state = scope.trace
        clock = state.recorder.clock
        self._started_at, self._started = iso(clock.time_ns()), clock.perf_counter_ns()
        content = b'{"type":"thinking","thinking":%b}' % self._name
        self.step = step = state.recorder.record(
            state, b"llm_thinking", scope.parent, scope.within, members(state, about), content, opens=BEGINS
        )
        return Scope(state, step, step, scope.enclosing)

    def end(self, error: BaseException | None, not_errors: NotErrors = NONE, end: Ending = USUAL) -> None:
        """Record the end."""
        state = self.scope.trace
        advance(state, self.step)
        outcome, content = ending(error, state.recorder.not_errors, not_errors)
        elapsed = (state.recorder.perf_counter_ns() - self._started) // 1_000_000
        metadata = b',"step":%b,"startedAt":"%b","latencyMs":%d%b' % (
            self._name, self._started_at.encode(), elapsed, members(state, outcome),
        )  # fmt: skip
        body = encode(state, content) if content else b"{}"
        if self.output:
            body = b'{"output":%b%b%b' % (self.output, b"," if content else b"", body[1:])
        state.recorder.record_draft(
            Draft(
                state,
                kind=b"step_end",
                parent=self.scope.parent,
                within=self.scope.within,
                metadata=metadata,
                content=body,
                ending=end,
                opens=ENDS,
                step=self.step,
            )
        )


class StepBlock:
    """
    The block of a step: it sets the scope of the code inside, and sets the one before again.

    Attributes:
        run: The records of the step.
        inside: The scope of what runs in the step.
    """

    def __init__(self, run: StepRun, outer: Scope | None) -> None:
        self.run = run
        self._outer = outer

    def enter(self, about: Mapping[str, Any], frame: FrameType) -> int:
        """Record that the step was entered, and enter its scope. Return the step that it took."""
        scope = self.run.scope
        self.inside = self.run.begin(about) if scope.trace.on else scope
        self._held = enter_scope(self.inside, self._outer, frame)
        return self.run.step

    def leave(self, error: BaseException | None, not_errors: NotErrors) -> None:
        """Leave the step's scope, and record its end."""
        state, step = self.run.scope.trace, self.run.step
        leave_scope(self._held, state, step, self._outer)
        if state.on:
            self.run.end(error, not_errors, USUAL if self._outer else LAST)


class TraceBlock:
    """One run of the block of a trace: it sets the scope, sets the one before again, and records the end."""

    def __init__(self, state: TraceState, not_errors: NotErrors, arrival: Arrival | None = None) -> None:
        self._state = state
        self._not_errors = not_errors
        self._arrival = arrival
        self._held: HeldBlock | None = None
        self._is_nested = False  # in a scope of the same trace

    @guarded("entering a trace", positional=2)
    def _enter(self, frame: FrameType) -> None:
        """Enter the scope of the trace."""
        state = self._state
        self._outer = outer = settle() if UNSETTLED else get_scope()  # find_scope() without its frame
        self._started = state.recorder.perf_counter_ns()
        arrival = self._arrival
        self._is_nested = arrival is None and outer is not None and outer.trace is state
        if not self._is_nested:
            if outer is not None and outer.within == TOP:
                # The outer trace continues from this event if it is opened again in here.
                outer.trace.last = outer.parent
            if arrival is None:
                scope = Scope(state, TOP, state.last, outer.enclosing if outer else None)
            else:
                scope = arrival.place(state, outer)
            self._held = enter_scope(scope, outer, frame)
            state.recorder.count_block(state, 1)

    @guarded("leaving a trace", positional=2)
    def _leave(self, error: BaseException | None) -> None:
        """Leave the scope of the trace, and record the end unless another block of it is open."""
        if self._is_nested:
            return
        state = self._state
        arrival = self._arrival
        scope = leave_scope(self._held, state, TOP if arrival is None else arrival.within, self._outer)
        if scope is not None and scope.within == TOP:
            state.last = scope.parent
        is_last = state.recorder.count_block(state, -1) == 0
        goes_on = arrival is not None and arrival.goes_on
        if is_last and state.on and state.first and not goes_on:
            metadata, content = ending(error, state.recorder.not_errors, self._not_errors)
            elapsed = (state.recorder.perf_counter_ns() - self._started) // 1_000_000
            metadata = {"latencyMs": elapsed, **metadata}
            state.recorder.record_draft(
                Draft(
                    state,
                    kind=b"trace_end",
                    parent=ROOT,
                    within=TOP,
                    metadata=members(state, metadata),
                    content=encode(state, content),
                    ending=LAST,
                    step=state.first,
                )
            )


def encode(state: TraceState, value: Any) -> bytes:
    """Return a value as JSON, as the client of a trace encodes it."""
    return state.recorder.encode(value)


def members(state: TraceState, metadata: Mapping[str, Any]) -> bytes:
    """Return a mapping's JSON members, each led by a comma."""
    return b"," + encode(state, metadata)[1:-1] if metadata else b""
