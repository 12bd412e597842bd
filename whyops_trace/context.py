"""
The place in a trace of the code that runs now: one contextvar, which holds ids only.

A :class:`Scope` is immutable, so a copy of the context (a new task, a thread with ``propagate``) is a branch of its
own. Branches that run at the same time share the event that they forked from. A forked process begins outside any
trace.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable
from contextvars import ContextVar
from typing import Final

import msgspec

from whyops_trace._guard import warn_once
from whyops_trace._recording import recorders
from whyops_trace._recording.line import ROOT, TOP
from whyops_trace._recording.state import TraceState


class OpenTurn:
    """
    A call of a model, by a traced function or a provider's client, that is not over.

    Attributes:
        outer: The call of a model around it, if any.
        wraps: True if a client made a request in it, which is a turn with a report of its own.
    """

    __slots__ = ("outer", "wraps")

    def __init__(self, outer: OpenTurn | None) -> None:
        self.outer: OpenTurn | None = outer
        self.wraps: bool = False


class Scope(msgspec.Struct, frozen=True, eq=False):
    """
    The place in a trace of the code that runs.

    A struct, because two are made for each call: a named tuple takes three times as long to make.

    Attributes:
        trace: The trace.
        within: The step of the enclosing call; 0 at the top.
        parent: The step that the next event follows from. Inside a call it is the step of the call's request. At the
            top it is the step of the event before in this task or thread, 0 if there is none yet.
        turn: The innermost enclosing call of a model, if any.
    """

    trace: TraceState
    within: int = TOP
    parent: int = ROOT
    turn: OpenTurn | None = None


#: The variable itself, for looking into the context of others.
SCOPE: Final[ContextVar[Scope | None]] = ContextVar("whyops_trace_scope", default=None)

# A call uses these two five times, and to look a method up on the variable takes longer than to run it.
#: Function that returns the current scope, None outside any trace.
get_scope: Final[Callable[[], Scope | None]] = SCOPE.get
#: Function that makes a scope the current one.
set_scope: Final[Callable[[Scope | None], object]] = SCOPE.set


def advance(state: TraceState, step: int) -> None:
    """Have the next event at the top of *state*'s trace follow from *step*, if the current scope is there."""
    scope = get_scope()
    if scope is not None and scope.trace is state and scope.within == TOP:
        set_scope(Scope(state, TOP, step, scope.turn))


def _say_late(state: TraceState) -> None:
    """Warn once of code that runs in a trace that ended long ago. A handle on one may be recorded on at any time."""
    scope = get_scope()
    if scope is not None and scope.trace is state:
        warn_once(
            "late record",
            "Trace %r ended %d seconds ago, and a task or thread that began in it still records in it. Start what "
            "outlives a trace within `with whyops_trace.detach():`, or let it call detach() first.",
            state.id,
            (state.last_ms - state.ended_ms) // 1_000,
        )


recorders.on_late.append(_say_late)


#: The trace in which this process was forked, if it was in one, and a byte that it shares with the other forks of it.
_forked_in: str | None = None
_told: mmap.mmap | None = None


def forked_in() -> str | None:
    """Return the trace that was open where this process was forked; None if none was, or a fork has asked before."""
    if _forked_in is None or _told is None or _told[0]:
        return None
    return _forked_in


def forget_fork() -> None:
    """Let neither this process nor another fork of its parent be told of that trace again."""
    if _told is not None:
        _told[0] = 1


def _before_fork() -> None:
    global _told  # noqa: PLW0603 - of the process
    if _told is None and get_scope() is not None:
        _told = mmap.mmap(-1, 1)


def _leave_at_fork() -> None:
    """Begin a forked process outside any trace: its parent's goes on in the parent."""
    global _forked_in  # noqa: PLW0603 - of the process
    scope = get_scope()
    _forked_in = None if scope is None else scope.trace.id
    set_scope(None)


os.register_at_fork(before=_before_fork, after_in_child=_leave_at_fork)
