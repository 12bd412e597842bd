"""
The place in a trace of the code that runs now: one contextvar, which holds ids only.

A :class:`Scope` is immutable, so a copy of the context (a new task, a thread with :func:`propagate`) is a branch of its
own. Branches that run at the same time share the event that they forked from.
"""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import ContextVar
from typing import Any, ClassVar, Final, ParamSpec, TypeVar, cast

import msgspec

from whyops_trace._recording.line import ROOT, TOP
from whyops_trace._recording.state import TraceState

P = ParamSpec("P")
R = TypeVar("R")


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


_SCOPE: Final[ContextVar[Scope | None]] = ContextVar("whyops_trace_scope", default=None)

# A call uses these two five times, and to look a method up on the variable takes longer than to run it.
#: Function that returns the current scope, None outside any trace.
get_scope: Final[Callable[[], Scope | None]] = _SCOPE.get
#: Function that makes a scope the current one.
set_scope: Final[Callable[[Scope | None], object]] = _SCOPE.set


def advance(state: TraceState, step: int) -> None:
    """Have the next event at the top of *state*'s trace follow from *step*, if the current scope is there."""
    scope = get_scope()
    if scope is not None and scope.trace is state and scope.within == TOP:
        set_scope(Scope(state, TOP, step, scope.turn))


def propagate(function: Callable[P, R]) -> Callable[P, R]:
    """
    Return *function* such that it runs in the present scope, in any thread.

    A coroutine function has that scope in any event loop.

    Only the tracing scope is carried. Other context variables are left as they are in that thread.

    Example::

        with trace("report-1"), ThreadPoolExecutor() as pool:
            pool.submit(propagate(fetch), url)
    """
    scope = get_scope()
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def awaited(*args: P.args, **kwargs: P.kwargs) -> Any:
            before = get_scope()
            set_scope(scope)
            try:
                return await function(*args, **kwargs)
            finally:
                set_scope(before)

        return cast("Callable[P, R]", awaited)

    @functools.wraps(function)
    def carried(*args: P.args, **kwargs: P.kwargs) -> R:
        before = get_scope()
        set_scope(scope)
        try:
            return function(*args, **kwargs)
        finally:
            set_scope(before)

    return carried


class ThreadPropagation:
    """
    The handle that :func:`propagate_threads` returns: call :meth:`undo`, or use it as a ``with`` block.

    If other code has patched ``ThreadPoolExecutor.submit`` on top, undoing leaves that patch in place and only stops
    carrying the scope. Several handles may be undone in any order.
    """

    _lock: ClassVar[threading.Lock] = threading.Lock()
    #: Handles whose patch is still in place, the uppermost last.
    _patches: ClassVar[list[ThreadPropagation]] = []

    def __init__(self) -> None:
        self._active = True
        with self._lock:
            self._apply()
            self._patches.append(self)

    def _apply(self) -> None:
        original: Callable[..., Future[Any]] = ThreadPoolExecutor.submit
        self._original = original

        @functools.wraps(original)
        def submit(
            pool: ThreadPoolExecutor, function: Callable[..., Any], /, *args: Any, **kwargs: Any
        ) -> Future[Any]:
            if self._active and get_scope() is not None:
                function = propagate(function)
            return original(pool, function, *args, **kwargs)

        self._submit: Callable[..., Future[Any]] = submit
        self._patch(submit)

    def undo(self) -> None:
        """Stop carrying the scope into thread pools. Calling it again does nothing."""
        with self._lock:
            self._active = False
            while self._patches:
                uppermost = self._patches[-1]
                if uppermost._active or ThreadPoolExecutor.submit is not uppermost._submit:
                    break
                self._patch(uppermost._original)
                self._patches.pop()

    @staticmethod
    def _patch(submit: Callable[..., Future[Any]]) -> None:
        ThreadPoolExecutor.submit = submit  # type: ignore[method-assign]

    def __enter__(self) -> ThreadPropagation:
        return self

    def __exit__(self, *exc: object) -> None:
        self.undo()


def propagate_threads() -> ThreadPropagation:
    """
    Make every ``ThreadPoolExecutor`` (and so ``loop.run_in_executor``) carry the scope, until undone.

    This is the only thing in the library that changes a class of the standard library, and only when asked.
    """
    return ThreadPropagation()
