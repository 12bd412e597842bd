"""
Drives calls that go on after the callable was called: coroutines, generators, asynchronous generators.

Whoever awaits or iterates sees what they would without: values, exceptions, what is sent and thrown in.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from types import AsyncGeneratorType, CodeType, CoroutineType, FunctionType
from typing import TYPE_CHECKING, Any, Protocol

from whyops_trace._calls.answering import await_instead, iterate_instead
from whyops_trace._calls.call import DETACHED, C, Call, GeneratorCall, Untraced
from whyops_trace._values.failures import traceback_of
from whyops_trace.context import get_scope, set_scope

if TYPE_CHECKING:
    from whyops_trace._calls.site import Made

#: pytest shows a failure where the program is, without the frames of this module.
__tracebackhide__ = True


class Opener(Protocol):
    """Opens the call of what a driver runs: a call site, or what stands in for one."""

    def open(self, made: Made, run: type[C]) -> C | None:
        """Enter the scope of a call whose body runs now. Return None if nothing is recorded."""
        ...


#: Runs a callable that does not run when it is called, given what :meth:`CallSite.look` returned.
Driver = Callable[[Opener, "Made", Callable[..., Any], "tuple[Any, ...]", "dict[str, Any]"], Any]


def driver_of(function: Any) -> Driver | None:
    """
    Return the driver of a callable that does not run when it is called; None for one that does.

    The coroutine or generator that the driver returns has the name of the function whose body it runs.
    """
    while isinstance(function, functools.partial):
        function = function.func
    for body in (function, getattr(type(function), "__call__", None)):  # noqa: B004 - not whether, but what
        if inspect.iscoroutinefunction(body):
            return _named(body, _await)
        if inspect.isasyncgenfunction(body):
            return _named(body, _iterate_async)
        if inspect.isgeneratorfunction(body):
            return _named(body, _iterate, getattr(body, "__code__", None))
    return None


def driver_of_result(result: Any) -> Driver:
    """Return the driver of a coroutine, generator or asynchronous generator that nobody has started."""
    if type(result) is CoroutineType:
        return _named(result, _await)
    if type(result) is AsyncGeneratorType:
        return _named(result, _iterate_async)
    return _named(result, _iterate, result.gi_code)


def _named(body: Any, driver: Any, like: CodeType | None = None) -> Driver:
    """
    Return a driver under another name: coroutines and generators take theirs from what made them.

    Args:
        body: A function, a coroutine or a generator, whose name it is.
        driver: The driver.
        like: The code of a generator, which can be awaited if :func:`types.coroutine` has said so.
    """
    code = driver.__code__
    if like is not None:
        code = code.replace(co_flags=code.co_flags | like.co_flags & inspect.CO_ITERABLE_COROUTINE)
    named = FunctionType(code, driver.__globals__, body.__name__)
    named.__qualname__ = body.__qualname__
    return named


async def _await(
    site: Opener,
    made: Made,
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    call = site.open(made, Call)
    if call is None:
        awaitable = await_instead(site, made, function)(*args, **kwargs)
        del made, args, kwargs
        return await awaitable
    try:
        awaitable = function(*args, **kwargs)
        del made, args, kwargs  # what the body lets go of must not live on here
        result = await awaitable
    except BaseException as error:
        call.fail(error)
        raise
    return call.site.follow(call, result) if call.returned(result) else result


def _iterate(
    site: Opener,
    made: Made,
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Generator[Any, Any, Any]:
    items = function(*args, **kwargs)
    call: GeneratorCall | Untraced | None = site.open(made, GeneratorCall)
    if call is None:
        call, items = iterate_instead(site, made, items, args, kwargs)
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
    site: Opener,
    made: Made,
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> AsyncGenerator[Any, Any]:
    items = function(*args, **kwargs)
    call: GeneratorCall | Untraced | None = site.open(made, GeneratorCall)
    if call is None:
        call, items = iterate_instead(site, made, items, args, kwargs)
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
