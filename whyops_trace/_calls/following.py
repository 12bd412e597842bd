"""
Follows a result that still runs when a function has returned it: its call ends when that does, and holds what runs.

A coroutine or generator that nobody has started is driven by another one of its kind and name. A future stays the
object it is, and so does a provider's stream, whose response is watched. Any other iterator stands behind a proxy.
"""

from __future__ import annotations

import inspect
import opcode
import sys
from collections.abc import Callable
from functools import lru_cache
from types import AsyncGeneratorType, CoroutineType, FunctionType, GeneratorType
from typing import Any, Final, cast

from whyops_trace._calls.call import C, Call
from whyops_trace._calls.drivers import driver_of_result
from whyops_trace._guard import attempt, guarded, report
from whyops_trace.context import get_scope

#: Makes what is returned in place of a result, told whether nobody else holds that. None if there is nothing to follow.
Way = Callable[[Call, Any, bool], Any]

_STEPS: Final = frozenset({"__next__", "__anext__"})
#: Ways to read what is more than an iterator.
_READERS: Final = frozenset({"fetchmany", "fetchone", "read"})
#: Attributes of a class by which its objects are told.
_ATTRIBUTES: Final = _STEPS | _READERS | {"_asyncio_future_blocking", "close"}


def follow(call: Call, result: Any) -> Any:
    """
    End a call with what it returned, or when that has ended.

    Returns:
        The value to return in place of the result.
    """
    way, _ = attempt(_known_way, type(result))  # a class may refuse to be hashed
    if way is not None:
        is_alone = sys.getrefcount(result) <= _ALONE
        stand_in, error = attempt(way, call, result, is_alone)
        if error is not None:
            report("following a result", error)
        if stand_in is not None:
            return stand_in
    call.end(result)
    return result


def _references() -> int:
    """Return the number of references to a result that a function has returned to us and nobody else holds."""
    result = iter([None])
    return _count(None, result)


def _count(call: None, result: Any) -> int:
    return sys.getrefcount(result)


_ALONE: Final = _references()


class Followed:
    """
    Stands in for the call site of a result that is followed: opened, the call that returned it goes on.

    If the result never runs, the call ends when the result is dropped.

    Args:
        call: The call, whose scope is the current one. It is left.
        result: The result.
        closes: True to close a coroutine that never ran. Its stand-in warns that it was never awaited; once is enough.
    """

    def __init__(self, call: Call, result: Any, *, closes: bool = False) -> None:
        self._call: Call | None = call
        self._result: Any = result
        self._closes = closes
        self._scope = get_scope()
        call.detach()

    def open(self, made: Any, run: type[C]) -> C | None:
        """Return the call as one that goes on here, in the scope that it had."""
        call, self._call = self._call, None
        return None if call is None else call.resume(run, self._scope)

    def take(self) -> Any:
        """Return the result, which is kept no longer."""
        result, self._result = self._result, None
        return result

    def __del__(self) -> None:
        call, self._call = self._call, None
        if call is not None:
            if self._closes:
                self._result.close()
            call.fail(GeneratorExit())


def _follow_coroutine(call: Call, result: Any, is_alone: bool) -> Any:
    if inspect.getcoroutinestate(result) != inspect.CORO_CREATED:
        return None
    return _drive(result, Followed(call, result, closes=is_alone))


def _follow_generator(call: Call, result: Any, is_alone: bool) -> Any:
    # Dropped, the stand-in closes what it drives; whoever holds that as well would find it closed.
    if is_alone and inspect.getgeneratorstate(result) == inspect.GEN_CREATED:
        return _drive(result, Followed(call, result))
    is_awaitable = result.gi_code.co_flags & inspect.CO_ITERABLE_COROUTINE
    return None if is_awaitable else _follow_iterator(call, result, is_alone)


def _follow_async_generator(call: Call, result: Any, is_alone: bool) -> Any:
    if is_alone and _is_fresh(result):
        return _drive(result, Followed(call, result))
    return _follow_iterator(call, result, is_alone)


def _is_fresh(result: AsyncGeneratorType[Any, Any]) -> bool:
    """Tell whether nobody has started an asynchronous generator."""
    if sys.version_info >= (3, 12):
        return inspect.getasyncgenstate(result) == inspect.AGEN_CREATED
    frame = result.ag_frame
    if frame is None or result.ag_running:
        return False
    made = result.ag_code.co_code[::2].index(opcode.opmap["RETURN_GENERATOR"]) * 2
    return frame.f_lasti <= made


def _drive(result: Any, followed: Followed) -> Any:
    return driver_of_result(result)(followed, ({}, None), followed.take, (), {})


class FutureEnd:
    """Ends a call when the future that it returned is done, or dropped."""

    def __init__(self, call: Call) -> None:
        self._call: Call | None = call

    @guarded("recording the end of a future", positional=2)
    def __call__(self, future: Any) -> None:
        """Record the result or failure of a future."""
        call, self._call = self._call, None
        if call is None:
            return
        # Asyncio takes an exception that was asked for as seen, and never says that nobody retrieved it.
        error = None if future.cancelled() else getattr(future, "_exception", None)
        if future.cancelled():
            call.fail(GeneratorExit())
        elif error is not None:
            call.fail(error)
        else:
            call.end(future.result())

    def __del__(self) -> None:
        call, self._call = self._call, None
        if call is not None:
            call.fail(GeneratorExit())


def _follow_future(call: Call, result: Any, is_alone: bool) -> Any:
    end = FutureEnd(call)
    call.detach()
    if result.done():
        end(result)
    else:
        result.add_done_callback(end)
    return result


def _follow_iterator(call: Call, result: Any, is_alone: bool) -> Any:
    """Follow an iterator that is no generator, or a generator that somebody else holds or has started."""
    from whyops_trace._calls.iterators import FollowedAsyncIterator, FollowedIterator, FollowedStream

    found = _found(type(result))
    stand_in = FollowedIterator if "__next__" in found else FollowedAsyncIterator
    return (FollowedStream if found >= _STEPS else stand_in)(result, Followed(call, None))


def _follow_stream(call: Call, result: Any, is_alone: bool) -> Any:
    """Follow an iterator that a program may read otherwise than by its items."""
    found = _found(type(result))
    if found >= _STEPS and not (call.site.follows and _is_only_iterator(type(result))):
        return None  # what can be read in both ways is whatever its owner takes it for
    if "close" in found and _is_watched(call, result):
        return result
    if call.site.follows or _is_only_iterator(type(result)):
        return _follow_iterator(call, result, is_alone)
    return None


def _follow_raw(call: Call, result: Any, is_alone: bool) -> Any:
    """End a call of a model with the answer in a provider's raw response, now or when it is read."""
    from whyops_trace._calls.responses import is_read, is_response, read_answer, watch

    response = result.http_response
    if not call.site.follows or not is_response(response):
        return None
    if is_read(response):
        call.end(read_answer(response))
    else:
        watch(response, call)
        call.detach()
    return result


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


def _found(kind: type[Any]) -> set[str]:
    """
    Return which of some attributes a class has, as they are found in it and its bases.

    A mock makes what it is asked for.
    """
    return {name for base in kind.__mro__ for name in _ATTRIBUTES if name in vars(base)}


def _is_only_iterator(kind: type[Any]) -> bool:
    """
    Tell whether a class of iterators is nothing more.

    Files and cursors of databases are read otherwise as well. What is written in C may be asked for by its exact type.
    """
    found = _found(kind)
    if found & _READERS:
        return False
    steps = (vars(base).get(name) for base in kind.__mro__ for name in _STEPS)
    return kind.__module__ in ("builtins", "itertools") or FunctionType in map(type, steps)


def _way(kind: type[Any]) -> Way | None:
    """Return how results of a class are followed; None for a class whose objects do not run."""
    if kind is CoroutineType:
        return _follow_coroutine
    if kind is GeneratorType:
        return _follow_generator
    if kind is AsyncGeneratorType:
        return _follow_async_generator
    concurrent = sys.modules.get("concurrent.futures")
    if concurrent is not None and issubclass(kind, concurrent.Future):
        return _follow_future
    found = _found(kind)
    if "_asyncio_future_blocking" in found:
        return _follow_future
    if found & _STEPS:
        return _follow_stream
    # Looked for in the class, since to look into an object that is made when it is needed would make it.
    is_raw = any("http_response" in vars(base).get("__annotations__", ()) for base in kind.__mro__)
    return _follow_raw if is_raw else None


#: The same from memory, since the results of a program are of few classes.
_known_way = cast("Callable[[type[Any]], Way | None]", lru_cache(maxsize=256)(_way))
