"""Events and scores that a user records by hand, at the place where the code runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

from whyops_trace._blocks import members
from whyops_trace._guard import guarded, warn_once
from whyops_trace._models.links import AskedTools, ReportedTurns
from whyops_trace._recording.line import NO_SPAN, ROOT, TOP, USUAL, Draft, Ending
from whyops_trace._recording.recorder import OPEN_TOOLS
from whyops_trace._recording.state import TraceState
from whyops_trace._shapes import dict_of, dicts_of, text_of
from whyops_trace._values import mending
from whyops_trace.context import Scope, advance, find_scope
from whyops_trace.events import Event
from whyops_trace.types import EventOptions, SpanId

T = TypeVar("T", int, SpanId)

_NO_OPTIONS: Final[EventOptions] = {}


@guarded("recording an event", positional=3)
def record_event(outside: Scope, event: Event[T], span: str) -> int:
    """
    Record a built event at the place where the code runs in the trace, else at that of the handle.

    Args:
        outside: The place of the handle: that of what is recorded outside any block.
        event: The event.
        span: The span id that pairs it, "" if it is not one of a pair. One that is no option of a request was made for
            it, and its response gives it back.
    """
    state, options = outside.trace, event.options
    recorder = state.recorder
    own_span = span.encode() if event.type == "tool_call_request" and "span_id" not in options else b""
    if not state.on:
        if own_span:
            recorder.close_span(own_span)
        return 0
    scope = find_scope()
    here = scope is not None and scope.trace is state
    place = scope if scope is not None and here else outside
    within, parent = place.within, place.parent
    if event.type == "tool_call_response":
        request, enclosing, own_span = _close_tool(state, event, span)
        parent, within = (request, enclosing) if request else (parent, within)
        only_span = own_span and len(options) == 1  # which is known
        options = _NO_OPTIONS if only_span else options
    metadata, content, ending = members(state, event.metadata), event.content, USUAL
    if event.type == "llm_response" and content.get("toolCalls"):
        content = mending.plain_view(content, recorder.hides)
    if event.type == "llm_response" and state.reported is not None:
        doubled = _claim_turn(state, state.reported, event)
        if doubled:
            metadata, ending = doubled, Ending.LOCAL
    elif event.type == "tool_call_request" and state.asked_tools is not None:
        metadata = _requested_by(state, state.asked_tools, event.content["toolCalls"]) + metadata
    kind, body, span_id = event.type.encode(), _body(content, recorder.encode), own_span or NO_SPAN
    step = (
        recorder.record_draft(
            Draft(state, kind, parent, within, metadata, body, span_id, ending, given=options)
        )
        if options
        else recorder.record(state, kind, parent, within, metadata, body, span_id, ending)
    )
    if event.type == "tool_call_request":
        _open_tool(state, span, step, within, own_span)
    elif event.type == "llm_response" and content.get("toolCalls"):
        state.note_asked(step, content["toolCalls"])
    if ending is not USUAL:
        return step
    if here:
        advance(state, step)
    else:
        state.last = step
    return step


@guarded("recording a score", positional=3)
def record_score(state: TraceState, content: dict[str, Any], step: int) -> None:
    """Record a score of a step, or of the trace as a whole if *step* is 0."""
    recorder = state.recorder
    if state.on:
        aside, body = state.aside(step), recorder.encode(content)
        recorder.record_draft(Draft(aside, b"score", ROOT, TOP, b"", body, ending=Ending.LOCAL, step=step))


def _body(content: Any, encode: Callable[[object], bytes]) -> bytes:
    """Return the content of an event as JSON. That of one call of a tool takes half the time in its parts."""
    calls = content.get("toolCalls")
    if type(calls) is list and len(calls) == 1 and len(content) <= 2 and type(calls[0]) is dict:
        call = calls[0]
        if len(call) == 2 and "name" in call and "arguments" in call:
            head = b'{"toolCalls":[{"name":%b,"arguments":' % encode(call["name"])
            body = b"".join((head, encode(call["arguments"]), b"}]"))
            if len(content) == 1:
                return body + b"}"
            if "toolResults" in content:
                return b"".join((body, b',"toolResults":', encode(content["toolResults"]), b"}"))
    return encode(content)


def _claim_turn(state: TraceState, reported: ReportedTurns, event: Event[T]) -> bytes:
    """Return the metadata of a turn reported by hand that a client has already reported, empty if none has."""
    turn = reported.claim(event.metadata["model"], event.content.get("content"))
    if not turn:
        return b""
    warn_once(
        f"turn reported twice: {event.metadata['model']}",
        "llm_response(model=%r) in trace %r reports a turn that the traced client has reported itself (step %d). It "
        "is kept on this machine only; leave it out: a client from openai() or anthropic() reports its own turns.",
        event.metadata["model"],
        state.id,
        turn,
    )
    metadata = {name: value for name, value in event.metadata.items() if name != "usage"}
    return b',"wraps":true,"doubles":%d%b' % (turn, members(state, metadata))


def _requested_by(state: TraceState, tools: AskedTools, tool_calls: Any) -> bytes:
    """Return the metadata member that names the turn which asked for a tool call, led by a comma, or nothing."""
    hides = state.recorder.hides
    call = next(iter(dicts_of(mending.plain(tool_calls, hides))), {})
    step = tools.find(text_of(call.get("name")), dict_of(call.get("arguments")), call.get("id"), hides)
    return b',"requestedBy":%d' % step if step else b""


def _open_tool(state: TraceState, span: str, step: int, within: int, own_span: bytes) -> None:
    state.open_tools[span] = (step, within, own_span)
    if len(state.open_tools) > OPEN_TOOLS:
        state.open_tools.pop(next(iter(state.open_tools)))


def _close_tool(state: TraceState, event: Event[T], span: str) -> tuple[int, int, bytes]:
    """
    Return the steps of a response's request and of the call around it, and the span if it was made here.

    The steps are 0 if no request of that span is open.
    """
    step, within, own_span = state.open_tools.pop(span, (0, 0, b""))
    if own_span:
        state.recorder.close_span(own_span)
    if not step and "parent_step_id" not in event.options:
        warn_once(
            f"span of {event.metadata['tool']}",
            "tool_call_response(%r) has span_id %r, but no tool_call_request of trace %r with that span id is open. "
            "Pass the span_id that tool_call_request returned, once.",
            event.metadata["tool"],
            span,
            state.id,
        )
    return step, within, own_span
