"""A place in a trace as ids, by which another process goes on there."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Self

from whyops_trace._recording.state import UNENDING, TraceState

if TYPE_CHECKING:
    from whyops_trace._recording.recorder import Recorder


class Place(NamedTuple):
    """
    A place in a trace, as it is pickled.

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
    numbering: str | None
    within: int
    parent: int
    root: int
    stride: int
    user: str
    agent: str
    on: bool

    @classmethod
    def of(cls, state: TraceState, within: int, parent: int) -> Self:
        """Return a place in a trace of this process."""
        return cls(
            state.id, state.numbering, within, parent, state.root, state.stride, state.user, state.recorder.agent_name,
            state.on,
        )  # fmt: skip


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
