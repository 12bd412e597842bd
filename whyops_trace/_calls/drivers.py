"""
Drives calls that go on after the callable was called: coroutines, generators, and the streams that functions return.

Whoever awaits or iterates sees what they would without: values, exceptions, what is sent and thrown in.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from types import AsyncGeneratorType, FunctionType, GeneratorType
from typing import Any

from whyops_trace._calls.call import DETACHED, Call, Followed, GeneratorCall, Untraced
from whyops_trace._calls.site import CallSite, Made
from whyops_trace._guard import guarded
from whyops_trace._values.failures import traceback_of
from whyops_trace.context import get_scope, set_scope

#: Runs a callable that does not run when it is called, given what :meth:`CallSite.look` returned.
Driver = Callable[[CallSite, Made, Callable[..., Any], "tuple[Any, ...]", "dict[str, Any]"], Any]


def driver_of(function: Any) -> Driver | None:
    """
    Return the driver of a callable that does not run when it is called; None for one that does.

    The coroutine or generator that the driver returns has the name of the function whose body it runs.
    """
    while isinstance(function, functools.partial):
        function = function.func
    for body in (function, getattr(type(function), "__call__", None)):  # noqa: B004 - not whether, but what
        if inspect.iscoroutinefunction(body):
            return _named(_await, body)
        if inspect.isasyncgenfunction(body):
            return _named(_iterate_async, body)
        if inspect.isgeneratorfunction(body):
            return _named(_iterate, body)
    return None


def _named(driver: Any, body: Any) -> Driver:
    """Return a driver under the name of a function: coroutines and generators take theirs from what made them."""
    named = FunctionType(driver.__code__, driver.__globals__, body.__name__)
    named.__qualname__ = body.__qualname__
    return named


async def _await(
    site: CallSite,
    made: Made,
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    call = site.open(made, Call)
    try:
        awaitable = function(*args, **kwargs)
        del made, args, kwargs  # what the body lets go of must not live on here
        result = await awaitable
    except BaseException as error:
        if call is not None:
            call.fail(error)
        raise
    if call is None:
        return result
    if site.follows:
        return follow(call, result)
    call.end(result)
    return result


def _iterate(
    site: CallSite | Followed,
    made: Made,
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Generator[Any, Any, Any]:
    items = function(*args, **kwargs)
    call = site.open(made, GeneratorCall) or Untraced()
    del made, args, kwargs
    # A list that is emptied at each use: neither what the consumer sends nor what the body yields may be kept alive
    # by this frame while it is suspended.
    passed: list[Any] = [None]
    send = step = items.send
    thrown = None
    pass_on, outer, inner, running = call.pass_on, call.outer, None, True
    while True:
        try:
            passed.append(step(passed.pop()))
            running = False
            if outer is not DETACHED:  # the scope is the consumer's own while that has an item
                inner = get_scope()
                set_scope(outer)
            passed.append((yield pass_on(passed.pop())))
            step, thrown = send, None
        except BaseException as error:
            if not running:  # thrown in by the consumer, or closed
                step, thrown = items.throw, type(error)
                passed[:] = (_without_frame(error),)
            else:
                call.outer = outer
                if type(error) is StopIteration:  # isinstance might run code of the exception
                    call.finish(error.value, abandoned=thrown is GeneratorExit)
                    return error.value
                call.fail(error)
                raise
        if outer is not DETACHED:
            outer = get_scope()
            set_scope(inner)
        running = True


async def _iterate_async(
    site: CallSite | Followed,
    made: Made,
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> AsyncGenerator[Any, Any]:
    items = function(*args, **kwargs)
    call = site.open(made, GeneratorCall) or Untraced()
    del made, args, kwargs
    passed: list[Any] = [None]
    step, thrown = functools.partial(_start, items), None
    pass_on, outer, inner, running = call.pass_on, call.outer, None, True
    while True:
        try:
            passed.append(await step(passed.pop()))
            running = False
            if outer is not DETACHED:
                inner = get_scope()
                set_scope(outer)
            passed.append((yield pass_on(passed.pop())))
            step, thrown = items.asend, None
        except BaseException as error:
            if not running:
                step, thrown = items.athrow, type(error)
                passed[:] = (_without_frame(error),)
            else:
                call.outer = outer
                if type(error) is StopAsyncIteration:
                    call.finish(None, abandoned=thrown is GeneratorExit)
                    return
                call.fail(error)
                raise
        if outer is not DETACHED:
            outer = get_scope()
            set_scope(inner)
        running = True


def _start(items: AsyncGenerator[Any, Any], sent: None) -> Coroutine[Any, Any, Any]:
    """Start an asynchronous generator unseen by the event loop, which at its end would close it beside its driver."""
    hooks = sys.get_asyncgen_hooks()
    sys.set_asyncgen_hooks(None, None)
    try:
        return items.asend(sent)
    finally:
        sys.set_asyncgen_hooks(*hooks)


def _without_frame(error: BaseException) -> BaseException:
    """Return what was thrown into a driver without the driver's frame, which it gets when it leaves."""
    traceback = traceback_of(error)
    return error if traceback is None else BaseException.with_traceback(error, traceback.tb_next)


def follow(call: Call, result: Any) -> Any:
    """
    End a call with what it returned, or when that has ended if it is a stream.

    A provider's stream stays the object it is, and is watched as its response is read. A generator is driven by
    another one; any other iterator stands behind a proxy.

    Returns:
        The value to return in place of the result.
    """
    kind = type(result)
    if kind is GeneratorType:
        return _iterate(Followed(call), ({}, None), lambda: result, (), {})
    if kind is AsyncGeneratorType:
        return _iterate_async(Followed(call), ({}, None), lambda: result, (), {})
    # Looked up as they are, since a mock makes what it is asked for. What has both faces, as that has, is whatever its
    # owner takes it for, and is left alone.
    found = {
        name for base in kind.__mro__ for name in ("__next__", "__anext__", "close") if name in vars(base)
    }
    faces = found - {"close"}
    if len(faces) == 1 and "close" in found and _is_watched(call, result):
        return result
    if len(faces) == 1:
        from whyops_trace._calls.iterators import FollowedAsyncIterator, FollowedIterator

        followed = FollowedIterator if faces == {"__next__"} else FollowedAsyncIterator
        return followed(result, Followed(call))
    if not _is_raw(call, result):
        call.end(result)
    return result


@guarded("looking at an answer")
def _is_raw(call: Call, result: Any) -> bool:
    """End a call with the answer in a provider's raw response, now or when it is read; tell whether it is one."""
    # Looked for in the class, since to look into an object that is made when it is needed would make it.
    if not any("http_response" in vars(base).get("__annotations__", ()) for base in type(result).__mro__):
        return False

    from whyops_trace._calls.responses import is_read, is_response, read_answer, watch

    response = result.http_response
    if not is_response(response):
        return False
    if is_read(response):
        call.end(read_answer(response))
    else:
        watch(response, call)
        call.detach()
    return True


@guarded("looking at a stream")
def _is_watched(call: Call, result: Any) -> bool:
    """Watch the response of a provider's stream, if the result is one that nobody has read; tell whether it is."""
    from whyops_trace._calls.responses import is_read, is_response, watch

    response = getattr(result, "response", None) or getattr(result, "_response", None)
    if call.accumulates or not is_response(response) or is_read(response):
        return False
    watch(response, call)
    call.detach()
    return True
