"""
The handles of a user: a trace to record on, and a step to nest in it.

Both only keep ids. Recording never waits, so there is nothing to make asynchronous. Each event method has one builder
in :mod:`whyops_trace.events`, and two forms here: one to await and one to call.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from types import FrameType
from typing import Any, Final, Self, TypeVar, cast

from whyops_trace import events
from whyops_trace._blocks import StepBlock, StepRun, TraceBlock, encode
from whyops_trace._by_hand import record_event, record_score
from whyops_trace._checks import MAX_ID, MAX_NAME, check_metadata, check_score, check_step, check_text
from whyops_trace._faces import awaitable, plain
from whyops_trace._guard import guarded
from whyops_trace._limits import BEGINS_BY_HAND, Limits, Meter, runaways
from whyops_trace._recording.line import TOP
from whyops_trace._recording.recorder import Recorder
from whyops_trace._recording.state import TraceState
from whyops_trace._values.outcomes import NONE, NotErrors, not_errors_of
from whyops_trace.context import Arrival, Scope, find_scope
from whyops_trace.events import Event
from whyops_trace.exceptions import InvalidEventError
from whyops_trace.open_calls import (
    OpenCall,
    StepKind,
    start_llm_call,
    start_step,
    start_tool_call,
    step_members,
)
from whyops_trace.types import ExceptionLike, SpanId

T = TypeVar("T", int, SpanId)


class Trace:
    """
    One trace: a workflow, a session or a conversation of an agent. Made by ``sdk.trace(...)`` or ``trace(...)``.

    Its event methods work at any time. In its ``with`` or ``async with`` block, decorated functions and steps belong to
    it. It may be entered again. Two tasks at the same time need a handle each, with the same id.

    Attributes:
        id: The trace id, 1 to 128 characters.
    """

    # Final lets type checkers take the inferred types of the methods for declared ones.
    user_message: Final = awaitable(events.user_message)
    user_message_sync: Final = plain(events.user_message)
    llm_response: Final = awaitable(events.llm_response)
    llm_response_sync: Final = plain(events.llm_response)
    llm_thinking: Final = awaitable(events.llm_thinking)
    llm_thinking_sync: Final = plain(events.llm_thinking)
    embedding_request: Final = awaitable(events.embedding_request)
    embedding_request_sync: Final = plain(events.embedding_request)
    embedding_response: Final = awaitable(events.embedding_response)
    embedding_response_sync: Final = plain(events.embedding_response)
    tool_call_request: Final = awaitable(events.tool_call_request)
    tool_call_request_sync: Final = plain(events.tool_call_request)
    tool_call_response: Final = awaitable(events.tool_call_response)
    tool_call_response_sync: Final = plain(events.tool_call_response)
    tool_result: Final = awaitable(events.tool_result)
    tool_result_sync: Final = plain(events.tool_result)
    error: Final = awaitable(events.error)
    error_sync: Final = plain(events.error)

    def __init__(
        self,
        state: TraceState,
        *,
        joins: bool = False,
        not_errors: NotErrors = NONE,
        arrival: Arrival | None = None,
        limits: Limits | None = None,
    ) -> None:
        self.id: str = state.id
        self._arrival = arrival
        #: The enclosing step of what is recorded outside any block, and the step it follows from; None at the top.
        self._outside = (arrival.within, arrival.parent) if arrival is not None and arrival.within else None
        self._state = state
        self._not_errors = not_errors
        self._limits = limits
        self._joins = joins
        #: The open blocks, each with its limits, and True if it is inside another one of the trace.
        self._blocks: list[tuple[TraceBlock | Step, Meter | None, bool]] = []

    def __repr__(self) -> str:
        return f"<Trace {self.id!r}>"

    def _record(self, event: Event[T]) -> T:
        span = event.options.get("span_id", "")
        if self._state.gate is not None and event.type.encode() in BEGINS_BY_HAND:
            self._place(None, event.metadata.get("tool", event.type))
        if event.type == "tool_call_request" and not span:
            span = self._state.recorder.open_span().decode()
        step = record_event(self._handle(), event, span) or 0
        return cast("T", SpanId(span, step) if event.type == "tool_call_request" else step)

    def start_step(
        self,
        name: str,
        *,
        kind: StepKind = "step",
        parent: OpenCall | Step | None = None,
        input: Any = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> OpenCall:
        """
        Begin a step that callbacks tell of, whose end may come in another place or thread.

        Args:
            name: The name of the part, or of the agent; 1 to 255 characters.
            kind: ``"agent"`` for the run of an agent, ``"handoff"`` for the passing of the work to another one.
            parent: The call or step that it runs in. By default it is that of the code that calls this.
            input: Its input; any value, encoded now.
            metadata: More about it.

        Returns:
            The open step, whose ``end(output, error)`` ends it.

        Raises:
            InvalidEventError: if an argument is of the wrong type or size, or *parent* is of another trace.
        """
        return start_step(self._place(parent, name), name, kind, input, metadata)

    def start_tool_call(
        self,
        tool: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        call_id: str | None = None,
        parent: OpenCall | Step | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> OpenCall:
        """
        Begin a call of a tool that callbacks tell of, as :meth:`start_step` says of a step.

        Args:
            tool: The tool's name; 1 to 255 characters.
            arguments: The arguments by name; any values, encoded now.
            call_id: The id that the model gave the call, by which the turn that asked for it is found.
            parent: The call or step that it runs in. By default it is that of the code that calls this.
            metadata: More about it.

        Returns:
            The open call, whose ``end(result, error)`` ends it.

        Raises:
            InvalidEventError: if an argument is of the wrong type or size, or *parent* is of another trace.
        """
        return start_tool_call(self._place(parent, tool), tool, arguments, call_id, metadata)

    def start_llm_call(
        self,
        model: str,
        provider: str,
        messages: Any,
        *,
        name: str | None = None,
        request: Mapping[str, Any] | None = None,
        parent: OpenCall | Step | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> OpenCall:
        """
        Begin a call of a model that callbacks tell of, as :meth:`start_step` says of a step.

        Args:
            model: The model's name, such as ``"gpt-4o"``; 1 to 200 characters.
            provider: Service that runs the model, such as ``"openai"``; 1 to 255 characters.
            messages: The conversation that the model gets, ``[{"role", "content"}]``, or a text.
            name: The name of what makes the call; the model's by default.
            request: The rest of the request, such as ``system``, ``tools`` and ``temperature``.
            parent: The call or step that it runs in. By default it is that of the code that calls this.
            metadata: More about it.

        Returns:
            The open call, whose ``end(answer, error)`` ends it. The answer is a text, or what a provider's API or a
            framework's model returned: thinking, tool calls, finish reason and tokens are read from it.

        Raises:
            InvalidEventError: if an argument is of the wrong type or size, or *parent* is of another trace.
        """
        return start_llm_call(
            self._place(parent, name or model), model, provider, messages, name, request, metadata
        )

    def score(
        self,
        name: str,
        value: bool | float | str | None = None,
        *,
        comment: str | None = None,
        step: int | Step | OpenCall | None = None,
    ) -> None:
        """
        Record how good the trace is, or one step of it, at any time and in any process.

        The latest score of a name counts. Scores stay on this machine, and go to exporters of its own: no WhyOps server
        sees them.

        Args:
            name: What is judged, such as ``"helpful"``; 1 to 255 characters.
            value: True or False for a thumb up or down, a finite number, or a label of 1 to 255 characters. It may be
                left out if there is a comment.
            comment: A reason or a note, at most 10,000 characters.
            step: The step or call that is judged: its handle, what an event method returned, or the number that
                ``whyops-trace show`` prints. By default it is the trace as a whole.

        Raises:
            InvalidEventError: if an argument is of the wrong type or size.
        """
        content = check_score(name, value, comment)
        if isinstance(step, (Step, OpenCall)):
            if not step.step_id:  # it is not recorded
                return
            step = step.step_id
        elif step is not None:
            check_step("step", step)
        record_score(self._state, content, step or 0)

    def _place(self, parent: OpenCall | Step | None, name: str) -> Scope:
        """Return the place of what begins now: inside *parent*, else where the code runs, else at the top."""
        state, scope = self._state, find_scope() if parent is None else parent._inside
        if scope is None or scope.trace is not state:
            if parent is not None:
                raise InvalidEventError(
                    f"parent is {parent!r}; it must be a call or step of trace {self.id!r}."
                )
            scope = self._handle()
        if state.gate is not None:
            state.gate.admit(name, scope.parent, scope.within)
        return scope

    def _handle(self) -> Scope:
        """Return the place of what is recorded outside any block."""
        return Scope(self._state, *(self._outside or (TOP, self._state.last)))

    def _enter(self, frame: FrameType) -> Self:
        scope = find_scope()
        inside = scope is not None and scope.trace is self._state
        block: TraceBlock | Step = TraceBlock(self._state, self._not_errors, self._arrival)
        if self._joins and inside:
            block = Step("trace", recorder=lambda: self._state.recorder)
            block._not_errors = self._not_errors
        block._enter(frame)
        self._blocks.append(
            (block, None if self._limits is None else Meter(self._limits, self._state), inside)
        )
        return self

    def __enter__(self) -> Self:
        return self._enter(sys._getframe(1))

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if self._blocks:
            block, meter, inside = self._blocks.pop()
            runaway = None if meter is None else meter.close(error)
            if runaway is None and not inside:  # the limit is that of a block beside this one
                runaway = next((one for one in runaways(error) if one.trace_id == self.id), None)
            block._leave(runaway or error)
            if runaway is not None:
                raise runaway from error

    async def __aenter__(self) -> Self:
        return self._enter(sys._getframe(1))

    async def __aexit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self.__exit__(kind, error, traceback)


def trace_on(
    recorder: Recorder,
    trace_id: str | None,
    external_user_id: str | None,
    metadata: Mapping[str, Any] | None,
    tags: Iterable[str],
    not_errors: Iterable[ExceptionLike],
    arrived: tuple[TraceState, Arrival] | None = None,
    limits: Limits | None = None,
) -> Trace:
    """Return a trace of a recorder, or the one where another program came; see :meth:`whyops_trace.WhyOps.trace`."""
    if trace_id is not None:
        check_text("trace_id", trace_id, MAX_ID)
    if external_user_id is not None:
        check_text("external_user_id", external_user_id, MAX_NAME)
    labels = [tags] if isinstance(tags, str) else list(tags)
    if not all(isinstance(tag, str) for tag in labels):
        raise InvalidEventError(f"tags are {labels!r:.80}; each must be text.")
    about: dict[str, Any] = {}
    if metadata:
        about["metadata"] = check_metadata(metadata)
    if labels:
        about["tags"] = labels
    scope = find_scope()
    if arrived is not None:
        joins, (state, arrival) = False, arrived
    else:
        joins, arrival = trace_id is None and scope is not None and scope.trace.recorder is recorder, None
        state = scope.trace if scope is not None and joins else recorder.trace(trace_id)
    state.tell(external_user_id, b',"trace":' + encode(state, about) if about else b"")
    return Trace(state, joins=joins, not_errors=not_errors_of(not_errors), arrival=arrival, limits=limits)


class Step:
    """
    A named part of a workflow, for ``with`` and ``async with``. Made by ``step(...)``.

    Entering records an ``llm_thinking`` event, so that events inside have a parent that exists. Leaving records the
    duration, the output and the failure, for the local destinations. Outside any trace a step makes a trace of its own.

    Attributes:
        name: The name of the part.
        step_id: The step that it took, once entered; 0 before, and while tracing is off.
    """

    def __init__(
        self,
        name: str,
        *,
        kind: StepKind = "step",
        input: Any = None,
        metadata: Mapping[str, Any] | None = None,
        not_errors: Iterable[ExceptionLike] = (),
        recorder: Callable[[], Recorder | None],
    ) -> None:
        self._about = step_members(name, kind, input, metadata)
        self.name: str = name
        self.step_id: int = 0
        self._not_errors = not_errors_of(not_errors)
        self._recorder = recorder
        self._blocks: list[StepBlock] = []

    def __repr__(self) -> str:
        return f"<Step {self.name!r}>"

    @property
    def _inside(self) -> Scope | None:
        """The place of what runs in the step, None unless it is entered."""
        return self._blocks[-1].inside if self._blocks else None

    @guarded("recording a step's output")
    def set_output(self, value: Any) -> None:
        """Set the output of the step: any value, which is encoded now."""
        if self._blocks and self._blocks[-1].run.scope.trace.on:
            run = self._blocks[-1].run
            run.output = encode(run.scope.trace, value)

    def __enter__(self) -> Self:
        self._enter(sys._getframe(1))
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self._leave(error)

    async def __aenter__(self) -> Self:
        self._enter(sys._getframe(1))
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self.__exit__(kind, error, traceback)

    @guarded("entering a step", positional=2)
    def _enter(self, frame: FrameType) -> None:
        outer = find_scope()
        recorder = self._recorder() if outer is None else None
        scope = outer if recorder is None else Scope(recorder.new_trace())
        # Code inside a trace of its own that is sampled out must not begin another one.
        if scope is None or not (scope.trace.on or (recorder is not None and recorder.on)):
            return
        if scope.trace.gate is not None:
            scope.trace.gate.admit(self.name, scope.parent, scope.within)
        block = StepBlock(StepRun(self.name, scope), outer)
        self.step_id = block.enter(self._about, frame)
        self._blocks.append(block)

    @guarded("leaving a step", positional=2)
    def _leave(self, error: BaseException | None) -> None:
        if self._blocks:
            self._blocks.pop().leave(error, self._not_errors)


#: The name of :class:`Trace` in the ``whyops`` package.
WhyOpsTrace = Trace
