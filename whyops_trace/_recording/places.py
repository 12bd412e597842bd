"""A place in a trace as ids, by which another process goes on there."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple, Self, TypeAlias

import msgspec

from whyops_trace._checks import MAX_ID, MAX_NAME, MAX_STEP, check_text
from whyops_trace._recording.state import UNENDING, TraceState

if TYPE_CHECKING:
    from whyops_trace._recording.recorder import Recorder

_Step: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=MAX_STEP)]
_TRACE_ID: Final = re.compile(r"(?!0{32})[0-9a-f]{32}")
_UUID: Final = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}")
_TRACEPARENT: Final = re.compile(rf"[0-9a-f]{{2}}-({_TRACE_ID.pattern})-[0-9a-f]{{16}}-[0-9a-f]{{2}}")


class Place(NamedTuple):
    """
    A place in a trace, as it is pickled. The types have the bounds for one that another program tells.

    Attributes:
        trace: The trace id.
        numbering: The name of the numbering that the steps belong to, None if they are final.
        within: The step of the enclosing call; 0 at the top.
        parent: The step that the next event follows from; 0 if there is none yet.
        root: The step of the first event of the trace; 0 if there is none yet.
        stride: The distance between two steps.
        user: The user that the trace acts for, "" if none was named.
        agent: The name of the agent.
        on: True if the trace is recorded.
    """

    trace: str
    numbering: Annotated[str, msgspec.Meta(pattern=r"\A[\w-]{1,64}\Z")] | None
    within: _Step
    parent: _Step
    root: _Step
    stride: Annotated[int, msgspec.Meta(ge=1, le=1_000)]
    user: str
    agent: Annotated[str, msgspec.Meta(max_length=MAX_NAME)]
    on: bool

    @classmethod
    def of(cls, state: TraceState, within: int, parent: int) -> Self:
        """Return a place in a trace of this process."""
        return cls(
            state.id, state.numbering, within, parent, state.root, state.stride, state.user, state.recorder.agent_name,
            state.on,
        )  # fmt: skip

    def told(self) -> list[Any]:
        """Return it as JSON values for another program, without the user."""
        return list(self._replace(user=""))

    @classmethod
    def read(cls, told: object) -> Self:
        """
        Return the place that another program tells, which need not be trusted.

        It names no user, and whether the trace is recorded is not for that program to say.

        Raises:
            ValueError: if it is none.
            InvalidEventError: if its trace id is too long.
        """
        place = msgspec.convert(told, cls)
        check_text("trace", place.trace, MAX_ID)
        return place._replace(user="", on=True)

    def traceparent(self) -> str:
        """Return it as W3C tells it, with the enclosing call as the parent."""
        span_id = w3c_span_id(self.trace, self.numbering, self.within)
        return f"00-{w3c_trace_id(self.trace)}-{span_id}-0{self.on:d}"


def w3c_trace_id(trace: str) -> str:
    """Return a trace id as 32 hexadecimal digits: itself if it is such, also written as a UUID, else a hash of it."""
    digits = trace.replace("-", "") if _UUID.fullmatch(trace) else trace
    return digits if _TRACE_ID.fullmatch(digits) else _hashed(trace, 16)


def w3c_span_id(trace: str, numbering: str | None, step: int) -> str:
    """Return the 16 hexadecimal digits that name a call by the step of its request, the same in each process."""
    return _hashed(f"{trace} {numbering} {step}", 8)


def trace_of(traceparent: object) -> str | None:
    """Return the trace id in what W3C calls a ``traceparent``, None if it is none."""
    match = _TRACEPARENT.fullmatch(traceparent) if isinstance(traceparent, str) else None
    return match and match[1]


def _hashed(text: str, size: int) -> str:
    return hashlib.blake2b(text.encode(errors="replace"), digest_size=size).hexdigest()


def resume(recorder: Recorder, place: Place) -> TraceState:
    """
    Return the state of a trace that another process began, in the same numbering.

    Its steps are in a range of this process's own, so that no two processes give the same. Here each place of one trace
    leads to the same state.
    """
    with recorder.lock:
        present = recorder.traces.get(place.trace)
        if present is not None and present.numbering == place.numbering:
            return present
        state = TraceState(recorder, place.trace, place.numbering)
        state.on = recorder.on and place.on
        state.first = state.root = place.root
        state.stride, state.ended_ms = place.stride, UNENDING
        state.steps = recorder.own_steps(place.stride, scattered=True)
        recorder.remember(state)
    if place.user:
        state.tell(place.user, b"")
    return state
