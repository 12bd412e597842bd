"""
The place in a trace, carried to where it does not go by itself: into other threads, event loops and processes.

Within a process it is carried as it is. To another process it travels as ids, without any payload.
"""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import AsyncGenerator, Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, ClassVar, ParamSpec, Self, TypeVar, cast

from whyops_trace._guard import guarded
from whyops_trace._recording.places import Place
from whyops_trace.context import Scope, find_scope, get_scope, set_scope
from whyops_trace.default import default_recorder
from whyops_trace.headers import scope_at

P = ParamSpec("P")
R = TypeVar("R")


def propagate(function: Callable[P, R]) -> Callable[P, R]:
    """
    Return *function* such that it runs in the present scope, in any thread, event loop or process.

    A coroutine function, a generator function and an asynchronous generator function remain of their kind: their body
    runs in that scope, and their consumer in its own. Methods, partials and callable objects are taken as well.

    The result can be pickled if *function* can. In another process its calls belong to the same trace, which the
    client there records: that of the same agent name, else the first one.

    Only the tracing scope is carried. Other context variables are left as they are.

    Example::

        with trace("report-1"), ThreadPoolExecutor() as threads, ProcessPoolExecutor() as processes:
            threads.submit(propagate(fetch), url)
            processes.submit(propagate(parse), text)
    """
    carried = functools.partial(_runner_of(function), _Anchor(find_scope()), function)
    # The other attributes might be ones that cannot be pickled.
    functools.update_wrapper(carried, function, ("__module__", "__name__", "__qualname__", "__doc__"), ())
    return cast("Callable[P, R]", carried)


class _Anchor:
    """
    The scope of propagated functions. It is pickled as ids, and found again where it is first used.

    Args:
        scope: The scope, None outside any trace; or the ids of one of another process.
    """

    __slots__ = ("_scope",)

    def __init__(self, scope: Scope | Place | None) -> None:
        self._scope = scope

    @property
    def scope(self) -> Scope | None:
        """The scope, in this process."""
        if isinstance(self._scope, Place):
            self._scope = _found(self._scope)
        return self._scope

    def __reduce__(self) -> tuple[type[Self], tuple[Place | None]]:
        scope = self._scope
        return type(self), (
            Place.of(scope.trace, scope.within, scope.parent) if isinstance(scope, Scope) else scope,
        )


@guarded("finding the place of another process")
def _found(place: Place) -> Scope | None:
    recorder = default_recorder()
    return None if recorder is None else scope_at(place, recorder)


def _runner_of(function: Any) -> Callable[..., Any]:
    """Return the function of the same kind as a callable that runs it in a scope."""
    while isinstance(function, functools.partial):
        function = function.func
    for body in (function, getattr(type(function), "__call__", None)):  # noqa: B004 - not whether, but what
        if inspect.iscoroutinefunction(body):
            return _await
        if inspect.isasyncgenfunction(body):
            return _iterate_async
        if inspect.isgeneratorfunction(body):
            return _iterate
    return _call


def _call(anchor: _Anchor, function: Callable[..., R], /, *args: Any, **kwargs: Any) -> R:
    before = get_scope()
    set_scope(anchor.scope)
    try:
        return function(*args, **kwargs)
    finally:
        set_scope(before)


async def _await(anchor: _Anchor, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    before = get_scope()
    set_scope(anchor.scope)
    try:
        return await function(*args, **kwargs)
    finally:
        set_scope(before)


def _iterate(
    anchor: _Anchor, function: Callable[..., Generator[Any, Any, Any]], /, *args: Any, **kwargs: Any
) -> Generator[Any, Any, Any]:
    items, inner = function(*args, **kwargs), anchor.scope
    step: Callable[[Any], Any] = items.send
    passed: list[Any] = [None]  # emptied at each use, so that nothing lives longer than it would
    while True:
        outer = get_scope()
        set_scope(inner)
        try:
            passed.append(step(passed.pop()))
        except StopIteration as end:
            return end.value
        finally:
            inner = get_scope()
            set_scope(outer)
        try:
            passed.append((yield passed.pop()))
            step = items.send
        except BaseException as error:  # noqa: BLE001 - thrown in by the consumer, and handed on
            passed[:] = (error,)
            step = items.throw


async def _iterate_async(
    anchor: _Anchor, function: Callable[..., AsyncGenerator[Any, Any]], /, *args: Any, **kwargs: Any
) -> AsyncGenerator[Any, Any]:
    items, inner = function(*args, **kwargs), anchor.scope
    step: Callable[[Any], Any] = items.asend
    passed: list[Any] = [None]
    while True:
        outer = get_scope()
        set_scope(inner)
        try:
            passed.append(await step(passed.pop()))
        except StopAsyncIteration:
            return
        finally:
            inner = get_scope()
            set_scope(outer)
        try:
            passed.append((yield passed.pop()))
            step = items.asend
        except BaseException as error:  # noqa: BLE001 - thrown in by the consumer, and handed on
            passed[:] = (error,)
            step = items.athrow


class Detachment:
    """The handle that :func:`detach` returns: use it as a ``with`` or ``async with`` block to come back after it."""

    def __init__(self) -> None:
        self._scope = get_scope()
        set_scope(None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        if get_scope() is None:
            set_scope(self._scope)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.__exit__()


def detach() -> Detachment:
    """
    Leave the trace that is open here: for the block with ``with``, else for the rest of the task or thread.

    Tasks inherit the place in the trace where they are made. One that is made in a request and serves all later ones
    would record in the trace of that request for ever.

    Example::

        with trace("request-1"):
            with detach():
                worker = asyncio.create_task(serve(queue))
    """
    return Detachment()


class PoolPropagation:
    """
    The carrying of the scope into pools of one kind: call :meth:`undo`, or use it as a ``with`` block.

    If other code has patched the pool's ``submit`` on top, undoing leaves that patch in place and only stops carrying
    the scope. Several handles may be undone in any order.
    """

    _pool: ClassVar[type[Any]]
    _lock: ClassVar[threading.Lock] = threading.Lock()
    #: Handles whose patch is still in place, the uppermost last.
    _patches: ClassVar[list[Any]]

    def __init__(self) -> None:
        self._active = True
        with self._lock:
            self._apply()
            self._patches.append(self)

    def _apply(self) -> None:
        original: Callable[..., Future[Any]] = self._pool.submit
        self._original = original

        @functools.wraps(original)
        def submit(pool: Any, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
            if self._active and find_scope() is not None:
                function = propagate(function)
            return original(pool, function, *args, **kwargs)

        self._submit: Callable[..., Future[Any]] = submit
        self._pool.submit = submit

    def undo(self) -> None:
        """Stop carrying the scope into the pools. Calling it again does nothing."""
        with self._lock:
            self._active = False
            while self._patches:
                uppermost = self._patches[-1]
                if uppermost._active or self._pool.submit is not uppermost._submit:
                    break
                self._pool.submit = uppermost._original
                self._patches.pop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.undo()


class ThreadPropagation(PoolPropagation):
    """The handle that :func:`propagate_threads` returns."""

    _pool = ThreadPoolExecutor
    _patches: ClassVar[list[Any]] = []


class ProcessPropagation(PoolPropagation):
    """The handle that :func:`propagate_processes` returns."""

    _patches: ClassVar[list[Any]] = []

    def __init__(self) -> None:
        from concurrent.futures import ProcessPoolExecutor  # which imports multiprocessing

        type(self)._pool = ProcessPoolExecutor
        super().__init__()


def propagate_threads() -> ThreadPropagation:
    """
    Make every ``ThreadPoolExecutor`` (and so ``loop.run_in_executor``) carry the scope, until undone.

    This and :func:`propagate_processes` are the only things in the library that change a class of the standard library,
    and only when asked.
    """
    return ThreadPropagation()


def propagate_processes() -> ProcessPropagation:
    """
    Make every ``ProcessPoolExecutor`` carry the scope, until undone, as :func:`propagate` does.

    The processes import the library where they run the first function that carries a scope.
    """
    return ProcessPropagation()
