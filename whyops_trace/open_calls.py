"""
Calls and steps that callbacks tell of: each begins in one place and ends in another, in any thread.

``trace.start_step()``, ``trace.start_tool_call()`` and ``trace.start_llm_call()`` begin one. The handle ends it, is the
parent of others, and may lend its place to code that runs in it.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal, TypeAlias, get_args

from whyops_trace._blocks import StepRun, encode, members
from whyops_trace._calls.call import Call
from whyops_trace._calls.kinds import Llm, Tool
from whyops_trace._checks import MAX_MODEL, MAX_NAME, check_mapping, check_metadata, check_text, require
from whyops_trace._guard import guarded, warn_once
from whyops_trace._recording.line import LAST, TOP, USUAL
from whyops_trace._values.failures import Told
from whyops_trace.context import Loan, Scope, find_scope, lend, set_scope

__all__ = ["OpenCall", "StepKind"]

#: Kinds of steps: a part of a workflow, the run of an agent, and the passing of the work from one agent to another.
StepKind: TypeAlias = Literal["step", "agent", "handoff"]

_KINDS: Final = get_args(StepKind)
#: Metadata keys that a step writes itself.
STEP_MEMBERS: Final = frozenset({"input", "kind", "latencyMs", "outcome", "startedAt", "step"})
#: Names of tools, and of models, whose events are prepared.
_PREPARED: Final = 512


class OpenCall:
    """
    A step, a tool call or a call of a model that has begun, and ends with :meth:`end`.

    Any thread or task may use it. One that is never ended is shown as running, and as unfinished once its process is
    gone.

    Attributes:
        step_id: The step that it took; 0 while tracing is off.
        ends_trace: True if its trace ends with it; False unless it is set.
    """

    __slots__ = ("_inside", "_loan", "_name", "_place", "_run", "ends_trace", "step_id")

    def __init__(self, name: str, place: Scope) -> None:
        self.step_id: int = 0
        self.ends_trace: bool = False
        self._name = name
        self._place = place
        self._inside = place
        self._run: Call | StepRun | None = None
        self._loan: Loan | None = None

    def __repr__(self) -> str:
        return f"<OpenCall {self._name!r}>"

    @guarded("recording the begin of a call")
    def _start_step(self, about: dict[str, Any]) -> None:
        run = StepRun(self._name, self._place)
        self._inside = run.begin(about)
        self._run, self.step_id = run, run.step

    @guarded("recording the begin of a call")
    def _start(self, site: Tool | Llm, named: dict[str, Any], call_id: str, about: dict[str, Any]) -> None:
        call, self._inside = site.start(named, self._place, call_id, members(self._place.trace, about))
        self._run, self.step_id = call, call.step

    @guarded("recording the end of a call")
    def end(self, output: Any = None, error: BaseException | str | None = None) -> None:
        """
        Record the end. Only the first one counts.

        Args:
            output: The result: any value, which is encoded now. Of a call of a model it is its answer: a text, or an
                answer that :func:`~whyops_trace.traced_llm` reads.
            error: The failure, if it failed: the exception, or a text. An exception that is no failure, such as
                :class:`asyncio.CancelledError`, is recorded as what it is.
        """
        if self._loan is not None:
            self.leave()
        run, self._run = self._run, None
        if run is None:
            if self.step_id:
                warn_once(
                    f"{self._name} ended twice", "%r was ended before; only its first end counts.", self
                )
            return
        state, outside = self._place.trace, find_scope()
        at_top = self._place.within == TOP
        is_here = at_top and outside is not None and outside.trace is state
        if not is_here:  # what goes on here does not follow from it
            set_scope(Scope(state, TOP, state.last) if at_top else None)
        try:
            self._record_end(run, output, Told(error) if isinstance(error, str) else error)
        finally:
            if not is_here:
                after = find_scope()
                state.last = after.parent if after is not None else state.last
                set_scope(outside)

    def _record_end(self, run: Call | StepRun, output: Any, error: BaseException | None) -> None:
        if isinstance(run, StepRun):
            run.output = b"" if output is None else encode(self._place.trace, output)
            run.end(error, end=LAST if self.ends_trace else USUAL)
            return
        run.own = self.ends_trace
        if error is None:
            run.end(output)
        else:
            run.fail(error)

    @guarded("entering a call")
    def enter(self) -> None:
        """Have what the code here goes on to call run inside it, until :meth:`leave` or :meth:`end`."""
        if self._loan is None and (self._run is not None or not self.step_id):
            self._loan = lend(self._inside)

    @guarded("leaving a call")
    def leave(self) -> None:
        """Have the code where it was entered stand where it stood; in any thread or task. It does not end."""
        loan, self._loan = self._loan, None
        if loan is not None:
            loan.end()

    @guarded("noting the first output")
    def note_output(self) -> None:
        """Note that the model's answer begins to come, if it is a stream; the first time counts."""
        run = self._run
        if isinstance(run, Call) and run.model_call is not None and run.model_call.first_token_ms is None:
            run.model_call.first_token_ms = run.elapsed_ms()

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        """Have decorated functions, steps and traced clients in the ``with`` block run inside it. It does not end."""
        outside = find_scope()
        set_scope(self._inside)
        try:
            yield
        finally:
            set_scope(outside)


def start_step(
    place: Scope, name: str, kind: StepKind, input: Any, metadata: Mapping[str, Any] | None
) -> OpenCall:
    """Begin a step; see :meth:`whyops_trace.Trace.start_step`."""
    about = step_members(name, kind, input, metadata)
    call = OpenCall(name, place)
    if place.trace.on:
        call._start_step(about)
    return call


def step_members(name: str, kind: StepKind, input: Any, metadata: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the metadata of the begin of a step, checked."""
    check_text("name", name, MAX_NAME)
    require(kind in _KINDS, "kind", kind, f"one of {', '.join(_KINDS)}")
    about: dict[str, Any] = {"step": name, **check_metadata(metadata, STEP_MEMBERS)}
    if kind != "step":
        about["kind"] = kind
    if input is not None:
        about["input"] = input
    return about


def start_tool_call(
    place: Scope,
    tool: str,
    arguments: Mapping[str, Any] | None,
    call_id: str | None,
    metadata: Mapping[str, Any] | None,
) -> OpenCall:
    """Begin a call of a tool; see :meth:`whyops_trace.Trace.start_tool_call`."""
    check_text("tool", tool, MAX_NAME)
    about = check_metadata(metadata, Tool.written)
    if call_id:
        check_text("call_id", call_id, MAX_NAME)
        about["callId"] = call_id
    named = dict(check_mapping("arguments", arguments))
    call = OpenCall(tool, place)
    if place.trace.on:
        call._start(_tool(tool), named, call_id or "", about)
    return call


def start_llm_call(
    place: Scope,
    model: str,
    provider: str,
    messages: Any,
    name: str | None,
    request: Mapping[str, Any] | None,
    metadata: Mapping[str, Any] | None,
) -> OpenCall:
    """Begin a call of a model; see :meth:`whyops_trace.Trace.start_llm_call`."""
    check_text("model", model, MAX_MODEL)
    check_text("provider", provider, MAX_NAME)
    if name is not None:
        check_text("name", name, MAX_NAME)
    about = check_metadata(metadata, Llm.written)
    named = {"messages": messages, **check_mapping("request", request)}
    call = OpenCall(name or model, place)
    if place.trace.on:
        call._start(_model(name or model, model, provider), named, "", about)
    return call


def _nothing(**_: Any) -> None:
    """Stand for the code that makes the call, which is elsewhere."""


@functools.lru_cache(_PREPARED)
def _tool(name: str) -> Tool:
    return Tool(_nothing, {"name": name}, lambda: None)


@functools.lru_cache(_PREPARED)
def _model(name: str, model: str, provider: str) -> Llm:
    return Llm(_nothing, {"name": name, "model": model, "provider": provider}, lambda: None)
